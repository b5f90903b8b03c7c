//! Depthwise convolution: the kernel, the same in candle's operations, and candle's grouped convolution.
//!
//! `cargo bench -p zoo-kernels`
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up measures nothing")]

use std::hint::black_box;

use candle_core::{DType, Device, Tensor};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zoo_kernels::{Pads, Region, depthwise_conv2d, depthwise_conv2d_candle};

fn depthwise(c: &mut Criterion) {
    let mut group = c.benchmark_group("depthwise 3×3");
    group.sample_size(20);
    for (channels, side, stride) in [(96, 112, 2), (144, 56, 1), (384, 24, 1), (960, 12, 1)] {
        let xs = Tensor::ones((1, channels, side, side), DType::F32, &Device::Cpu);
        let xs = xs.unwrap();
        let weight = Tensor::ones((channels, 1, 3, 3), DType::F32, &Device::Cpu);
        let weight = weight.unwrap();
        let region = Region::whole(&xs).unwrap();
        let case = format!("{channels}@{side}² stride {stride}");
        group.throughput(Throughput::Elements((9 * channels * (side / stride) * (side / stride)) as u64));
        let pads = Pads::all(1);
        group.bench_function(BenchmarkId::new("kernel", &case), |b| {
            b.iter(|| black_box(depthwise_conv2d(&region, &weight, stride, pads).map(drop)));
        });
        group.bench_function(BenchmarkId::new("shifted products", &case), |b| {
            b.iter(|| black_box(depthwise_conv2d_candle(&region, &weight, stride, pads).map(drop)));
        });
        group.bench_function(BenchmarkId::new("grouped convolution", &case), |b| {
            b.iter(|| black_box(xs.conv2d(&weight, 1, stride, 1, channels).map(drop)));
        });
    }
    group.finish();
}

criterion_group!(benches, depthwise);
criterion_main!(benches);
