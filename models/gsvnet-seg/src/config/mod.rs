//! What is built, and when key frames come.

mod pictures;
mod presets;

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;

pub use pictures::PictureConfig;
pub use presets::Preset;

use crate::flow::FlowKind;
use crate::keyframe::KeyframeConfig;
use crate::propagation::{EdgeMode, KernelSize};
use crate::{Error, Result};

/// Batch norm's epsilon, everywhere.
pub(crate) const BN_EPS: f64 = 1e-5;
/// Rows and columns of a frame to one of its scores.
pub const STRIDE: usize = 8;
/// The smallest frame: what the guiding net halves must have something left.
pub const SMALLEST: FrameSize = FrameSize::new(32, 32);

/// Which way round a net's three input channels are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelOrder {
    /// Red first.
    Rgb,
    /// Blue first, as OpenCV reads pictures.
    Bgr,
}

impl ChannelOrder {
    /// An RGB map, `[B, 3, H, W]`, in this order.
    ///
    /// # Errors
    /// If candle cannot turn it round.
    pub fn of_rgb(self, map: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Rgb => Ok(map.clone()),
            Self::Bgr => {
                let turned = Tensor::new(&[2u32, 1, 0], map.device())?;
                map.contiguous()?.index_select(&turned, 1)
            }
        }
    }
}

/// The orders of channels that weights were trained with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Channels {
    /// The key frames' net.
    pub keyframe: ChannelOrder,
    /// The flow net and the intra-frame net.
    pub propagation: ChannelOrder,
}

impl Default for Channels {
    /// As the authors' code has it for Cityscapes.
    fn default() -> Self {
        Self { keyframe: ChannelOrder::Rgb, propagation: ChannelOrder::Bgr }
    }
}

/// The part between key frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PropagationConfig {
    /// The flow net.
    pub flow: FlowKind,
    /// The bank of delay kernels.
    pub kernel_size: KernelSize,
    /// What an edge is.
    pub edge_mode: EdgeMode,
    /// Which way round the nets' inputs are.
    pub channels: Channels,
}

/// The whole net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The key frames' net.
    pub keyframe: KeyframeConfig,
    /// What carries its scores on.
    #[serde(default)]
    pub propagation: PropagationConfig,
}

/// All that a [`GsvNetSeg`](crate::GsvNetSeg) is built from. `zoo convert` writes both parts to `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The net.
    pub net: Config,
    /// Its frames and classes.
    pub pictures: PictureConfig,
}

impl From<Preset> for ModelConfig {
    fn from(preset: Preset) -> Self {
        Self { net: preset.config(), pictures: preset.pictures() }
    }
}

/// How large a key frame's net sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub enum KeyframeScale {
    /// Half the rows and columns.
    #[serde(rename = "0.5")]
    Half,
    /// Three quarters, as in the paper's tables.
    #[default]
    #[serde(rename = "0.75")]
    ThreeQuarters,
    /// As it is.
    #[serde(rename = "1.0")]
    Full,
}

impl KeyframeScale {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Half, Self::ThreeQuarters, Self::Full];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Half => "0.5",
            Self::ThreeQuarters => "0.75",
            Self::Full => "1.0",
        }
    }

    /// The size that the net sees of a frame: a whole number of quarters, rounded down first.
    pub fn of(self, frame: FrameSize) -> FrameSize {
        let quarters = match self {
            Self::Half => 2,
            Self::ThreeQuarters => 3,
            Self::Full => return frame,
        };
        FrameSize::new(frame.height / 4 * quarters, frame.width / 4 * quarters)
    }
}

/// When a frame is a key frame, and how large its net sees it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Schedule {
    /// l: every l-th frame is a key frame; all of them with 1.
    pub interval: usize,
    /// Its size.
    pub scale: KeyframeScale,
    /// A frame whose eighth differs from the last one's by more than this, on average over all values and in units of
    /// the normalisation (about one standard deviation of colour), is a key frame, and the interval starts anew.
    /// Beyond the paper.
    pub scene_change: Option<f32>,
}

impl Default for Schedule {
    /// Every third frame, at three quarters.
    fn default() -> Self {
        Self { interval: 3, scale: KeyframeScale::default(), scene_change: None }
    }
}

impl Schedule {
    /// Every `interval`-th frame.
    pub fn every(interval: usize) -> Self {
        Self { interval, ..Self::default() }
    }

    /// Whether it can be kept.
    ///
    /// # Errors
    /// If the interval is 0, or the threshold is not a positive number.
    pub fn validate(&self) -> Result<()> {
        if self.interval == 0 {
            return Err(Error::Config(
                "an interval of 0 frames between key frames: expected at least 1".to_owned(),
            ));
        }
        match self.scene_change {
            Some(least) if !(least.is_finite() && least > 0.0) => Err(Error::Config(format!(
                "a scene change from a difference of {least} on: expected a positive number, such as 0.5"
            ))),
            _ => Ok(()),
        }
    }
}

/// The size of a frame's scores: an eighth, rounded down.
pub fn low_size(frame: FrameSize) -> FrameSize {
    FrameSize::new(frame.height / STRIDE, frame.width / STRIDE)
}
