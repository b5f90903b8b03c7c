//! `zoo bench patchwork-det`: single frame, windows, and plain candle convolutions, side by side.

use std::io::{Write, stdout};
use std::time::Instant;

use anyhow::{Context, Result};
use patchwork_det::flops::StepCost;
use patchwork_det::reference::PlainDetector;
use patchwork_det::{
    Detections, DetectorConfig, DetectorWeights, Mode, PatchworkDet, PolicyKind, Pretrained, Stream,
    Streaming, WindowedNet,
};
use serde::Serialize;
use zoo_core::{FrameSize, Tally};
use zoo_hub::{LoadOptions, resolve};
use zoo_metrics::latency::{Distribution, Timings};
use zoo_vision::{Fit, Preprocess};

use super::usage;
use crate::commands::bench::{self, BenchArgs};
use crate::host::{Host, peak_memory};
use crate::progress::Progress;
use crate::scene;
use crate::table::{Table, number};

/// The paper's frame.
const DEFAULT_FRAME: FrameSize = FrameSize::new(384, 384);

#[derive(Serialize)]
struct Row {
    variant: String,
    mflops: f64,
    step_ms: Distribution,
    /// Median as a share of the single frame's.
    ratio: f64,
}

#[derive(Serialize)]
struct Report {
    host: Host,
    frame: FrameSize,
    runs: usize,
    warm_up: usize,
    rows: Vec<Row>,
    peak_memory_mib: Option<f64>,
}

enum Variant {
    Stream(Mode, Box<Stream<Detections>>),
    Plain(Box<PlainDetector>),
}

/// Times every variant on the same frames, in turn.
pub fn bench(args: &BenchArgs) -> Result<()> {
    let device = args.compute.start()?;
    let frame = args.size.unwrap_or(DEFAULT_FRAME);
    let options = LoadOptions::default().with_device(device.clone());
    let cfg = DetectorConfig::coco();
    let model = PatchworkDet::from_pretrained(DetectorWeights::CocoSsdLite, &options)?;
    let model = model.with_frame(frame).map_err(usage)?;
    if args.layers {
        return layers(&model, frame, args);
    }
    let checkpoint = resolve(&DetectorWeights::CocoSsdLite, &options)?.open()?;
    let plain = zoo_hub::load("PlainDetector", checkpoint, &options, |vb| PlainDetector::new(&cfg, vb))?;
    let frames = scene::clip(None)?.frames;
    let source = frames.first().context("the demo clip has no frame")?.size();

    let windows = |m, n, policy| Mode::windows(m, n, policy).map_err(usage);
    let modes = [
        Mode::SingleFrame,
        windows(4, 2, PolicyKind::Raster)?,
        windows(4, 2, PolicyKind::Motion)?,
        windows(2, 1, PolicyKind::Motion)?,
        windows(4, 1, PolicyKind::Motion)?,
    ];
    let mut variants = Vec::new();
    for mode in modes {
        let stream = model.start_with(source, &mode).map_err(usage)?;
        variants.push((Variant::Stream(mode, Box::new(stream)), Timings::new(args.warmup)));
    }
    variants.push((Variant::Plain(Box::new(plain)), Timings::new(args.warmup)));

    let preprocess = preprocess(&cfg, frame);
    let progress = Progress::new(Some(args.warmup + args.runs), "patchwork-det");
    for image in frames.iter().cycle().take(args.warmup + args.runs) {
        for (variant, timings) in &mut variants {
            match variant {
                Variant::Stream(_, stream) => timings.push(model.step(image, stream)?.time.network),
                Variant::Plain(net) => {
                    let started = Instant::now();
                    net.forward(&preprocess.tensor(image, &device)?.0)?;
                    timings.push(started.elapsed());
                }
            }
        }
        progress.step();
    }
    drop(progress);

    let single = model.net().mflops(frame, &Mode::SingleFrame).map_err(usage)?.max;
    let mut rows: Vec<Row> = Vec::new();
    for (variant, timings) in &variants {
        let (variant, mflops) = match variant {
            Variant::Stream(mode, _) => (mode.name(), model.net().mflops(frame, mode).map_err(usage)?.max),
            Variant::Plain(_) => ("single frame, plain candle".to_owned(), single),
        };
        let step_ms = timings.distribution().context("no run was timed")?;
        let reference = rows.first().map_or(step_ms.median, |row| row.step_ms.median);
        rows.push(Row { variant, mflops, step_ms, ratio: step_ms.median / reference });
    }
    let report = Report {
        host: Host::current(),
        frame,
        runs: args.runs,
        warm_up: args.warmup,
        rows,
        peak_memory_mib: peak_memory(),
    };
    print(&report, args.json)
}

/// The layers of single frames.
fn layers(model: &PatchworkDet, frame: FrameSize, args: &BenchArgs) -> Result<()> {
    let clip = scene::clip(None)?;
    let image = clip.frames.first().context("the demo clip has no frame")?;
    let mut stream = model.start_with(image.size(), &Mode::SingleFrame).map_err(usage)?;
    let mut tally = Tally::new();
    model.net().cost(frame, frame, false, &mut tally);
    bench::net("patchwork-det, single frame with decoding", frame, &tally, args, || {
        model.step(image, &mut stream)?;
        Ok(())
    })
}

/// What turns a picture into the tensor of a frame.
pub fn preprocess(cfg: &DetectorConfig, frame: FrameSize) -> Preprocess {
    Preprocess { fit: Fit::Stretch { size: frame }, resize: cfg.resize, normalization: cfg.normalization }
}

fn print(report: &Report, json: bool) -> Result<()> {
    let mut out = stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string_pretty(report)?)?;
        return Ok(());
    }
    let mut table = Table::new(["variant", "MFLOPs", "median ms", "p90 ms", "p99 ms", "of SF"]);
    for Row { variant, mflops, step_ms, ratio } in &report.rows {
        table.row([
            variant.clone(),
            number(Some(*mflops), 0),
            number(Some(step_ms.median), 2),
            number(Some(step_ms.p90), 2),
            number(Some(step_ms.p99), 2),
            format!("{:.0} %", 100.0 * ratio),
        ]);
    }
    writeln!(out, "{table}")?;
    let Report { host, frame, runs, warm_up, peak_memory_mib, .. } = report;
    writeln!(
        out,
        "frame {frame:#}, n = {runs} after {warm_up} warm-up, variants in turn; {host}; peak memory {} MiB",
        number(*peak_memory_mib, 0)
    )?;
    Ok(())
}
