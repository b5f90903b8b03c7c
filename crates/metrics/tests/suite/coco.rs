//! COCO AP against pycocotools, on the cases that scripts/goldens/coco_ap.py made.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use zoo_core::{BBox, Detection, Detections, FrameSize};
use zoo_metrics::coco::{self, ClassAp, CocoAp, Truth};

use crate::{at, frame, object};

#[derive(Deserialize)]
struct Fixture {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    truth: Value,
    results: Value,
    expected: Expected,
}

#[derive(Deserialize)]
struct Expected {
    means: BTreeMap<String, Option<f64>>,
    per_class: BTreeMap<usize, ExpectedClass>,
}

#[derive(Deserialize)]
struct ExpectedClass {
    ap: f64,
    ap50: f64,
}

#[derive(Deserialize)]
struct Annotation {
    image_id: usize,
    category_id: usize,
    bbox: [f32; 4],
    area: f64,
    iscrowd: u8,
}

#[derive(Deserialize)]
struct Found {
    image_id: usize,
    category_id: usize,
    bbox: [f32; 4],
    score: f32,
}

const TOLERANCE: f64 = 1e-6;

fn cases() -> Vec<Case> {
    serde_json::from_str::<Fixture>(include_str!("../data/coco_ap.json")).unwrap().cases
}

fn xyxy([x, y, w, h]: [f32; 4]) -> BBox {
    BBox::new(x, y, x + w, y + h)
}

fn check(name: &str, got: &CocoAp, expected: &Expected) {
    let means = [
        ("AP", got.ap),
        ("AP50", got.ap50),
        ("AP75", got.ap75),
        ("APs", got.small),
        ("APm", got.medium),
        ("APl", got.large),
    ];
    assert_eq!(means.len(), expected.means.len(), "{name}");
    for (key, value) in means {
        let reference = expected.means[key];
        let near = value.zip(reference).is_none_or(|(a, b)| (a - b).abs() <= TOLERANCE);
        assert!(near && value.is_some() == reference.is_some(), "{name}: {key} {value:?}, not {reference:?}");
    }
    let classes: Vec<_> = got.per_class.keys().collect();
    assert_eq!(classes, expected.per_class.keys().collect::<Vec<_>>(), "{name}");
    for (class, reference) in &expected.per_class {
        let ClassAp { ap, ap50 } = got.per_class[class];
        assert!((ap - reference.ap).abs() <= TOLERANCE, "{name}, class {class}: {ap}, not {}", reference.ap);
        assert!((ap50 - reference.ap50).abs() <= TOLERANCE, "{name}, class {class}: AP50 {ap50}");
    }
}

#[test]
fn data_in_memory_gives_pycocotools_numbers() {
    for case in cases() {
        let images = case.truth["images"].as_array().unwrap().len();
        let mut truth = vec![Vec::new(); images];
        let annotations: Vec<Annotation> = serde_json::from_value(case.truth["annotations"].clone()).unwrap();
        for a in annotations {
            let object = object(a.category_id, xyxy(a.bbox));
            truth[a.image_id].push(Truth { object, area: Some(a.area), crowd: a.iscrowd == 1 });
        }
        let mut found = vec![Detections::new(FrameSize::new(384, 512), Vec::new()); images];
        let results: Vec<Found> = serde_json::from_value(case.results.clone()).unwrap();
        for r in results {
            found[r.image_id].items.push(Detection::new(r.category_id, "thing", r.score, xyxy(r.bbox)));
        }
        check(&case.name, &coco::evaluate(&truth, &found).unwrap(), &case.expected);
    }
}

#[test]
fn files_give_pycocotools_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let (truth, results) = (folder.path().join("truth.json"), folder.path().join("results.json"));
    for case in cases() {
        std::fs::write(&truth, case.truth.to_string()).unwrap();
        std::fs::write(&results, case.results.to_string()).unwrap();
        check(&case.name, &coco::evaluate_files(&truth, &results).unwrap(), &case.expected);
    }
}

#[test]
fn the_area_of_a_truth_without_one_is_its_boxs() {
    let small = Truth::from(object(1, at(0.0)));
    let as_large = Truth { area: Some(1e5), ..small };
    for (name, truth, sizes) in
        [("a box of 10×10", small, [true, false, false]), ("as large", as_large, [false, false, true])]
    {
        let got = coco::evaluate(&[vec![truth]], &[frame(&[(1, 0.9, at(0.0))])]).unwrap();
        assert!((got.ap.unwrap() - 1.0).abs() < TOLERANCE, "{name}: {got:?}");
        assert_eq!([got.small, got.medium, got.large].map(|ap| ap.is_some()), sizes, "{name}");
    }
}

#[test]
fn unusable_data_is_named() {
    let truth = vec![vec![Truth::from(object(1, at(0.0)))]];
    let nan = BBox::new(0.0, f32::NAN, 1.0, 1.0);
    for (found, message) in [
        (vec![], "1 frames of truth but 0 frames of results: pass one entry a frame, empty ones too"),
        (
            vec![frame(&[(1, 0.5, at(0.0)), (1, f32::NAN, at(0.0))])],
            "score 1 of frame 0 is not a number: leave such results out before measuring",
        ),
        (
            vec![frame(&[(1, 0.5, nan)])],
            "box 0 of frame 0 has an edge that is not finite: [0.0, NaN, 1.0, 1.0]",
        ),
    ] {
        assert_eq!(coco::evaluate(&truth, &found).unwrap_err().to_string(), message);
    }
    let error = coco::evaluate(&[vec![Truth::from(object(1, nan))]], &[frame(&[])]).unwrap_err();
    assert_eq!(error.to_string(), "truth 0 of frame 0 has an edge that is not finite: [0.0, NaN, 1.0, 1.0]");
}

#[test]
fn unreadable_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let (good, bad) = (folder.path().join("good.json"), folder.path().join("bad.json"));
    std::fs::write(&good, r#"{"images": [], "annotations": [], "categories": []}"#).unwrap();
    std::fs::write(&bad, "[{").unwrap();
    let message =
        |truth: &Path, results: &Path| coco::evaluate_files(truth, results).unwrap_err().to_string();

    let absent = folder.path().join("absent.json");
    assert!(
        message(&absent, &good).starts_with(&format!("reading the ground truth from {}: ", absent.display()))
    );
    assert!(message(&bad, &good).starts_with(&format!("reading the ground truth from {}: ", bad.display())));
    assert!(message(&good, &bad).starts_with(&format!("reading the results from {}: ", bad.display())));
}
