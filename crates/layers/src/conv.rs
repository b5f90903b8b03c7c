//! Convolutions with what belongs to them: padding, norm, bias, activation.

use candle_core::{DType, Device, Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{
    Activation, ConvOptions, PackedConv, PackedDepthwise, Pads, Region, bias_act, depthwise_conv2d,
};

use crate::SamePadding;

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
    /// One filter a channel instead of one over all channels.
    pub depthwise: bool,
    /// Where the border goes.
    pub padding: SamePadding,
    /// Batch norm's epsilon.
    pub eps: f64,
    /// Applied last.
    pub act: Activation,
}

impl ConvSpec {
    /// A 1×1 convolution.
    pub fn pointwise(in_channels: usize, out_channels: usize, eps: f64, act: Activation) -> Self {
        let padding = SamePadding::default();
        Self { in_channels, out_channels, kernel: 1, stride: 1, depthwise: false, padding, eps, act }
    }

    /// A 3×3 convolution over all channels.
    pub fn dense3(in_channels: usize, out_channels: usize, stride: usize, eps: f64, act: Activation) -> Self {
        Self { kernel: 3, stride, ..Self::pointwise(in_channels, out_channels, eps, act) }
    }

    /// A 3×3 convolution of each channel by itself.
    pub fn depthwise3(channels: usize, stride: usize, eps: f64, act: Activation) -> Self {
        Self { depthwise: true, ..Self::dense3(channels, channels, stride, eps, act) }
    }

    /// The same with another padding convention.
    pub fn padded(self, padding: SamePadding) -> Self {
        Self { padding, ..self }
    }

    fn weight_shape(&self) -> [usize; 4] {
        let per_filter = if self.depthwise { 1 } else { self.in_channels };
        [self.out_channels, per_filter, self.kernel, self.kernel]
    }
}

/// Convolution without bias → batch norm (stored statistics) → activation.
///
/// Before [`ConvNormAct::prepare`] the three are separate and differentiable; after it they are one
/// operation, on weights packed for the processor where those are f32 on the CPU.
#[derive(Debug, Clone)]
pub struct ConvNormAct {
    name: String,
    spec: ConvSpec,
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    /// As stored.
    Separate { filter: Tensor, norm: BatchNorm },
    /// The norm folded into the filter: for devices and types without packed weights.
    Folded { filter: Tensor, bias: Tensor },
    /// Folded, and packed for the processor at hand.
    Dense(PackedConv),
    /// Likewise, one filter a channel.
    Depthwise(PackedDepthwise),
}

/// Batch norm by stored statistics: `(y − mean) / √(var + ε) · scale + shift`.
#[derive(Debug, Clone)]
struct BatchNorm {
    scale: Tensor,
    shift: Tensor,
    mean: Tensor,
    var: Tensor,
}

impl BatchNorm {
    fn forward(&self, ys: &Tensor, eps: f64) -> Result<Tensor> {
        let channelwise = |t: &Tensor| t.reshape((1, (), 1, 1));
        ys.broadcast_sub(&channelwise(&self.mean)?)?
            .broadcast_div(&channelwise(&(&self.var + eps)?.sqrt()?)?)?
            .broadcast_mul(&channelwise(&self.scale)?)?
            .broadcast_add(&channelwise(&self.shift)?)
    }
}

impl ConvNormAct {
    /// `conv` holds `weight`; `norm` holds `weight`, `bias`, `running_mean` and `running_var`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(spec: ConvSpec, conv: VarBuilder, norm: VarBuilder) -> Result<Self> {
        let c = spec.out_channels;
        if spec.depthwise && spec.in_channels != c {
            bail!("{}: depthwise from {} to {c} channels", conv.prefix(), spec.in_channels)
        }
        let filter = conv.get_with_hints(
            spec.weight_shape().as_slice(),
            "weight",
            candle_nn::init::DEFAULT_KAIMING_NORMAL,
        )?;
        let norm = BatchNorm {
            scale: norm.get_with_hints(c, "weight", Init::Const(1.0))?,
            shift: norm.get_with_hints(c, "bias", Init::Const(0.0))?,
            mean: norm.get_with_hints(c, "running_mean", Init::Const(0.0))?,
            var: norm.get_with_hints(c, "running_var", Init::Const(1.0))?,
        };
        Ok(Self { name: conv.prefix(), spec, weights: Weights::Separate { filter, norm } })
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
        let Weights::Separate { filter, norm } = &self.weights else { return Ok(()) };
        let ConvSpec { stride, act, eps, .. } = self.spec;
        let scale = (&norm.scale / (&norm.var + eps)?.sqrt()?)?;
        let bias = (&norm.shift - (&norm.mean * &scale)?)?.detach();
        let filter = filter.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?.detach();
        self.weights = if !is_packable(&filter) {
            Weights::Folded { filter, bias }
        } else if self.spec.depthwise {
            Weights::Depthwise(PackedDepthwise::new(&filter, Some(&bias), stride, act)?)
        } else {
            let options = ConvOptions { stride, ..ConvOptions::default() };
            Weights::Dense(PackedConv::new(&filter, Some(&bias), options, act)?)
        };
        Ok(())
    }

    /// `xs`: `[B, C, H, W]`, zeros around it. Result: `[B, C', ceil(H / stride), ceil(W / stride)]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward_region(&Region::whole(xs)?)
    }

    /// The convolution of a region, its border read from the region's plane.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward_region(&self, region: &Region) -> Result<Tensor> {
        let ConvSpec { stride, act, depthwise, .. } = self.spec;
        self.check_channels(region)?;
        let pads = self.pads(region);
        match &self.weights {
            Weights::Dense(conv) => conv.forward(region, pads, None),
            Weights::Depthwise(conv) => conv.forward(region, pads),
            Weights::Folded { filter, bias } if depthwise => {
                depthwise_conv2d(region, filter, Some(bias), stride, pads, act)
            }
            Weights::Folded { filter, bias } => {
                bias_act(conv2d(&region.bordered(pads)?, filter, stride)?, bias, act)
            }
            Weights::Separate { filter, norm } => {
                let ys = if depthwise {
                    depthwise_conv2d(region, filter, None, stride, pads, Activation::None)?
                } else {
                    conv2d(&region.bordered(pads)?, filter, stride)?
                };
                act.apply(&norm.forward(&ys, self.spec.eps)?)
            }
        }
    }

    /// [`ConvNormAct::forward_region`] with `residual`, shaped like the result, added to it. The
    /// layer must be linear, for the sum comes last.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward_region_add(&self, region: &Region, residual: &Tensor) -> Result<Tensor> {
        match (&self.weights, self.spec.act) {
            (Weights::Dense(conv), Activation::None) => {
                self.check_channels(region)?;
                conv.forward(region, self.pads(region), Some(residual))
            }
            _ => self.forward_region(region)? + residual,
        }
    }

    fn pads(&self, region: &Region) -> Pads {
        let ConvSpec { kernel, stride, padding, .. } = self.spec;
        padding.pads(FrameSize::new(region.height, region.width), kernel, stride)
    }

    fn check_channels(&self, region: &Region) -> Result<()> {
        let channels = region.plane.dim(1)?;
        if channels != self.spec.in_channels {
            bail!("{}: expected {} channels, got {channels}", self.name, self.spec.in_channels)
        }
        Ok(())
    }

    /// Counts this layer for an input of `input` and returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let output =
            FrameSize::new(input.height.div_ceil(self.spec.stride), input.width.div_ceil(self.spec.stride));
        let weights = self.spec.weight_shape().iter().product::<usize>() as u64;
        tally.push(LayerCost {
            name: self.name.clone(),
            params: weights + 2 * self.spec.out_channels as u64,
            macs: weights * output.area() as u64,
            bias_adds: 0,
            residual_adds: 0,
        });
        output
    }
}

/// A 1×1 convolution with a bias.
#[derive(Debug, Clone)]
pub struct Pointwise {
    name: String,
    channels: (usize, usize),
    weights: PointwiseWeights,
}

#[derive(Debug, Clone)]
enum PointwiseWeights {
    Stored { weight: Tensor, bias: Tensor },
    Packed(PackedConv),
}

impl Pointwise {
    /// `vb` holds `weight` (`[out, in, 1, 1]`) and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(in_channels: usize, out_channels: usize, vb: VarBuilder) -> Result<Self> {
        let weight = vb.get_with_hints(
            (out_channels, in_channels, 1, 1),
            "weight",
            candle_nn::init::DEFAULT_KAIMING_NORMAL,
        )?;
        let bias = vb.get_with_hints(out_channels, "bias", Init::Const(0.0))?;
        Ok(Self {
            name: vb.prefix(),
            channels: (in_channels, out_channels),
            weights: PointwiseWeights::Stored { weight, bias },
        })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        if let PointwiseWeights::Stored { weight, bias } = &self.weights
            && is_packable(weight)
        {
            let conv = PackedConv::new(weight, Some(bias), ConvOptions::default(), Activation::None)?;
            self.weights = PointwiseWeights::Packed(conv);
        }
        Ok(())
    }

    /// `xs`: `[B, C, H, W]`. Result: `[B, C', H, W]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (_, channels, _, _) = xs.dims4()?;
        if channels != self.channels.0 {
            bail!("{}: expected {} channels, got {channels}", self.name, self.channels.0)
        }
        match &self.weights {
            PointwiseWeights::Stored { weight, bias } => {
                bias_act(conv2d(&xs.contiguous()?, weight, 1)?, bias, Activation::None)
            }
            PointwiseWeights::Packed(conv) => conv.forward(&Region::whole(xs)?, Pads::default(), None),
        }
    }

    /// Counts this layer for an input of `input`, which is also its output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let (inputs, outputs) = self.channels;
        let (area, out, weights) = (input.area() as u64, outputs as u64, (inputs * outputs) as u64);
        tally.push(LayerCost {
            name: self.name.clone(),
            params: weights + out,
            macs: weights * area,
            bias_adds: out * area,
            residual_adds: 0,
        });
        input
    }
}

/// A fully connected layer.
#[derive(Debug, Clone)]
pub struct Linear {
    name: String,
    weight: Tensor,
    bias: Tensor,
}

impl Linear {
    /// `vb` holds `weight` (`[out, in]`) and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            name: vb.prefix(),
            weight: vb.get_with_hints(
                (outputs, inputs),
                "weight",
                candle_nn::init::DEFAULT_KAIMING_NORMAL,
            )?,
            bias: vb.get_with_hints(outputs, "bias", Init::Const(0.0))?,
        })
    }

    /// `xs`: `[B, in]`. Result: `[B, out]`.
    ///
    /// # Errors
    /// If the sizes do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        xs.matmul(&self.weight.t()?)?.broadcast_add(&self.bias)
    }

    /// Counts this layer.
    pub fn cost(&self, tally: &mut Tally) {
        let (weights, out) = (self.weight.elem_count() as u64, self.bias.elem_count() as u64);
        tally.push(LayerCost {
            name: self.name.clone(),
            params: weights + out,
            macs: weights,
            bias_adds: out,
            residual_adds: 0,
        });
    }
}

/// A convolution of what needs no more padding; 1×1 ones as one matrix product on the planes as they
/// lie.
fn conv2d(xs: &Tensor, weight: &Tensor, stride: usize) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let (out, _, kernel, _) = weight.dims4()?;
    if kernel > 1 || stride > 1 {
        return xs.conv2d(weight, 0, stride, 1, 1);
    }
    let weight = weight.reshape((out, c))?.broadcast_left(b)?;
    weight.matmul(&xs.reshape((b, c, h * w))?)?.reshape((b, out, h, w))
}

/// Whether weights like this one can be packed: f32 on the CPU.
fn is_packable(weight: &Tensor) -> bool {
    matches!(weight.device(), Device::Cpu) && weight.dtype() == DType::F32
}
