use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use zoo_core::{LayerCost, Tally};
use zoo_kernels::{Activation, PackedLinear};

use crate::conv::is_packable;
use crate::span::layer_span;

/// A fully connected layer.
#[derive(Debug, Clone)]
pub struct Linear {
    name: String,
    sizes: (usize, usize),
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    Stored { weight: Tensor, bias: Tensor },
    Packed(PackedLinear),
}

impl Linear {
    /// `vb` holds `weight` (`[out, in]`) and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Self> {
        let weight =
            vb.get_with_hints((outputs, inputs), "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
        let bias = vb.get_with_hints(outputs, "bias", Init::Const(0.0))?;
        Ok(Self { name: vb.prefix(), sizes: (inputs, outputs), weights: Weights::Stored { weight, bias } })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        if let Weights::Stored { weight, bias } = &self.weights
            && is_packable(weight)
        {
            self.weights = Weights::Packed(PackedLinear::new(weight, Some(bias), Activation::None)?);
        }
        Ok(())
    }

    /// `xs`: `[B, in]`. Result: `[B, out]`.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        match &self.weights {
            Weights::Stored { weight, bias } => xs.matmul(&weight.t()?)?.broadcast_add(bias),
            Weights::Packed(linear) => linear.forward(xs, None),
        }
    }

    /// Counts this layer.
    pub fn cost(&self, tally: &mut Tally) {
        let (inputs, outputs) = (self.sizes.0 as u64, self.sizes.1 as u64);
        tally.push(LayerCost {
            name: self.name.clone(),
            params: (inputs + 1) * outputs,
            macs: inputs * outputs,
            bias_adds: outputs,
            residual_adds: 0,
        });
    }
}
