/// Length of a side from `from` to `to`, at least 0.
fn side(from: f32, to: f32, plus_one: bool) -> f32 {
    (to - from + if plus_one { 1.0 } else { 0.0 }).max(0.0)
}

/// The area of a box (x0, y0, x1, y1); with `plus_one` its corners are pixels that belong to it.
pub fn box_area([x0, y0, x1, y1]: [f32; 4], plus_one: bool) -> f32 {
    side(x0, x1, plus_one) * side(y0, y1, plus_one)
}

/// Intersection over union of two boxes (x0, y0, x1, y1), in 0..=1; 0 where both are empty.
pub fn box_iou(a: [f32; 4], b: [f32; 4], plus_one: bool) -> f32 {
    let ([ax0, ay0, ax1, ay1], [bx0, by0, bx1, by1]) = (a, b);
    let width = side(ax0.max(bx0), ax1.min(bx1), plus_one);
    let shared = width * side(ay0.max(by0), ay1.min(by1), plus_one);
    let union = box_area(a, plus_one) + box_area(b, plus_one) - shared;
    if union > 0.0 { shared / union } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_conventions_by_hand() {
        let (a, b) = ([0.0, 0.0, 4.0, 2.0], [2.0, 0.0, 6.0, 2.0]);
        assert_eq!((box_area(a, false), box_area(a, true)), (8.0, 15.0));
        assert_eq!(box_iou(a, b, false), 4.0 / 12.0);
        assert_eq!(box_iou(a, b, true), 9.0 / 21.0);
        let far = [50.0, 50.0, 60.0, 60.0];
        assert_eq!((box_iou(a, far, true), box_iou(a, a, true)), (0.0, 1.0));
        let empty = [1.0, 1.0, 1.0, 1.0];
        assert_eq!((box_iou(empty, empty, false), box_iou(empty, empty, true)), (0.0, 1.0));
        assert_eq!(box_area([3.0, 3.0, 1.0, 1.0], false), 0.0, "inverted, hence empty");
    }
}
