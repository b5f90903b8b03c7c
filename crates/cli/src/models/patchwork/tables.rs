//! The cost columns of Tables 4 and 5: the paper's beside ours.

use std::io::Write;

use anyhow::Result;
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use patchwork_det::flops::{StepCost, StepFlops};
use patchwork_det::{
    DetectorConfig, DetectorNet, FrameSize, Grid, Mode, PolicyKind, SegmenterConfig, SegmenterNet, Start,
};

use super::usage;
use crate::table::{Table, number};

/// A row: its mode, the net's depth, the share of the area, and the paper's MFLOPs (max, avg).
struct Row {
    name: &'static str,
    mode: Mode,
    depth: f64,
    resolution: f64,
    max: Option<f64>,
    avg: Option<f64>,
}

fn row(name: &'static str, mode: Mode, max: Option<f64>, avg: Option<f64>) -> Row {
    Row { name, mode, depth: 1.0, resolution: 1.0, max, avg }
}

fn interval(every: usize, delay: usize) -> Mode {
    Mode::Interval { every, delay }
}

fn learned(m: usize, n: usize, flip: bool) -> Result<Mode> {
    let grid = Grid::new(m, n).map_err(usage)?;
    Ok(Mode::Windows { grid, policy: PolicyKind::Learned, start: Start::Zeros, flip })
}

/// Table 4, ImageNet VID.
fn vid() -> Result<Vec<Row>> {
    let same = |value| (Some(value), Some(value));
    let (sf, deep, small) = (same(2047.0), same(602.0), same(512.0));
    let deeper = |row: Row| Row { depth: 1.4, ..row };
    Ok(vec![
        row("SF", Mode::SingleFrame, sf.0, sf.1),
        row("SF interval=4", interval(4, 0), Some(2047.0), Some(512.0)),
        row("SF interval=16", interval(16, 0), Some(2047.0), Some(128.0)),
        Row { depth: 0.5, ..row("SF depth=0.5", Mode::SingleFrame, deep.0, deep.1) },
        Row { resolution: 0.25, ..row("SF resolution=0.25", Mode::SingleFrame, small.0, small.1) },
        row("SF interval=4 delay=3 *", interval(4, 3), Some(512.0), Some(128.0)),
        row("SF interval=16 delay=15 *", interval(16, 15), Some(128.0), Some(8.0)),
        row("Patchwork M=4 N=2", learned(4, 2, false)?, Some(543.0), Some(543.0)),
        row("Patchwork M=4 N=1", learned(4, 1, false)?, Some(162.0), Some(162.0)),
        row("Patchwork M=2 N=1", learned(2, 1, false)?, None, None),
        deeper(row("Patchwork M=4 N=2 depth=1.4", learned(4, 2, false)?, Some(973.0), Some(973.0))),
        deeper(row("Patchwork M=4 N=2 depth=1.4 flip", learned(4, 2, true)?, Some(1945.0), Some(1945.0))),
    ])
}

/// Table 5, DAVIS.
fn davis() -> Result<Vec<Row>> {
    Ok(vec![
        row("SF", Mode::SingleFrame, Some(3307.0), Some(3307.0)),
        Row { depth: 0.5, ..row("SF depth=0.5", Mode::SingleFrame, Some(1240.0), Some(1240.0)) },
        Row { resolution: 0.25, ..row("SF resolution=0.25", Mode::SingleFrame, Some(827.0), Some(827.0)) },
        row("SF interval=4 delay=3 *", interval(4, 3), Some(827.0), Some(207.0)),
        row("SF interval=16 delay=15 *", interval(16, 15), Some(207.0), Some(52.0)),
        row("Patchwork M=4 N=2", learned(4, 2, false)?, Some(841.0), Some(841.0)),
        row("Patchwork M=4 N=1", learned(4, 1, false)?, Some(221.0), Some(221.0)),
    ])
}

/// Both tables with the notes that they need.
pub fn print(out: &mut dyn Write) -> Result<()> {
    let zeros = || VarBuilder::zeros(DType::F32, &Device::Cpu);
    // A net for each row: the attention network's size follows from the grid.
    let attention = |mode: &Mode| match mode {
        Mode::Windows { grid, .. } => Some(*grid),
        _ => None,
    };
    let detector = |row: &Row| -> Result<StepFlops> {
        let cfg = DetectorConfig { attention: attention(&row.mode), ..DetectorConfig::vid(row.depth) }
            .with_resolution(row.resolution);
        count(&DetectorNet::new(&cfg, zeros())?, cfg.frame, &row.mode)
    };
    let segmenter = |row: &Row| -> Result<StepFlops> {
        let cfg = SegmenterConfig { attention: attention(&row.mode), ..SegmenterConfig::davis(row.depth) }
            .with_resolution(row.resolution);
        count(&SegmenterNet::new(&cfg, zeros())?, cfg.frame, &row.mode)
    };
    writeln!(out, "\nTable 4 (ImageNet VID), MFLOPs a frame at 384×384:\n{}", table(&vid()?, detector)?)?;
    writeln!(out, "\nTable 5 (DAVIS), MFLOPs a frame at 384×384:\n{}", table(&davis()?, segmenter)?)?;
    writeln!(
        out,
        "\nPaper: Chai, Patchwork, ICCV 2019, Tables 4 and 5. MFLOPs: 2 MAC + 1 a bias add + 1 a residual add, batch \
         norm folded.\nThe segmenter's width (232) and the attention network's (64) are ours, chosen to meet these \
         columns.\n* The work of a key frame, spread evenly over K frames, averages SF/K, which is what we report; the \
         paper's averages are smaller."
    )?;
    Ok(())
}

fn count(net: &impl StepCost, frame: FrameSize, mode: &Mode) -> Result<StepFlops> {
    net.mflops(frame, mode).map_err(usage)
}

fn table(rows: &[Row], ours: impl Fn(&Row) -> Result<StepFlops>) -> Result<Table> {
    let mut table = Table::new(["row", "paper max", "ours max", "paper avg", "ours avg", "max, ours/paper"]);
    for row in rows {
        let flops = ours(row)?;
        let ratio = row.max.map(|max| format!("{:+.1} %", 100.0 * (flops.max / max - 1.0)));
        table.row([
            row.name.to_owned(),
            number(row.max, 0),
            number(Some(flops.max), 2),
            number(row.avg, 0),
            number(Some(flops.avg), 2),
            ratio.unwrap_or_else(|| "–".to_owned()),
        ]);
    }
    Ok(table)
}
