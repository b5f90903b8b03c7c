//! The attention network (supplement, Section A): Q-values of all windows from the restored map.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec, Linear, MobileNetV2Config};

/// Channels of both convolutions; chosen to meet the FLOP counts of Tables 4 and 5.
const CHANNELS: usize = 64;

/// Two 3×3 convolutions of stride 2 and one fully connected layer.
#[derive(Debug, Clone)]
pub struct Attention {
    conv1: ConvNormAct,
    conv2: ConvNormAct,
    fc: Linear,
}

impl Attention {
    /// For a restored map of `inputs` channels and `map` cells, and `actions` windows.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(
        cfg: &MobileNetV2Config,
        inputs: usize,
        map: FrameSize,
        actions: usize,
        vb: VarBuilder,
    ) -> Result<Self> {
        let conv = |name: &str, inputs: usize| {
            let spec = ConvSpec::dense3(inputs, CHANNELS, 2, cfg.bn_eps, Activation::Relu6);
            ConvNormAct::new(spec.padded(cfg.padding), vb.pp(name).pp(0), vb.pp(name).pp(1))
        };
        let quarter = |n: usize| n.div_ceil(2).div_ceil(2);
        let flat = CHANNELS * quarter(map.height) * quarter(map.width);
        Ok(Self {
            conv1: conv("conv1", inputs)?,
            conv2: conv("conv2", CHANNELS)?,
            fc: Linear::new(flat, actions, vb.pp("fc"))?,
        })
    }

    /// `restored`: `[B, C, H/32, W/32]`. Result: `[B, |A|]`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, restored: &Tensor) -> Result<Tensor> {
        let ys = self.conv2.forward(&self.conv1.forward(restored)?)?;
        self.fc.forward(&ys.flatten_from(1)?)
    }

    /// Folds batch norm for inference.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.conv1.prepare()?;
        self.conv2.prepare()
    }

    /// Counts the layers for a restored map of `map` cells.
    pub fn cost(&self, map: FrameSize, tally: &mut Tally) {
        self.conv2.cost(self.conv1.cost(map, tally), tally);
        self.fc.cost(tally);
    }
}
