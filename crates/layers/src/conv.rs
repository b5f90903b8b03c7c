//! Convolutions with what belongs to them: padding, norm, bias, activation.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, Region, bias_act, depthwise_conv2d};

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
/// Before [`ConvNormAct::prepare`] the three are separate and differentiable; after it, norm and
/// convolution are one.
#[derive(Debug, Clone)]
pub struct ConvNormAct {
    name: String,
    spec: ConvSpec,
    weight: Tensor,
    norm: Norm,
}

#[derive(Debug, Clone)]
enum Norm {
    Batch { scale: Tensor, shift: Tensor, mean: Tensor, var: Tensor },
    Folded { bias: Tensor },
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
        Ok(Self {
            name: conv.prefix(),
            weight: conv.get_with_hints(
                spec.weight_shape().as_slice(),
                "weight",
                candle_nn::init::DEFAULT_KAIMING_NORMAL,
            )?,
            norm: Norm::Batch {
                scale: norm.get_with_hints(c, "weight", Init::Const(1.0))?,
                shift: norm.get_with_hints(c, "bias", Init::Const(0.0))?,
                mean: norm.get_with_hints(c, "running_mean", Init::Const(0.0))?,
                var: norm.get_with_hints(c, "running_var", Init::Const(1.0))?,
            },
            spec,
        })
    }

    /// What was built.
    pub fn spec(&self) -> &ConvSpec {
        &self.spec
    }

    /// Folds the norm into the convolution. Inference only: the weights' gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        if let Norm::Batch { scale, shift, mean, var } = &self.norm {
            let scale = (scale / (var + self.spec.eps)?.sqrt()?)?;
            let bias = (shift - (mean * &scale)?)?.detach();
            self.weight = self.weight.broadcast_mul(&scale.reshape(((), 1, 1, 1))?)?.detach();
            self.norm = Norm::Folded { bias };
        }
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
        let ConvSpec { kernel, stride, padding, act, .. } = self.spec;
        let pads = padding.pads(FrameSize::new(region.height, region.width), kernel, stride);
        if self.spec.depthwise {
            return match &self.norm {
                Norm::Folded { bias } => {
                    depthwise_conv2d(region, &self.weight, Some(bias), stride, pads, act)
                }
                Norm::Batch { .. } => {
                    let ys = depthwise_conv2d(region, &self.weight, None, stride, pads, Activation::None)?;
                    self.norm_act(ys)
                }
            };
        }
        let channels = region.plane.dim(1)?;
        if channels != self.spec.in_channels {
            bail!("{}: expected {} channels, got {channels}", self.name, self.spec.in_channels)
        }
        let xs = region.bordered(pads)?;
        let ys = if kernel == 1 && stride == 1 {
            matmul_1x1(&xs, &self.weight)?
        } else {
            xs.conv2d(&self.weight, 0, stride, 1, 1)?
        };
        self.norm_act(ys)
    }

    fn norm_act(&self, ys: Tensor) -> Result<Tensor> {
        match &self.norm {
            Norm::Folded { bias } => bias_act(ys, bias, self.spec.act),
            Norm::Batch { scale, shift, mean, var } => {
                let channelwise = |t: &Tensor| t.reshape((1, (), 1, 1));
                let ys = ys
                    .broadcast_sub(&channelwise(mean)?)?
                    .broadcast_div(&channelwise(&(var + self.spec.eps)?.sqrt()?)?)?
                    .broadcast_mul(&channelwise(scale)?)?
                    .broadcast_add(&channelwise(shift)?)?;
                self.spec.act.apply(&ys)
            }
        }
    }

    /// Counts this layer for an input of `input` and returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let output =
            FrameSize::new(input.height.div_ceil(self.spec.stride), input.width.div_ceil(self.spec.stride));
        let weights = self.weight.elem_count() as u64;
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
    weight: Tensor,
    bias: Tensor,
}

impl Pointwise {
    /// `vb` holds `weight` (`[out, in, 1, 1]`) and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(in_channels: usize, out_channels: usize, vb: VarBuilder) -> Result<Self> {
        Ok(Self {
            name: vb.prefix(),
            weight: vb.get_with_hints(
                (out_channels, in_channels, 1, 1),
                "weight",
                candle_nn::init::DEFAULT_KAIMING_NORMAL,
            )?,
            bias: vb.get_with_hints(out_channels, "bias", Init::Const(0.0))?,
        })
    }

    /// `xs`: `[B, C, H, W]`. Result: `[B, C', H, W]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        bias_act(matmul_1x1(xs, &self.weight)?, &self.bias, Activation::None)
    }

    /// Counts this layer for an input of `input`, which is also its output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let (area, out) = (input.area() as u64, self.bias.elem_count() as u64);
        let weights = self.weight.elem_count() as u64;
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

/// A 1×1 convolution as one matrix product on the planes as they lie, without a change of layout.
fn matmul_1x1(xs: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let (out, inputs, _, _) = weight.dims4()?;
    if c != inputs {
        bail!("1×1 convolution: expected {inputs} channels, got {c}")
    }
    let weight = weight.reshape((out, inputs))?.broadcast_left(b)?;
    weight.matmul(&xs.reshape((b, c, h * w))?)?.reshape((b, out, h, w))
}
