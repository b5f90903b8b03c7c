//! VID mAP on cases worked out by hand, and against a slow and literal second version.

use zoo_core::{BBox, Detections};
use zoo_metrics::vid::{Overlap, mean_average_precision};
use zoo_metrics::{Object, average_precision};

use crate::{Rng, at, frame, object};

#[test]
fn cases_by_hand() {
    struct Case {
        name: &'static str,
        truth: Vec<Vec<Object>>,
        found: Vec<Detections>,
        per_class: Vec<(usize, f64)>,
        mean: Option<f64>,
    }
    let cases = [
        Case {
            name: "an object found in one frame of two",
            truth: vec![vec![object(1, at(0.0))], vec![object(1, at(0.0))]],
            found: vec![frame(&[(1, 0.9, at(1.0))]), frame(&[])],
            per_class: vec![(1, 0.5)],
            mean: Some(0.5),
        },
        Case {
            name: "the second detection of an object is a miss",
            truth: vec![vec![object(1, at(0.0)), object(1, at(100.0))]],
            found: vec![frame(&[(1, 0.9, at(0.0)), (1, 0.8, at(1.0)), (1, 0.7, at(100.0))])],
            per_class: vec![(1, 0.5 + 0.5 * 2.0 / 3.0)],
            mean: Some(0.5 + 0.5 * 2.0 / 3.0),
        },
        Case {
            name: "the free object is taken, though the taken one overlaps more",
            truth: vec![vec![object(1, at(0.0)), object(1, at(3.0))]],
            found: vec![frame(&[(1, 0.9, at(0.0)), (1, 0.8, at(1.0))])],
            per_class: vec![(1, 1.0)],
            mean: Some(1.0),
        },
        Case {
            name: "another class does not match, nor does another frame",
            truth: vec![vec![object(1, at(0.0))], vec![]],
            found: vec![frame(&[(2, 0.9, at(0.0))]), frame(&[(1, 0.9, at(0.0))])],
            per_class: vec![(1, 0.0)],
            mean: Some(0.0),
        },
        Case {
            name: "the mean is over classes with ground truth, found or not",
            truth: vec![vec![object(1, at(0.0)), object(2, at(50.0))]],
            found: vec![frame(&[(1, 0.9, at(0.0)), (7, 0.95, at(0.0))])],
            per_class: vec![(1, 1.0), (2, 0.0)],
            mean: Some(0.5),
        },
        Case {
            name: "of equal scores the earlier goes first",
            truth: vec![vec![object(1, at(0.0))], vec![]],
            found: vec![frame(&[(1, 0.5, at(0.0))]), frame(&[(1, 0.5, at(0.0))])],
            per_class: vec![(1, 1.0)],
            mean: Some(1.0),
        },
        Case {
            name: "and the later second, whatever it holds",
            truth: vec![vec![], vec![object(1, at(0.0))]],
            found: vec![frame(&[(1, 0.5, at(0.0))]), frame(&[(1, 0.5, at(0.0))])],
            per_class: vec![(1, 0.5)],
            mean: Some(0.5),
        },
        Case {
            name: "nothing to find",
            truth: vec![vec![]],
            found: vec![frame(&[(1, 0.5, at(0.0))])],
            per_class: vec![],
            mean: None,
        },
        Case { name: "no frame", truth: vec![], found: vec![], per_class: vec![], mean: None },
    ];
    for case in cases {
        let got = mean_average_precision(&case.truth, &case.found, Overlap::Half).unwrap();
        assert_eq!(got.per_class.into_iter().collect::<Vec<_>>(), case.per_class, "{}", case.name);
        assert_eq!(got.mean, case.mean, "{}", case.name);
    }
}

#[test]
fn small_boxes_need_less_overlap_under_ilsvrc() {
    // 10·10 / (20·20) = 0.25, and a shift by 5 pixels leaves an IoU of 1/3.
    assert!((Overlap::Ilsvrc.min_iou(&at(0.0)) - 0.25).abs() < 1e-7);
    assert_eq!(Overlap::Ilsvrc.min_iou(&BBox::new(0.0, 0.0, 100.0, 100.0)), 0.5);
    let truth = vec![vec![object(1, at(0.0))]];
    let found = vec![frame(&[(1, 0.9, at(5.0))])];
    for (overlap, expected) in [(Overlap::Half, 0.0), (Overlap::Ilsvrc, 1.0)] {
        let got = mean_average_precision(&truth, &found, overlap).unwrap();
        assert_eq!(got.mean, Some(expected), "{overlap:?}");
    }
}

/// Class by class, as the definition reads.
fn literally(truth: &[Vec<Object>], found: &[Detections], class: usize, overlap: Overlap) -> f64 {
    let mut all: Vec<(usize, f32, BBox)> = Vec::new();
    for (frame, d) in found.iter().enumerate() {
        all.extend(d.items.iter().filter(|d| d.class_id == class).map(|d| (frame, d.score, d.bbox)));
    }
    let mut order: Vec<usize> = (0..all.len()).collect();
    order.sort_by(|&a, &b| all[b].1.partial_cmp(&all[a].1).unwrap().then(a.cmp(&b)));
    let mut used: Vec<Vec<bool>> = truth.iter().map(|objects| vec![false; objects.len()]).collect();
    let mut hits = vec![false; all.len()];
    for i in order {
        let (frame, _, bbox) = all[i];
        let mut best = None;
        for (j, o) in truth[frame].iter().enumerate() {
            let iou = o.bbox.iou(&bbox);
            let free = o.class_id == class && !used[frame][j] && iou >= overlap.min_iou(&o.bbox);
            if free && best.is_none_or(|(_, so_far)| iou > so_far) {
                best = Some((j, iou));
            }
        }
        if let Some((j, _)) = best {
            used[frame][j] = true;
            hits[i] = true;
        }
    }
    let positives = truth.iter().flatten().filter(|o| o.class_id == class).count();
    let scores: Vec<f32> = all.iter().map(|d| d.1).collect();
    average_precision(&scores, &hits, positives).unwrap()
}

#[test]
fn made_up_clips_agree_with_the_definition() {
    for seed in 0..40 {
        let mut rng = Rng(seed);
        let frames = rng.below(6);
        let place = |rng: &mut Rng| at(rng.below(60) as f32);
        let truth: Vec<Vec<Object>> = (0..frames)
            .map(|_| (0..rng.below(5)).map(|_| object(rng.below(3), place(&mut rng))).collect())
            .collect();
        let found: Vec<Detections> = (0..frames)
            .map(|_| {
                let items: Vec<_> = (0..rng.below(8))
                    .map(|_| (rng.below(4), rng.below(5) as f32 / 4.0, place(&mut rng)))
                    .collect();
                frame(&items)
            })
            .collect();
        for overlap in [Overlap::Half, Overlap::Ilsvrc] {
            let got = mean_average_precision(&truth, &found, overlap).unwrap();
            for (&class, &ap) in &got.per_class {
                assert_eq!(ap, literally(&truth, &found, class, overlap), "seed {seed}, class {class}");
            }
        }
    }
}

#[test]
fn unusable_data_is_named() {
    let error = mean_average_precision(&[vec![]], &[], Overlap::Half).unwrap_err();
    assert_eq!(
        error.to_string(),
        "1 frames of truth but 0 frames of results: pass one entry a frame, empty ones too"
    );
    let truth = vec![vec![object(1, BBox::new(0.0, 0.0, f32::INFINITY, 1.0))]];
    let error = mean_average_precision(&truth, &[frame(&[])], Overlap::Half).unwrap_err();
    assert_eq!(error.to_string(), "truth 0 of frame 0 has an edge that is not finite: [0.0, 0.0, inf, 1.0]");
}
