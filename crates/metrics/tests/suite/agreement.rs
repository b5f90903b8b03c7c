//! Agreement with a reference run, on cases worked out by hand.

use zoo_core::{Detections, FrameSize};
use zoo_metrics::agreement::{Agreement, agreement};

use crate::{at, frame};

#[test]
fn cases_by_hand() {
    struct Case {
        name: &'static str,
        reference: Vec<Detections>,
        found: Vec<Detections>,
        expected: Agreement,
    }
    let of = |truths, ap50, found_share, mean_iou| Agreement { truths, ap50, found_share, mean_iou };
    let two = || vec![frame(&[(1, 0.9, at(0.0)), (2, 0.6, at(50.0)), (1, 0.4, at(100.0))])];
    let cases = [
        Case {
            name: "itself",
            reference: two(),
            found: two(),
            expected: of(2, Some(1.0), Some(1.0), Some(1.0)),
        },
        Case {
            name: "nothing found",
            reference: two(),
            found: vec![frame(&[])],
            expected: of(2, Some(0.0), Some(0.0), None),
        },
        Case {
            name: "no truth",
            reference: vec![frame(&[(1, 0.4, at(0.0))])],
            found: two(),
            expected: of(0, None, None, None),
        },
        Case {
            name: "any number of boxes on an ignored region count neither way",
            reference: two(),
            found: vec![frame(&[
                (1, 0.99, at(100.0)),
                (1, 0.98, at(101.0)),
                (1, 0.9, at(0.0)),
                (2, 0.8, at(50.0)),
            ])],
            expected: of(2, Some(1.0), Some(1.0), Some(1.0)),
        },
        Case {
            name: "a region of another class does not excuse a box",
            reference: two(),
            found: vec![frame(&[(2, 0.99, at(100.0)), (1, 0.9, at(0.0)), (2, 0.8, at(50.0))])],
            expected: of(2, Some(2.0 / 3.0), Some(1.0), Some(1.0)),
        },
        Case {
            name: "the classes share one ranking",
            reference: two(),
            // A miss of class 1 ranks between the hits.
            found: vec![frame(&[(1, 0.9, at(0.0)), (1, 0.8, at(200.0)), (2, 0.7, at(50.0))])],
            expected: of(2, Some(0.5 + 0.5 * 2.0 / 3.0), Some(1.0), Some(1.0)),
        },
        Case {
            name: "a box below 0.3 ranks but is not found",
            reference: vec![frame(&[(1, 0.9, at(0.0))])],
            found: vec![frame(&[(1, 0.29, at(0.0))])],
            expected: of(1, Some(1.0), Some(0.0), None),
        },
        Case {
            name: "the mean IoU is over what was found",
            reference: vec![frame(&[(1, 0.9, at(0.0)), (1, 0.8, at(50.0))])],
            // Shifted by 2.5 of 10 pixels: 7.5 / 12.5.
            found: vec![frame(&[(1, 0.9, at(2.5)), (1, 0.9, at(60.0))])],
            expected: of(2, Some(0.5), Some(0.5), Some(0.6)),
        },
    ];
    for case in cases {
        let got = agreement(&case.reference, &case.found).unwrap();
        let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
            (Some(a), Some(b)) => (a - b).abs() < 1e-6,
            (a, b) => a == b,
        };
        assert!(
            got.truths == case.expected.truths
                && close(got.ap50, case.expected.ap50)
                && close(got.found_share, case.expected.found_share)
                && close(got.mean_iou, case.expected.mean_iou),
            "{}: {got:?}, not {:?}",
            case.name,
            case.expected
        );
    }
}

#[test]
fn a_truth_is_preferred_to_an_ignored_region_that_fits_better() {
    let reference = vec![frame(&[(1, 0.9, at(0.0)), (1, 0.4, at(2.0))])];
    let got = agreement(&reference, &[frame(&[(1, 0.8, at(2.0))])]).unwrap();
    assert_eq!(got.ap50, Some(1.0));
}

#[test]
fn frames_that_do_not_fit_are_named() {
    let small = Detections::new(FrameSize::new(240, 320), vec![]);
    for (reference, found, message) in [
        (
            vec![frame(&[])],
            vec![],
            "1 frames of truth but 0 frames of results: pass one entry a frame, empty ones too",
        ),
        (
            vec![frame(&[])],
            vec![small],
            "the reference's boxes refer to frames of 480×640, the run's to 240×320 (rows × columns): bring both to the same pixels",
        ),
        (
            vec![frame(&[(1, f32::NAN, at(0.0))])],
            vec![frame(&[])],
            "score 0 of frame 0 is not a number: leave such results out before measuring",
        ),
    ] {
        assert_eq!(agreement(&reference, &found).unwrap_err().to_string(), message);
    }
}
