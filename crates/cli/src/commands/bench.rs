//! `zoo bench`.

use std::collections::HashMap;
use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use clap::Args;
use indexmap::IndexMap;
use serde::Serialize;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Pads, Region, depthwise_conv2d};
use zoo_metrics::latency::{Distribution, Timings};
use zoo_parity::seeded;

use crate::args::{ComputeArgs, at_least_one, frame_size};
use crate::exit::{Outcome, Usage};
use crate::host::{Host, peak_memory};
use crate::table::{Table, number};
use crate::{layer_times, models};

/// What to time, and how often.
#[derive(Args)]
pub struct BenchArgs {
    /// A model, or `op`
    target: String,
    /// With `op`: depthwise, packop
    operation: Option<String>,
    /// Frame size [default: the paper's]
    #[arg(long, value_name = "ROWSxCOLUMNS", value_parser = frame_size)]
    pub size: Option<FrameSize>,
    /// Runs that count
    #[arg(long, value_name = "N", default_value_t = 40, value_parser = at_least_one)]
    pub runs: usize,
    /// Runs before that
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = at_least_one)]
    pub warmup: usize,
    /// Show where the time of a pass over the whole input goes, layer by layer
    #[arg(long)]
    pub layers: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Times it.
pub fn run(args: &BenchArgs) -> Result<Outcome> {
    match (args.target.as_str(), args.operation.as_deref()) {
        ("op", _) if args.layers => return Err(Usage::error("--layers is for models")),
        ("op", Some("depthwise")) => depthwise(args)?,
        ("op", Some("packop")) => models::packdet::packop(args)?,
        ("op", other) => {
            let got = other.map(|name| format!("unknown operation '{name}': ")).unwrap_or_default();
            return Err(Usage::error(format_args!("{got}`zoo bench op` knows depthwise and packop")));
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

/// A layer, or a block whose layers run in one pass.
#[derive(Serialize)]
struct LayerRow {
    name: String,
    mmacs: f64,
    /// Mean over the runs.
    ms: f64,
    gflops_per_second: f64,
    /// Of the whole pass.
    share: f64,
}

#[derive(Serialize)]
struct NetReport<'a> {
    host: Host,
    net: &'a str,
    input: FrameSize,
    runs: usize,
    warm_up: usize,
    mmacs: f64,
    pass_ms: Distribution,
    gflops_per_second: f64,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    layers: Vec<LayerRow>,
    peak_memory_mib: Option<f64>,
}

/// Times `pass`, a net's pass over an `input` whose costs are `tally`; with `--layers`, its layers too.
pub fn net(
    name: &str,
    input: FrameSize,
    tally: &Tally,
    args: &BenchArgs,
    mut pass: impl FnMut() -> Result<()>,
) -> Result<()> {
    zoo_kernels::release_freed_memory();
    for _ in 0..args.warmup {
        pass()?;
    }
    layer_times::take();
    let mut timings = Timings::new(0);
    for _ in 0..args.runs {
        let started = Instant::now();
        pass()?;
        timings.push(started.elapsed());
    }
    let pass_ms = timings.distribution().context("no run was timed")?;
    let mmacs = tally.total().macs as f64 / 1e6;
    let layers = layer_rows(&layer_times::take(), tally, args.runs, pass_ms.mean);
    let report = NetReport {
        host: Host::current(),
        net: name,
        input,
        runs: args.runs,
        warm_up: args.warmup,
        mmacs,
        gflops_per_second: 2.0 * mmacs / pass_ms.median,
        pass_ms,
        layers,
        peak_memory_mib: peak_memory(),
    };
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(());
    }
    let NetReport { host, runs, warm_up, pass_ms, layers, .. } = &report;
    if !layers.is_empty() {
        let mut table = Table::new(["layer", "MMACs", "mean ms", "GFLOP/s", "of the pass"]);
        for LayerRow { name, mmacs, ms, gflops_per_second, share } in layers {
            table.row([
                name.clone(),
                number(Some(*mmacs), 2),
                number(Some(*ms), 3),
                number(Some(*gflops_per_second), 0),
                format!("{:.1} %", 100.0 * share),
            ]);
        }
        let all: f64 = layers.iter().map(|layer| layer.share).sum();
        writeln!(out, "{table}\nbetween the layers: {:.1} % of the pass\n", 100.0 * (1.0 - all))?;
    }
    writeln!(
        out,
        "{name} at {input:#}: median {} ms, p90 {}, p99 {}; {} MMACs, {} GFLOP/s; peak memory {} MiB\nn = {runs} after {warm_up} warm-up; {host}",
        number(Some(pass_ms.median), 2),
        number(Some(pass_ms.p90), 2),
        number(Some(pass_ms.p99), 2),
        number(Some(mmacs), 0),
        number(Some(report.gflops_per_second), 0),
        number(report.peak_memory_mib, 0)
    )?;
    Ok(())
}

/// The layers that were measured, in forward order. A block that ran in one pass stands for those layers
/// under its name that were not measured by themselves.
fn layer_rows(spent: &HashMap<String, Duration>, tally: &Tally, runs: usize, pass_ms: f64) -> Vec<LayerRow> {
    let is_under = |layer: &str, name: &str| {
        layer.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    };
    let mut macs: IndexMap<&str, u64> = IndexMap::new();
    for layer in tally.layers() {
        let measured = spent.keys().filter(|name| is_under(&layer.name, name));
        if let Some(name) = measured.max_by_key(|name| name.len()) {
            *macs.entry(name).or_default() += layer.macs;
        }
    }
    let row = |(name, macs): (&str, u64)| {
        let mmacs = macs as f64 / 1e6;
        let ms = spent.get(name)?.as_secs_f64() * 1e3 / runs as f64;
        let (name, gflops_per_second) = (name.to_owned(), 2.0 * mmacs / ms);
        Some(LayerRow { name, mmacs, ms, gflops_per_second, share: ms / pass_ms })
    };
    macs.into_iter().filter_map(row).collect()
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
        depthwise_conv2d(&region, &weight, stride, Pads::all(1))?;
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
