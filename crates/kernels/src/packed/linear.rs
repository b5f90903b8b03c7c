//! Linear layers with packed weights: a 1×1 convolution of one row of pixels.

use candle_core::{Result, Tensor, bail};

use super::check_operand;
use super::conv::{ConvOptions, PackedConv};
use crate::epilogue::Activation;
use crate::region::{Pads, Region};

/// A linear layer with its weights packed for the instruction set at hand.
#[derive(Debug, Clone)]
pub struct PackedLinear {
    conv: PackedConv,
    inputs: usize,
    outputs: usize,
}

impl PackedLinear {
    /// `weight`: `[O, I]`; `bias`: `[O]`.
    ///
    /// # Errors
    /// If a shape does not fit, the weights are not f32 on the CPU, or `ZOO_ISA` is wrong.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, act: Activation) -> Result<Self> {
        let &[outputs, inputs] = weight.dims() else {
            bail!("linear: expected a weight of [outputs, inputs], got {:?}", weight.dims())
        };
        if let Some(bias) = bias
            && bias.dims() != [outputs]
        {
            bail!("linear: expected a bias of [{outputs}], got {:?}", bias.dims())
        }
        let filter = weight.reshape((outputs, inputs, 1, 1))?;
        let conv = PackedConv::new(&filter, bias, ConvOptions::default(), act)?;
        Ok(Self { conv, inputs, outputs })
    }

    /// `act(xs · weightᵀ + bias + residual)` over the last dimension: `[.., I]` → `[.., O]`, of any
    /// rank from 1. `residual` is shaped like the result.
    ///
    /// There is no gradient: training takes the weights before they are packed.
    ///
    /// # Errors
    /// If a shape does not fit, or a tensor is not f32 on the CPU.
    pub fn forward(&self, xs: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let Some((&inputs, outer)) = xs.dims().split_last().filter(|(last, _)| **last == self.inputs) else {
            bail!("linear: expected [.., {}], got {:?}", self.inputs, xs.dims())
        };
        let shape = [outer, &[self.outputs]].concat();
        if let Some(residual) = residual
            && residual.dims() != shape
        {
            bail!("linear: expected a residual of {shape:?}, got {:?}", residual.dims())
        }
        let rows: usize = outer.iter().product();
        for operand in [Some(xs), residual].into_iter().flatten() {
            check_operand("linear", operand)?;
        }
        if rows == 0 {
            return Tensor::zeros(shape, xs.dtype(), xs.device());
        }
        // One row of pixels, channels last: what the convolution wants, and gives back.
        let pixels = |xs: &Tensor, channels: usize| -> Result<Tensor> {
            xs.reshape((1, 1, rows, channels))?.permute((0, 3, 1, 2))
        };
        let residual = residual.map(|residual| pixels(residual, self.outputs)).transpose()?;
        let xs = Region::whole(&pixels(xs, inputs)?)?;
        let ys = self.conv.forward(&xs, Pads::default(), residual.as_ref())?;
        ys.permute((0, 2, 3, 1))?.reshape(shape)
    }
}
