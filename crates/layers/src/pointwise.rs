use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, PackedConv};

use crate::{ConvNormAct, ConvSpec};

/// A 1×1 convolution with a bias.
#[derive(Debug, Clone)]
pub struct Pointwise(ConvNormAct);

impl Pointwise {
    /// `vb` holds `weight` (`[out, in, 1, 1]`) and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(in_channels: usize, out_channels: usize, vb: VarBuilder) -> Result<Self> {
        Self::activated(in_channels, out_channels, Activation::None, vb)
    }

    /// The same with an activation after it.
    ///
    /// # Errors
    /// As [`Pointwise::new`].
    pub fn activated(
        in_channels: usize,
        out_channels: usize,
        act: Activation,
        vb: VarBuilder,
    ) -> Result<Self> {
        // There is no norm, hence nothing for an epsilon to do.
        ConvNormAct::biased(ConvSpec::pointwise(in_channels, out_channels, 0.0, act), vb).map(Self)
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.0.prepare()
    }

    /// The packed weights, once they are.
    pub(crate) fn packed(&self) -> Option<&PackedConv> {
        self.0.packed_dense()
    }

    /// `xs`: `[B, C, H, W]`. Result: `[B, C', H, W]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.0.forward(xs)
    }

    /// Counts this layer for an input of `input`, which is also its output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        self.0.cost(input, tally)
    }
}
