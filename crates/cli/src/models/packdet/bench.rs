//! `zoo bench packdet` and `zoo bench op packop`: what packing saves, in time and in memory.

use std::io::{Write, stdout};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use candle_core::{Device, Tensor};
use packdet::plane::{Layout, Plane};
use packdet::{Config, FrameSize, HeadConfig, PackDetNet, Packing, Preset};
use serde::Serialize;
use zoo_kernels::{Activation, on_pool, pack_maps};
use zoo_layers::{ConvNormAct, ConvSpec, GroupNorm};
use zoo_metrics::latency::{Distribution, Timings};
use zoo_parity::seeded;

use super::{NAME, usage};
use crate::commands::bench::{self, BenchArgs};
use crate::host::{Host, peak_memory, restart_peak_memory};
use crate::models::random_weights;
use crate::progress::Progress;
use crate::table::{Table, number};

/// Table 1's images, as the net sees them filled up (600×1000, 800×1333), and channels of the long head.
const TABLE_1: [(FrameSize, usize); 3] =
    [(FrameSize::new(608, 1024), 128), (FrameSize::new(800, 1344), 64), (FrameSize::new(608, 1024), 64)];
/// Table 2's nets, of those that fit the time: FCOS and PackDet on two backbones.
const TABLE_2: [Preset; 4] = [Preset::FcosMnv2, Preset::Mnv2M4, Preset::FcosR50, Preset::R50M4];

/// Of one preset its pass, with `--layers` layer by layer; of all Table 1's rows and Table 2's question.
pub fn bench(preset: Option<Preset>, args: &BenchArgs) -> Result<()> {
    let device = args.compute.start()?;
    match preset {
        None if !args.layers && args.size.is_none() => tables(args, &device),
        _ => pass(preset.unwrap_or_default(), args, &device),
    }
}

/// A net with random weights, prepared: times and memory do not depend on them.
fn built(config: &Config, device: &Device) -> Result<PackDetNet> {
    let mut net = PackDetNet::new(config, random_weights(0, device))?;
    net.prepare()?;
    Ok(net)
}

fn input(size: FrameSize, device: &Device) -> Result<Tensor> {
    let shape = [1, 3, size.height, size.width];
    Ok(Tensor::from_vec(seeded::input("xs", &shape)?, &shape, device)?)
}

fn pass(preset: Preset, args: &BenchArgs, device: &Device) -> Result<()> {
    let size = args.size.unwrap_or(preset.size());
    let config = preset.config();
    config.check_input(size).map_err(usage)?;
    let net = built(&config, device)?;
    let tally = net.tally(size).map_err(usage)?;
    let xs = input(size, device)?;
    bench::net(&format!("{NAME}/{}", preset.name()), size, &tally, args, || {
        on_pool(|| net.forward(&xs))?;
        Ok(device.synchronize()?)
    })
}

/// A pair of rows of Table 1.
#[derive(Serialize)]
struct Pair {
    input: FrameSize,
    channels: usize,
    packed_ms: Distribution,
    separate_ms: Distribution,
    /// The packed median over the other.
    ratio: f64,
}

/// A cell of Table 2.
#[derive(Serialize)]
struct Memory {
    net: String,
    peak_mib: Option<f64>,
}

#[derive(Serialize)]
struct Report {
    host: Host,
    runs: usize,
    warm_up: usize,
    table_1: Vec<Pair>,
    table_2: Vec<Memory>,
}

fn tables(args: &BenchArgs, device: &Device) -> Result<()> {
    let memory = |preset: Preset| -> Result<Memory> {
        let net = format!("{NAME}/{}", preset.name());
        let model = built(&preset.config(), device)?;
        let xs = input(preset.size(), device)?;
        // What a first pass leaves behind is not this net's need.
        on_pool(|| model.forward(&xs))?;
        zoo_kernels::release_freed_memory();
        let restarted = restart_peak_memory();
        on_pool(|| model.forward(&xs))?;
        Ok(Memory { net, peak_mib: peak_memory().filter(|_| restarted) })
    };
    let progress = Progress::new(Some(TABLE_2.len() + TABLE_1.len()), NAME);
    let mut table_2 = Vec::new();
    for preset in TABLE_2 {
        table_2.push(memory(preset)?);
        progress.step();
    }
    let mut table_1 = Vec::new();
    for (size, channels) in TABLE_1 {
        table_1.push(pair(size, channels, args, device)?);
        progress.step();
    }
    drop(progress);
    let report = Report { host: Host::current(), runs: args.runs, warm_up: args.warmup, table_1, table_2 };
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&report)?)?;
        return Ok(());
    }
    let Report { host, runs, warm_up, table_1, table_2 } = &report;
    let mut times =
        Table::new(["input", "channels", "packed ms", "p90", "map by map ms", "p90", "packed / map by map"]);
    for Pair { input, channels, packed_ms, separate_ms, ratio } in table_1 {
        times.row([
            input.to_string(),
            channels.to_string(),
            number(Some(packed_ms.median), 1),
            number(Some(packed_ms.p90), 1),
            number(Some(separate_ms.median), 1),
            number(Some(separate_ms.p90), 1),
            number(Some(*ratio), 3),
        ]);
    }
    let mut memory = Table::new(["net at 800×1344", "peak MiB"]);
    for Memory { net, peak_mib } in table_2 {
        memory.row([net.clone(), number(*peak_mib, 0)]);
    }
    writeln!(
        out,
        "Table 1, ResNet-50, medians of whole passes, in turn:\n{times}\n\nTable 2, one image, weights included:\n{memory}\n\nrandom weights; n = {runs} after {warm_up} warm-up; {host}"
    )?;
    Ok(())
}

/// One net, packed and map by map, in turn.
fn pair(size: FrameSize, channels: usize, args: &BenchArgs, device: &Device) -> Result<Pair> {
    let net = |packing: Packing| -> Result<PackDetNet> {
        let mut config = Preset::R50M4.config();
        if let HeadConfig::PackDet { long, .. } = &mut config.head {
            (long.packing, long.channels) = (packing, channels);
        }
        built(&config, device)
    };
    let nets = [net(Packing::Packed)?, net(Packing::Separate)?];
    let xs = input(size, device)?;
    let mut timings = [(); 2].map(|()| Timings::new(args.warmup));
    for _ in 0..args.warmup + args.runs {
        for (net, timings) in nets.iter().zip(&mut timings) {
            let started = Instant::now();
            on_pool(|| net.forward(&xs))?;
            device.synchronize()?;
            timings.push(started.elapsed());
        }
    }
    let [packed_ms, separate_ms] = timings.map(|timings| timings.distribution());
    let (packed_ms, separate_ms) = packed_ms.zip(separate_ms).context("no run was timed")?;
    let ratio = packed_ms.median / separate_ms.median;
    Ok(Pair { input: size, channels, packed_ms, separate_ms, ratio })
}

/// Sides of the supplement's maps at scale 1, images of a batch, groups of a norm.
const SIDES: [usize; 5] = [100, 50, 25, 13, 7];
const BATCH: usize = 2;
const GROUPS: usize = 32;

/// A point of Figures 1 to 3 of the supplement.
#[derive(Debug, Clone, Copy, Serialize)]
struct Point {
    layers: usize,
    channels: usize,
    /// Of the maps' sides.
    scale: f64,
}

#[derive(Serialize)]
struct PointTimes {
    #[serde(flatten)]
    point: Point,
    pack_ms: f64,
    pack_without_packop_ms: f64,
    for_loop_ms: f64,
    /// pack over for loop.
    ratio: f64,
    /// Cells of the plane over those of the maps.
    cells: f64,
}

/// `zoo bench op packop`: a stack of convolutions on the packed plane and map by map, over its length, its width and the
/// maps' size.
pub fn packop(args: &BenchArgs) -> Result<()> {
    let device = args.compute.start()?;
    let usual = Point { layers: 10, channels: 128, scale: 1.0 };
    let by_layers = [4, 7, 10, 13, 16, 19].map(|layers| Point { layers, ..usual });
    let by_channels = [32, 64, 128, 256, 512].map(|channels| Point { channels, ..usual });
    let by_scale = [2.0, 1.8, 1.6, 1.4, 1.2, 1.0, 0.8, 0.6, 0.4].map(|scale| Point { scale, ..usual });
    let points: Vec<Point> = by_layers.into_iter().chain(by_channels).chain(by_scale).collect();
    let progress = Progress::new(Some(points.len()), "packop");
    let mut rows = Vec::new();
    for point in points {
        rows.push(time_point(point, args, &device)?);
        progress.step();
    }
    drop(progress);
    let mut out = stdout().lock();
    let host = Host::current();
    if args.json {
        let report =
            serde_json::json!({ "host": host, "runs": args.runs, "warm_up": args.warmup, "rows": rows });
        writeln!(out, "{report:#}")?;
        return Ok(());
    }
    let mut table = Table::new([
        "T",
        "C",
        "scale",
        "pack ms",
        "without PackOp ms",
        "for loop ms",
        "pack / for loop",
        "cells",
    ]);
    for PointTimes { point, pack_ms, pack_without_packop_ms, for_loop_ms, ratio, cells } in &rows {
        table.row([
            point.layers.to_string(),
            point.channels.to_string(),
            number(Some(point.scale), 1),
            number(Some(*pack_ms), 2),
            number(Some(*pack_without_packop_ms), 2),
            number(Some(*for_loop_ms), 2),
            number(Some(*ratio), 3),
            number(Some(*cells), 4),
        ]);
    }
    let (runs, warm_up) = (args.runs, args.warmup);
    writeln!(
        out,
        "{table}\n{BATCH} images, T × (convolution 3×3, group norm, ReLU) of C channels, layout type-2; medians of n = {runs} \
         after {warm_up} warm-up, in turn; cells: the plane's over the eight maps'\n{host}"
    )?;
    Ok(())
}

/// T × (convolution, group norm, ReLU).
struct Stack(Vec<(ConvNormAct, GroupNorm)>);

impl Stack {
    fn new(point: Point, device: &Device) -> candle_core::Result<Self> {
        let vb = random_weights(0, device);
        let layer = |i: usize| {
            let vb = vb.pp(i);
            let spec = ConvSpec::dense(point.channels, point.channels, 3, 1, 0.0, Activation::None);
            let mut conv = ConvNormAct::biased(spec, vb.pp("conv"))?;
            let mut norm = GroupNorm::new(GROUPS, point.channels, 1e-5, Activation::Relu, vb.pp("gn"))?;
            conv.prepare()?;
            norm.prepare();
            Ok((conv, norm))
        };
        (0..point.layers).map(layer).collect::<candle_core::Result<_>>().map(Self)
    }

    fn forward(&self, xs: &Tensor) -> candle_core::Result<Tensor> {
        self.0.iter().try_fold(xs.clone(), |xs, (conv, norm)| norm.forward(&conv.forward(&xs)?, None))
    }
}

fn time_point(point: Point, args: &BenchArgs, device: &Device) -> Result<PointTimes> {
    let sizes = SIDES.map(|side| (side as f64 * point.scale) as usize).map(|side| FrameSize::new(side, side));
    let Plane { size, boxes } = Layout::Type2.place(sizes).map_err(usage)?;
    let maps = Layout::Type2.levels().iter().enumerate().map(|(i, &level)| {
        let FrameSize { height, width } = sizes[level];
        let shape = [BATCH, point.channels, height, width];
        Ok(Tensor::from_vec(seeded::input(&format!("map{i}"), &shape)?, &shape, device)?)
    });
    let maps = maps.collect::<Result<Vec<Tensor>>>()?;
    let each: Vec<&Tensor> = maps.iter().collect();
    let plane = (size.height, size.width);
    let ready = pack_maps(&each, &boxes, plane)?;
    let stack = Stack::new(point, device)?;
    let mut timings = [(); 3].map(|()| Timings::new(args.warmup));
    for _ in 0..args.warmup + args.runs {
        let spent: [Duration; 3] = [
            timed(device, || stack.forward(&pack_maps(&each, &boxes, plane)?).map(drop))?,
            timed(device, || stack.forward(&ready).map(drop))?,
            timed(device, || maps.iter().try_for_each(|map| stack.forward(map).map(drop)))?,
        ];
        timings.iter_mut().zip(spent).for_each(|(timings, spent)| timings.push(spent));
    }
    let mut medians = [0.0; 3];
    for (median, timings) in medians.iter_mut().zip(&timings) {
        *median = timings.distribution().context("no run was timed")?.median;
    }
    let [pack_ms, pack_without_packop_ms, for_loop_ms] = medians;
    let cells: usize = boxes.iter().map(|map| map.width * map.height).sum();
    Ok(PointTimes {
        point,
        pack_ms,
        pack_without_packop_ms,
        for_loop_ms,
        ratio: pack_ms / for_loop_ms,
        cells: size.area() as f64 / cells as f64,
    })
}

fn timed(device: &Device, work: impl FnOnce() -> candle_core::Result<()> + Send) -> Result<Duration> {
    let started = Instant::now();
    on_pool(work)?;
    device.synchronize()?;
    Ok(started.elapsed())
}
