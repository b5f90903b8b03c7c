//! Attention and whole transformer blocks on the shapes of the zoo's nets, beside the same in
//! candle's own operations; throughput is multiply–adds a second.
//!
//! `cargo bench -p zoo-kernels --bench attention`
#![allow(clippy::unwrap_used, missing_docs, reason = "a benchmark that cannot be set up measures nothing")]

use std::hint::black_box;

use candle_core::{Device, Result, Tensor};
use candle_nn::{LayerNorm, Linear, Module};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use zoo_kernels::{Activation, PackedLinear, attention, layer_norm, on_pool};

/// Windows, tokens in each, heads, channels.
const CASES: [(usize, usize, usize, usize); 3] = [(1, 196, 6, 384), (64, 49, 3, 96), (1, 4096, 6, 384)];
/// The hidden layer is so many times as wide.
const HIDDEN: usize = 4;

fn random(shape: &[usize]) -> Tensor {
    (Tensor::rand(-1f32, 1f32, shape, &Device::Cpu).unwrap() * 0.1).unwrap()
}

/// Queries, keys and values `[B, H, N, D]` as parts of a projection `[B, N, 3 · H · D]`.
fn parts(qkv: &Tensor, heads: usize) -> Result<[Tensor; 3]> {
    let (b, n, c) = qkv.dims3()?;
    let qkv = qkv.reshape((b, n, 3, heads, c / 3 / heads))?;
    let part = |i: usize| qkv.narrow(2, i, 1)?.squeeze(2)?.transpose(1, 2);
    Ok([part(0)?, part(1)?, part(2)?])
}

fn scale(heads: usize, channels: usize) -> f64 {
    ((channels / heads) as f64).sqrt().recip()
}

fn candle_attention(qkv: &Tensor, heads: usize, bias: &Tensor) -> Result<Tensor> {
    let (b, n, c) = qkv.dims3()?;
    let [q, k, v] = parts(qkv, heads)?;
    let scores = (q * scale(heads, c / 3))?.contiguous()?.matmul(&k.transpose(2, 3)?.contiguous()?)?;
    let weights = candle_nn::ops::softmax_last_dim(&scores.broadcast_add(bias)?)?;
    weights.matmul(&v.contiguous()?)?.transpose(1, 2)?.reshape((b, n, c / 3))
}

fn our_attention(qkv: &Tensor, heads: usize, bias: &Tensor) -> Result<Tensor> {
    let (b, n, c) = qkv.dims3()?;
    let [q, k, v] = parts(qkv, heads)?;
    attention(&q, &k, &v, scale(heads, c / 3), &[bias])?.transpose(1, 2)?.reshape((b, n, c / 3))
}

/// A block's weights: attention's two projections and the hidden layer's.
struct Weights {
    norm: (Tensor, Tensor),
    layers: [(Tensor, Tensor); 4],
}

impl Weights {
    fn new(c: usize) -> Self {
        let layer = |inputs, outputs| (random(&[outputs, inputs]), random(&[outputs]));
        let layers = [layer(c, 3 * c), layer(c, c), layer(c, HIDDEN * c), layer(HIDDEN * c, c)];
        Self { norm: (random(&[c]), random(&[c])), layers }
    }
}

fn candle_block(weights: &Weights, heads: usize, bias: &Tensor) -> impl Fn(&Tensor) -> Result<Tensor> {
    let [qkv, project, expand, reduce] =
        weights.layers.clone().map(|(weight, bias)| Linear::new(weight, Some(bias)));
    let (weight, shift) = weights.norm.clone();
    let (norm, bias) = (LayerNorm::new(weight, shift, 1e-5), bias.clone());
    move |xs| {
        let ys = candle_attention(&qkv.forward(&norm.forward(xs)?)?, heads, &bias)?;
        let xs = (xs + project.forward(&ys)?)?;
        let ys = expand.forward(&norm.forward(&xs)?)?.gelu_erf()?;
        xs + reduce.forward(&ys)?
    }
}

fn our_block(weights: &Weights, heads: usize, bias: &Tensor) -> impl Fn(&Tensor) -> Result<Tensor> {
    let [qkv, project, expand, reduce] = [0, 1, 2, 3].map(|i| {
        let act = if i == 2 { Activation::Gelu } else { Activation::None };
        let (weight, bias) = &weights.layers[i];
        PackedLinear::new(weight, Some(bias), act).unwrap()
    });
    let ((weight, shift), bias) = (weights.norm.clone(), bias.clone());
    move |xs| {
        let normal = layer_norm(xs, &weight, &shift, 1e-5)?;
        let ys = our_attention(&qkv.forward(&normal, None)?, heads, &bias)?;
        let xs = project.forward(&ys, Some(xs))?;
        let ys = expand.forward(&layer_norm(&xs, &weight, &shift, 1e-5)?, None)?;
        reduce.forward(&ys, Some(&xs))
    }
}

fn transformer(c: &mut Criterion) {
    let mut group = c.benchmark_group("attention");
    group.sample_size(20);
    for (windows, tokens, heads, channels) in CASES {
        let case = format!("{windows} × {tokens} tokens, {heads} heads, d={channels}");
        let pairs = windows * tokens * tokens * channels;
        // Of a long sequence, only a bias that is the same for all queries is worth its memory.
        let bias = random(&[heads, if tokens > 1000 { 1 } else { tokens }, tokens]);
        let qkv = random(&[windows, tokens, 3 * channels]);
        group.throughput(Throughput::Elements(2 * pairs as u64));
        group.bench_function(BenchmarkId::new("ours", &case), |b| {
            on_pool(|| b.iter(|| our_attention(black_box(&qkv), heads, &bias).unwrap()));
        });
        group.bench_function(BenchmarkId::new("candle", &case), |b| {
            on_pool(|| b.iter(|| candle_attention(black_box(&qkv), heads, &bias).unwrap()));
        });
        if tokens > 1000 {
            continue;
        }
        let xs = random(&[windows, tokens, channels]);
        let macs = windows * tokens * (4 + 2 * HIDDEN) * channels * channels + 2 * pairs;
        group.throughput(Throughput::Elements(macs as u64));
        let weights = Weights::new(channels);
        let block = our_block(&weights, heads, &bias);
        group.bench_function(BenchmarkId::new("our block", &case), |b| {
            on_pool(|| b.iter(|| block(black_box(&xs)).unwrap()));
        });
        let block = candle_block(&weights, heads, &bias);
        group.bench_function(BenchmarkId::new("candle's block", &case), |b| {
            on_pool(|| b.iter(|| block(black_box(&xs)).unwrap()));
        });
    }
    group.finish();
}

criterion_group!(benches, transformer);
criterion_main!(benches);
