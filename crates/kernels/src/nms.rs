//! Greedy non-maximum suppression.

/// Greedy non-maximum suppression over `boxes` (x0, y0, x1, y1; exact areas, no added pixel).
///
/// Boxes are visited by falling score, equal scores by rising index; a box is dropped when its
/// intersection with a kept box exceeds `iou` times their union. Returns the kept indices in
/// visiting order, `limit` at most. A box with a NaN score is never kept; a box with a NaN
/// coordinate shares no area with any other.
pub fn nms(boxes: &[[f32; 4]], scores: &[f32], iou: f32, limit: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..boxes.len().min(scores.len())).filter(|&i| !scores[i].is_nan()).collect();
    order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
    let mut kept: Vec<usize> = Vec::new();
    for i in order {
        if kept.len() >= limit {
            break;
        }
        if kept.iter().all(|&k| !suppresses(&boxes[k], &boxes[i], iou)) {
            kept.push(i);
        }
    }
    kept
}

fn area(b: &[f32; 4]) -> f32 {
    (b[2] - b[0]).max(0.0) * (b[3] - b[1]).max(0.0)
}

fn suppresses(a: &[f32; 4], b: &[f32; 4], iou: f32) -> bool {
    // `min` and `max` pass over a NaN, which would make a box of one known edge.
    if a.iter().chain(b).any(|v| v.is_nan()) {
        return false;
    }
    let width = (a[2].min(b[2]) - a[0].max(b[0])).max(0.0);
    let height = (a[3].min(b[3]) - a[1].max(b[1])).max(0.0);
    let shared = width * height;
    shared > iou * (area(a) + area(b) - shared)
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
}
