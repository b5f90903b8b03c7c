//! Packed convolutions on the shapes that rule the zoo's nets; throughput is multiply–adds a second.
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up measures nothing")]

use std::hint::black_box;

use candle_core::{DType, Device, Tensor};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use zoo_kernels::{
    Activation, ConvOptions, PackedBlock, PackedConv, PackedDepthwise, PackedTransposedConv, Pads, Region,
    TransposedOptions, inverted_residual, on_pool,
};

/// Name, channels in and out, rows, columns, filter side, stride.
const DENSE: [(&str, usize, usize, usize, usize, usize, usize); 12] = [
    ("stem", 3, 32, 384, 384, 3, 2),
    ("1x1 16>96", 16, 96, 192, 192, 1, 1),
    ("1x1 96>24", 96, 24, 96, 96, 1, 1),
    ("1x1 32>192", 32, 192, 48, 48, 1, 1),
    ("1x1 192>32", 192, 32, 48, 48, 1, 1),
    ("1x1 96>576", 96, 576, 24, 24, 1, 1),
    ("1x1 576>96", 576, 96, 24, 24, 1, 1),
    ("1x1 960>160", 960, 160, 12, 12, 1, 1),
    ("1x1 256>64", 256, 64, 50, 84, 1, 1),
    ("3x3 64>64", 64, 64, 56, 56, 3, 1),
    ("3x3 128>128", 128, 128, 50, 84, 3, 1),
    ("3x3 512>512", 512, 512, 7, 7, 3, 1),
];

/// Name, channels, side, filter side, stride.
const DEPTHWISE: [(&str, usize, usize, usize, usize); 5] = [
    ("dw 96 @192 /2", 96, 192, 3, 2),
    ("dw 144 @96", 144, 96, 3, 1),
    ("dw 576 @24", 576, 24, 3, 1),
    ("dw 960 @12", 960, 12, 3, 1),
    ("dw5 240 @48", 240, 48, 5, 1),
];

fn last(shape: [usize; 4]) -> Tensor {
    let [b, c, h, w] = shape;
    let xs = Tensor::rand(-1f32, 1f32, (b, h, w, c), &Device::Cpu).unwrap();
    xs.permute((0, 3, 1, 2)).unwrap()
}

fn conv(c: &mut Criterion) {
    let mut group = c.benchmark_group("conv");
    for (name, inputs, outputs, h, w, k, stride) in DENSE {
        let xs = if inputs == 3 { last([1, 3, h, w]).contiguous().unwrap() } else { last([1, inputs, h, w]) };
        let weight = Tensor::rand(-1f32, 1f32, (outputs, inputs, k, k), &Device::Cpu).unwrap();
        let bias = Tensor::zeros(outputs, DType::F32, &Device::Cpu).unwrap();
        let options = ConvOptions { stride, ..ConvOptions::default() };
        let packed = PackedConv::new(&weight, Some(&bias), options, Activation::Relu6).unwrap();
        let region = Region::whole(&xs).unwrap();
        let macs = inputs * outputs * k * k * h.div_ceil(stride) * w.div_ceil(stride);
        group.throughput(Throughput::Elements(macs as u64));
        group.bench_function(name, |b| {
            on_pool(|| b.iter(|| packed.forward(black_box(&region), Pads::all(k / 2), None).unwrap()));
        });
    }
    for (name, channels, side, k, stride) in DEPTHWISE {
        let xs = last([1, channels, side, side]);
        let weight = Tensor::rand(-1f32, 1f32, (channels, 1, k, k), &Device::Cpu).unwrap();
        let packed = PackedDepthwise::new(&weight, None, stride, Activation::Relu6).unwrap();
        let region = Region::whole(&xs).unwrap();
        group.throughput(Throughput::Elements((channels * k * k * side.div_ceil(stride).pow(2)) as u64));
        group.bench_function(name, |b| {
            on_pool(|| b.iter(|| packed.forward(black_box(&region), Pads::all(k / 2)).unwrap()));
        });
    }
    group.finish();
}

/// Images, channels in and out, side, filter side, padding; the stride is 2.
const TRANSPOSED: [(usize, usize, usize, usize, usize, usize); 2] =
    [(100, 256, 256, 14, 2, 0), (1, 128, 128, 48, 4, 1)];

fn transposed(c: &mut Criterion) {
    let mut group = c.benchmark_group("transposed conv");
    for (images, inputs, outputs, side, k, padding) in TRANSPOSED {
        let xs = last([images, inputs, side, side]);
        let weight = Tensor::rand(-1f32, 1f32, (inputs, outputs, k, k), &Device::Cpu).unwrap();
        let bias = Tensor::zeros(outputs, DType::F32, &Device::Cpu).unwrap();
        let options = TransposedOptions { stride: 2, padding, output_padding: 0 };
        let packed = PackedTransposedConv::new(&weight, Some(&bias), options, Activation::None).unwrap();
        group.throughput(Throughput::Elements((images * inputs * outputs * k * k * side * side) as u64));
        group.bench_function(format!("{k}x{k} {inputs}>{outputs} @{images}x{side}"), |b| {
            on_pool(|| b.iter(|| packed.forward(black_box(&xs)).unwrap()));
        });
    }
    group.finish();
}

/// Inputs, hidden channels, outputs, side, stride: blocks of MobileNetV2 at 384×384.
const BLOCKS: [(usize, usize, usize, usize, usize); 5] = [
    (16, 96, 24, 192, 2),
    (24, 144, 24, 96, 1),
    (32, 192, 32, 48, 1),
    (64, 384, 64, 24, 1),
    (160, 960, 160, 12, 1),
];

fn blocks(c: &mut Criterion) {
    let mut group = c.benchmark_group("inverted residual");
    for (inputs, hidden, outputs, side, stride) in BLOCKS {
        let rand = |shape: &[usize]| Tensor::rand(-1f32, 1f32, shape, &Device::Cpu).unwrap();
        let dense =
            |shape: &[usize], act| PackedConv::new(&rand(shape), None, ConvOptions::default(), act).unwrap();
        let expand = dense(&[hidden, inputs, 1, 1], Activation::Relu6);
        let depthwise =
            PackedDepthwise::new(&rand(&[hidden, 1, 3, 3]), None, stride, Activation::Relu6).unwrap();
        let project = dense(&[outputs, hidden, 1, 1], Activation::None);
        let xs = Region::whole(&last([1, inputs, side, side])).unwrap();
        let out = side.div_ceil(stride).pow(2);
        let macs = inputs * hidden * side * side + (9 + outputs) * hidden * out;
        group.throughput(Throughput::Elements(macs as u64));
        let case = format!("{inputs}>{hidden}>{outputs} @{side} /{stride}");
        group.bench_function(format!("in one pass {case}"), |b| {
            let block = PackedBlock {
                expand: Some(&expand),
                depthwise: &depthwise,
                squeeze_excite: None,
                project: &project,
            };
            let fused = || inverted_residual(black_box(&xs), block, Pads::all(1), None);
            on_pool(|| b.iter(|| fused().unwrap()));
        });
        group.bench_function(format!("layer by layer {case}"), |b| {
            let layers = || {
                let ys = Region::whole(&expand.forward(black_box(&xs), Pads::default(), None)?)?;
                let ys = Region::whole(&depthwise.forward(&ys, Pads::all(1))?)?;
                project.forward(&ys, Pads::default(), None)
            };
            on_pool(|| b.iter(|| layers().unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, conv, transposed, blocks);
criterion_main!(benches);
