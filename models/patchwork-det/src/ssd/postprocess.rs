//! From raw predictions to boxes, as SSD does it: decoding, scores, non-maximum suppression per class.
//!
//! What Patchwork adds: anchors whose place no window has covered yet say nothing, and the boxes of the
//! mirrored stream take part in the same suppression.

use candle_core::{DType, Result, bail};
use serde::{Deserialize, Serialize};
use zoo_core::{BBox, Detection, Detections, FrameSize, Labels};
use zoo_kernels::nms;

use crate::anchors::Anchor;
use crate::detector::{BOX_CODE, RawDetections};

/// How class scores come from logits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scores {
    /// Each class by itself.
    #[default]
    Sigmoid,
    /// Over all classes, background included.
    Softmax,
}

/// Thresholds of the post-processing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostProcess {
    /// How scores come from logits.
    pub scores: Scores,
    /// Boxes must score more.
    pub score_threshold: f32,
    /// A box is dropped when its overlap with a better one of its class exceeds this share of their union.
    pub iou_threshold: f32,
    /// Boxes kept of each class.
    pub max_per_class: usize,
    /// Boxes kept in all.
    pub max_total: usize,
}

impl Default for PostProcess {
    fn default() -> Self {
        Self {
            scores: Scores::Sigmoid,
            score_threshold: 0.01,
            iou_threshold: 0.6,
            max_per_class: 100,
            max_total: 100,
        }
    }
}

/// One candidate: class index, score, box (x0, y0, x1, y1) in fractions of the frame, anchor index.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Class index, never 0 (background).
    pub class: usize,
    /// Score in 0..=1.
    pub score: f32,
    /// In fractions of the frame, clipped to it.
    pub bbox: [f32; 4],
    /// The anchor that said so.
    pub anchor: usize,
}

/// All candidates of one image before suppression: the union of several views of it, if need be.
#[derive(Debug, Clone, Default)]
pub struct Candidates(Vec<Candidate>);

impl Candidates {
    /// Decodes batch entry `index` of `raw` and keeps what scores enough, where `seen`.
    ///
    /// # Errors
    /// If there are not as many anchors as predictions, or the tensors cannot be read.
    pub fn decode(raw: &RawDetections, index: usize, anchors: &[Anchor], cfg: &PostProcess) -> Result<Self> {
        let predictions = raw.logits.dim(1)?;
        if anchors.len() != predictions || raw.boxes.dims().get(1..) != Some(&[predictions, BOX_CODE]) {
            bail!(
                "{} anchors for logits of {:?} and boxes of {:?}: the anchors of another frame size?",
                anchors.len(),
                raw.logits.dims(),
                raw.boxes.dims()
            )
        }
        let classes = raw.logits.dim(2)?;
        let logits = raw.logits.get(index)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let logits: Vec<&[f32]> = logits.chunks_exact(classes.max(1)).collect();
        let codes = raw.boxes.get(index)?.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        let seen = raw.seen.get(index)?.to_dtype(DType::F32)?.to_vec1::<f32>()?;
        Ok(Self::from_rows(&logits, codes.as_chunks().0, &seen, anchors, cfg))
    }

    /// The same from plain rows, one an anchor: logits of K classes, box codes, whether it was seen.
    pub fn from_rows(
        logits: &[impl AsRef<[f32]>],
        codes: &[[f32; BOX_CODE]],
        seen: &[f32],
        anchors: &[Anchor],
        cfg: &PostProcess,
    ) -> Self {
        let mut out = Vec::new();
        let least = least_logit(cfg);
        let rows = logits.iter().zip(codes).zip(seen.iter().zip(anchors));
        for (anchor, ((logits, &code), (&seen, prior))) in rows.enumerate() {
            let logits = logits.as_ref();
            // Nearly all anchors show nothing: their scores, an exponential each, need not be known.
            if logits.iter().skip(1).filter(|&&logit| logit >= least).count() == 0 {
                continue;
            }
            let score_of = scorer(logits, cfg.scores);
            let mut bbox = None;
            for (class, &logit) in logits.iter().enumerate().skip(1).filter(|&(_, &logit)| logit >= least) {
                let score = score_of(logit) * seen;
                if score > cfg.score_threshold {
                    let bbox = *bbox.get_or_insert_with(|| prior.decode(code).map(|v| v.clamp(0.0, 1.0)));
                    out.push(Candidate { class, score, bbox, anchor });
                }
            }
        }
        Self(out)
    }

    /// Adds the candidates of the mirrored image, mirrored back.
    pub fn extend_mirrored(&mut self, mirrored: Self) {
        self.0.extend(mirrored.0.into_iter().map(|c| {
            let [x0, y0, x1, y1] = c.bbox;
            Candidate { bbox: [1.0 - x1, y0, 1.0 - x0, y1], ..c }
        }));
    }

    /// Suppression per class, then the best of all: by falling score, then class, then anchor.
    pub fn suppress(mut self, cfg: &PostProcess) -> Vec<Candidate> {
        self.0.sort_by_key(|c| c.class);
        let mut kept: Vec<Candidate> = Vec::new();
        for class in self.0.chunk_by(|a, b| a.class == b.class) {
            let boxes: Vec<[f32; 4]> = class.iter().map(|c| c.bbox).collect();
            let scores: Vec<f32> = class.iter().map(|c| c.score).collect();
            let best = nms(&boxes, &scores, cfg.iou_threshold, cfg.max_per_class);
            kept.extend(best.into_iter().filter_map(|i| class.get(i)));
        }
        kept.sort_by(|a, b| {
            b.score.total_cmp(&a.score).then(a.class.cmp(&b.class)).then(a.anchor.cmp(&b.anchor))
        });
        kept.truncate(cfg.max_total);
        kept
    }
}

/// No logit below this one scores more than the threshold; what lies above has to be looked at.
fn least_logit(cfg: &PostProcess) -> f32 {
    // Further from the threshold than any rounding of the score.
    let share = 0.999 * f64::from(cfg.score_threshold);
    match cfg.scores {
        Scores::Sigmoid if share > 0.0 && share < 1.0 => (share / (1.0 - share)).ln() as f32,
        // A class's share depends on the others.
        Scores::Sigmoid | Scores::Softmax => f32::NEG_INFINITY,
    }
}

/// How the logits of one anchor become scores.
fn scorer(logits: &[f32], scores: Scores) -> impl Fn(f32) -> f32 {
    let (shift, sum) = match scores {
        Scores::Sigmoid => (0.0, 0.0),
        Scores::Softmax => {
            let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            (largest, logits.iter().map(|l| (l - largest).exp()).sum())
        }
    };
    move |logit| match scores {
        Scores::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
        Scores::Softmax => (logit - shift).exp() / sum,
    }
}

/// Boxes in pixels of the source image, with names; classes that the labels do not name are left out.
pub fn to_detections(found: &[Candidate], size: FrameSize, labels: &Labels) -> Detections {
    let (width, height) = (size.width as f32, size.height as f32);
    let items = found
        .iter()
        .filter_map(|c| {
            let label = labels.get(c.class)?;
            let [x0, y0, x1, y1] = c.bbox;
            let bbox = BBox::new(x0 * width, y0 * height, x1 * width, y1 * height);
            Some(Detection::new(c.class, label, c.score, bbox))
        })
        .collect();
    Detections::new(size, items)
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Tensor};

    use super::*;

    const ANCHOR: Anchor = Anchor { cx: 0.5, cy: 0.5, w: 0.4, h: 0.4 };

    fn candidates(logits: &[[f32; 3]], seen: &[f32], cfg: &PostProcess) -> Candidates {
        let logits: Vec<Vec<f32>> = logits.iter().map(|l| l.to_vec()).collect();
        let codes = vec![[0.0; 4]; logits.len()];
        Candidates::from_rows(&logits, &codes, seen, &vec![ANCHOR; logits.len()], cfg)
    }

    #[test]
    fn background_and_unseen_anchors_never_appear() {
        let cfg = PostProcess::default();
        let found = candidates(&[[9.0, -9.0, 2.0], [9.0, 5.0, 5.0]], &[1.0, 0.0], &cfg).suppress(&cfg);
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].class, found[0].anchor), (2, 0));
    }

    #[test]
    fn suppression_is_per_class_and_ties_go_to_class_then_anchor() {
        let cfg = PostProcess::default();
        let found = candidates(&[[0.0, 2.0, 2.0], [0.0, 2.0, 1.0]], &[1.0; 2], &cfg).suppress(&cfg);
        let order: Vec<_> = found.iter().map(|c| (c.class, c.anchor)).collect();
        assert_eq!(order, [(1, 0), (2, 0)]);
        let few = PostProcess { max_total: 1, ..cfg };
        assert_eq!(candidates(&[[0.0, 2.0, 2.0]], &[1.0], &few).suppress(&few).len(), 1);
    }

    #[test]
    fn anchors_of_another_frame_are_refused() {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, DType::F32, &Device::Cpu).unwrap();
        let raw = RawDetections {
            logits: zeros(&[1, 2, 3]),
            boxes: zeros(&[1, 2, 4]),
            seen: zeros(&[1, 2]),
            levels: vec![],
            q: None,
        };
        let decode = |anchors| Candidates::decode(&raw, 0, anchors, &PostProcess::default());
        assert!(decode(&[ANCHOR; 2]).is_ok());
        let error = decode(&[ANCHOR; 3]).unwrap_err().to_string();
        assert!(error.starts_with("3 anchors for logits of [1, 2, 3] and boxes of [1, 2, 4]"), "{error}");
    }

    #[test]
    fn softmax_scores_sum_to_one() {
        let logits = [1.0, 100.0, -3.0];
        let sum: f32 = logits.map(scorer(&logits, Scores::Softmax)).iter().sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert!(scorer(&[f32::NAN, 1.0], Scores::Sigmoid)(f32::NAN).is_nan());
    }

    #[test]
    fn logits_that_are_passed_over_score_too_little() {
        let mut logits: Vec<f32> = (-4000..4000).map(|i| i as f32 / 200.0).collect();
        logits.extend([f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN]);
        for score_threshold in [-0.5, 0.0, 1e-6, 0.01, 0.3, 0.5, 0.99, 0.9999999, 1.0, 2.0] {
            let cfg = PostProcess { score_threshold, ..PostProcess::default() };
            // Around the threshold in the smallest steps.
            let share = score_threshold.clamp(1e-7, 0.999_999);
            let (mut near, edge) = (vec![], (share / (1.0 - share)).ln());
            let (mut up, mut down) = (edge, edge);
            for _ in 0..2000 {
                (up, down) = (up.next_up(), down.next_down());
                near.extend([up, down]);
            }
            for logit in logits.iter().copied().chain(near) {
                let expected = 1.0 / (1.0 + (-logit).exp()) > score_threshold;
                let found = Candidates::from_rows(&[[9.0, logit]], &[[0.0; 4]], &[1.0], &[ANCHOR], &cfg);
                assert_eq!(found.0.len() == 1, expected, "logit {logit}, threshold {score_threshold}");
            }
        }
    }

    #[test]
    fn mirrored_boxes_come_back() {
        let cfg = PostProcess::default();
        let mut left = Candidates(vec![]);
        let shifted = Anchor { cx: 0.2, ..ANCHOR };
        left.extend_mirrored(Candidates::from_rows(&[vec![0.0, 3.0]], &[[0.0; 4]], &[1.0], &[shifted], &cfg));
        let bbox = left.suppress(&cfg)[0].bbox;
        assert!((bbox[0] - 0.6).abs() < 1e-6 && (bbox[2] - 1.0).abs() < 1e-6, "{bbox:?}");
    }
}
