//! The cost columns of the supplement's Tables 4 and 5: what the paper prints, beside the MFLOPs of the
//! nets that this crate builds.
//!
//! The supplement does not say how it counts. With 2 operations a multiply–accumulate, one a bias add and
//! one a residual add, Table 4's single-frame rows come out to the last printed digit. The segmenter's
//! width and the attention network's channels, which it leaves open, were chosen to meet the other rows,
//! as well as one choice can meet all of them: each is within 2 %.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde::Serialize;

use crate::config::{DetectorConfig, Mode, SegmenterConfig, Start};
use crate::error::Context;
use crate::flops::{StepCost, StepFlops};
use crate::{DetectorNet, Grid, PolicyKind, Result, SegmenterNet};

/// A method's row.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The method, as the table calls it.
    pub name: &'static str,
    /// How it runs.
    pub mode: Mode,
    /// The backbone's depth multiplier.
    pub depth: f64,
    /// Share of the 384×384 frame's area that the net sees.
    pub resolution: f64,
    /// The paper's MFLOPs. `None`: the paper describes the method and has no row for it.
    pub paper: Option<StepFlops>,
    /// The MFLOPs of the net built here.
    pub ours: StepFlops,
}

impl Row {
    /// How far our most expensive frame is from the paper's, as a share of it: 0.01 is 1 % more.
    ///
    /// The averages tell nothing more. They agree as well as these, except for the rows with a delay:
    /// a key frame's work, spread evenly over K frames, averages SF/K as it should, which is also the
    /// maximum. The paper prints a K-th of that in Table 4, and a quarter of it in Table 5.
    pub fn deviation(&self) -> Option<f64> {
        self.paper.map(|paper| self.ours.max / paper.max - 1.0)
    }
}

/// Table 4: detection on ImageNet VID.
///
/// # Errors
/// If a net cannot be built.
pub fn table4() -> Result<Vec<Row>> {
    let methods = [
        method("SF", Mode::SingleFrame).paper(2047.0, 2047.0),
        method("SF interval=4", interval(4, 0)).paper(2047.0, 512.0),
        method("SF interval=16", interval(16, 0)).paper(2047.0, 128.0),
        method("Patchwork M=4 N=2 depth=1.4 flip", patchwork(4, 2, true)?).depth(1.4).paper(1945.0, 1945.0),
        method("Patchwork M=4 N=2 depth=1.4", patchwork(4, 2, false)?).depth(1.4).paper(973.0, 973.0),
        method("SF depth=0.5", Mode::SingleFrame).depth(0.5).paper(602.0, 602.0),
        method("SF resolution=0.25", Mode::SingleFrame).resolution(0.25).paper(512.0, 512.0),
        method("SF interval=4 delay=3", interval(4, 3)).paper(512.0, 128.0),
        method("Patchwork M=4 N=2", patchwork(4, 2, false)?).paper(543.0, 543.0),
        // Table 3's caption has this one.
        method("Patchwork M=2 N=1", patchwork(2, 1, false)?),
        method("SF interval=16 delay=15", interval(16, 15)).paper(128.0, 8.0),
        method("Patchwork M=4 N=1", patchwork(4, 1, false)?).paper(162.0, 162.0),
    ];
    rows(methods, |method| {
        let cfg = DetectorConfig { attention: method.grid(), ..DetectorConfig::vid(method.depth) }
            .with_resolution(method.resolution);
        DetectorNet::new(&cfg, no_weights()).context("detector")?.mflops(cfg.frame, &method.mode)
    })
}

/// Table 5: segmentation on DAVIS 2016.
///
/// # Errors
/// If a net cannot be built.
pub fn table5() -> Result<Vec<Row>> {
    let methods = [
        method("SF", Mode::SingleFrame).paper(3307.0, 3307.0),
        method("SF interval=4", interval(4, 0)).paper(3307.0, 827.0),
        method("SF interval=16", interval(16, 0)).paper(3307.0, 207.0),
        method("SF depth=0.5", Mode::SingleFrame).depth(0.5).paper(1240.0, 1240.0),
        method("SF resolution=0.25", Mode::SingleFrame).resolution(0.25).paper(827.0, 827.0),
        method("SF interval=4 delay=3", interval(4, 3)).paper(827.0, 207.0),
        method("Patchwork M=4 N=2", patchwork(4, 2, false)?).paper(841.0, 841.0),
        method("SF interval=16 delay=15", interval(16, 15)).paper(207.0, 52.0),
        method("Patchwork M=4 N=1", patchwork(4, 1, false)?).paper(221.0, 221.0),
    ];
    rows(methods, |method| {
        let cfg = SegmenterConfig { attention: method.grid(), ..SegmenterConfig::davis(method.depth) }
            .with_resolution(method.resolution);
        SegmenterNet::new(&cfg, no_weights()).context("segmenter")?.mflops(cfg.frame, &method.mode)
    })
}

/// Adds our counts to the paper's.
fn rows(
    methods: impl IntoIterator<Item = Method>,
    count: impl Fn(&Method) -> Result<StepFlops>,
) -> Result<Vec<Row>> {
    let row = |method: Method| {
        let ours = count(&method)?;
        let Method { name, mode, depth, resolution, paper } = method;
        Ok(Row { name, mode, depth, resolution, paper, ours })
    };
    methods.into_iter().map(row).collect()
}

/// A row without our count.
struct Method {
    name: &'static str,
    mode: Mode,
    depth: f64,
    resolution: f64,
    paper: Option<StepFlops>,
}

fn method(name: &'static str, mode: Mode) -> Method {
    Method { name, mode, depth: 1.0, resolution: 1.0, paper: None }
}

fn interval(every: usize, delay: usize) -> Mode {
    Mode::Interval { every, delay }
}

/// Windows of the learned policy. Start-up from zeros, since the tables' maxima equal their averages: no
/// dearer first frame is counted.
fn patchwork(m: usize, n: usize, flip: bool) -> Result<Mode> {
    Ok(Mode::Windows { grid: Grid::new(m, n)?, policy: PolicyKind::Learned, start: Start::Zeros, flip })
}

/// Counting looks at shapes only.
fn no_weights() -> VarBuilder<'static> {
    VarBuilder::zeros(DType::F32, &Device::Cpu)
}

impl Method {
    fn depth(self, depth: f64) -> Self {
        Self { depth, ..self }
    }

    fn resolution(self, resolution: f64) -> Self {
        Self { resolution, ..self }
    }

    fn paper(self, max: f64, avg: f64) -> Self {
        Self { paper: Some(StepFlops { max, avg }), ..self }
    }

    /// The attention network's grid, on which its size depends.
    fn grid(&self) -> Option<Grid> {
        match self.mode {
            Mode::Windows { grid, .. } => Some(grid),
            _ => None,
        }
    }
}
