use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_layers::{MobileNetV2Config, MobileNetV2Names, ResNetConfig};

use super::{
    BackboneConfig, BoxRule, Config, Flavour, HeadConfig, LongHeadConfig, Packing, PointsConfig, Tower,
};
use crate::plane::Layout;
use crate::{Error, Result};

/// COCO's classes, and torchvision's list, which has a background and holes.
const COCO: usize = 80;
const TORCHVISION: usize = 91;
/// Channels of a pyramid, but the narrow one's.
const PYRAMID: usize = 256;

/// A net with a name: a row of the authors' configurations, a baseline, or our narrow one.
///
/// Presets that differ in their training alone (`-2x`: twice as long, short sides of 640 to 800) build one net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Preset {
    /// ResNet-50, type 4: the paper's main one.
    #[default]
    R50M4,
    /// Type 2.
    R50M2,
    /// Type 4 without packing.
    R50M4Nsp,
    /// Trained twice as long.
    #[serde(rename = "r50-m4-2x")]
    R50M4Long,
    /// ResNet-101.
    #[serde(rename = "r101-m4-2x")]
    R101M4Long,
    /// ResNeXt-101 64×4d with deformable convolutions.
    #[serde(rename = "x101-dcn-m4-2x")]
    X101DcnM4Long,
    /// MobileNetV2.
    Mnv2M4,
    /// Trained twice as long.
    #[serde(rename = "mnv2-m4-2x")]
    Mnv2M4Long,
    /// MobileNetV2, 64 channels, six blocks: ours, for small machines.
    Mnv2Tiny,
    /// RetinaPack on ResNet-50.
    #[serde(rename = "retinapack-r50")]
    RetinaPackR50,
    /// Trained twice as long.
    #[serde(rename = "retinapack-r50-2x")]
    RetinaPackR50Long,
    /// RetinaPack on ResNet-101.
    #[serde(rename = "retinapack-r101-2x")]
    RetinaPackR101Long,
    /// FCOS on MobileNetV2.
    FcosMnv2,
    /// FCOS on ResNet-50.
    FcosR50,
    /// FCOS on ResNet-101.
    FcosR101,
    /// FCOS on ResNeXt-101 with deformable convolutions.
    FcosX101Dcn,
    /// RetinaNet on ResNet-50.
    #[serde(rename = "retinanet-r50")]
    RetinaNetR50,
    /// RetinaNet on ResNet-101.
    #[serde(rename = "retinanet-r101")]
    RetinaNetR101,
    /// torchvision's `fcos_resnet50_fpn`.
    FcosR50Torchvision,
    /// torchvision's `retinanet_resnet50_fpn`.
    #[serde(rename = "retinanet-r50-torchvision")]
    RetinaNetR50Torchvision,
}

/// Switches of FCOS' improved version, which the authors' ResNets have, and of its first one, which their MobileNetV2s have.
const IMPROVED: PointsConfig =
    PointsConfig { boxes: BoxRule::Relu, centerness: Tower::Boxes, deformable: false };
const FIRST_VERSION: PointsConfig =
    PointsConfig { boxes: BoxRule::Exp, centerness: Tower::Classes, deformable: false };

impl Preset {
    /// All presets.
    pub const ALL: [Self; 20] = [
        Self::R50M4,
        Self::R50M2,
        Self::R50M4Nsp,
        Self::R50M4Long,
        Self::R101M4Long,
        Self::X101DcnM4Long,
        Self::Mnv2M4,
        Self::Mnv2M4Long,
        Self::Mnv2Tiny,
        Self::RetinaPackR50,
        Self::RetinaPackR50Long,
        Self::RetinaPackR101Long,
        Self::FcosMnv2,
        Self::FcosR50,
        Self::FcosR101,
        Self::FcosX101Dcn,
        Self::RetinaNetR50,
        Self::RetinaNetR101,
        Self::FcosR50Torchvision,
        Self::RetinaNetR50Torchvision,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::R50M4 => "r50-m4",
            Self::R50M2 => "r50-m2",
            Self::R50M4Nsp => "r50-m4-nsp",
            Self::R50M4Long => "r50-m4-2x",
            Self::R101M4Long => "r101-m4-2x",
            Self::X101DcnM4Long => "x101-dcn-m4-2x",
            Self::Mnv2M4 => "mnv2-m4",
            Self::Mnv2M4Long => "mnv2-m4-2x",
            Self::Mnv2Tiny => "mnv2-tiny",
            Self::RetinaPackR50 => "retinapack-r50",
            Self::RetinaPackR50Long => "retinapack-r50-2x",
            Self::RetinaPackR101Long => "retinapack-r101-2x",
            Self::FcosMnv2 => "fcos-mnv2",
            Self::FcosR50 => "fcos-r50",
            Self::FcosR101 => "fcos-r101",
            Self::FcosX101Dcn => "fcos-x101-dcn",
            Self::RetinaNetR50 => "retinanet-r50",
            Self::RetinaNetR101 => "retinanet-r101",
            Self::FcosR50Torchvision => "fcos-r50-torchvision",
            Self::RetinaNetR50Torchvision => "retinanet-r50-torchvision",
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

    /// The input that counts and times are of: an image of 800×1333, padded.
    pub fn size(self) -> FrameSize {
        FrameSize::new(800, 1344)
    }

    /// What it builds.
    pub fn config(self) -> Config {
        let r50 = BackboneConfig::Resnet(ResNetConfig::resnet50().caffe());
        let r101 = BackboneConfig::Resnet(ResNetConfig::resnet101().caffe());
        let deformable = [false, false, true, true];
        let x101 =
            BackboneConfig::Resnet(ResNetConfig { deformable, ..ResNetConfig::resnext101_64x4d().caffe() });
        let mnv2 = BackboneConfig::MobilenetV2(MobileNetV2Config {
            names: MobileNetV2Names::Flat,
            ..MobileNetV2Config::torchvision()
        });
        let long = LongHeadConfig::paper(Layout::Type4);
        let dcn = PointsConfig { deformable: true, ..IMPROVED };
        let (backbone, head) = match self {
            Self::R50M4 | Self::R50M4Long => (r50, HeadConfig::PackDet { long, points: IMPROVED }),
            Self::R50M2 => {
                (r50, HeadConfig::PackDet { long: LongHeadConfig::paper(Layout::Type2), points: IMPROVED })
            }
            Self::R50M4Nsp => {
                let long = LongHeadConfig { packing: Packing::Separate, ..long };
                (r50, HeadConfig::PackDet { long, points: IMPROVED })
            }
            Self::R101M4Long => (r101, HeadConfig::PackDet { long, points: IMPROVED }),
            Self::X101DcnM4Long => (x101, HeadConfig::PackDet { long, points: dcn }),
            Self::Mnv2M4 | Self::Mnv2M4Long => (mnv2, HeadConfig::PackDet { long, points: FIRST_VERSION }),
            Self::Mnv2Tiny => {
                let long = LongHeadConfig { channels: 64, blocks: 6, ..long };
                (mnv2, HeadConfig::PackDet { long, points: IMPROVED })
            }
            Self::RetinaPackR50 | Self::RetinaPackR50Long => (r50, HeadConfig::RetinaPack(long)),
            Self::RetinaPackR101Long => (r101, HeadConfig::RetinaPack(long)),
            Self::FcosMnv2 => (mnv2, HeadConfig::Fcos(IMPROVED)),
            Self::FcosR50 => (r50, HeadConfig::Fcos(IMPROVED)),
            Self::FcosR101 => (r101, HeadConfig::Fcos(IMPROVED)),
            Self::FcosX101Dcn => (x101, HeadConfig::Fcos(dcn)),
            Self::RetinaNetR50 => (r50, HeadConfig::RetinaNet),
            Self::RetinaNetR101 => (r101, HeadConfig::RetinaNet),
            Self::FcosR50Torchvision => {
                (BackboneConfig::Resnet(ResNetConfig::resnet50()), HeadConfig::Fcos(IMPROVED))
            }
            // Its published weights came to be without an epsilon.
            Self::RetinaNetR50Torchvision => {
                let without = ResNetConfig { bn_eps: 0.0, ..ResNetConfig::resnet50() };
                (BackboneConfig::Resnet(without), HeadConfig::RetinaNet)
            }
        };
        let is_torchvision = matches!(self, Self::FcosR50Torchvision | Self::RetinaNetR50Torchvision);
        Config {
            backbone,
            pyramid: if self == Self::Mnv2Tiny { 64 } else { PYRAMID },
            head,
            classes: if is_torchvision { TORCHVISION } else { COCO },
            flavour: if is_torchvision { Flavour::Torchvision } else { Flavour::MaskrcnnBenchmark },
        }
    }
}

impl From<Preset> for Config {
    fn from(preset: Preset) -> Self {
        preset.config()
    }
}
