//! J and F on small masks, and against a dilation as the definition reads.

use zoo_core::FrameSize;
use zoo_metrics::davis::{Mask, Score, boundary_measure, boundary_radius, region_similarity};

use crate::Rng;

fn mask(rows: &[&str]) -> Mask {
    let size = FrameSize::new(rows.len(), rows[0].len());
    Mask::new(size, rows.iter().flat_map(|row| row.chars().map(|c| c == '#')).collect()).unwrap()
}

#[test]
fn the_boundary_looks_right_and_down_and_spares_the_corner() {
    for (name, pixels, boundary) in [
        ("inside", ["....", ".##.", "....", "...."], ["###.", "###.", "....", "...."]),
        ("at the lower right", ["....", "....", "..##", "..##"], ["....", ".###", ".#..", ".#.."]),
        ("full", ["####", "####", "####", "####"], ["....", "....", "....", "...."]),
        ("the corner alone", ["....", "....", "....", "...#"], ["....", "....", "..##", "..#."]),
    ] {
        assert_eq!(mask(&pixels).boundary(), mask(&boundary), "{name}");
    }
}

#[test]
fn empty_and_full_masks() {
    let size = FrameSize::new(8, 9);
    let empty = Mask::from_labels(size, &[0; 72]).unwrap();
    let full = Mask::from_labels(size, &[3; 72]).unwrap();
    let mut labels = [0; 72];
    labels[30] = 1;
    let dot = Mask::from_labels(size, &labels).unwrap();
    for (name, predicted, truth, j, f) in [
        ("both empty", &empty, &empty, 1.0, 1.0),
        ("prediction empty", &empty, &dot, 0.0, 0.0),
        ("truth empty", &dot, &empty, 0.0, 0.0),
        ("a full mask has no boundary", &full, &dot, 1.0 / 72.0, 0.0),
        ("two without a boundary", &full, &empty, 0.0, 1.0),
        ("equal", &dot, &dot, 1.0, 1.0),
    ] {
        assert_eq!(region_similarity(predicted, truth).unwrap(), j, "J, {name}");
        assert_eq!(boundary_measure(predicted, truth).unwrap(), f, "F, {name}");
    }
}

#[test]
fn radii_of_known_sizes() {
    for (height, width, radius) in [(96, 128, 2), (480, 854, 8), (1080, 1920, 18), (1, 1, 1)] {
        assert_eq!(boundary_radius(FrameSize::new(height, width)), radius, "{height}×{width}");
    }
}

/// P and R by painting a disk around every boundary pixel.
fn by_dilation(predicted: &Mask, truth: &Mask) -> f64 {
    let FrameSize { height, width } = truth.size();
    let radius = boundary_radius(truth.size()) as i64;
    let (p, t) = (predicted.boundary(), truth.boundary());
    let dilate = |mask: &Mask| {
        let mut out = vec![false; height * width];
        for (i, _) in mask.pixels().iter().enumerate().filter(|&(_, &on)| on) {
            let (y, x) = ((i / width) as i64, (i % width) as i64);
            for (dy, dx) in (-radius..=radius).flat_map(|dy| (-radius..=radius).map(move |dx| (dy, dx))) {
                let (y, x) = (y + dy, x + dx);
                let inside = (0..height as i64).contains(&y) && (0..width as i64).contains(&x);
                if inside && dx * dx + dy * dy <= radius * radius {
                    out[y as usize * width + x as usize] = true;
                }
            }
        }
        out
    };
    let share = |of: &Mask, within: &[bool]| {
        of.pixels().iter().zip(within).filter(|&(&a, &b)| a && b).count() as f64 / of.count() as f64
    };
    let (precision, recall) = match (p.count(), t.count()) {
        (0, 0) => (1.0, 1.0),
        (0, _) => (1.0, 0.0),
        (_, 0) => (0.0, 1.0),
        _ => (share(&p, &dilate(&t)), share(&t, &dilate(&p))),
    };
    if precision + recall == 0.0 { 0.0 } else { 2.0 * precision * recall / (precision + recall) }
}

#[test]
fn made_up_masks_agree_with_a_dilation() {
    for seed in 0..60 {
        let mut rng = Rng(seed);
        // Wide ones too: their radius is larger than their height.
        let size = [FrameSize::new(40, 56), FrameSize::new(3, 900), FrameSize::new(150, 200)][rng.below(3)];
        let mut blobs = |n: usize| {
            let mut pixels = vec![false; size.area()];
            for _ in 0..n {
                let (cy, cx, r) = (rng.below(size.height), rng.below(size.width), 1 + rng.below(12));
                for (i, pixel) in pixels.iter_mut().enumerate() {
                    *pixel |=
                        (i / size.width).abs_diff(cy).pow(2) + (i % size.width).abs_diff(cx).pow(2) < r * r;
                }
            }
            Mask::new(size, pixels).unwrap()
        };
        let (predicted, truth) = (blobs(seed as usize % 4), blobs(seed as usize % 3));
        let got = boundary_measure(&predicted, &truth).unwrap();
        assert_eq!(got, by_dilation(&predicted, &truth), "seed {seed}, {size}");
    }
}

#[test]
fn a_sequence_leaves_out_its_first_and_last_frame() {
    let (on, off) = (mask(&["....", ".##.", ".##.", "...."]), mask(&["....", "....", "....", "...."]));
    let truth = vec![on.clone(); 4];
    let predicted = [off.clone(), on.clone(), off.clone(), off.clone()];
    assert_eq!(Score::of_sequence(&predicted, &truth).unwrap(), Score { j: 0.5, f: 0.5 });
    let scores = [Score { j: 0.5, f: 0.5 }, Score { j: 1.0, f: 0.0 }];
    assert_eq!(Score::mean(&scores), Some(Score { j: 0.75, f: 0.25 }));
    assert_eq!(Score::mean(&[]), None);
}

#[test]
fn unusable_masks_are_named() {
    let error = Mask::new(FrameSize::new(2, 3), vec![false; 5]).unwrap_err();
    assert_eq!(error.to_string(), "pixels of a mask: expected 6 values, got 5");
    let (wide, high) = (mask(&["..."]), mask(&[".", ".", "."]));
    for error in [region_similarity(&wide, &high).unwrap_err(), boundary_measure(&wide, &high).unwrap_err()] {
        assert_eq!(
            error.to_string(),
            "the predicted mask is 1×3, the true one 3×1 (rows × columns): resize the prediction first"
        );
    }
    let error = Score::of_sequence(&[wide.clone(), wide.clone()], &[wide.clone(), wide.clone()]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "a sequence of 2 frames leaves nothing to measure: its first and last are not counted, so give at least 3"
    );
    let error = Score::of_sequence(std::slice::from_ref(&wide), &[]).unwrap_err();
    assert!(error.to_string().starts_with("0 frames of truth but 1 frames of results"), "{error}");
}
