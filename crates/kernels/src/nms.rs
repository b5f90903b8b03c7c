//! Greedy non-maximum suppression.

use std::collections::HashMap;

/// The rule by which boxes (x0, y0, x1, y1) suppress each other.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Nms {
    /// A box is dropped when its overlap with a kept one exceeds this.
    pub iou: f32,
    /// At most so many boxes are kept.
    pub limit: usize,
    /// Sides are `x1 − x0 + 1` long: the corners are pixels that belong to the box.
    pub plus_one: bool,
    /// An overlap of exactly `iou` drops a box too.
    pub at_threshold: bool,
}

impl Nms {
    /// Exact areas; what overlaps by more than `iou` is dropped; no limit.
    pub const fn new(iou: f32) -> Self {
        Self { iou, limit: usize::MAX, plus_one: false, at_threshold: false }
    }

    /// The boxes that are kept, by falling score, equal scores by rising index. A box with a NaN score
    /// is never kept; one with a NaN coordinate neither suppresses nor is suppressed.
    pub fn keep(&self, boxes: &[[f32; 4]], scores: &[f32]) -> Vec<usize> {
        self.greedy(boxes, scores, |_| 0)
    }

    /// As [`Nms::keep`], where only boxes of one class suppress each other; `limit` is for all together.
    pub fn keep_by_class(&self, boxes: &[[f32; 4]], scores: &[f32], classes: &[usize]) -> Vec<usize> {
        let known = boxes.len().min(classes.len());
        self.greedy(&boxes[..known], scores, |i| classes[i])
    }

    fn greedy(&self, boxes: &[[f32; 4]], scores: &[f32], class: impl Fn(usize) -> usize) -> Vec<usize> {
        let known = boxes.len().min(scores.len());
        let mut order: Vec<usize> = (0..known).filter(|&i| !scores[i].is_nan()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let mut kept = Vec::new();
        let mut by_class = HashMap::<usize, Vec<Sided>>::new();
        for i in order {
            if kept.len() >= self.limit {
                break;
            }
            let candidate = self.sized(boxes[i]);
            let rivals = by_class.entry(class(i)).or_default();
            // `min` and `max` pass over a NaN, which would make a box of one known edge.
            if boxes[i].iter().any(|v| v.is_nan()) {
                kept.push(i);
            } else if !rivals.iter().any(|rival| self.suppresses(rival, &candidate)) {
                kept.push(i);
                rivals.push(candidate);
            }
        }
        kept
    }

    fn sized(&self, corners: [f32; 4]) -> Sided {
        let [x0, y0, x1, y1] = corners;
        Sided { corners, area: self.side(x0, x1) * self.side(y0, y1) }
    }

    fn side(&self, from: f32, to: f32) -> f32 {
        (to - from + if self.plus_one { 1.0 } else { 0.0 }).max(0.0)
    }

    fn suppresses(&self, a: &Sided, b: &Sided) -> bool {
        let ([ax0, ay0, ax1, ay1], [bx0, by0, bx1, by1]) = (a.corners, b.corners);
        let shared = self.side(ax0.max(bx0), ax1.min(bx1)) * self.side(ay0.max(by0), ay1.min(by1));
        let limit = self.iou * (a.area + b.area - shared);
        shared > limit || (self.at_threshold && shared == limit && shared > 0.0)
    }
}

/// A box with its area.
struct Sided {
    corners: [f32; 4],
    area: f32,
}

/// [`Nms::keep`] by the plain rule, `limit` boxes at most.
pub fn nms(boxes: &[[f32; 4]], scores: &[f32], iou: f32, limit: usize) -> Vec<usize> {
    Nms { limit, ..Nms::new(iou) }.keep(boxes, scores)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOXES: [[f32; 4]; 4] =
        [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 2.0], [1.0, 0.0, 3.0, 2.0], [10.0, 10.0, 12.0, 12.0]];

    #[test]
    fn keeps_the_best_of_overlapping_boxes() {
        struct Case(&'static str, [f32; 4], f32, usize, &'static [usize]);
        for Case(name, scores, iou, limit, kept) in [
            Case("plain", [0.9, 0.8, 0.7, 0.6], 0.5, 9, &[0, 2, 3]),
            Case("a low threshold drops a third of overlap", [0.9, 0.8, 0.7, 0.6], 0.3, 9, &[0, 3]),
            Case("exactly at the threshold is kept", [0.9, 0.8, 0.7, 0.6], 1.0, 9, &[0, 1, 2, 3]),
            Case("ties go to the lower index", [0.5, 0.5, 0.5, 0.5], 0.5, 9, &[0, 2, 3]),
            Case("NaN scores are dropped", [f32::NAN, 0.1, 0.7, 0.6], 0.5, 9, &[2, 3, 1]),
            Case("limit", [0.9, 0.8, 0.7, 0.6], 0.5, 2, &[0, 2]),
        ] {
            assert_eq!(nms(&BOXES, &scores, iou, limit), kept, "{name}");
        }
        assert!(nms(&[], &[], 0.5, 9).is_empty());
    }

    #[test]
    fn a_second_pass_changes_nothing() {
        let scores = [0.3, 0.9, 0.5, 0.4];
        let kept = nms(&BOXES, &scores, 0.4, 9);
        let boxes: Vec<_> = kept.iter().map(|&i| BOXES[i]).collect();
        let scores: Vec<_> = kept.iter().map(|&i| scores[i]).collect();
        assert_eq!(nms(&boxes, &scores, 0.4, 9), (0..kept.len()).collect::<Vec<_>>());
    }

    #[test]
    fn a_nan_box_neither_suppresses_nor_panics() {
        let boxes = [[f32::NAN, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]];
        assert_eq!(nms(&boxes, &[0.9, 0.8], 0.5, 9), [0, 1]);
    }

    #[test]
    fn only_boxes_of_one_class_meet() {
        let scores = [0.9, 0.8, 0.7, 0.6];
        let rule = Nms::new(0.3);
        for (name, classes, limit, kept) in [
            ("one class", [4, 4, 4, 4], 9, vec![0, 3]),
            ("two on one place", [1, 2, 1, 1], 9, vec![0, 1, 3]),
            ("none meet", [1, 2, 3, 1], 9, vec![0, 1, 2, 3]),
            ("the limit is for all", [1, 2, 3, 1], 3, vec![0, 1, 2]),
        ] {
            assert_eq!(Nms { limit, ..rule }.keep_by_class(&BOXES, &scores, &classes), kept, "{name}");
        }
        assert_eq!(rule.keep_by_class(&BOXES, &scores, &[1]), [0], "a box without a class");
    }

    #[test]
    fn the_pixel_and_the_threshold_are_options() {
        let boxes = [[0.0, 0.0, 4.0, 2.0], [2.0, 0.0, 6.0, 2.0]];
        let kept = |iou: f32, plus_one: bool, at_threshold: bool| {
            Nms { plus_one, at_threshold, ..Nms::new(iou) }.keep(&boxes, &[0.9, 0.8]).len()
        };
        // Exact areas: 4 / (8 + 8 − 4) = 1/3. With the pixel: 9 / (15 + 15 − 9) = 3/7.
        for (iou, plus_one, at_threshold, want) in
            [(0.3, false, false, 1), (0.4, false, false, 2), (0.4, true, false, 1), (0.43, true, false, 2)]
        {
            assert_eq!(kept(iou, plus_one, at_threshold), want, "{iou} {plus_one} {at_threshold}");
        }
        let halves = [[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.0]];
        for (at_threshold, want) in [(false, 2), (true, 1)] {
            let rule = Nms { at_threshold, ..Nms::new(0.5) };
            assert_eq!(rule.keep(&halves, &[0.9, 0.8]).len(), want, "exactly half, {at_threshold}");
        }
        let apart = [[0.0, 0.0, 1.0, 1.0], [5.0, 5.0, 6.0, 6.0], [7.0, 7.0, 7.0, 7.0]];
        let rule = Nms { at_threshold: true, ..Nms::new(0.0) };
        assert_eq!(rule.keep(&apart, &[0.9, 0.8, 0.7]).len(), 3, "boxes that share nothing stay");
    }
}
