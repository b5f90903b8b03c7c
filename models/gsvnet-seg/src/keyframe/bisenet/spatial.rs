use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec, Statistics};

use super::{FEATURES, conv_norm_relu};
use crate::config::BN_EPS;

/// Channels of the three strided convolutions.
const CHANNELS: usize = 64;

/// The spatial path (Section 3.1 of BiSeNet's paper): three strided convolutions and a 1×1.
#[derive(Debug, Clone)]
pub struct SpatialPath {
    convs: [ConvNormAct; 4],
}

impl SpatialPath {
    /// `vb` holds `conv_7x7`, `conv_3x3_1`, `conv_3x3_2` and `conv_1x1`.
    pub(super) fn new(vb: VarBuilder) -> Result<Self> {
        let conv = |name: &str, inputs, outputs, kernel, stride| {
            let spec = ConvSpec::dense(inputs, outputs, kernel, stride, BN_EPS, Activation::Relu);
            conv_norm_relu(spec, vb.pp(name))
        };
        Ok(Self {
            convs: [
                conv("conv_7x7", 3, CHANNELS, 7, 2)?,
                conv("conv_3x3_1", CHANNELS, CHANNELS, 3, 2)?,
                conv("conv_3x3_2", CHANNELS, CHANNELS, 3, 2)?,
                conv("conv_1x1", CHANNELS, FEATURES, 1, 1)?,
            ],
        })
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.convs.iter_mut().try_for_each(ConvNormAct::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.convs.iter_mut().for_each(|conv| conv.set_statistics(statistics));
    }

    /// `xs`: `[B, 3, H, W]`. Result: `[B, 128, ceil(H / 8), ceil(W / 8)]`.
    ///
    /// # Errors
    /// If there are not three channels.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.convs.iter().try_fold(xs.clone(), |xs, conv| conv.forward(&xs))
    }

    pub(super) fn cost(&self, input: FrameSize, tally: &mut Tally) {
        self.convs.iter().fold(input, |size, conv| conv.cost(size, tally));
    }
}
