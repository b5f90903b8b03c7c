//! Decoding and suppression beyond the golden files: orders of memory, gaps, ties, faults.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use packdet::boxes::{Candidate, Candidates, Convention, Group, PostProcess, Threshold};
use packdet::plane::{Layout, Locations, Places};
use packdet::{FrameSize, RawMap, RawMaps, ResizeRule, Resizing};
use zoo_parity::seeded;

const INPUT: FrameSize = FrameSize::new(64, 96);
const CLASSES: usize = 5;

fn drawn(name: &str, shape: [usize; 4], factor: f64, shift: f64) -> Tensor {
    let values = seeded::input(name, &shape).unwrap();
    Tensor::from_vec(values, &shape, &Device::Cpu).unwrap().affine(factor, shift).unwrap()
}

/// Two images in one plane.
fn packed() -> RawMaps {
    let places = Places::packed(Layout::Type4, INPUT, Locations::Centres).unwrap();
    let FrameSize { height, width } = places.grids[0].size;
    let map = RawMap {
        scores: drawn("scores", [2, CLASSES, height, width], 6.0, -3.0),
        boxes: drawn("boxes", [2, 4, height, width], 20.0, 20.0),
        centerness: Some(drawn("centres", [2, 1, height, width], 3.0, 0.0)),
    };
    RawMaps { maps: vec![map], places: Arc::new(places) }
}

fn channels_last(xs: &Tensor) -> Tensor {
    xs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().permute((0, 3, 1, 2)).unwrap()
}

fn logistic(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn decoded(raw: &RawMaps, b: usize, rule: &PostProcess) -> Candidates {
    Candidates::decode(raw, b, FrameSize::new(60, 90), rule).unwrap()
}

#[test]
fn the_order_of_memory_changes_nothing() {
    let raw = packed();
    let last = RawMaps {
        maps: raw
            .maps
            .iter()
            .map(|map| RawMap {
                scores: channels_last(&map.scores),
                boxes: channels_last(&map.boxes),
                centerness: map.centerness.as_ref().map(channels_last),
            })
            .collect(),
        places: raw.places.clone(),
    };
    for b in 0..2 {
        let found = decoded(&raw, b, &PostProcess::FCOS);
        assert!(found.boxes.len() > 100, "{}", found.boxes.len());
        assert_eq!(decoded(&last, b, &PostProcess::FCOS), found);
    }
    assert_ne!(decoded(&raw, 0, &PostProcess::FCOS), decoded(&raw, 1, &PostProcess::FCOS));
}

/// Every cell and class by the rule's own words, none left out for the number.
#[test]
fn candidates_are_the_rules_own_words() {
    let raw = packed();
    let [map] = raw.maps.as_slice() else { panic!() };
    let values = |xs: &Tensor| -> Vec<f32> {
        let cells = xs.get(1).unwrap().permute((1, 2, 0)).unwrap();
        cells.flatten_all().unwrap().to_vec1().unwrap()
    };
    let (scores, boxes) = (values(&map.scores), values(&map.boxes));
    let centres = values(map.centerness.as_ref().unwrap());
    for (threshold, group) in
        [(Threshold::Class, Group::Level), (Threshold::Result, Group::Level), (Threshold::Class, Group::Map)]
    {
        let rule = PostProcess {
            threshold,
            group,
            score_threshold: 0.3,
            group_best: usize::MAX,
            ..PostProcess::FCOS
        };
        let mut expected = Vec::new();
        let mut gaps = 0;
        for (i, cell) in raw.places.grids[0].cells.iter().enumerate() {
            for class in 0..CLASSES {
                let (class_score, centre) = (logistic(scores[i * CLASSES + class]), logistic(centres[i]));
                let result = (class_score * centre).sqrt();
                let held = if threshold == Threshold::Class { class_score } else { result };
                if held <= 0.3 || (group == Group::Map && cell.map.is_none()) {
                    continue;
                }
                gaps += usize::from(cell.map.is_none());
                let [l, t, r, b] = [0, 1, 2, 3].map(|side| boxes[4 * i + side]);
                let bbox = [cell.x - l, cell.y - t, cell.x + r, cell.y + b];
                let clipped = [(bbox[0], 89.0), (bbox[1], 59.0), (bbox[2], 89.0), (bbox[3], 59.0)];
                expected.push((class, result, clipped.map(|(v, most): (f32, f32)| v.clamp(0.0, most))));
            }
        }
        assert_eq!(gaps > 0, group == Group::Level, "gaps count as the finest level, and as no map");
        let mut found: Vec<_> =
            decoded(&raw, 1, &rule).boxes.iter().map(|c| (c.class, c.score, c.bbox)).collect();
        let order = |a: &(usize, f32, [f32; 4]), b: &(usize, f32, [f32; 4])| a.partial_cmp(b).unwrap();
        expected.sort_by(order);
        found.sort_by(order);
        assert_eq!(found, expected, "{threshold:?} {group:?}");
    }
}

#[test]
fn only_the_best_of_each_group_go_on() {
    let raw = packed();
    let all = decoded(&raw, 0, &PostProcess { group_best: usize::MAX, ..PostProcess::FCOS });
    let few = decoded(&raw, 0, &PostProcess { group_best: 7, ..PostProcess::FCOS });
    assert_eq!(few.passed, all.passed);
    assert_eq!(all.boxes.len(), all.passed.iter().sum::<usize>());
    let mut start = 0;
    let mut expected = Vec::new();
    for &passed in &all.passed {
        expected.extend_from_slice(&all.boxes[start..start + passed.min(7)]);
        start += passed;
    }
    assert_eq!(few.boxes, expected);
}

#[test]
fn values_that_are_no_numbers_are_an_error() {
    let raw = packed();
    let with = |change: &dyn Fn(&mut RawMap)| {
        let mut raw = raw.clone();
        change(&mut raw.maps[0]);
        let error = Candidates::decode(&raw, 0, FrameSize::new(60, 90), &PostProcess::FCOS).unwrap_err();
        error.to_string()
    };
    let nan = |xs: &Tensor| (xs * f64::NAN).unwrap();
    assert!(with(&|map| map.scores = nan(&map.scores)).starts_with("the scores of a picture of 60×90"));
    assert!(with(&|map| map.boxes = nan(&map.boxes)).starts_with("the boxes of a picture"));
    let no_centre = with(&|map| map.centerness = map.centerness.as_ref().map(nan));
    assert!(no_centre.starts_with("the centerness of a picture"), "{no_centre}");
    let small = with(&|map| map.scores = map.scores.narrow(2, 0, 3).unwrap());
    assert!(small.contains("cells, expected multiples of 1 and"), "{small}");
}

fn candidate(class: usize, score: f32, x0: f32) -> Candidate {
    Candidate { class, score, bbox: [x0, 0.0, x0 + 9.0, 9.0] }
}

#[test]
fn whoever_ties_with_the_last_stays() {
    let boxes = vec![
        candidate(0, 0.9, 0.0),
        candidate(0, 0.9, 1.0), // suppressed
        candidate(0, 0.5, 100.0),
        candidate(1, 0.5, 100.0),
        candidate(0, 0.5, 200.0),
        candidate(0, 0.4, 300.0),
    ];
    let candidates = Candidates { boxes, passed: vec![] };
    for (convention, max_boxes, stay) in [
        (Convention::PlusOne, 2, 4),
        (Convention::Edges, 2, 2),
        (Convention::PlusOne, 4, 4),
        (Convention::PlusOne, 5, 5),
        (Convention::PlusOne, 9, 5),
    ] {
        let rule = PostProcess { convention, max_boxes, ..PostProcess::FCOS };
        let found = candidates.suppress(&rule);
        assert_eq!(found.len(), stay, "{convention:?}, {max_boxes}");
        assert!(found.is_sorted_by(|a, b| a.score >= b.score));
    }
    assert!(Candidates::default().suppress(&PostProcess::FCOS).is_empty());
}

#[test]
fn the_last_class_can_be_left_out() {
    let places = Places::separate(Layout::Type1, INPUT, Locations::Corners);
    let maps = places.grids.iter().map(|grid| {
        let shape = |channels| (1, channels, grid.size.height, grid.size.width);
        RawMap {
            scores: Tensor::full(3f32, shape(9 * 2), &Device::Cpu).unwrap(),
            boxes: Tensor::zeros(shape(36), DType::F32, &Device::Cpu).unwrap(),
            centerness: None,
        }
    });
    let raw = RawMaps { maps: maps.collect(), places: Arc::new(places) };
    for (drop_last_class, classes) in [(false, vec![0, 1]), (true, vec![0])] {
        let rule = PostProcess { drop_last_class, ..PostProcess::RETINANET };
        let mut found: Vec<usize> = decoded(&raw, 0, &rule).boxes.iter().map(|c| c.class).collect();
        found.sort_unstable();
        found.dedup();
        assert_eq!(found, classes);
    }
}

#[test]
fn boxes_come_back_from_other_looks() {
    let found = |bbox| Candidates { boxes: vec![Candidate { class: 0, score: 1.0, bbox }], passed: vec![] };
    let one = found([10.0, 20.0, 30.0, 40.0]);
    let bbox = |candidates: Candidates| candidates.boxes[0].bbox;
    assert_eq!(bbox(one.clone().mirrored(100, Convention::PlusOne)), [69.0, 20.0, 89.0, 40.0]);
    assert_eq!(bbox(one.clone().mirrored(100, Convention::Edges)), [70.0, 20.0, 90.0, 40.0]);
    let (from, to) = (FrameSize::new(100, 200), FrameSize::new(50, 300));
    assert_eq!(bbox(one.resized(from, to)), [15.0, 10.0, 45.0, 20.0]);
}

/// torchvision's own numbers, by its rule; the authors' rule is in a golden file.
#[test]
fn torchvision_cuts_both_sides() {
    let rule = Resizing::paper(ResizeRule::Torchvision);
    for (image, resized) in [
        ((480, 640), (800, 1066)),
        ((427, 640), (800, 1199)),
        ((375, 1242), (402, 1333)),
        ((3, 4000), (0, 1333)),
    ] {
        let got = rule.of(FrameSize::new(image.0, image.1));
        assert_eq!(got, FrameSize::new(resized.0.max(1), resized.1), "{image:?}");
    }
}
