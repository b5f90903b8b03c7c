use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use zoo_core::{LayerCost, Tally};
use zoo_kernels::{Activation, PackedLinear};

use crate::conv::is_packable;
use crate::span::layer_span;

/// A fully connected layer, and an activation.
#[derive(Debug, Clone)]
pub struct Linear {
    name: String,
    sizes: (usize, usize),
    act: Activation,
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
        Self::activated(inputs, outputs, Activation::None, vb)
    }

    /// The same with an activation after it.
    ///
    /// # Errors
    /// As [`Linear::new`].
    pub fn activated(inputs: usize, outputs: usize, act: Activation, vb: VarBuilder) -> Result<Self> {
        let weight =
            vb.get_with_hints((outputs, inputs), "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
        let bias = vb.get_with_hints(outputs, "bias", Init::Const(0.0))?;
        let weights = Weights::Stored { weight, bias };
        Ok(Self { name: vb.prefix(), sizes: (inputs, outputs), act, weights })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        if let Weights::Stored { weight, bias } = &self.weights
            && is_packable(weight)
        {
            self.weights = Weights::Packed(PackedLinear::new(weight, Some(bias), self.act)?);
        }
        Ok(())
    }

    /// `xs`: `[.., in]`. Result: `[.., out]`.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.run(xs, None)
    }

    /// [`Linear::forward`] with `residual`, shaped like the result, added before the activation.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn forward_add(&self, xs: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(xs, Some(residual))
    }

    fn run(&self, xs: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        let (inputs, outputs) = self.sizes;
        let Some((_, outer)) = xs.dims().split_last().filter(|(last, _)| **last == inputs) else {
            bail!("{}: expected [.., {inputs}], got {:?}", self.name, xs.dims())
        };
        let shape = [outer, &[outputs]].concat();
        if let Some(residual) = residual
            && residual.dims() != shape
        {
            bail!("{}: expected a residual of {shape:?}, got {:?}", self.name, residual.dims())
        }
        let (weight, bias) = match &self.weights {
            Weights::Stored { weight, bias } => (weight, bias),
            Weights::Packed(linear) => return linear.forward(xs, residual),
        };
        let rows = xs.reshape((outer.iter().product::<usize>(), inputs))?;
        let ys = rows.matmul(&weight.t()?)?.broadcast_add(bias)?.reshape(shape)?;
        let ys = match residual {
            Some(residual) => (ys + residual)?,
            None => ys,
        };
        self.act.apply(&ys)
    }

    /// Counts this layer for `rows` inputs.
    pub fn cost(&self, rows: usize, tally: &mut Tally) {
        let (inputs, outputs, rows) = (self.sizes.0 as u64, self.sizes.1 as u64, rows as u64);
        tally.push(LayerCost {
            name: self.name.clone(),
            params: (inputs + 1) * outputs,
            macs: inputs * outputs * rows,
            bias_adds: outputs * rows,
            outputs: outputs * rows,
            activated: if self.act == Activation::None { 0 } else { outputs * rows },
            ..LayerCost::default()
        });
    }
}
