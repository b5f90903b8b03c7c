//! Squeeze-and-excitation: Hu et al., "Squeeze-and-Excitation Networks", CVPR 2018.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use candle_nn::ops::sigmoid;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, PackedConv, gate, global_avg_pool2d};

use crate::Pointwise;

/// Each channel times a gate in (0, 1): the map's means → 1×1 → activation → 1×1 → sigmoid.
#[derive(Debug, Clone)]
pub struct SqueezeExcite {
    reduce: Pointwise,
    expand: Pointwise,
}

impl SqueezeExcite {
    /// From `channels` to `squeezed` means and back. `reduce` and `expand` each hold a `weight`
    /// (`[out, in, 1, 1]`) and a `bias`; `act` stands between the two.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(
        channels: usize,
        squeezed: usize,
        act: Activation,
        reduce: VarBuilder,
        expand: VarBuilder,
    ) -> Result<Self> {
        Ok(Self {
            reduce: Pointwise::activated(channels, squeezed, act, reduce)?,
            expand: Pointwise::new(squeezed, channels, expand)?,
        })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.reduce.prepare()?;
        self.expand.prepare()
    }

    /// The packed weights of both convolutions, once they are.
    pub(crate) fn packed(&self) -> Option<(&PackedConv, &PackedConv)> {
        Some((self.reduce.packed()?, self.expand.packed()?))
    }

    /// `xs`: `[B, C, H, W]`. Result: the same shape.
    ///
    /// # Errors
    /// If the channels do not fit, or the map is empty.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let means = global_avg_pool2d(xs)?;
        let gates = sigmoid(&self.expand.forward(&self.reduce.forward(&means)?)?)?;
        gate(xs, &gates)
    }

    /// Counts both convolutions.
    pub fn cost(&self, tally: &mut Tally) {
        let means = FrameSize::new(1, 1);
        self.expand.cost(self.reduce.cost(means, tally), tally);
    }
}
