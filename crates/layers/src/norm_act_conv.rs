use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, Interpolation, LateralNorm, Region, channel_affine, lateral};

use crate::span::layer_span;
use crate::{BatchNorm, ChannelAffine, ConvNormAct, ConvSpec, Statistics, resize_like};

/// Batch norm → activation → convolution, with or without a bias: the other way round from [`ConvNormAct`], so that
/// the norm cannot be folded into its own convolution.
///
/// Before [`NormActConv::prepare`] everything is differentiable; after it, norm and activation are one pass and the
/// weights are packed. Where one layer alone makes the input, it can do norm and activation as well
/// ([`NormActConv::hand_over`], [`NormActConv::take_in`]), and there is no such pass.
#[derive(Debug, Clone)]
pub struct NormActConv {
    name: String,
    entry: Entry,
    channels: usize,
    act: Activation,
    conv: ConvNormAct,
}

/// What happens to the input before the convolution.
#[derive(Debug, Clone)]
enum Entry {
    /// Norm and activation.
    Norm(BatchNorm),
    /// The same by the stored statistics.
    Affine { scale: Tensor, shift: Tensor },
    /// Nothing: whoever made the input has done it.
    Done,
}

impl NormActConv {
    /// `norm` holds `weight`, `bias`, `running_mean` and `running_var` for the input's channels, `conv` holds
    /// `weight`. The spec's epsilon and activation are those before the convolution.
    ///
    /// # Errors
    /// If the spec makes no convolution, or a tensor is missing or has another shape.
    pub fn new(spec: ConvSpec, norm: VarBuilder, conv: VarBuilder) -> Result<Self> {
        Self::with_conv(spec, norm, |spec| ConvNormAct::bare(spec, conv))
    }

    /// The same with a bias: `conv` holds `weight` and `bias`.
    ///
    /// # Errors
    /// As [`NormActConv::new`].
    pub fn biased(spec: ConvSpec, norm: VarBuilder, conv: VarBuilder) -> Result<Self> {
        Self::with_conv(spec, norm, |spec| ConvNormAct::biased(spec, conv))
    }

    fn with_conv(
        spec: ConvSpec,
        norm: VarBuilder,
        conv: impl FnOnce(ConvSpec) -> Result<ConvNormAct>,
    ) -> Result<Self> {
        Ok(Self {
            name: norm.prefix(),
            entry: Entry::Norm(BatchNorm::new(spec.in_channels, spec.eps, norm)?),
            channels: spec.in_channels,
            act: spec.act,
            conv: conv(ConvSpec { act: Activation::None, ..spec })?,
        })
    }

    /// Gives norm and activation away: from now on the input must come with them done, by stored statistics.
    /// Inference only: gradients end here.
    ///
    /// # Errors
    /// If they are given away already, or candle cannot compute the factors.
    pub fn hand_over(&mut self) -> Result<ChannelAffine> {
        let (scale, shift) = match std::mem::replace(&mut self.entry, Entry::Done) {
            Entry::Norm(norm) => norm.affine()?,
            Entry::Affine { scale, shift } => (scale, shift),
            Entry::Done => bail!("{}: the norm is another layer's already", self.name),
        };
        Ok(ChannelAffine { scale: scale.detach(), shift: Some(shift.detach()), act: self.act })
    }

    /// Takes in what is done to its results next, and only there: from now on they come with it done.
    /// Inference only: gradients end here.
    ///
    /// # Errors
    /// If something with an activation was taken in before, the weights are packed, or a shape does not fit.
    pub fn take_in(&mut self, after: &ChannelAffine) -> Result<()> {
        self.conv.take_in(after)
    }

    /// Makes one pass of norm and activation, and packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the factors.
    pub fn prepare(&mut self) -> Result<()> {
        if let Entry::Norm(norm) = &self.entry {
            let (scale, shift) = norm.affine()?;
            self.entry = Entry::Affine { scale: scale.detach(), shift: shift.detach() };
        }
        self.conv.prepare()
    }

    /// What the norm normalises by, as long as the layer is not prepared.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        if let Entry::Norm(norm) = &mut self.entry {
            norm.set_statistics(statistics);
        }
    }

    /// `xs`: `[B, C, H, W]`. Result: `[B, C', ceil(H / stride), ceil(W / stride)]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.conv.forward(&self.enter(xs)?)
    }

    /// [`NormActConv::forward`] plus `residual`, shaped like the result.
    ///
    /// # Errors
    /// As there, and if the residual does not fit.
    pub fn forward_add(&self, xs: &Tensor, residual: &Tensor) -> Result<Tensor> {
        self.conv.forward_region_add(&Region::whole(&self.enter(xs)?)?, residual)
    }

    /// The 1×1 convolution of the finer map `xs` plus the coarser map `coarse`, `[B, C', h, w]`, resized to its size: a
    /// rung of a ladder. Once prepared it is one pass over the two.
    ///
    /// # Errors
    /// If the convolution changes the size, or a shape does not fit.
    pub fn lateral(&self, xs: &Tensor, coarse: &Tensor, interpolation: Interpolation) -> Result<Tensor> {
        let ConvSpec { kernel, stride, groups, .. } = *self.conv.spec();
        let norm = match &self.entry {
            Entry::Affine { scale, shift } => Some(Some(LateralNorm { scale, shift, act: self.act })),
            Entry::Done => Some(None),
            Entry::Norm(_) => None,
        };
        if let (Some(norm), Some(conv), (1, 1, 1)) =
            (norm, self.conv.packed_dense(), (kernel, stride, groups))
        {
            let _span = layer_span(self.conv.name());
            return lateral(xs, norm, conv, coarse, interpolation);
        }
        self.forward_add(xs, &resize_like(coarse, xs, interpolation)?)
    }

    /// What the convolution reads.
    fn enter(&self, xs: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        let (_, channels, _, _) = xs.dims4()?;
        if channels != self.channels {
            bail!("{}: expected {} channels, got {channels}", self.name, self.channels)
        }
        match &self.entry {
            Entry::Norm(norm) => norm.forward(xs, None, self.act),
            Entry::Affine { scale, shift } => channel_affine(xs, Some(scale), shift, None, self.act),
            Entry::Done => Ok(xs.clone()),
        }
    }

    /// Counts norm and convolution for an input of `input`, as they were built, and returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let values = (self.channels * input.area()) as u64;
        tally.push(LayerCost {
            name: self.name.clone(),
            params: 2 * self.channels as u64,
            norm_params: 2 * self.channels as u64,
            outputs: values,
            normed: values,
            activated: if self.act == Activation::None { 0 } else { values },
            ..LayerCost::default()
        });
        self.conv.cost(input, tally)
    }
}
