use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use zoo_core::{LayerCost, Tally};
use zoo_kernels::{channel_norm, layer_norm};

use crate::span::layer_span;

/// Layer norm: Ba et al., "Layer Normalization", 2016.
///
/// Differentiable until it is prepared.
#[derive(Debug, Clone)]
pub struct LayerNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
    eps: f64,
}

impl LayerNorm {
    /// `vb` holds `weight` and `bias`, each `[size]`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(size: usize, eps: f64, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get_with_hints(size, "weight", Init::Const(1.0))?;
        let bias = vb.get_with_hints(size, "bias", Init::Const(0.0))?;
        Ok(Self { name: vb.prefix(), weight, bias, eps })
    }

    /// Cuts the weights off from their variables. Inference only: gradients end here.
    pub fn prepare(&mut self) {
        (self.weight, self.bias) = (self.weight.detach(), self.bias.detach());
    }

    /// Normalises the last dimension: `xs`: `[.., size]`, as is the result.
    ///
    /// # Errors
    /// If the size or the type does not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        layer_norm(xs, &self.weight, &self.bias, self.eps)
    }

    /// Normalises the channels of each place of a map: `xs`: `[B, size, H, W]`, as is the result.
    ///
    /// # Errors
    /// If the size or the type does not fit.
    pub fn forward_map(&self, xs: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        channel_norm(xs, &self.weight, &self.bias, self.eps)
    }

    /// Counts the parameters.
    pub fn cost(&self, tally: &mut Tally) {
        tally.push(LayerCost {
            name: self.name.clone(),
            params: 2 * self.weight.elem_count() as u64,
            ..LayerCost::default()
        });
    }
}
