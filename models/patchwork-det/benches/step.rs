//! The step of each mode, the single frame, and the same net on candle-nn alone.
//!
//! `cargo bench -p patchwork-det --features bundled`
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up measures nothing")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use patchwork_det::reference::PlainDetector;
use patchwork_det::{
    DetectorConfig, DetectorWeights, FrameSize, Image, LoadOptions, Mode, PatchworkDet, PolicyKind,
    Pretrained, Streaming,
};

const FRAME: FrameSize = FrameSize::new(384, 384);

fn steps(c: &mut Criterion) {
    let model = PatchworkDet::from_pretrained(DetectorWeights::default(), &LoadOptions::default())
        .unwrap()
        .with_frame(FRAME)
        .unwrap();
    let pixels = (0..FRAME.area() * 3).map(|i| (i * 7919 % 251) as u8).collect();
    let image = Image::new(FRAME, pixels).unwrap();
    let mut group = c.benchmark_group("patchwork-det 384×384");
    group.sample_size(20);
    let windows = |m, n| Mode::windows(m, n, PolicyKind::Motion).unwrap();
    for mode in [Mode::SingleFrame, windows(4, 2), windows(4, 1)] {
        let mut stream = model.start_with(FRAME, &mode).unwrap();
        group
            .bench_function(mode.name(), |b| b.iter(|| black_box(model.step(&image, &mut stream).map(drop))));
    }
    let zeros = candle_nn::VarBuilder::zeros(candle_core::DType::F32, &candle_core::Device::Cpu);
    let plain = PlainDetector::new(&DetectorConfig::coco(), zeros).unwrap();
    let xs = DetectorConfig::coco().normalization.tensor(&image, &candle_core::Device::Cpu);
    let xs = xs.unwrap();
    group.bench_function("single frame, candle-nn alone", |b| {
        b.iter(|| black_box(plain.forward(&xs).map(drop)))
    });
    group.finish();
}

criterion_group!(benches, steps);
criterion_main!(benches);
