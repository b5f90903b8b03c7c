//! J, F and AP of the Patchwork prototype, from models/patchwork-det's golden files.

use std::path::Path;

use safetensors::SafeTensors;
use zoo_core::FrameSize;
use zoo_metrics::average_precision;
use zoo_metrics::davis::{Mask, Score};
use zoo_parity::seeded;

const TOLERANCE: f64 = 1e-5;
/// The stored masks are 12×16 cells of 8×8 pixels.
const CELLS: (usize, usize) = (12, 16);
const UP: usize = 8;

fn golden() -> Vec<u8> {
    let path = "../../models/patchwork-det/tests/golden/patchwork_metrics.safetensors";
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn stored(file: &SafeTensors, name: &str) -> Vec<f64> {
    let bytes = file.tensor(name).unwrap().data();
    bytes.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
}

fn assert_near(name: &str, got: &[f64], expected: &[f64]) {
    assert_eq!(got.len(), expected.len(), "{name}");
    for (i, (a, b)) in got.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= TOLERANCE, "{name}[{i}]: {a}, not {b}");
    }
}

/// The cells of seeded noise above a threshold, each blown up to `UP`×`UP` pixels.
fn mask(name: &str, threshold: f32) -> Mask {
    let noise = seeded::input(name, &[CELLS.0, CELLS.1]).unwrap();
    let size = FrameSize::new(CELLS.0 * UP, CELLS.1 * UP);
    let cell = |i: usize| noise[(i / size.width / UP) * CELLS.1 + i % size.width / UP] > threshold;
    Mask::new(size, (0..size.area()).map(cell).collect()).unwrap()
}

/// The mask moved down and right, what leaves it coming back on the other side.
fn rolled(mask: &Mask, down: usize, right: usize) -> Mask {
    let FrameSize { height, width } = mask.size();
    let from = |i: usize| {
        let (y, x) = (i / width, i % width);
        mask.pixels()[(y + height - down) % height * width + (x + width - right) % width]
    };
    Mask::new(mask.size(), (0..height * width).map(from).collect()).unwrap()
}

#[test]
fn masks_score_as_in_the_prototype() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let truth: Vec<Mask> = (0..5).map(|i| mask(&format!("met.gt.{i}"), 0.2)).collect();
    let predicted: Vec<Mask> = (0..5)
        .map(|i| match i {
            0..3 => {
                let k = 2 * i + 1;
                rolled(&truth[i], k % 4, k / 2)
            }
            _ => mask(&format!("met.m.{i}"), (0.1 + 0.1 * i as f64) as f32),
        })
        .collect();
    let zero = Mask::from_labels(truth[0].size(), &vec![0; truth[0].size().area()]).unwrap();
    let mut pairs: Vec<(&Mask, &Mask)> = predicted.iter().zip(&truth).collect();
    pairs.extend([(&zero, &zero), (&predicted[0], &zero), (&zero, &truth[0])]);

    let scores: Vec<Score> = pairs.into_iter().map(|(p, t)| Score::of_frame(p, t).unwrap()).collect();
    assert_near("J", &scores.iter().map(|s| s.j).collect::<Vec<_>>(), &stored(&file, "J"));
    assert_near("F", &scores.iter().map(|s| s.f).collect::<Vec<_>>(), &stored(&file, "F"));
    let boundary: Vec<f64> = truth[0].boundary().pixels().iter().map(|&on| f64::from(u8::from(on))).collect();
    assert_eq!(boundary, stored(&file, "boundary.0"));
}

#[test]
fn average_precision_is_the_prototypes() {
    let bytes = golden();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let scores = seeded::input("met.scores", &[40]).unwrap();
    let hits: Vec<bool> = seeded::input("met.tp", &[40]).unwrap().iter().map(|&u| u > 0.0).collect();
    let got = [
        average_precision(&scores, &hits, 30).unwrap(),
        average_precision(&scores, &hits, 60).unwrap(),
        average_precision(&scores[..1], &hits[..1], 3).unwrap(),
    ];
    assert_near("AP", &got, &stored(&file, "AP"));
}
