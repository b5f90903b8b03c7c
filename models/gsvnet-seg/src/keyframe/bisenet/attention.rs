use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, concat_channels, gate, gate_add, global_avg_pool2d};
use zoo_layers::{ConvNormAct, ConvSpec, Statistics};

use super::{FEATURES, FUSED, conv_norm_relu, relu1, relu3};
use crate::config::BN_EPS;

/// The means of a map that gates are made of.
const MEANS: FrameSize = FrameSize { height: 1, width: 1 };

/// Attention refinement module (Section 3.2 of BiSeNet's paper): a convolution, whose channels are times gates made of
/// their means.
#[derive(Debug, Clone)]
pub struct Refinement {
    conv: ConvNormAct,
    gates: ConvNormAct,
}

impl Refinement {
    /// For a map of `channels`; `vb` holds `conv_3x3` and `channel_attention`.
    pub(super) fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let gates = ConvSpec::pointwise(FEATURES, FEATURES, BN_EPS, Activation::None);
        Ok(Self {
            conv: conv_norm_relu(relu3(channels, FEATURES), vb.pp("conv_3x3"))?,
            gates: conv_norm_relu(gates, vb.pp("channel_attention").pp(1))?,
        })
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.conv.prepare()?;
        self.gates.prepare()
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.conv.set_statistics(statistics);
        self.gates.set_statistics(statistics);
    }

    /// The convolution and its gates.
    fn gates(&self, xs: &Tensor) -> Result<(Tensor, Tensor)> {
        let ys = self.conv.forward(xs)?;
        let gates = sigmoid(&self.gates.forward(&global_avg_pool2d(&ys)?)?)?;
        Ok((ys, gates))
    }

    /// `xs`: `[B, C, h, w]`. Result: `[B, 128, h, w]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (ys, gates) = self.gates(xs)?;
        gate(&ys, &gates)
    }

    /// [`Refinement::forward`] plus `addend`, in one pass.
    ///
    /// # Errors
    /// As there, and if the addend is not shaped like the result.
    pub fn forward_add(&self, xs: &Tensor, addend: &Tensor) -> Result<Tensor> {
        let (ys, gates) = self.gates(xs)?;
        gate_add(&ys, &gates, addend)
    }

    pub(super) fn cost(&self, size: FrameSize, tally: &mut Tally) {
        self.conv.cost(size, tally);
        self.gates.cost(MEANS, tally);
    }
}

/// Feature fusion module (Section 3.2 of BiSeNet's paper): both paths' maps through a convolution, of whose channels
/// gates add some once more.
#[derive(Debug, Clone)]
pub struct Fusion {
    conv: ConvNormAct,
    /// From the channels' means to what the gates are the sigmoid of.
    gates: [ConvNormAct; 2],
}

impl Fusion {
    /// `vb` holds `conv_1x1` and `channel_attention`.
    pub(super) fn new(vb: VarBuilder) -> Result<Self> {
        let gates = |i: usize, act| {
            let spec = ConvSpec::pointwise(FUSED, FUSED, 0.0, act);
            ConvNormAct::bare(spec, vb.pp("channel_attention").pp(i).pp("conv"))
        };
        Ok(Self {
            conv: conv_norm_relu(relu1(FUSED, FUSED), vb.pp("conv_1x1"))?,
            gates: [gates(1, Activation::Relu)?, gates(2, Activation::None)?],
        })
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.conv.prepare()?;
        self.gates.iter_mut().try_for_each(ConvNormAct::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.conv.set_statistics(statistics);
    }

    /// `spatial`, `context`: `[B, 128, h, w]`. Result: `[B, 256, h, w]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, spatial: &Tensor, context: &Tensor) -> Result<Tensor> {
        let ys = self.conv.forward(&concat_channels(&[spatial, context])?)?;
        let means = global_avg_pool2d(&ys)?;
        let gates = self.gates.iter().try_fold(means, |xs, layer| layer.forward(&xs))?;
        // y + y · g
        gate(&ys, &(sigmoid(&gates)? + 1.0)?)
    }

    pub(super) fn cost(&self, size: FrameSize, tally: &mut Tally) {
        self.conv.cost(size, tally);
        self.gates.iter().for_each(|layer| {
            layer.cost(MEANS, tally);
        });
    }
}
