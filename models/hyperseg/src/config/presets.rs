use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;

use super::{BackboneName, Config, FEATURES, Version};
use crate::{Error, Result};

/// The five models of Table S1, as the published training configurations have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// HyperSeg-L of PASCAL VOC.
    VocL,
    /// HyperSeg-S of Cityscapes.
    CityscapesS,
    /// HyperSeg-M of Cityscapes.
    CityscapesM,
    /// HyperSeg-S of CamVid.
    CamvidS,
    /// HyperSeg-L of CamVid.
    CamvidL,
}

impl Preset {
    /// All presets, as Table S1 orders them.
    pub const ALL: [Self; 5] =
        [Self::VocL, Self::CityscapesS, Self::CityscapesM, Self::CamvidS, Self::CamvidL];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::VocL => "voc-l",
            Self::CityscapesS => "cityscapes-s",
            Self::CityscapesM => "cityscapes-m",
            Self::CamvidS => "camvid-s",
            Self::CamvidL => "camvid-l",
        }
    }

    /// The name in the paper.
    pub fn title(self) -> &'static str {
        match self {
            Self::VocL => "HyperSeg-L (PASCAL VOC)",
            Self::CityscapesS => "HyperSeg-S (Cityscapes)",
            Self::CityscapesM => "HyperSeg-M (Cityscapes)",
            Self::CamvidS => "HyperSeg-S (CamVid)",
            Self::CamvidL => "HyperSeg-L (CamVid)",
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

    /// What it builds.
    pub fn config(self) -> Config {
        let camvid = Config {
            version: Version::V1_0,
            backbone: BackboneName::EfficientnetB1,
            num_classes: 12,
            out_feat_scale: [0.25; FEATURES],
            head_levels: 2,
            kernel_sizes: vec![1, 1, 1, 3, 3],
            level_channels: Some(vec![64, 32, 16, 16]),
            expand_ratio: 2.0,
            weight_groups: vec![64, 32, 32, 16, 8],
            unify_level: None,
            signal_grid: None,
            positions: true,
        };
        match self {
            Self::VocL => Config {
                version: Version::V0_1,
                backbone: BackboneName::EfficientnetB3,
                num_classes: 21,
                head_levels: 3,
                kernel_sizes: vec![1, 1, 3, 3, 3, 3],
                level_channels: None,
                weight_groups: vec![16; 6],
                ..camvid
            },
            Self::CityscapesS => Config {
                version: Version::V1_0Unify,
                num_classes: 19,
                out_feat_scale: [1.0, 0.166, 0.2, 0.25, 0.4],
                level_channels: Some(vec![32, 16, 8, 8]),
                // Four mappings; the last entry is the authors', and unused.
                weight_groups: vec![32, 16, 8, 16, 4],
                unify_level: Some(4),
                ..camvid
            },
            Self::CityscapesM => Config {
                num_classes: 19,
                out_feat_scale: [1.0, 0.25, 0.25, 0.25, 0.25],
                weight_groups: vec![32, 16, 8, 16, 4],
                ..camvid
            },
            Self::CamvidS => camvid,
            Self::CamvidL => Config {
                kernel_sizes: vec![1, 1, 1, 3, 3, 3],
                level_channels: Some(vec![64, 32, 16, 16, 16]),
                weight_groups: vec![64, 32, 32, 16, 8, 8],
                ..camvid
            },
        }
    }

    /// The size of images in the paper's measurements.
    pub fn size(self) -> FrameSize {
        match self {
            Self::VocL => FrameSize::new(512, 512),
            Self::CityscapesS => FrameSize::new(768, 1536),
            Self::CityscapesM => FrameSize::new(512, 1024),
            Self::CamvidS => FrameSize::new(576, 768),
            Self::CamvidL => FrameSize::new(768, 1024),
        }
    }
}
