use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_core::labels::{CAMVID_11, CITYSCAPES_19};
use zoo_vision::Normalization;

use super::{ChannelOrder, Channels, Config, PictureConfig, PropagationConfig};
use crate::keyframe::{KeyframeConfig, KeyframeKind};
use crate::{Error, Result};

/// Mean and deviation of Cityscapes that SwiftNet is trained with, of values 0 … 255, red first.
const SWIFTNET_MEAN: [f32; 3] = [73.15, 82.90, 72.3];
const SWIFTNET_STD: [f32; 3] = [47.67, 48.49, 47.73];
/// CamVid's, of values 0 … 1, in the order of the authors' list.
const CAMVID_MEAN: [f32; 3] = [0.411_894_9, 0.425_132_8, 0.432_670_7];
const CAMVID_STD: [f32; 3] = [0.274_135_5, 0.285_062_6, 0.282_846_75];

/// A net for key frames, on a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// Cityscapes: "SN-R18" of Tables 1 and 2.
    #[default]
    SwiftnetR18,
    /// Cityscapes: "BN-R18".
    BisenetR18,
    /// Cityscapes, not in the paper: the encoder has ImageNet weights under a free licence.
    SwiftnetMobilenetV2,
    /// CamVid: Table 3.
    CamvidBisenetR18,
    /// CamVid.
    CamvidSwiftnetR18,
}

impl Preset {
    /// All presets.
    pub const ALL: [Self; 5] = [
        Self::SwiftnetR18,
        Self::BisenetR18,
        Self::SwiftnetMobilenetV2,
        Self::CamvidBisenetR18,
        Self::CamvidSwiftnetR18,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::SwiftnetR18 => "swiftnet-r18",
            Self::BisenetR18 => "bisenet-r18",
            Self::SwiftnetMobilenetV2 => "swiftnet-mobilenet-v2",
            Self::CamvidBisenetR18 => "camvid-bisenet-r18",
            Self::CamvidSwiftnetR18 => "camvid-swiftnet-r18",
        }
    }

    /// The preset of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|preset| preset.name() == name).ok_or_else(|| Error::Unknown {
            what: "preset",
            got: name.to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// Whether it is of CamVid, else of Cityscapes.
    pub fn is_camvid(self) -> bool {
        matches!(self, Self::CamvidBisenetR18 | Self::CamvidSwiftnetR18)
    }

    /// The size of frames in the paper's measurements.
    pub fn size(self) -> FrameSize {
        if self.is_camvid() { FrameSize::new(720, 960) } else { FrameSize::new(1024, 2048) }
    }

    /// What it builds.
    pub fn config(self) -> Config {
        let net = match self {
            Self::SwiftnetR18 | Self::CamvidSwiftnetR18 => KeyframeKind::SwiftnetR18,
            Self::BisenetR18 | Self::CamvidBisenetR18 => KeyframeKind::BisenetR18,
            Self::SwiftnetMobilenetV2 => KeyframeKind::SwiftnetMobilenetV2,
        };
        let classes = if self.is_camvid() { CAMVID_11.len() } else { CITYSCAPES_19.len() };
        Config { keyframe: KeyframeConfig::new(net, classes), propagation: self.propagation() }
    }

    /// Frames of Cityscapes are read blue first, as the flow net and the intra-frame net see them; before the key
    /// frames' net they are turned round. CamVid's are read red first in the authors' code, and turned round likewise.
    fn propagation(self) -> PropagationConfig {
        let channels = match self.is_camvid() {
            true => Channels { keyframe: ChannelOrder::Bgr, propagation: ChannelOrder::Rgb },
            false => Channels::default(),
        };
        PropagationConfig { channels, ..PropagationConfig::default() }
    }

    /// How frames become its input, and its classes.
    pub fn pictures(self) -> PictureConfig {
        let normalization = match self {
            Self::SwiftnetR18 => Normalization::MeanStd {
                mean: SWIFTNET_MEAN.map(|mean| mean / 255.0),
                std: SWIFTNET_STD.map(|std| std / 255.0),
            },
            // ImageNet's: BiSeNet was trained so, and MobileNetV2's weights were.
            Self::BisenetR18 | Self::SwiftnetMobilenetV2 => Normalization::IMAGENET,
            Self::CamvidBisenetR18 | Self::CamvidSwiftnetR18 => {
                Normalization::MeanStd { mean: CAMVID_MEAN, std: CAMVID_STD }
            }
        };
        let labels = if self.is_camvid() { CAMVID_11 } else { CITYSCAPES_19 };
        PictureConfig { normalization, labels: labels.legend() }
    }
}
