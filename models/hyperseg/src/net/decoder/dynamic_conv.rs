use candle_core::{DType, Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, Halo, LevelConvs, LevelStage, Patchwise, patchwise_conv2d};
use zoo_layers::{BatchNorm, Statistics, layer_span};

use super::LevelInput;
use crate::net::context_head::EPS;

/// A patch-wise dynamic convolution (Section 3.2): every patch of the map is convolved with weights of
/// its own; then batch norm and an activation, whose parameters all patches share.
#[derive(Debug, Clone)]
pub struct DynamicConv {
    name: String,
    inputs: usize,
    shape: Patchwise,
    after: After,
    act: Activation,
}

#[derive(Debug, Clone)]
enum After {
    Norm(BatchNorm),
    /// The norm's scale is in the weights; its shift stays behind the convolution (supplement,
    /// Section E).
    Shift {
        shift: Tensor,
        stage: LevelStage,
    },
}

impl DynamicConv {
    /// 1×1 on all of `inputs` channels; `norm` holds the batch norm.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn pointwise(inputs: usize, outputs: usize, act: Activation, norm: VarBuilder) -> Result<Self> {
        Self::new(inputs, Patchwise::pointwise(outputs), act, norm)
    }

    /// `kernel`×`kernel` on each channel alone, which reads the pixels that `halo` says around a patch.
    ///
    /// # Errors
    /// As [`DynamicConv::pointwise`].
    pub fn depthwise(
        channels: usize,
        kernel: usize,
        halo: Halo,
        act: Activation,
        norm: VarBuilder,
    ) -> Result<Self> {
        Self::new(channels, Patchwise { kernel, halo, ..Patchwise::depthwise(channels) }, act, norm)
    }

    fn new(inputs: usize, shape: Patchwise, act: Activation, norm: VarBuilder) -> Result<Self> {
        let name = norm.prefix();
        let after = After::Norm(BatchNorm::new(shape.outputs, EPS, norm)?);
        Ok(Self { name, inputs, shape, after, act })
    }

    /// Weights of an output channel.
    fn weights_per_output(&self) -> usize {
        self.inputs / self.shape.groups * self.shape.kernel * self.shape.kernel
    }

    /// Weights of a patch: `[outputs, inputs / groups, k, k]` in a row.
    pub fn params(&self) -> usize {
        self.shape.outputs * self.weights_per_output()
    }

    /// Takes the norm's scale out and gives it, as a factor for each of the weights.
    ///
    /// # Errors
    /// If candle cannot compute it.
    pub fn fold(&mut self) -> Result<Tensor> {
        let outputs = self.shape.outputs;
        let scale = match &self.after {
            After::Norm(norm) => {
                let (scale, shift) = norm.affine()?;
                let shift = shift.detach();
                let stage = LevelStage::new(shift.to_dtype(DType::F32)?.to_vec1()?, self.act);
                self.after = After::Shift { shift, stage };
                scale.detach()
            }
            After::Shift { shift, .. } => shift.ones_like()?,
        };
        scale.reshape((outputs, 1))?.broadcast_as((outputs, self.weights_per_output()))?.flatten_all()
    }

    /// What the norm normalises by, as long as it is not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        if let After::Norm(norm) = &mut self.after {
            norm.set_statistics(statistics);
        }
    }

    /// `xs`: `[B, C, H, W]`; `weights`: `[B, params, fh, fw]`. Result: `[B, C', H, W]`, smaller by its
    /// halo where a patch brings its own.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, xs: &Tensor, weights: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        match &self.after {
            After::Norm(norm) => {
                let ys = patchwise_conv2d(xs, weights, self.shape, None, Activation::None)?;
                norm.forward(&ys, None, self.act)
            }
            After::Shift { shift, .. } => patchwise_conv2d(xs, weights, self.shape, Some(shift), self.act),
        }
    }

    /// The same for a 1×1 convolution that is the first of its level; folded, it reads the parts of the
    /// input where they are.
    ///
    /// # Errors
    /// As there.
    pub fn forward_first(&self, input: &LevelInput, weights: &Tensor) -> Result<Tensor> {
        match self.stage() {
            Some(stage) => {
                let _span = layer_span(&self.name);
                input.convolve(LevelConvs::Pointwise(stage), weights)
            }
            None => self.forward(&input.concat()?, weights),
        }
    }

    /// What follows the convolution, once the norm is folded.
    pub(super) fn stage(&self) -> Option<&LevelStage> {
        match &self.after {
            After::Norm(_) => None,
            After::Shift { stage, .. } => Some(stage),
        }
    }

    /// Counts it for an output of `output`.
    pub fn cost(&self, output: FrameSize, tally: &mut Tally) {
        let (outputs, area) = (self.shape.outputs as u64, output.area() as u64);
        tally.push(LayerCost {
            name: self.name.clone(),
            params: 2 * outputs,
            norm_params: 2 * outputs,
            macs: self.params() as u64 * area,
            outputs: outputs * area,
            ..LayerCost::default()
        });
    }
}
