//! SSD training pieces: matching of anchors to objects, and the loss (Liu et al., "SSD", ECCV 2016).

use candle_core::{D, DType, Result, Tensor, bail};
use zoo_core::BBox;

use crate::anchors::Anchor;
use crate::postprocess::Scores;

/// An anchor is positive where its overlap with an object reaches this.
const MATCH_IOU: f32 = 0.5;
/// Hard negatives kept per positive.
const NEGATIVES_PER_POSITIVE: usize = 3;

/// An object to find: its class (never 0) and its box in fractions of the frame.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Class index.
    pub class: usize,
    /// (x0, y0, x1, y1).
    pub bbox: [f32; 4],
}

/// What each anchor should say: a class (0: background) and a box code.
#[derive(Debug, Clone, PartialEq)]
pub struct Matches {
    /// Class of each anchor.
    pub classes: Vec<usize>,
    /// Box code of each anchor; zeros for background.
    pub codes: Vec<[f32; 4]>,
}

impl Matches {
    /// Number of anchors that are matched to an object.
    pub fn positives(&self) -> usize {
        self.classes.iter().filter(|&&c| c > 0).count()
    }
}

/// Each anchor takes the object it overlaps most, from an IoU of 0.5 on; then each object claims
/// the anchor it overlaps most, later objects before earlier ones where they contend.
pub fn match_anchors(anchors: &[Anchor], targets: &[Target]) -> Matches {
    let boxed = |[x0, y0, x1, y1]: [f32; 4]| BBox::new(x0, y0, x1, y1);
    let mut matched: Vec<Option<&Target>> = Vec::with_capacity(anchors.len());
    let mut best_of: Vec<(f32, Option<usize>)> = vec![(0.0, None); targets.len()];
    for (i, anchor) in anchors.iter().enumerate() {
        let corners = boxed(anchor.corners());
        let mut best: (f32, Option<&Target>) = (0.0, None);
        for (target, claimed) in targets.iter().zip(&mut best_of) {
            let iou = corners.iou(&boxed(target.bbox));
            if iou > best.0 {
                best = (iou, Some(target));
            }
            if iou > claimed.0 {
                *claimed = (iou, Some(i));
            }
        }
        matched.push(best.1.filter(|_| best.0 >= MATCH_IOU));
    }
    for (target, (_, anchor)) in targets.iter().zip(best_of) {
        if let Some(slot) = anchor.and_then(|i| matched.get_mut(i)) {
            *slot = Some(target);
        }
    }
    let pairs = anchors.iter().zip(&matched);
    Matches {
        classes: matched.iter().map(|m| m.map_or(0, |t| t.class)).collect(),
        codes: pairs.map(|(a, m)| m.map_or([0.0; 4], |t| a.encode(t.bbox))).collect(),
    }
}

/// Class and box loss of one image, each summed and divided by the number of positives (at least 1).
#[derive(Debug)]
pub struct SsdLoss {
    /// Cross-entropy over positives and mined negatives.
    pub class: Tensor,
    /// Huber loss (δ = 1) over positives.
    pub boxes: Tensor,
}

impl SsdLoss {
    /// class + boxes.
    ///
    /// # Errors
    /// If candle cannot add them.
    pub fn total(&self) -> Result<Tensor> {
        &self.class + &self.boxes
    }
}

/// `logits`: `[A, K]`, `codes`: `[A, 4]`, both with gradients. Negatives are mined by loss, three a
/// positive (three in all where there is none).
///
/// # Errors
/// If sizes do not agree or a class is out of range.
pub fn ssd_loss(logits: &Tensor, codes: &Tensor, matches: &Matches, scores: Scores) -> Result<SsdLoss> {
    let (anchors, classes) = logits.dims2()?;
    if matches.classes.len() != anchors || codes.dims() != [anchors, 4] {
        bail!(
            "ssd loss: {anchors} anchors in the logits, {} in the matches, codes {:?}",
            matches.classes.len(),
            codes.dims()
        )
    }
    if let Some(class) = matches.classes.iter().find(|&&c| c >= classes) {
        bail!("ssd loss: class {class}, but the logits have {classes}")
    }
    let device = logits.device();
    let wanted: Vec<u32> = matches.classes.iter().map(|&c| c as u32).collect();
    let wanted = Tensor::from_vec(wanted, (anchors, 1), device)?;
    let per_anchor = match scores {
        Scores::Softmax => {
            candle_nn::ops::log_softmax(logits, D::Minus1)?.gather(&wanted, 1)?.squeeze(1)?.neg()?
        }
        Scores::Sigmoid => {
            // softplus(x) − x·t, summed over classes; t is one-hot, background included.
            let softplus = (logits.relu()? + (logits.abs()?.neg()?.exp()? + 1.0)?.log()?)?;
            (softplus.sum(1)? - logits.gather(&wanted, 1)?.squeeze(1)?)?
        }
    };
    let keep = mined(&per_anchor.detach().to_dtype(DType::F32)?.to_vec1()?, matches);
    let keep = Tensor::from_vec(keep, anchors, device)?.to_dtype(logits.dtype())?;
    let positives = matches.positives().max(1) as f64;
    let class = ((per_anchor * keep)?.sum_all()? / positives)?;

    let targets: Vec<f32> = matches.codes.iter().flatten().copied().collect();
    let targets = Tensor::from_vec(targets, (anchors, 4), device)?.to_dtype(codes.dtype())?;
    let positive: Vec<f32> = matches.classes.iter().map(|&c| f32::from(u8::from(c > 0))).collect();
    let positive = Tensor::from_vec(positive, (anchors, 1), device)?.to_dtype(codes.dtype())?;
    let boxes = (huber(&(codes - targets)?)?.broadcast_mul(&positive)?.sum_all()? / positives)?;
    Ok(SsdLoss { class, boxes })
}

/// 1 for positives and for the negatives with the largest losses (lower index first on ties), else 0.
fn mined(losses: &[f32], matches: &Matches) -> Vec<f32> {
    let mut negatives: Vec<(usize, f32)> = losses
        .iter()
        .zip(&matches.classes)
        .enumerate()
        .filter(|(_, (_, class))| **class == 0)
        .map(|(i, (loss, _))| (i, *loss))
        .collect();
    negatives.sort_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
    negatives.truncate(NEGATIVES_PER_POSITIVE * matches.positives().max(1));
    let mut keep: Vec<f32> = matches.classes.iter().map(|&c| f32::from(u8::from(c > 0))).collect();
    for (i, _) in negatives {
        if let Some(keep) = keep.get_mut(i) {
            *keep = 1.0;
        }
    }
    keep
}

/// Huber loss with δ = 1, elementwise: x²/2 up to 1, |x| − ½ beyond.
pub(crate) fn huber(xs: &Tensor) -> Result<Tensor> {
    // With c = min(|x|, 1): c·(|x| − c/2).
    let size = xs.abs()?;
    let capped = size.minimum(&size.ones_like()?)?;
    &capped * (&size - (&capped / 2.0)?)?
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::*;

    fn square(cx: f32, cy: f32) -> Anchor {
        Anchor { cx, cy, w: 0.2, h: 0.2 }
    }

    #[test]
    fn anchors_match_from_half_overlap_and_every_object_gets_its_best() {
        let anchors = [square(0.2, 0.2), square(0.24, 0.2), square(0.8, 0.8), square(0.5, 0.5)];
        let targets = [
            Target { class: 3, bbox: [0.1, 0.1, 0.3, 0.3] },
            // Overlaps the third anchor by a ninth only, and no other at all.
            Target { class: 7, bbox: [0.8, 0.8, 1.0, 1.0] },
        ];
        let matches = match_anchors(&anchors, &targets);
        assert_eq!(matches.classes, [3, 3, 7, 0]);
        assert_eq!(matches.positives(), 3);
        assert!(matches.codes[0].iter().all(|v| v.abs() < 1e-4), "{:?}", matches.codes[0]);
        assert!((matches.codes[2][0] - 5.0).abs() < 1e-4, "half a width to the right, in tenths");
        assert_eq!(matches.codes[3], [0.0; 4]);
        let none = match_anchors(&anchors, &[]);
        assert_eq!(none.positives(), 0);
    }

    #[test]
    fn the_losses_of_a_small_case_by_hand() {
        let logits = Var::from_slice(&[0f64, 0.0, 3.0, 0.0, 1.0, 0.0], (3, 2), &Device::Cpu).unwrap();
        let codes = Var::from_slice(
            &[0.5f64, 0.0, 0.0, 3.0, 9.0, 9.0, 9.0, 9.0, 0.0, 0.0, 0.0, 0.0],
            (3, 4),
            &Device::Cpu,
        )
        .unwrap();
        let matches = Matches { classes: vec![1, 0, 0], codes: vec![[0.0; 4]; 3] };
        let loss = ssd_loss(&logits, &codes, &matches, Scores::Softmax).unwrap();
        let value = |t: &Tensor| t.to_scalar::<f64>().unwrap();
        let expected = 2f64.ln() + (1.0 + (-3f64).exp()).ln() + (1.0 + (-1f64).exp()).ln();
        assert!((value(&loss.class) - expected).abs() < 1e-12);
        assert!((value(&loss.boxes) - (0.125 + 2.5)).abs() < 1e-12, "0.5²/2 and 3 − ½, of the positive only");
        let sigmoid = ssd_loss(&logits, &codes, &matches, Scores::Sigmoid).unwrap();
        let softplus = |x: f64| (1.0 + x.exp()).ln();
        let expected = 2.0 * softplus(0.0)
            + (softplus(3.0) - 3.0 + softplus(0.0))
            + (softplus(1.0) - 1.0 + softplus(0.0));
        assert!((value(&sigmoid.class) - expected).abs() < 1e-12);
        let grads = loss.total().unwrap().backward().unwrap();
        let to_codes = grads.get(&codes).unwrap().to_vec2::<f64>().unwrap();
        assert_eq!(to_codes, [[0.5, 0.0, 0.0, 1.0], [0.0; 4], [0.0; 4]]);
    }

    #[test]
    fn three_hard_negatives_a_positive() {
        let matches = Matches { classes: vec![0, 0, 2, 0, 0, 0], codes: vec![[0.0; 4]; 6] };
        assert_eq!(mined(&[5.0, 1.0, 0.0, 5.0, 4.0, 3.0], &matches), [1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    }

    #[test]
    fn faults_are_named() {
        let device = Device::Cpu;
        let logits = Tensor::zeros((2, 3), DType::F32, &device).unwrap();
        let codes = Tensor::zeros((2, 4), DType::F32, &device).unwrap();
        let matches = Matches { classes: vec![3, 0], codes: vec![[0.0; 4]; 2] };
        let error = ssd_loss(&logits, &codes, &matches, Scores::Softmax).unwrap_err().to_string();
        assert!(error.contains("class 3, but the logits have 3"), "{error}");
        let matches = Matches { classes: vec![0], codes: vec![[0.0; 4]] };
        assert!(ssd_loss(&logits, &codes, &matches, Scores::Softmax).is_err());
    }
}
