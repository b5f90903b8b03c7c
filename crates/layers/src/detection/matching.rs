use serde::{Deserialize, Serialize};

use super::box_iou;

/// What an anchor has to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AnchorMatch {
    /// Nothing is here.
    Background,
    /// Neither right nor wrong: it does not count.
    Ignored,
    /// The object of this index.
    Object(usize),
}

/// Objects to anchors, by overlap (Ren et al., "Faster R-CNN", 2015, Section 3.1.2; Lin et al., "Focal Loss for Dense
/// Object Detection", ICCV 2017, Section 4).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorMatcher {
    /// An overlap of so much makes the anchor the object's.
    pub positive: f32,
    /// Less than this with every object is background; between the two an anchor is ignored.
    pub negative: f32,
    /// Whether the anchors that overlap an object most are some object's at any overlap but 0, ties included.
    pub low_quality: bool,
    /// Sides are x1 − x0 + 1.
    pub plus_one: bool,
}

impl AnchorMatcher {
    /// RetinaNet's in maskrcnn-benchmark.
    pub const RETINANET: Self = Self { positive: 0.5, negative: 0.4, low_quality: true, plus_one: true };

    /// One answer an anchor. An anchor belongs to the object that it overlaps most, the first of equal ones, also where it
    /// is another object's best.
    pub fn assign(&self, anchors: &[[f32; 4]], boxes: &[[f32; 4]]) -> Vec<AnchorMatch> {
        let mut most = vec![0f32; boxes.len()];
        let best: Vec<(f32, usize)> = anchors
            .iter()
            .map(|&anchor| {
                let mut best = (0.0, 0);
                for (object, (&bbox, most)) in boxes.iter().zip(&mut most).enumerate() {
                    let overlap = box_iou(anchor, bbox, self.plus_one);
                    *most = most.max(overlap);
                    if overlap > best.0 {
                        best = (overlap, object);
                    }
                }
                best
            })
            .collect();
        let is_claimed = |anchor: [f32; 4]| {
            let mut pairs = boxes.iter().zip(&most);
            pairs.any(|(&bbox, &most)| most > 0.0 && box_iou(anchor, bbox, self.plus_one) == most)
        };
        let of = |(&anchor, (overlap, object)): (&[f32; 4], (f32, usize))| {
            // An anchor that overlaps nothing claims nothing.
            let claims = || self.low_quality && overlap > 0.0 && is_claimed(anchor);
            if !boxes.is_empty() && (overlap >= self.positive || claims()) {
                AnchorMatch::Object(object)
            } else if overlap < self.negative {
                AnchorMatch::Background
            } else {
                AnchorMatch::Ignored
            }
        };
        anchors.iter().zip(best).map(of).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use AnchorMatch::{Background, Ignored, Object};

    /// Exact sides, so that overlaps are easy: strips of height 1 from 0, of these widths.
    fn strip(from: f32, to: f32) -> [f32; 4] {
        [from, 0.0, to, 1.0]
    }

    const EXACT: AnchorMatcher =
        AnchorMatcher { plus_one: false, low_quality: false, ..AnchorMatcher::RETINANET };

    #[test]
    fn thresholds_and_claims() {
        let anchors =
            [strip(0.0, 10.0), strip(0.0, 5.0), strip(0.0, 4.5), strip(0.0, 3.0), strip(90.0, 99.0)];
        let boxes = [strip(0.0, 10.0)];
        assert_eq!(EXACT.assign(&anchors, &boxes), [Object(0), Object(0), Ignored, Background, Background]);
        // A second object whose best anchors, two alike, overlap it by a fifth.
        let anchors = [strip(0.0, 10.0), strip(20.0, 22.0), strip(28.0, 30.0), strip(90.0, 99.0)];
        let boxes = [strip(0.0, 10.0), strip(20.0, 30.0), strip(200.0, 210.0)];
        assert_eq!(EXACT.assign(&anchors, &boxes), [Object(0), Background, Background, Background]);
        let claiming = AnchorMatcher { low_quality: true, ..EXACT };
        let expected = [Object(0), Object(1), Object(1), Background];
        assert_eq!(
            claiming.assign(&anchors, &boxes),
            expected,
            "an object that nothing overlaps claims nothing"
        );
    }

    /// The best anchor of a small object lies deeper in a larger one, whose it stays.
    #[test]
    fn a_claimed_anchor_stays_with_its_own_best() {
        let anchors = [strip(0.0, 10.0)];
        let boxes = [strip(0.0, 1.0), strip(0.0, 4.0)];
        let claiming = AnchorMatcher { low_quality: true, ..EXACT };
        assert_eq!(claiming.assign(&anchors, &boxes), [Object(1)]);
    }

    #[test]
    fn without_objects_all_is_background() {
        assert_eq!(AnchorMatcher::RETINANET.assign(&[strip(0.0, 1.0)], &[]), [Background]);
        assert_eq!(AnchorMatcher::RETINANET.assign(&[], &[strip(0.0, 1.0)]), []);
    }

    #[test]
    fn the_pixel_counts() {
        // [0, 4] × [0, 1]: with the pixel 5 × 2 = 10 of 10 × 2: exactly a half.
        let (anchors, boxes) = ([strip(0.0, 4.0)], [strip(0.0, 9.0)]);
        let plus = AnchorMatcher { plus_one: true, ..EXACT };
        assert_eq!(plus.assign(&anchors, &boxes), [Object(0)]);
        assert_eq!(EXACT.assign(&anchors, &boxes), [Ignored], "4/9");
    }
}
