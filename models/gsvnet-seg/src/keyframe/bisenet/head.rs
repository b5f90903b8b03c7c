use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_layers::{ConvNormAct, Pointwise, Statistics};

use super::{conv_norm_relu, relu3};

/// A 3×3 convolution, and a 1×1 to the classes.
#[derive(Debug, Clone)]
pub struct Head {
    conv: ConvNormAct,
    classify: Pointwise,
}

impl Head {
    /// `vb` holds `conv_3x3` and `conv_1x1`.
    pub(super) fn new(channels: usize, hidden: usize, classes: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            conv: conv_norm_relu(relu3(channels, hidden), vb.pp("conv_3x3"))?,
            classify: Pointwise::new(hidden, classes, vb.pp("conv_1x1"))?,
        })
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.conv.prepare()?;
        self.classify.prepare()
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.conv.set_statistics(statistics);
    }

    /// `xs`: `[B, C, h, w]`. Result: logits, `[B, classes, h, w]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.classify.forward(&self.conv.forward(xs)?)
    }

    pub(super) fn cost(&self, size: FrameSize, tally: &mut Tally) {
        let size = self.conv.cost(size, tally);
        self.classify.cost(size, tally);
    }
}
