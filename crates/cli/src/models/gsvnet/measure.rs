//! `zoo bench gsvnet-seg`: key frames (which is what every frame takes without propagation), the frames between them, where
//! the time of those goes, and the paper's baselines.

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::Tensor;
use gsvnet_seg::config::low_size;
use gsvnet_seg::{
    FrameSize, GsvNetSeg, Image, KernelSize, ModelConfig, Preset, Schedule, Step, Stream, Streaming as _,
    warp_scores,
};
use serde::Serialize;
use zoo_core::Tally;
use zoo_kernels::on_pool;
use zoo_metrics::latency::{Distribution, Timings};

use super::baselines::{Baseline, BaselineTimes};
use super::{NAME, usage};
use crate::commands::bench::{self, BenchArgs};
use crate::host::{Host, peak_memory};
use crate::models::random_weights;
use crate::progress::Progress;
use crate::scene;
use crate::table::{Table, number};

/// Intervals that averages are given for.
const INTERVALS: std::ops::RangeInclusive<usize> = 1..=5;
/// The banks of Table A6.
const BANKS: [KernelSize; 2] = [KernelSize::Three, KernelSize::Five];

#[derive(Serialize)]
struct Report {
    host: Host,
    net: String,
    frame: FrameSize,
    runs: usize,
    warm_up: usize,
    /// Frame in, labels of all its pixels out.
    key_ms: Distribution,
    variants: Vec<Variant>,
    baselines: Vec<BaselineTimes>,
    peak_memory_mib: Option<f64>,
}

/// A bank of delay kernels.
#[derive(Serialize)]
struct Variant {
    kernels: KernelSize,
    /// Frame in, labels of all its pixels out.
    between_ms: Distribution,
    /// Median over the key frame's.
    share: f64,
    /// Frames a second at an interval of 1, 2, …
    frames_per_second: Vec<f64>,
    /// Medians of the steps: Figure A9.
    steps: Vec<StepTime>,
}

#[derive(Serialize)]
struct StepTime {
    name: &'static str,
    ms: f64,
}

/// A net and what was measured of it.
struct Measured {
    kernels: KernelSize,
    model: GsvNetSeg,
    stream: Stream,
    between: Timings,
    steps: Vec<(&'static str, Timings)>,
}

/// Times key frames and others, with both banks, in turn, on the demo's clip at the frame's size.
pub fn bench(preset: Preset, args: &BenchArgs) -> Result<()> {
    let device = args.compute.start()?;
    let frame = args.size.unwrap_or(preset.size());
    let model = |kernel_size: KernelSize, interval: usize| -> Result<GsvNetSeg> {
        let mut config = ModelConfig::from(preset);
        config.net.propagation.kernel_size = kernel_size;
        // Random weights: the time does not depend on them.
        let mut model = GsvNetSeg::new(&config, random_weights(0, &device)).map_err(usage)?;
        model.prepare()?;
        model.with_schedule(Schedule::every(interval)).map_err(usage)
    };
    let source = scene::clip(None)?.frames;
    let frames = source.iter().map(|image| zoo_vision::resize(image, frame, zoo_vision::Resize::HalfPixel));
    let frames = frames.collect::<zoo_vision::Result<Vec<Image>>>()?;
    let all = args.warmup + args.runs;
    let key_model = model(KernelSize::Three, 1)?;
    if args.layers {
        return layers(preset, [&key_model, &model(KernelSize::Three, usize::MAX)?], &frames, args);
    }
    let mut key_stream = key_model.start(frame).map_err(usage)?;
    let mut key = Timings::new(args.warmup);
    let mut measured = Vec::new();
    for kernels in BANKS {
        let model = model(kernels, usize::MAX)?;
        let mut stream = model.start(frame).map_err(usage)?;
        let first = frames.first().context("the demo clip has no frame")?;
        model.step(first, &mut stream)?;
        let between = Timings::new(args.warmup);
        measured.push(Measured { kernels, model, stream, between, steps: Vec::new() });
    }
    let mut baselines = Baseline::all(preset, frame, args.warmup, &device)?;
    zoo_kernels::release_freed_memory();
    let progress = Progress::new(Some(all), NAME);
    for image in frames.iter().cycle().take(all) {
        let started = Instant::now();
        key_model.step(image, &mut key_stream)?;
        key.push(started.elapsed());
        for one in &mut measured {
            let started = Instant::now();
            let step = one.model.step(image, &mut one.stream)?.step;
            one.between.push(started.elapsed());
            for (i, (name, spent)) in steps(&one.model, &step, frame)?.into_iter().enumerate() {
                if one.steps.len() <= i {
                    one.steps.push((name, Timings::new(args.warmup)));
                }
                one.steps[i].1.push(spent);
            }
        }
        for baseline in &mut baselines {
            baseline.step(image)?;
        }
        progress.step();
    }
    drop(progress);
    let key_ms = key.distribution().context("no run was timed")?;
    let variant = |one: &Measured| -> Result<Variant> {
        let between_ms = one.between.distribution().context("no run was timed")?;
        let frames_per_second = |interval: usize| {
            1e3 * interval as f64 / (key_ms.median + (interval as f64 - 1.0) * between_ms.median)
        };
        let steps = one
            .steps
            .iter()
            .filter_map(|(name, timings)| Some(StepTime { name, ms: timings.distribution()?.median }));
        Ok(Variant {
            kernels: one.kernels,
            share: between_ms.median / key_ms.median,
            frames_per_second: INTERVALS.map(frames_per_second).collect(),
            steps: steps.collect(),
            between_ms,
        })
    };
    let report = Report {
        host: Host::current(),
        net: format!("{NAME}/{}", preset.name()),
        frame,
        runs: args.runs,
        warm_up: args.warmup,
        variants: measured.iter().map(variant).collect::<Result<_>>()?,
        baselines: baselines.iter().filter_map(Baseline::times).collect(),
        key_ms,
        peak_memory_mib: peak_memory(),
    };
    print(&report, args.json)
}

/// The steps of a frame between key frames once more, one by one: from its own scores, on a grey frame, which costs the
/// same.
fn steps(model: &GsvNetSeg, step: &Step, frame: FrameSize) -> Result<Vec<(&'static str, Duration)>> {
    let (net, low) = (model.net(), low_size(frame));
    let propagation = net.propagation();
    let spent = on_pool(|| -> candle_core::Result<_> {
        let mut spent = Vec::new();
        let mut timed = |name, work: &dyn Fn() -> candle_core::Result<Tensor>| {
            let started = Instant::now();
            let ys = work();
            spent.push((name, started.elapsed()));
            ys
        };
        let xs = Tensor::zeros((1, 3, low.height, low.width), step.scores.dtype(), step.scores.device())?;
        let flow = timed("flow", &|| net.flow_net().forward(&xs, &xs))?;
        let warped = timed("warp", &|| warp_scores(&step.scores, &flow))?;
        let intra = timed("intra-frame net", &|| propagation.intra_net().forward(&xs))?;
        let edges = timed("edges", &|| propagation.edges(&warped))?;
        let weights = timed("guiding net", &|| propagation.weights(&intra, &edges))?;
        timed("filtering", &|| propagation.filter(&warped, &weights, &intra))?;
        timed("labels", &|| step.labels(frame))?;
        Ok(spent)
    });
    Ok(spent?)
}

/// `--layers`: where the time goes of a key frame, and of a frame between key frames.
fn layers(preset: Preset, [key, between]: [&GsvNetSeg; 2], frames: &[Image], args: &BenchArgs) -> Result<()> {
    let mut frames = frames.iter().cycle();
    let first = frames.next().context("the demo clip has no frame")?;
    let frame = first.size();
    let mut pass = |model: &GsvNetSeg, name: &str, tally: &Tally| {
        let mut stream = model.start(frame).map_err(usage)?;
        model.step(first, &mut stream)?;
        bench::net(&format!("{NAME}/{}, {name}", preset.name()), frame, tally, args, || {
            if let Some(image) = frames.next() {
                model.step(image, &mut stream)?;
            }
            Ok(())
        })
    };
    let mut tally = Tally::new();
    key.net().key_cost(frame, &mut tally);
    pass(key, "key frames", &tally)?;
    let mut tally = Tally::new();
    between.net().propagation_cost(frame, &mut tally);
    pass(between, "between key frames", &tally)
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    let Report { host, net, frame, runs, warm_up, key_ms, variants, baselines, peak_memory_mib } = report;
    let mut table = Table::new(["frame", "median ms", "p90 ms", "of a key frame"]);
    table.row([
        "key".to_owned(),
        number(Some(key_ms.median), 1),
        number(Some(key_ms.p90), 1),
        "100 %".to_owned(),
    ]);
    for Variant { kernels, between_ms, share, .. } in variants {
        table.row([
            format!("between, {0}×{0} kernels", kernels.side()),
            number(Some(between_ms.median), 1),
            number(Some(between_ms.p90), 1),
            format!("{:.1} %", 100.0 * share),
        ]);
    }
    for BaselineTimes { name, key_ms, between_ms, share } in baselines {
        table.row([
            format!("{name}, key"),
            number(Some(key_ms.median), 1),
            number(Some(key_ms.p90), 1),
            "100 %".to_owned(),
        ]);
        table.row([
            format!("{name}, between"),
            number(Some(between_ms.median), 1),
            number(Some(between_ms.p90), 1),
            format!("{:.1} %", 100.0 * share),
        ]);
    }
    let mut speeds = Table::new(["interval", "3×3: frames/s", "5×5: frames/s"]);
    for (i, interval) in INTERVALS.enumerate() {
        let speed = variants.iter().map(|variant| number(variant.frames_per_second.get(i).copied(), 2));
        speeds.row(std::iter::once(interval.to_string()).chain(speed));
    }
    let mut steps = Table::new(["step", "3×3: ms", "5×5: ms"]);
    let names = variants.first().map(|variant| &variant.steps).into_iter().flatten();
    for (i, StepTime { name, .. }) in names.enumerate() {
        let each = variants.iter().map(|variant| number(variant.steps.get(i).map(|step| step.ms), 2));
        steps.row(std::iter::once((*name).to_owned()).chain(each));
    }
    writeln!(
        out,
        "{table}\n\n{speeds}\n\n{steps}\n\n{net} on frames of {frame:#}, random weights: from pixels to the label of every pixel; peak memory {} MiB\nn = {runs} after {warm_up} warm-up, in turn; {host}",
        number(*peak_memory_mib, 0)
    )?;
    Ok(())
}
