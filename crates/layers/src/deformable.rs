//! Modulated deformable convolution with what belongs to it: Zhu et al., "Deformable ConvNets v2: More Deformable,
//! Better Results", CVPR 2019.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder, ops::sigmoid};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, ConvOptions, PackedDeformConv, Pads, activated, deform_conv2d};

use crate::conv::is_packable;
use crate::norm::{BatchNorm, Statistics};
use crate::span::layer_span;
use crate::{ConvNormAct, ConvSpec, Padding, SamePadding};

/// A convolution whose taps read where another convolution says, each times a weight between 0 and 1 → batch norm →
/// activation; or with a bias instead of the norm, or neither.
///
/// The other convolution gives three channels a tap: a row and a column for each, tap by tap, then the weights before a
/// sigmoid. All channels of a tap read the same place.
#[derive(Debug, Clone)]
pub struct DeformableConv {
    name: String,
    spec: ConvSpec,
    has_bias: bool,
    has_norm: bool,
    offset: ConvNormAct,
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    /// As stored, or the norm folded into the filter.
    Stored { filter: Tensor, bias: Option<Tensor>, norm: Option<BatchNorm> },
    /// Likewise, and packed for the processor at hand.
    Packed(PackedDeformConv),
}

impl DeformableConv {
    /// `conv` holds `offset.weight`, `offset.bias` and `conv.weight`; `norm` a batch norm.
    ///
    /// # Errors
    /// If the spec makes no convolution or has TensorFlow's padding, or a tensor is missing or has another shape.
    pub fn new(spec: ConvSpec, conv: VarBuilder, norm: VarBuilder) -> Result<Self> {
        let norm = BatchNorm::new(spec.out_channels, spec.eps, norm)?;
        Self::with(spec, conv, None, Some(norm))
    }

    /// With a bias, `conv.bias`, and without a norm.
    ///
    /// # Errors
    /// As [`DeformableConv::new`].
    pub fn biased(spec: ConvSpec, vb: VarBuilder) -> Result<Self> {
        let bias = vb.pp("conv").get_with_hints(spec.out_channels, "bias", Init::Const(0.0))?;
        Self::with(spec, vb, Some(bias), None)
    }

    /// With neither.
    ///
    /// # Errors
    /// As [`DeformableConv::new`].
    pub fn bare(spec: ConvSpec, vb: VarBuilder) -> Result<Self> {
        Self::with(spec, vb, None, None)
    }

    fn with(spec: ConvSpec, vb: VarBuilder, bias: Option<Tensor>, norm: Option<BatchNorm>) -> Result<Self> {
        if spec.padding != Padding::Same(SamePadding::Torch) {
            bail!("{}: a deformable convolution is padded as in PyTorch, got {:?}", vb.prefix(), spec.padding)
        }
        let (filter, taps) = (spec.filter(&vb.pp("conv"))?, spec.kernel * spec.kernel);
        let offset = ConvSpec { out_channels: 3 * taps, groups: 1, eps: 0.0, act: Activation::None, ..spec };
        Ok(Self {
            name: vb.prefix(),
            spec,
            has_bias: bias.is_some(),
            has_norm: norm.is_some(),
            offset: ConvNormAct::biased(offset, vb.pp("offset"))?,
            weights: Weights::Stored { filter, bias, norm },
        })
    }

    /// Folds the norm into the convolution and packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.offset.prepare()?;
        let Weights::Stored { filter, bias, norm } = &self.weights else { return Ok(()) };
        let (filter, bias) = match norm {
            Some(norm) => {
                let (filter, bias) = norm.fold_into(filter, bias.as_ref())?;
                (filter, Some(bias))
            }
            None => (filter.detach(), bias.as_ref().map(Tensor::detach)),
        };
        self.weights = if is_packable(&filter) {
            let (options, pads, act) = (self.options(), self.pads(), self.spec.act);
            Weights::Packed(PackedDeformConv::new(&filter, bias.as_ref(), options, pads, act)?)
        } else {
            Weights::Stored { filter, bias, norm: None }
        };
        Ok(())
    }

    /// What the norm normalises by, as long as it is not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        if let Weights::Stored { norm: Some(norm), .. } = &mut self.weights {
            norm.set_statistics(statistics);
        }
    }

    /// `xs`: `[B, C, H, W]`, zeros around it. Result: `[B, C', ceil(H / stride), ceil(W / stride)]`.
    ///
    /// # Errors
    /// If the channels do not fit, or the tensors are not floats on the CPU.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward_with(xs, &self.offsets(xs)?)
    }

    /// What says where the taps read, before the sigmoid: `[B, 3 · taps, h, w]`.
    ///
    /// # Errors
    /// As [`DeformableConv::forward`].
    pub fn offsets(&self, xs: &Tensor) -> Result<Tensor> {
        self.offset.forward(xs)
    }

    /// [`DeformableConv::forward`] with the result of [`DeformableConv::offsets`].
    ///
    /// # Errors
    /// As there.
    pub fn forward_with(&self, xs: &Tensor, offsets: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        let taps = self.spec.kernel * self.spec.kernel;
        let mask = sigmoid(&offsets.narrow(1, 2 * taps, taps)?)?;
        let offsets = offsets.narrow(1, 0, 2 * taps)?;
        match &self.weights {
            Weights::Packed(conv) => conv.forward(xs, &offsets, Some(&mask)),
            Weights::Stored { filter, bias, norm } => {
                let (options, pads) = (self.options(), self.pads());
                let ys = deform_conv2d(xs, &offsets, Some(&mask), filter, bias.as_ref(), options, pads)?;
                match norm {
                    Some(norm) => norm.forward(&ys, None, self.spec.act),
                    None => activated(&ys, self.spec.act),
                }
            }
        }
    }

    fn options(&self) -> ConvOptions {
        let ConvSpec { stride, dilation, groups, .. } = self.spec;
        ConvOptions { stride, dilation, groups, ..ConvOptions::default() }
    }

    /// The border in whose middle a filter's centre is at the first pixel.
    fn pads(&self) -> Pads {
        Pads::all(self.spec.dilation * (self.spec.kernel / 2))
    }

    /// Counts both convolutions for an input of `input` and returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let output = self.offset.cost(input, tally);
        let weights = self.spec.weight_shape().iter().product::<usize>() as u64;
        let (channels, area) = (self.spec.out_channels as u64, output.area() as u64);
        let (norm, outputs) = (2 * channels * u64::from(self.has_norm), channels * area);
        tally.push(LayerCost {
            name: self.name.clone(),
            params: weights + norm + channels * u64::from(self.has_bias),
            norm_params: norm,
            macs: weights * area,
            bias_adds: if self.has_norm || !self.has_bias { 0 } else { outputs },
            residual_adds: 0,
            outputs,
            normed: if self.has_norm { outputs } else { 0 },
            activated: if self.spec.act == Activation::None { 0 } else { outputs },
        });
        output
    }
}
