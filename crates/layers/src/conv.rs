//! Convolutions with what belongs to them: padding, norm, residual, activation.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{
    Activation, ConvOptions, PackedConv, PackedDepthwise, Pads, Region, channel_affine, conv2d,
    depthwise_conv2d,
};

use crate::conv_spec::ConvSpec;
use crate::norm::{BatchNorm, ChannelAffine, Statistics};
use crate::span::layer_span;

/// Convolution → batch norm → activation; the convolution has a bias instead of the norm, or both, or neither.
///
/// Before [`ConvNormAct::prepare`] the norm is separate and everything is differentiable; after it they
/// are one operation, on weights packed for the processor where those are f32 on the CPU.
#[derive(Debug, Clone)]
pub struct ConvNormAct {
    name: String,
    spec: ConvSpec,
    has_norm: bool,
    has_bias: bool,
    /// Applied last: the spec's, or that of a layer which was taken in.
    act: Activation,
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    /// As stored.
    Separate { filter: Tensor, bias: Option<Tensor>, norm: BatchNorm },
    /// As stored, or the norm folded into the filter: for devices and types without packed weights.
    Biased { filter: Tensor, bias: Option<Tensor> },
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
        Ok(Self { name: conv.prefix(), spec, has_norm: true, has_bias: false, act: spec.act, weights })
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
        Ok(Self { name: conv.prefix(), spec, has_norm: true, has_bias: true, act: spec.act, weights })
    }

    /// With a bias, without a norm: `vb` holds `weight` and `bias`.
    ///
    /// # Errors
    /// As [`ConvNormAct::new`].
    pub fn biased(spec: ConvSpec, vb: VarBuilder) -> Result<Self> {
        let filter = spec.filter(&vb)?;
        let bias = Some(vb.get_with_hints(spec.out_channels, "bias", Init::Const(0.0))?);
        let weights = Weights::Biased { filter, bias };
        Ok(Self { name: vb.prefix(), spec, has_norm: false, has_bias: true, act: spec.act, weights })
    }

    /// With neither bias nor norm: `vb` holds `weight`.
    ///
    /// # Errors
    /// As [`ConvNormAct::new`].
    pub fn bare(spec: ConvSpec, vb: VarBuilder) -> Result<Self> {
        let weights = Weights::Biased { filter: spec.filter(&vb)?, bias: None };
        Ok(Self { name: vb.prefix(), spec, has_norm: false, has_bias: false, act: spec.act, weights })
    }

    /// Takes in what is done to its results next, and only there: from now on they come with it done.
    /// Inference only: gradients end here.
    ///
    /// # Errors
    /// If the convolution has an activation of its own or is prepared already, or a shape does not fit.
    pub(crate) fn take_in(&mut self, after: &ChannelAffine) -> Result<()> {
        if self.act != Activation::None {
            bail!("{}: nothing can be taken in behind an activation, {:?}", self.name, self.act)
        }
        let (filter, bias) = match &self.weights {
            Weights::Separate { filter, bias, norm } => {
                let (filter, bias) = norm.fold_into(filter, bias.as_ref())?;
                (filter, Some(bias))
            }
            Weights::Biased { filter, bias } => (filter.detach(), bias.clone()),
            Weights::Dense(_) | Weights::Depthwise(_) => {
                bail!("{}: layers are taken in before the weights are packed", self.name)
            }
        };
        let ChannelAffine { scale, shift, act } = after;
        let bias = bias.map(|bias| bias.detach() * scale).transpose()?;
        let bias = match (bias, shift) {
            (Some(bias), Some(shift)) => Some((bias + shift)?),
            (bias, shift) => bias.or_else(|| shift.clone()),
        };
        let filter = filter.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?.detach();
        self.weights = Weights::Biased { filter, bias: bias.map(|bias| bias.detach()) };
        self.act = *act;
        Ok(())
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
            Weights::Separate { filter, bias, norm } => {
                let (filter, bias) = norm.fold_into(filter, bias.as_ref())?;
                (filter, Some(bias))
            }
            Weights::Biased { filter, bias } => (filter.detach(), bias.as_ref().map(Tensor::detach)),
            Weights::Dense(_) | Weights::Depthwise(_) => return Ok(()),
        };
        // What was loaded goes before the packed copy comes: of each layer there are two copies at most.
        self.weights = Weights::Biased { filter: filter.clone(), bias: bias.clone() };
        if !is_packable(&filter) {
            return Ok(());
        }
        let (ConvSpec { stride, dilation, groups, .. }, act) = (self.spec, self.act);
        self.weights = if self.spec.is_depthwise() {
            Weights::Depthwise(PackedDepthwise::new(&filter, bias.as_ref(), stride, act)?)
        } else {
            let options = ConvOptions { stride, dilation, groups, ..ConvOptions::default() };
            Weights::Dense(PackedConv::new(&filter, bias.as_ref(), options, act)?)
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
                match bias {
                    Some(bias) => channel_affine(&ys, None, bias, residual, self.act),
                    None if residual.is_none() && self.act == Activation::None => Ok(ys),
                    None => {
                        let zeros = Tensor::zeros(self.spec.out_channels, ys.dtype(), ys.device())?;
                        channel_affine(&ys, None, &zeros, residual, self.act)
                    }
                }
            }
            Weights::Separate { filter, bias, norm } => {
                let ys = self.convolve(region, pads, filter)?;
                let ys = match bias {
                    Some(bias) => channel_affine(&ys, None, bias, None, Activation::None)?,
                    None => ys,
                };
                norm.forward(&ys, residual, self.act)
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
        let (channels, area) = (self.spec.out_channels as u64, output.area() as u64);
        let outputs = channels * area;
        tally.push(LayerCost {
            name: self.name.clone(),
            params: weights + channels * (2 * u64::from(self.has_norm) + u64::from(self.has_bias)),
            norm_params: 2 * channels * u64::from(self.has_norm),
            macs: weights * area,
            bias_adds: if self.has_norm || !self.has_bias { 0 } else { outputs },
            residual_adds: 0,
            outputs,
            normed: if self.has_norm { outputs } else { 0 },
            activated: if self.spec.act == Activation::None { 0 } else { outputs },
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
