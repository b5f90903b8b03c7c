//! Transposed convolution with a bias.

use candle_core::{Result, Tensor, bail};
use candle_nn::{Init, VarBuilder};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, PackedTransposedConv, TransposedOptions, channel_affine};

use crate::conv::is_packable;
use crate::span::layer_span;

/// Transposed convolution → bias → activation.
#[derive(Debug, Clone)]
pub struct TransposedConv {
    name: String,
    channels: (usize, usize),
    kernel: usize,
    options: TransposedOptions,
    act: Activation,
    weights: Weights,
}

#[derive(Debug, Clone)]
enum Weights {
    /// As stored: differentiable, and for devices and types without packed weights.
    Plain {
        filter: Tensor,
        bias: Tensor,
    },
    Packed(PackedTransposedConv),
}

impl TransposedConv {
    /// From `inputs` to `outputs` channels. `vb` holds `weight` (`[in, out, k, k]`) and `bias`.
    ///
    /// # Errors
    /// If the options make no convolution, or a tensor is missing or has another shape.
    pub fn new(
        (inputs, outputs): (usize, usize),
        kernel: usize,
        options: TransposedOptions,
        act: Activation,
        vb: VarBuilder,
    ) -> Result<Self> {
        if kernel == 0 || options.output_padding >= options.stride {
            bail!(
                "{}: a transposed convolution of {kernel}×{kernel} with {options:?}: kernel and stride must be at least 1, and output_padding less than the stride",
                vb.prefix()
            )
        }
        let shape = [inputs, outputs, kernel, kernel];
        let filter =
            vb.get_with_hints(shape.as_slice(), "weight", candle_nn::init::DEFAULT_KAIMING_NORMAL)?;
        let bias = vb.get_with_hints(outputs, "bias", Init::Const(0.0))?;
        let weights = Weights::Plain { filter, bias };
        Ok(Self { name: vb.prefix(), channels: (inputs, outputs), kernel, options, act, weights })
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        if let Weights::Plain { filter, bias } = &self.weights
            && is_packable(filter)
        {
            let packed = PackedTransposedConv::new(filter, Some(bias), self.options, self.act)?;
            self.weights = Weights::Packed(packed);
        }
        Ok(())
    }

    /// `[B, in, H, W]` → `[B, out, h, w]` with `h = (H − 1) · stride − 2 · padding + k + output_padding`.
    ///
    /// # Errors
    /// If the channels do not fit, or the padding leaves nothing.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let _span = layer_span(&self.name);
        let (_, channels, h, w) = xs.dims4()?;
        if channels != self.channels.0 {
            bail!("{}: expected {} channels, got {channels}", self.name, self.channels.0)
        }
        if self.output(FrameSize::new(h, w)).area() == 0 {
            bail!("{}: {:?} leaves nothing of a map of {h}×{w}: use a larger input", self.name, self.options)
        }
        match &self.weights {
            Weights::Packed(conv) => conv.forward(xs),
            Weights::Plain { filter, bias } => {
                let TransposedOptions { stride, padding, output_padding } = self.options;
                let ys = xs.contiguous()?.conv_transpose2d(filter, padding, output_padding, stride, 1)?;
                channel_affine(&ys, None, bias, None, self.act)
            }
        }
    }

    fn output(&self, input: FrameSize) -> FrameSize {
        let TransposedOptions { stride, padding, output_padding } = self.options;
        let side = |n: usize| match n {
            0 => 0,
            _ => ((n - 1) * stride + self.kernel + output_padding).saturating_sub(2 * padding),
        };
        FrameSize::new(side(input.height), side(input.width))
    }

    /// Counts this layer for an input of `input`, each input times each tap, and returns the output's size.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let output = self.output(input);
        let weights = (self.channels.0 * self.channels.1 * self.kernel * self.kernel) as u64;
        let outputs = self.channels.1 as u64;
        tally.push(LayerCost {
            name: self.name.clone(),
            params: weights + outputs,
            macs: weights * input.area() as u64,
            bias_adds: outputs * output.area() as u64,
            outputs: outputs * output.area() as u64,
            activated: if self.act == Activation::None { 0 } else { outputs * output.area() as u64 },
            ..LayerCost::default()
        });
        output
    }
}
