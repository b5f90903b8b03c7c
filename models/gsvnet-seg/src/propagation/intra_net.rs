//! φ, the intra-frame net: scores of the frame by itself, from three convolutions at an eighth of its size.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec, Statistics};

use crate::config::BN_EPS;

const CHANNELS: usize = 32;

/// 3×3 convolutions 3 → 32 → 32 → classes. (The paper writes S⁻ for its argument; it is the frame.)
#[derive(Debug, Clone)]
pub struct IntraNet {
    hidden: [ConvNormAct; 2],
    last: ConvNormAct,
}

impl IntraNet {
    /// `vb` holds the layers `0`, `3` and `6`, and the norms `1` and `4`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(classes: usize, vb: VarBuilder) -> Result<Self> {
        let hidden = |inputs, at: usize| {
            let spec = ConvSpec::dense3(inputs, CHANNELS, 1, BN_EPS, Activation::Relu);
            ConvNormAct::biased_norm(spec, vb.pp(at), vb.pp(at + 1))
        };
        let last = ConvSpec::dense3(CHANNELS, classes, 1, BN_EPS, Activation::None);
        Ok(Self { hidden: [hidden(3, 0)?, hidden(CHANNELS, 3)?], last: ConvNormAct::biased(last, vb.pp(6))? })
    }

    fn layers(&mut self) -> impl Iterator<Item = &mut ConvNormAct> {
        self.hidden.iter_mut().chain([&mut self.last])
    }

    /// Folds norms and packs weights.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.layers().try_for_each(ConvNormAct::prepare)
    }

    /// What the norms normalise by.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.layers().for_each(|layer| layer.set_statistics(statistics));
    }

    /// f: `[B, 3, h, w]` → `[B, classes, h, w]`.
    ///
    /// # Errors
    /// If there are not three channels.
    pub fn forward(&self, low: &Tensor) -> Result<Tensor> {
        let [first, second] = &self.hidden;
        self.last.forward(&second.forward(&first.forward(low)?)?)
    }

    pub(crate) fn cost(&self, low: FrameSize, tally: &mut Tally) {
        self.hidden.iter().chain([&self.last]).fold(low, |size, layer| layer.cost(size, tally));
    }
}
