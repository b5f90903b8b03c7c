//! What windows with memories owe to whole frames: four properties of the chain of cells, on a small net with
//! random weights. The table that is printed says what E1 to E4 are; the crate's tests have the same names.

use std::io::{Write, stdout};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use patchwork_det::detector::RawDetections;
use patchwork_det::{DetectorConfig, DetectorNet, Grid, Memories, Window, WindowedNet};
use zoo_core::FrameSize;
use zoo_parity::seeded;

use super::usage;
use crate::exit::Outcome;
use crate::models::random_weights;
use crate::table::Table;

const FRAME: FrameSize = FrameSize::new(128, 128);
/// Relative errors below this are rounding: kernels of other shapes round differently.
const EQUAL: f64 = 1e-4;
/// Behind d cells, a map is right after d + 1 sweeps in any order, 20 for the last one; raster order
/// needs no more than these, since the cells of stride 2 look only at windows already done.
const RASTER_SWEEPS: usize = 15;

/// Runs all four and prints what came out.
pub fn run() -> Result<Outcome> {
    let net = net()?;
    let errors = sweeps(&net)?;
    let settled = errors.last().copied();
    let checks = [
        (
            "E1",
            "a window as large as the frame gives what the single-frame net gives, whatever came before",
            e1(&net)?,
            0.0,
        ),
        (
            "E2",
            "with empty memories, a window gives what the single-frame net gives for that part alone",
            e2(&net)?,
            0.0,
        ),
        (
            "E3",
            "where nothing moves, sweeps of windows end at what the single-frame net gives",
            settled.context("no sweep was run")?,
            EQUAL,
        ),
        (
            "E4",
            "where nothing moves, each window after a whole frame gives what the single-frame net gives",
            e4(&net)?,
            EQUAL,
        ),
    ];
    let mut table = Table::new(["", "property", "error", "allowed", "verdict"]).with_text_columns(2);
    for (name, property, error, allowed) in checks {
        let verdict = if error <= allowed { "ok" } else { "FAIL" };
        table.row(
            [name, property, &format!("{error:.1e}"), &format!("{allowed:.0e}"), verdict].map(str::to_owned),
        );
    }
    let mut sweep_table = Table::new(["sweep", "relative error of the logits"]);
    for (sweep, error) in (1..).zip(&errors) {
        sweep_table.row([sweep.to_string(), format!("{error:.1e}")]);
    }
    let mut out = stdout().lock();
    writeln!(
        out,
        "Windows against whole frames: a small detector with random weights, frames of {FRAME:#}\n\n{table}\n\n\
         error: |window − single frame| / |single frame|, of the predictions (E2: of the backbone's maps); 1e-4 is \
         rounding\n\nE3, sweep by sweep, M=2 N=1 in raster order:\n{sweep_table}"
    )?;
    let holding = checks.iter().filter(|(_, _, error, allowed)| error <= allowed).count();
    writeln!(out, "\n{holding} of {} properties hold", checks.len())?;
    Ok(if holding == checks.len() { Outcome::Success } else { Outcome::Failed })
}

fn net() -> Result<DetectorNet> {
    let mut cfg = DetectorConfig { frame: FRAME, ..DetectorConfig::vid(0.5) };
    cfg.backbone.divisor = 8;
    Ok(DetectorNet::new(&cfg, random_weights(0, &Device::Cpu))?)
}

fn noise(name: &str) -> Result<Tensor> {
    let shape = [1, 3, FRAME.height, FRAME.width];
    Ok(Tensor::from_vec(seeded::input(name, &shape)?, &shape[..], &Device::Cpu)?)
}

fn crop(frame: &Tensor, window: Window) -> Result<Tensor> {
    let rows = frame.narrow(2, window.top, window.height)?;
    Ok(rows.narrow(3, window.left, window.width)?.contiguous()?)
}

fn e1(net: &DetectorNet) -> Result<f64> {
    let mut memories = Memories::new();
    let corner = grid(2, 1)?.window(3, FRAME).map_err(usage)?;
    net.step(&crop(&noise("past")?, corner)?, FRAME, corner, &mut memories, false)?;
    let frame = noise("frame")?;
    let step = net.step(&frame, FRAME, Window::full(FRAME), &mut memories, false)?;
    difference(&step, &net.single_frame(&frame)?)
}

/// The windowed maps only: the backbone, of which C4 and C5 are the ends.
fn e2(net: &DetectorNet) -> Result<f64> {
    let frame = noise("frame")?;
    let mut worst = 0.0f64;
    for action in 0..grid(2, 1)?.actions() {
        let window = grid(2, 1)?.window(action, FRAME).map_err(usage)?;
        let xs = crop(&frame, window)?;
        let mut stepped = Vec::new();
        let mut memories = Memories::new();
        net.forward(&xs, &mut memories.at(FRAME, window), false, &mut |name, map| {
            stepped.push((name.to_owned(), map.copy()?));
            Ok(())
        })?;
        let mut alone = Vec::new();
        net.forward(&xs, &mut zoo_layers::ZeroBorder, false, &mut |name, map| {
            alone.push((name.to_owned(), map.copy()?));
            Ok(())
        })?;
        for ((name, a), (_, b)) in stepped.iter().zip(&alone) {
            if name.starts_with('f') || name == "c4" {
                worst = worst.max(relative(a, b)?);
            }
        }
    }
    Ok(worst)
}

/// Relative error against the single frame after each sweep of a static video.
fn sweeps(net: &DetectorNet) -> Result<Vec<f64>> {
    let frame = noise("frame")?;
    let single = net.single_frame(&frame)?;
    let grid = grid(2, 1)?;
    let mut memories = Memories::new();
    (0..RASTER_SWEEPS)
        .map(|_| {
            let mut last = None;
            for action in 0..grid.actions() {
                let window = grid.window(action, FRAME).map_err(usage)?;
                last = Some(net.step(&crop(&frame, window)?, FRAME, window, &mut memories, false)?);
            }
            relative(&last.context("a grid without windows")?.logits, &single.logits)
        })
        .collect()
}

fn e4(net: &DetectorNet) -> Result<f64> {
    let frame = noise("frame")?;
    let single = net.single_frame(&frame)?;
    let mut memories = Memories::new();
    net.step(&frame, FRAME, Window::full(FRAME), &mut memories, false)?;
    let mut worst = 0.0f64;
    for (m, n) in [(2, 1), (4, 2), (4, 1)] {
        let grid = grid(m, n)?;
        for action in 0..grid.actions() {
            let window = grid.window(action, FRAME).map_err(usage)?;
            let step = net.step(&crop(&frame, window)?, FRAME, window, &mut memories, false)?;
            worst = worst.max(difference(&step, &single)?);
        }
    }
    Ok(worst)
}

fn grid(m: usize, n: usize) -> Result<Grid> {
    Grid::new(m, n).map_err(usage)
}

fn difference(a: &RawDetections, b: &RawDetections) -> Result<f64> {
    Ok(relative(&a.logits, &b.logits)?.max(relative(&a.boxes, &b.boxes)?))
}

/// ‖a − b‖ / ‖b‖ in f64.
fn relative(a: &Tensor, b: &Tensor) -> Result<f64> {
    let (a, b) = (a.to_dtype(DType::F64)?, b.to_dtype(DType::F64)?);
    let norm = |t: &Tensor| t.sqr()?.sum_all()?.to_scalar::<f64>().map(f64::sqrt);
    Ok(norm(&(&a - &b)?)? / norm(&b)?)
}
