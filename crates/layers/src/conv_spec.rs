use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::FrameSize;
use zoo_kernels::{Activation, Pads};

use crate::Padding;

/// Shape and options of a [`ConvNormAct`](crate::ConvNormAct).
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
    pub(crate) fn is_depthwise(&self) -> bool {
        let Self { in_channels, out_channels, groups, dilation, .. } = *self;
        groups > 1 && groups == in_channels && groups == out_channels && dilation == 1
    }

    pub(crate) fn check(&self, name: &str) -> Result<()> {
        let Self { in_channels, out_channels, kernel, stride, dilation, groups, .. } = *self;
        if kernel == 0 || stride == 0 || dilation == 0 || groups == 0 {
            bail!("{name}: kernel, stride, dilation and groups must be at least 1, got {self:?}")
        }
        if !in_channels.is_multiple_of(groups) || !out_channels.is_multiple_of(groups) {
            bail!("{name}: {groups} groups do not divide {in_channels} channels in and {out_channels} out")
        }
        Ok(())
    }

    pub(crate) fn weight_shape(&self) -> [usize; 4] {
        [self.out_channels, self.in_channels / self.groups, self.kernel, self.kernel]
    }

    /// Reads `weight`, if this makes a convolution.
    pub(crate) fn filter(&self, vb: &VarBuilder) -> Result<Tensor> {
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
    pub(crate) fn output(&self, size: FrameSize) -> FrameSize {
        let Pads { top, bottom, left, right } = self.pads(size);
        let outputs = |inputs: usize, pads: usize| match inputs {
            0 => 0,
            _ => (inputs + pads + self.stride).saturating_sub(self.reach()) / self.stride,
        };
        FrameSize::new(outputs(size.height, top + bottom), outputs(size.width, left + right))
    }
}
