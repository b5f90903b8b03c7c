use std::cmp::Reverse;

use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_core::labels::{CAMVID_12, CITYSCAPES_19, VOC_21};
use zoo_vision::{Fit, Normalization, Preprocess, Resize};

use super::{BackboneName, Config, FEATURES, PictureConfig, Version};
use crate::{Error, Result};

/// The five models of Table S1, as the published training configurations have them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// HyperSeg-L of PASCAL VOC.
    #[default]
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

    /// How pictures become its input, and its classes: VOC's are padded with black, and normalised by 0.5 as in
    /// the published test configuration (the training configuration has ImageNet's mean and deviation); the
    /// others are resized as Pillow does it.
    pub fn pictures(self) -> PictureConfig {
        let size = self.size();
        let (fit, normalization) = match self {
            Self::VocL => (Fit::Pad { size, fill: [0; 3] }, Normalization::HALF),
            _ => (Fit::Stretch { size }, Normalization::IMAGENET),
        };
        let labels = match self {
            Self::VocL => VOC_21,
            Self::CityscapesS | Self::CityscapesM => CITYSCAPES_19,
            Self::CamvidS | Self::CamvidL => CAMVID_12,
        };
        let preprocess = Preprocess { fit, resize: Resize::Pil, normalization };
        PictureConfig { preprocess, labels: labels.legend() }
    }

    /// The preset that a net is most like: by the number of its classes, then by its channels. Of several, Table
    /// S1's first.
    pub fn most_like(cfg: &Config) -> Self {
        let likeness = |preset: &Self| {
            let own = preset.config();
            let shared = [
                own.level_channels == cfg.level_channels,
                own.kernel_sizes == cfg.kernel_sizes,
                own.out_feat_scale == cfg.out_feat_scale,
                own.backbone == cfg.backbone,
            ];
            let shared = shared.iter().filter(|shared| **shared).count();
            Reverse((own.num_classes == cfg.num_classes, shared))
        };
        Self::ALL.into_iter().min_by_key(likeness).unwrap_or_default()
    }
}
