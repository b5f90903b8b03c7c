//! Convolutions with what belongs to them: padding, norm, residual, activation.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{
    Activation, ConvOptions, PackedConv, PackedDepthwise, Pads, Region, channel_affine, conv2d,
    depthwise_conv2d,
};

use crate::Padding;
use crate::norm::{BatchNorm, Statistics};
use crate::span::layer_span;

/// Shape and options of a [`ConvNormAct`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ConvSpec {
    /// Channels in.
    pub in_channels: usize,
    /// Channels out.
    pub out_channels: usize,
    /// Side of the square filter.
    pub kernel: usize,
    /// Step between outputs.
    pub stride: usize,
    /// Step between the filter's taps.
    pub dilation: usize,
    /// The channels are split into so many parts that do not see each other.
    pub groups: usize,
    /// Where the border goes.
    pub padding: Padding,
    /// Batch norm's epsilon, where there is a norm.
    pub eps: f64,
    /// Applied last.
    pub act: Activation,
}

impl ConvSpec {
    /// A 1×1 convolution.
    pub fn pointwise(in_channels: usize, out_channels: usize, eps: f64, act: Activation) -> Self {
        Self::dense(in_channels, out_channels, 1, 1, eps, act)
    }

    /// A 3×3 convolution over all channels.
    pub fn dense3(in_channels: usize, out_channels: usize, stride: usize, eps: f64, act: Activation) -> Self {
        Self::dense(in_channels, out_channels, 3, stride, eps, act)
    }

    /// A `kernel`×`kernel` convolution over all channels.
    pub fn dense(
        in_channels: usize,
        out_channels: usize,
        kernel: usize,
        stride: usize,
        eps: f64,
        act: Activation,
    ) -> Self {
        let padding = Padding::default();
        Self { in_channels, out_channels, kernel, stride, dilation: 1, groups: 1, padding, eps, act }
    }

    /// A 3×3 convolution of each channel by itself.
    pub fn depthwise3(channels: usize, stride: usize, eps: f64, act: Activation) -> Self {
        Self::depthwise(channels, 3, stride, eps, act)
    }

    /// A `kernel`×`kernel` convolution of each channel by itself.
    pub fn depthwise(channels: usize, kernel: usize, stride: usize, eps: f64, act: Activation) -> Self {
        Self { groups: channels, ..Self::dense(channels, channels, kernel, stride, eps, act) }
    }

    /// The same with another padding convention.
    pub fn padded(self, padding: impl Into<Padding>) -> Self {
        Self { padding: padding.into(), ..self }
    }

    /// The same in `groups` groups.
    pub fn grouped(self, groups: usize) -> Self {
        Self { groups, ..self }
    }

    /// The same with its taps `dilation` apart.
    pub fn dilated(self, dilation: usize) -> Self {
        Self { dilation, ..self }
    }

    /// Whether the kernels for one filter a channel serve it.
    fn is_depthwise(&self) -> bool {
        let Self { in_channels, out_channels, groups, dilation, .. } = *self;
        groups > 1 && groups == in_channels && groups == out_channels && dilation == 1
    }

    fn check(&self, name: &str) -> Result<()> {
        let Self { in_channels, out_channels, kernel, stride, dilation, groups, .. } = *self;
        if kernel == 0 || stride == 0 || dilation == 0 || groups == 0 {
            bail!("{name}: kernel, stride, dilation and groups must be at least 1, got {self:?}")
        }
        if !in_channels.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
            bail!("{name}: {groups} groups do not divide {in_channels} channels in and {out_channels} out")
        }
        Ok(())
    }

    fn weight_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.groups, self.kernel, self.kernel]
    }

    /// Reads `weight`, if this makes a convolution.
    fn filter(&self, vb: &VarBuilder) -> Result<Tensor> {
        self.check(&vb.prefix())?;
        let shape = self.weight_shape();
        vb.get_with_hints(shape.as_slice(), "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)
    }

    /// Rows that the filter covers from its first tap to its last.
    fn reach(&self) -> usize {
        (self.kernel - 1) * self.dilation + 1
    }

    pub(crate) fn pads(&self, size: FrameSize) -> Pads {
        self.padding.pads(size, self.reach(), self.stride)
    }

    /// The output's size for an input of `size`; none of a side that the filter does not fit into.
    fn output(&self, size: FrameSize) -> FrameSize {
        let Pads { top, bottom, left, right } = self.pads(size);
        let outputs = |inputs: usize, pads: usize| match inputs {
            0 => 0,
            _ => (inputs + pads + self.stride).saturating_sub(self.reach()) / self.stride,
        };
        FrameSize::new(outputs(size.height, top + bottom), outputs(size.width, left + right))
    }
}

/// Convolution → batch norm → activation; the convolution has a bias instead of the norm, or both.
///
/// Before [`ConvNormAct::prepare`] the norm is separate and everything is differentiable; after it they
/// are one operation, on weights packed for the processor where those are f32 on the CPU.
#[derive(Debug, Clone)]
pub struct ConvNormAct {
    name: String,
    spec: ConvSpec,
    has_norm: bool,
    has_bias: bool,
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    /// As stored.
    Separate { filter: Tensor, bias: Option<Tensor>, norm: BatchNorm },
    /// As stored, or the norm folded into the filter: for devices and types without packed weights.
    Biased { filter: Tensor, bias: Tensor },
    /// Likewise, and packed for the processor at hand.
    Dense(PackedConv),
    /// Likewise, one filter a channel.
    Depthwise(PackedDepthwise),
}

impl ConvNormAct {
    /// `conv` holds `weight` (`[out, in / groups, k, k]`); `norm` holds `weight`, `bias`,
    /// `running_mean` and `running_var`.
    ///
    /// # Errors
    /// If the spec makes no convolution, or a tensor is missing or has another shape.
    pub fn new(spec: ConvSpec, conv: VarBuilder, norm: VarBuilder) -> Result<Self> {
        let filter = spec.filter(&conv)?;
        let norm = BatchNorm::new(spec.out_channels, spec.eps, norm)?;
        let weights = Weights::Separate { filter, bias: None, norm };
        Ok(Self { name: conv.prefix(), spec, has_norm: true, has_bias: false, weights })
    }

    /// With both: `conv` holds `bias` besides.
    ///
    /// # Errors
    /// As [`ConvNormAct::new`].
    pub fn biased_norm(spec: ConvSpec, conv: VarBuilder, norm: VarBuilder) -> Result<Self> {
        let filter = spec.filter(&conv)?;
        let bias = Some(conv.get_with_hints(spec.out_channels, "bias", Init::Const(0.0))?);
        let norm = BatchNorm::new(spec.out_channels, spec.eps, norm)?;
        let weights = Weights::Separate { filter, bias, norm };
        Ok(Self { name: conv.prefix(), spec, has_norm: true, has_bias: true, weights })
    }

    /// With a bias, without a norm: `vb` holds `weight` and `bias`.
    ///
    /// # Errors
    /// As [`ConvNormAct::new`].
    pub fn biased(spec: ConvSpec, vb: VarBuilder) -> Result<Self> {
        let filter = spec.filter(&vb)?;
        let bias = vb.get_with_hints(spec.out_channels, "bias", Init::Const(0.0))?;
        let weights = Weights::Biased { filter, bias };
        Ok(Self { name: vb.prefix(), spec, has_norm: false, has_bias: true, weights })
    }

    /// What was built.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Folds the norm into the convolution and packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        let (filter, bias) = match &self.weights {
            Weights::Separate { filter, bias, norm } => norm.fold_into(filter, bias.as_ref())?,
            Weights::Biased { filter, bias } => (filter.detach(), bias.detach()),
            Weights::Dense(_) | Weights::Depthwise(_) => return Ok(()),
        };
        let ConvSpec { stride, dilation, groups, act, .. } = self.spec;
        self.weights = if !is_packable(&filter) {
            Weights::Biased { filter, bias }
        } else if self.spec.is_depthwise() {
            Weights::Depthwise(PackedDepthwise::new(&filter, Some(&bias), stride, act)?)
        } else {
            let options = ConvOptions { stride, dilation, groups, ..ConvOptions::default() };
            Weights::Dense(PackedConv::new(&filter, Some(&bias), options, act)?)
        };
        Ok(())
    }

    /// What the norm normalises by, as long as it is not folded; a bias knows no statistics.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        if let Weights::Separate { norm, .. } = &mut self.weights {
            norm.set_statistics(statistics);
        }
    }

    /// Its place in the checkpoint.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The packed weights, if these are a dense convolution's.
    pub(crate) fn packed_dense(&self) -> Option<&PackedConv> {
        match &self.weights {
            Weights::Dense(conv) => Some(conv),
            _ => None,
        }
    }

    /// The packed weights, if these are a depthwise convolution's.
    pub(crate) fn packed_depthwise(&self) -> Option<&PackedDepthwise> {
        match &self.weights {
            Weights::Depthwise(conv) => Some(conv),
            _ => None,
        }
    }

    /// `xs`: `[B, C, H, W]`, zeros around it. Result: `[B, C', ceil(H / stride), ceil(W / stride)]`
    /// unless the padding is fixed.
    ///
    /// # Errors
    /// If the channels do not fit, or the filter is larger than the padded input.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward_region(&Region::whole(xs)?)
    }

    /// The convolution of a region, its border read from the region's plane.
    ///
    /// # Errors
    /// As [`ConvNormAct::forward`].
    pub fn forward_region(&self, region: &Region) -> Result<Tensor> {
        self.run(region, None)
    }

    /// [`ConvNormAct::forward_region`] with `residual`, shaped like the result, added before the
    /// activation.
    ///
    /// # Errors
    /// As [`ConvNormAct::forward`], and if the residual does not fit or there is one filter a channel.
    pub fn forward_region_add(&self, region: &Region, residual: &Tensor) -> Result<Tensor> {
        self.run(region, Some(residual))
    }

    fn run(&self, region: &Region, residual: Option<&Tensor>) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        self.check_operands(region, residual)?;
        let pads = self.spec.pads(FrameSize::new(region.height, region.width));
        match &self.weights {
            Weights::Dense(conv) => conv.forward(region, pads, residual),
            Weights::Depthwise(conv) => conv.forward(region, pads),
            Weights::Biased { filter, bias } => {
                let ys = self.convolve(region, pads, filter)?;
                channel_affine(&ys, None, bias, residual, self.spec.act)
            }
            Weights::Separate { filter, bias, norm } => {
                let ys = self.convolve(region, pads, filter)?;
                let ys = match bias {
                    Some(bias) => channel_affine(&ys, None, bias, None, Activation::None)?,
                    None => ys,
                };
                norm.forward(&ys, residual, self.spec.act)
            }
        }
    }

    fn convolve(&self, region: &Region, pads: Pads, filter: &Tensor) -> Result<Tensor> {
        let ConvSpec { stride, dilation, groups, .. } = self.spec;
        if self.spec.is_depthwise() {
            return depthwise_conv2d(region, filter, stride, pads);
        }
        conv2d(region, filter, pads, ConvOptions { stride, dilation, groups, ..ConvOptions::default() })
    }

    fn check_operands(&self, region: &Region, residual: Option<&Tensor>) -> Result<()> {
        let (Self { name, spec, .. }, (batch, channels, _, _)) = (self, region.plane.dims4()?);
        if channels != spec.in_channels {
            bail!("{name}: expected {} channels, got {channels}", spec.in_channels)
        }
        let output = spec.output(FrameSize::new(region.height, region.width));
        if output.area() == 0 {
            let ConvSpec { kernel, dilation, padding, .. } = spec;
            bail!(
                "{name}: a {kernel}×{kernel} filter of dilation {dilation} does not fit an input of {}×{} with {padding:?}: use a larger input",
                region.height,
                region.width
            )
        }
        let Some(residual) = residual else { return Ok(()) };
        if spec.is_depthwise() {
            bail!("{name}: a convolution with one filter a channel takes no residual")
        }
        let expected = [batch, spec.out_channels, output.height, output.width];
        if residual.dims() != expected {
            bail!("{name}: expected a residual of {expected:?}, got {:?}", residual.dims())
        }
        Ok(())
    }

    /// Counts this layer for an input of `input` and returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let output = self.spec.output(input);
        let weights = self.spec.weight_shape().iter().product::<usize>() as u64;
        let (outputs, area) = (self.spec.out_channels as u64, output.area() as u64);
        tally.push(LayerCost {
            name: self.name.clone(),
            params: weights + outputs * (2 * u64::from(self.has_norm) + u64::from(self.has_bias)),
            macs: weights * area,
            bias_adds: if self.has_norm { 0 } else { outputs * area },
            residual_adds: 0,
            outputs: outputs * area,
        });
        output
    }

    /// Counts the addition of a residual to an output of `output`.
    pub(crate) fn cost_residual(&self, output: FrameSize, tally: &mut Tally) {
        tally.push(LayerCost {
            name: format!("{}.add", self.name),
            residual_adds: (self.spec.out_channels * output.area()) as u64,
            ..LayerCost::default()
        });
    }
}

/// Whether weights like this one can be packed: f32 on the CPU.
pub(crate) fn is_packable(weight: &Tensor) -> bool {
    matches!(weight.device(), Device::Cpu) && weight.dtype() == DType::F32
}
