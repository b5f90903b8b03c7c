use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, ConvOptions, PackedConv, Pads, Region, channel_affine, conv2d};

use crate::conv::is_packable;
use crate::span::layer_span;

/// A 1×1 convolution with a bias.
#[derive(Debug, Clone)]
pub struct Pointwise {
    name: String,
    channels: (usize, usize),
    act: Activation,
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    Stored { weight: Tensor, bias: Tensor },
    Packed(PackedConv),
}

impl Pointwise {
    /// `vb` holds `weight` (`[out, in, 1, 1]`) and `bias`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(in_channels: usize, out_channels: usize, vb: VarBuilder) -> Result<Self> {
        Self::activated(in_channels, out_channels, Activation::None, vb)
    }

    /// The same with an activation after it.
    ///
    /// # Errors
    /// As [`Pointwise::new`].
    pub fn activated(
        in_channels: usize,
        out_channels: usize,
        act: Activation,
        vb: VarBuilder,
    ) -> Result<Self> {
        let weight = vb.get_with_hints(
            (out_channels, in_channels, 1, 1),
            "weight",
            candle_nn::init::DEFAULT_KAIMING_NORMAL,
        )?;
        let bias = vb.get_with_hints(out_channels, "bias", Init::Const(0.0))?;
        let channels = (in_channels, out_channels);
        Ok(Self { name: vb.prefix(), channels, act, weights: Weights::Stored { weight, bias } })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        if let Weights::Stored { weight, bias } = &self.weights
            && is_packable(weight)
        {
            let conv = PackedConv::new(weight, Some(bias), ConvOptions::default(), self.act)?;
            self.weights = Weights::Packed(conv);
        }
        Ok(())
    }

    /// The packed weights, once they are.
    pub(crate) fn packed(&self) -> Option<&PackedConv> {
        match &self.weights {
            Weights::Packed(conv) => Some(conv),
            Weights::Stored { .. } => None,
        }
    }

    /// `xs`: `[B, C, H, W]`. Result: `[B, C', H, W]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        let (_, channels, _, _) = xs.dims4()?;
        if channels != self.channels.0 {
            bail!("{}: expected {} channels, got {channels}", self.name, self.channels.0)
        }
        match &self.weights {
            Weights::Stored { weight, bias } => {
                let ys = conv2d(&Region::whole(xs)?, weight, Pads::default(), ConvOptions::default())?;
                channel_affine(&ys, None, bias, None, self.act)
            }
            Weights::Packed(conv) => conv.forward(&Region::whole(xs)?, Pads::default(), None),
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
            outputs: out * area,
        });
        input
    }
}
