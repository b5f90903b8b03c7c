use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, PackedBlock, Region, inverted_residual};

use crate::inverted_residual::{CACHED_VALUES, common_path};
use crate::span::layer_span;
use crate::{ConvNormAct, ConvSpec, Statistics};

/// A convolution in two parts: one filter a channel, without norm or activation; then 1×1 → batch norm → activation.
#[derive(Debug, Clone)]
pub struct SeparableConv {
    depthwise: ConvNormAct,
    pointwise: ConvNormAct,
}

impl SeparableConv {
    /// The spec is that of both parts together. `depthwise` and `pointwise` each hold a `weight`, `norm` holds
    /// `weight`, `bias`, `running_mean` and `running_var`.
    ///
    /// # Errors
    /// If the spec makes no convolution, or a tensor is missing or has another shape.
    pub fn new(
        spec: ConvSpec,
        depthwise: VarBuilder,
        pointwise: VarBuilder,
        norm: VarBuilder,
    ) -> Result<Self> {
        let ConvSpec { in_channels, out_channels, eps, act, .. } = spec;
        let filters =
            ConvSpec { out_channels: in_channels, groups: in_channels, act: Activation::None, ..spec };
        Ok(Self {
            depthwise: ConvNormAct::bare(filters, depthwise)?,
            pointwise: ConvNormAct::new(
                ConvSpec::pointwise(in_channels, out_channels, eps, act),
                pointwise,
                norm,
            )?,
        })
    }

    /// Folds batch norm and packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.depthwise.prepare()?;
        self.pointwise.prepare()
    }

    /// What the norm normalises by, as long as it is not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.pointwise.set_statistics(statistics);
    }

    /// `xs`: `[B, C, H, W]`. Result: `[B, C', ceil(H / stride), ceil(W / stride)]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.run(xs, None)
    }

    /// [`SeparableConv::forward`] with `residual`, shaped like the result, added before the activation.
    ///
    /// # Errors
    /// As there, and if the residual does not fit.
    pub fn forward_add(&self, xs: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.run(xs, Some(residual))
    }

    fn run(&self, xs: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
        let region = Region::whole(xs)?;
        let is_large = region.height * region.width * self.depthwise.spec().in_channels >= CACHED_VALUES;
        if is_large
            && let (Some(depthwise), Some(project)) =
                (self.depthwise.packed_depthwise(), self.pointwise.packed_dense())
        {
            let _span = layer_span(common_path(self.depthwise.name(), self.pointwise.name()));
            let block = PackedBlock { expand: None, depthwise, squeeze_excite: None, project };
            let pads = self.depthwise.spec().pads(FrameSize::new(region.height, region.width));
            return inverted_residual(&region, block, pads, residual);
        }
        let ys = Region::whole(&self.depthwise.forward_region(&region)?)?;
        match residual {
            Some(residual) => self.pointwise.forward_region_add(&ys, residual),
            None => self.pointwise.forward_region(&ys),
        }
    }

    /// Counts both parts for an input of `input` and returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let output = self.depthwise.cost(input, tally);
        self.pointwise.cost(output, tally)
    }
}
