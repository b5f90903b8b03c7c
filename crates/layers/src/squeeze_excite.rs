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
    /// In the order in which they run.
    layers: [Pointwise; 2],
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
        let reduce = Pointwise::activated(channels, squeezed, act, reduce)?;
        Ok(Self { layers: [reduce, Pointwise::new(squeezed, channels, expand)?] })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.layers.iter_mut().try_for_each(Pointwise::prepare)
    }

    /// The packed weights of both convolutions, once they are.
    pub(crate) fn packed(&self) -> Option<[&PackedConv; 2]> {
        let [first, last] = &self.layers;
        Some([first.packed()?, last.packed()?])
    }

    /// `xs`: `[B, C, H, W]`. Result: the same shape.
    ///
    /// # Errors
    /// If the channels do not fit, or the map is empty.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let gates = self.layers.iter().try_fold(global_avg_pool2d(xs)?, |ys, layer| layer.forward(&ys))?;
        gate(xs, &sigmoid(&gates)?)
    }

    /// Counts both convolutions.
    pub fn cost(&self, tally: &mut Tally) {
        let means = FrameSize::new(1, 1);
        self.layers.iter().fold(means, |size, layer| layer.cost(size, tally));
    }
}
