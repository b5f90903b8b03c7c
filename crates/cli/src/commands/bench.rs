//! `zoo bench`.

use std::io::{Write, stdout};
use std::time::Instant;

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use clap::Args;
use serde::Serialize;
use zoo_core::FrameSize;
use zoo_kernels::{Activation, Pads, Region, depthwise_conv2d};
use zoo_metrics::latency::{Distribution, Timings};
use zoo_parity::seeded;

use crate::args::{ComputeArgs, at_least_one, frame_size};
use crate::exit::{Outcome, Usage};
use crate::host::{Host, peak_memory};
use crate::models;
use crate::table::{Table, number};

/// What to time, and how often.
#[derive(Args)]
pub struct BenchArgs {
    /// A model, or `op`
    target: String,
    /// With `op`: depthwise
    operation: Option<String>,
    /// Frame size [default: 384x384]
    #[arg(long, value_name = "ROWSxCOLUMNS", value_parser = frame_size)]
    pub size: Option<FrameSize>,
    /// Runs that count
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = at_least_one)]
    pub runs: usize,
    /// Runs before that
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub warmup: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Times it.
pub fn run(args: &BenchArgs) -> Result<Outcome> {
    match (args.target.as_str(), args.operation.as_deref()) {
        ("op", Some("depthwise")) => depthwise(args)?,
        ("op", other) => {
            let got = other.map(|name| format!("unknown operation '{name}': ")).unwrap_or_default();
            return Err(Usage::error(format_args!("{got}`zoo bench op` knows depthwise")));
        }
        (_, Some(extra)) => {
            return Err(Usage::error(format_args!("unexpected '{extra}': only `zoo bench op` takes a name")));
        }
        (model, None) => {
            let chosen = models::find(model)?;
            chosen.model.bench(chosen.preset, args)?;
        }
    }
    Ok(Outcome::Success)
}

/// Channels, side and stride of MobileNetV2's depthwise layers at 300×300, largest first.
const LAYERS: [(usize, usize, usize); 5] =
    [(96, 150, 2), (144, 75, 1), (192, 38, 1), (576, 19, 1), (960, 10, 1)];

#[derive(Serialize)]
struct Row {
    channels: usize,
    side: usize,
    stride: usize,
    ours_ms: Distribution,
    candle_ms: Distribution,
    /// candle's median as a multiple of ours.
    speed_up: f64,
}

#[derive(Serialize)]
struct Report {
    host: Host,
    runs: usize,
    warm_up: usize,
    rows: Vec<Row>,
    peak_memory_mib: Option<f64>,
}

fn depthwise(args: &BenchArgs) -> Result<()> {
    let device = args.compute.start()?;
    let rows = LAYERS.iter().map(|&layer| time_layer(layer, args, &device)).collect::<Result<_>>()?;
    let report = Report {
        host: Host::current(),
        runs: args.runs,
        warm_up: args.warmup,
        rows,
        peak_memory_mib: peak_memory(),
    };
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(());
    }
    let mut table =
        Table::new(["depthwise 3×3", "ours median ms", "p90", "candle grouped median ms", "p90", "×"]);
    for Row { channels, side, stride, ours_ms, candle_ms, speed_up } in &report.rows {
        table.row([
            format!("{channels} × {side}², stride {stride}"),
            number(Some(ours_ms.median), 3),
            number(Some(ours_ms.p90), 3),
            number(Some(candle_ms.median), 3),
            number(Some(candle_ms.p90), 3),
            number(Some(*speed_up), 1),
        ]);
    }
    let Report { host, runs, warm_up, .. } = &report;
    writeln!(out, "{table}\nn = {runs} after {warm_up} warm-up, in turn; {host}")?;
    Ok(())
}

fn time_layer(
    (channels, side, stride): (usize, usize, usize),
    args: &BenchArgs,
    device: &Device,
) -> Result<Row> {
    let tensor = |name: &str, shape: &[usize]| -> Result<Tensor> {
        Ok(Tensor::from_vec(seeded::input(name, shape)?, shape, device)?)
    };
    let xs = tensor("xs", &[1, channels, side, side])?;
    let weight = tensor("weight", &[channels, 1, 3, 3])?;
    let region = Region::whole(&xs)?;
    let (mut ours, mut candle) = (Timings::new(args.warmup), Timings::new(args.warmup));
    for _ in 0..args.warmup + args.runs {
        let started = Instant::now();
        depthwise_conv2d(&region, &weight, None, stride, Pads::all(1), Activation::None)?;
        device.synchronize()?;
        ours.push(started.elapsed());
        let started = Instant::now();
        xs.conv2d(&weight, 1, stride, 1, channels)?;
        device.synchronize()?;
        candle.push(started.elapsed());
    }
    let ours_ms = ours.distribution().context("no run was timed")?;
    let candle_ms = candle.distribution().context("no run was timed")?;
    Ok(Row { channels, side, stride, ours_ms, candle_ms, speed_up: candle_ms.median / ours_ms.median })
}
