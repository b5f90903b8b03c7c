use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use zoo_core::{LayerCost, Tally};
use zoo_kernels::{Activation, GroupNormOptions, group_norm, group_norm_jointly};

use crate::span::layer_span;

/// Group norm, with an activation behind it: Wu and He, "Group Normalization", ECCV 2018.
///
/// Differentiable until it is prepared. Its statistics are each image's own, so there is nothing to fold.
#[derive(Debug, Clone)]
pub struct GroupNorm {
    name: String,
    weight: Tensor,
    bias: Tensor,
    options: GroupNormOptions,
}

impl GroupNorm {
    /// `vb` holds `weight` and `bias`, each `[channels]`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(groups: usize, channels: usize, eps: f64, act: Activation, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get_with_hints(channels, "weight", Init::Const(1.0))?;
        let bias = vb.get_with_hints(channels, "bias", Init::Const(0.0))?;
        Ok(Self { name: vb.prefix(), weight, bias, options: GroupNormOptions { groups, eps, act } })
    }

    /// Cuts the weights off from their variables. Inference only: gradients end here.
    pub fn prepare(&mut self) {
        (self.weight, self.bias) = (self.weight.detach(), self.bias.detach());
    }

    /// The norm of `xs`, `[B, C, H, W]`, through the activation, plus `addend`.
    ///
    /// # Errors
    /// If the groups do not divide the channels, or a shape does not fit.
    pub fn forward(&self, xs: &Tensor, addend: Option<&Tensor>) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        group_norm(xs, &self.weight, &self.bias, self.options, addend)
    }

    /// The same of several maps by the statistics of all of them together; `addends` are none or as many as maps.
    ///
    /// # Errors
    /// As [`GroupNorm::forward`], and if the maps differ in batch or channels.
    pub fn forward_jointly(&self, maps: &[Tensor], addends: &[Tensor]) -> Result<Vec<Tensor>> {
        let _span = layer_span(&self.name);
        let (maps, addends) = (maps.iter().collect::<Vec<_>>(), addends.iter().collect::<Vec<_>>());
        group_norm_jointly(&maps, &self.weight, &self.bias, self.options, &addends)
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
