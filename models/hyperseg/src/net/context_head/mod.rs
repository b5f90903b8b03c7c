//! The context head h: a small U-Net around the signal (Section 3.2), in the two forms of the authors'
//! code, or the global mean that Table S2's 1×1 grid has instead.

mod full_width;
mod nested;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, adaptive_avg_pool2d, global_avg_pool2d};
use zoo_layers::{ConvNormAct, ConvSpec, Padding, Statistics};

pub use full_width::FullWidthHead;
pub use nested::NestedHead;

use crate::config::{Config, Version};

/// Batch norm's epsilon, here and in the decoder.
pub(crate) const EPS: f64 = 1e-5;

/// What makes the signal s of the backbone's last map E.
#[derive(Debug, Clone)]
pub struct ContextHead {
    kind: Kind,
    /// Table S2's grid, where it is not the signal's own.
    grid: Option<usize>,
}

#[derive(Debug, Clone)]
enum Kind {
    Nested(Box<NestedHead>),
    FullWidth(FullWidthHead),
    Mean,
}

impl ContextHead {
    /// For signals of `channels`; `vb` holds the tensors of `weight_mapper`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &Config, channels: usize, vb: VarBuilder) -> Result<Self> {
        let kind = match cfg.version {
            _ if !cfg.has_head() => Kind::Mean,
            Version::V0_1 => Kind::FullWidth(FullWidthHead::new(channels, cfg.head_levels, vb)?),
            Version::V0_2 | Version::V1_0 | Version::V1_0Unify => {
                Kind::Nested(NestedHead::new(channels, cfg.head_levels, vb)?.into())
            }
        };
        Ok(Self { kind, grid: cfg.signal_grid.filter(|&grid| grid > 1) })
    }

    /// Folds batch norm and packs the weights. Inference only. If nothing but the first half of the
    /// signal is ever read (`only_first_half`), the rest is not computed any more.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self, only_first_half: bool) -> Result<()> {
        match &mut self.kind {
            Kind::Nested(head) => head.prepare(only_first_half),
            Kind::FullWidth(head) => head.prepare(),
            Kind::Mean => Ok(()),
        }
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        match &mut self.kind {
            Kind::Nested(head) => head.set_statistics(statistics),
            Kind::FullWidth(head) => head.set_statistics(statistics),
            Kind::Mean => {}
        }
    }

    /// E, `[B, C, h, w]`, → s, `[B, C, h, w]`, or of the grid's size; of C / 2 channels where the rest is
    /// not computed.
    ///
    /// # Errors
    /// If h or w cannot be halved as often as the head does, or cut into the grid.
    pub fn forward(&self, last: &Tensor) -> Result<Tensor> {
        let signal = match &self.kind {
            Kind::Nested(head) => head.forward(last)?,
            Kind::FullWidth(head) => head.forward(last)?,
            Kind::Mean => global_avg_pool2d(last)?,
        };
        match self.grid {
            Some(grid) => adaptive_avg_pool2d(&signal, (grid, grid)),
            None => Ok(signal),
        }
    }

    /// The signal's size for a last map of `size`.
    pub fn grid(&self, size: FrameSize) -> FrameSize {
        match (&self.kind, self.grid) {
            (Kind::Mean, _) => FrameSize::new(1, 1),
            (_, Some(grid)) => FrameSize::new(grid, grid),
            (_, None) => size,
        }
    }

    /// Counts every layer for a last map of `size`.
    pub fn cost(&self, size: FrameSize, tally: &mut Tally) {
        match &self.kind {
            Kind::Nested(head) => head.cost(size, tally),
            Kind::FullWidth(head) => head.cost(size, tally),
            Kind::Mean => {}
        }
    }
}

/// 2×2 at stride 2, through ReLU; `vb` holds the convolution as `0` and the norm as `1`.
fn halving(channels: usize, vb: VarBuilder) -> Result<ConvNormAct> {
    let none = Padding::Fixed { before: 0, after: 0 };
    let spec = ConvSpec::dense(channels, channels, 2, 2, EPS, Activation::Relu).padded(none);
    ConvNormAct::new(spec, vb.pp(0), vb.pp(1))
}

/// 1×1; `vb` as in [`halving`].
fn pointwise(inputs: usize, outputs: usize, act: Activation, vb: VarBuilder) -> Result<ConvNormAct> {
    ConvNormAct::new(ConvSpec::pointwise(inputs, outputs, EPS, act), vb.pp(0), vb.pp(1))
}

/// The spatial mean, `[B, C, 1, 1]`, everywhere.
fn mean_everywhere(xs: &Tensor) -> Result<Tensor> {
    let (_, _, h, w) = xs.dims4()?;
    repeated(&global_avg_pool2d(xs)?, h, w)
}

/// Each pixel `rows` × `columns` times.
fn repeated(xs: &Tensor, rows: usize, columns: usize) -> Result<Tensor> {
    let (_, _, h, w) = xs.dims4()?;
    zoo_kernels::resize2d(xs, (h * rows, w * columns), zoo_kernels::Interpolation::Nearest)
}
