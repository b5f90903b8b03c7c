//! The attention network (supplement, Section A): Q-values of all windows from the restored map.
//!
//! "Two convolution layers and one fully-connected layer [build] on top of the restored full-sized
//! feature map." Their sizes and strides are ours.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec, Linear, MobileNetV2Config};

use crate::{Grid, MAX_STRIDE};

/// Channels of both convolutions; chosen to meet the FLOP counts of Tables 4 and 5.
const CHANNELS: usize = 64;

/// Two 3×3 convolutions of stride 2 and one fully connected layer.
#[derive(Debug, Clone)]
pub struct Attention {
    conv1: ConvNormAct,
    conv2: ConvNormAct,
    fc: Linear,
    grid: Grid,
    frame: FrameSize,
}

/// Cells of the restored map of a frame.
pub(crate) fn restored_size(frame: FrameSize) -> FrameSize {
    FrameSize::new(frame.height.div_ceil(MAX_STRIDE), frame.width.div_ceil(MAX_STRIDE))
}

impl Attention {
    /// For a restored map of `inputs` channels of frames of `frame`, and the windows of `grid`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(
        cfg: &MobileNetV2Config,
        inputs: usize,
        frame: FrameSize,
        grid: Grid,
        vb: VarBuilder,
    ) -> Result<Self> {
        let conv = |name: &str, inputs: usize| {
            let spec = ConvSpec::dense3(inputs, CHANNELS, 2, cfg.bn_eps, Activation::Relu6);
            ConvNormAct::new(spec.padded(cfg.padding), vb.pp(name).pp(0), vb.pp(name).pp(1))
        };
        let map = restored_size(frame);
        let quarter = |n: usize| n.div_ceil(2).div_ceil(2);
        let flat = CHANNELS * quarter(map.height) * quarter(map.width);
        Ok(Self {
            conv1: conv("conv1", inputs)?,
            conv2: conv("conv2", CHANNELS)?,
            fc: Linear::new(flat, grid.actions(), vb.pp("fc"))?,
            grid,
            frame,
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

    /// The grid and the frame that it was built for.
    pub fn built_for(&self) -> (Grid, FrameSize) {
        (self.grid, self.frame)
    }

    /// Counts the layers for frames of `frame`.
    pub fn cost(&self, frame: FrameSize, tally: &mut Tally) {
        self.conv2.cost(self.conv1.cost(restored_size(frame), tally), tally);
        self.fc.cost(1, tally);
    }
}
