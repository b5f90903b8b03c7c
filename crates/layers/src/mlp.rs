use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::Tally;
use zoo_kernels::Activation;

use crate::Linear;

/// Two linear layers with GELU between them.
#[derive(Debug, Clone)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// From `channels` to `hidden` and back; `vb` holds `fc1` and `fc2`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(channels: usize, hidden: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            fc1: Linear::activated(channels, hidden, Activation::Gelu, vb.pp("fc1"))?,
            fc2: Linear::new(hidden, channels, vb.pp("fc2"))?,
        })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.fc1.prepare()?;
        self.fc2.prepare()
    }

    /// `xs`: `[.., C]`, as is the result.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.fc2.forward(&self.fc1.forward(xs)?)
    }

    /// [`Mlp::forward`] plus `residual`, shaped like the result.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward_add(&self, xs: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.fc2.forward_add(&self.fc1.forward(xs)?, residual)
    }

    /// Counts both layers for `tokens` inputs.
    pub fn cost(&self, tokens: usize, tally: &mut Tally) {
        self.fc1.cost(tokens, tally);
        self.fc2.cost(tokens, tally);
    }
}
