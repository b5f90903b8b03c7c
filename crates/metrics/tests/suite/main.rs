//! Tests of the measures through the public interface, one binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod agreement;
mod annotations;
mod coco;
mod davis;
mod patchwork_golden;
mod vid;

use zoo_core::{BBox, Detection, Detections, FrameSize};
use zoo_metrics::Object;

/// A box of 10×10 pixels whose left edge is at `x`.
fn at(x: f32) -> BBox {
    BBox::new(x, 0.0, x + 10.0, 10.0)
}

fn object(class_id: usize, bbox: BBox) -> Object {
    Object::new(class_id, bbox)
}

/// A frame of detections: class, score, box.
fn frame(items: &[(usize, f32, BBox)]) -> Detections {
    let items =
        items.iter().map(|&(class, score, bbox)| Detection::new(class, "thing", score, bbox)).collect();
    Detections::new(FrameSize::new(480, 640), items)
}

/// A small generator (splitmix64) for made-up cases.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.next() % n as u64) as usize
    }
}
