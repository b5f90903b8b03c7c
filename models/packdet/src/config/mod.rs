//! What is built.

mod pictures;
mod presets;

use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_layers::{ExtraLevels, FpnConfig, FpnNames, MobileNetV2Config, ResNetConfig};

pub(crate) use pictures::filled_up;
pub use pictures::{Class, ModelConfig, PictureConfig, ResizeRule, Resizing};
pub use presets::Preset;

use crate::plane::{Layout, Locations, Places, SMALLEST_PACKED, UNIT};
use crate::{Error, Result};

/// Groups of every group norm.
pub const GN_GROUPS: usize = 32;
/// Group norm's epsilon, everywhere.
pub const GN_EPS: f64 = 1e-5;
/// Anchors of a cell: three ratios, three scales.
pub const ANCHORS: usize = 9;

/// Whose names a checkpoint's tensors have, and with them the conventions of that project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Flavour {
    /// `backbone.body`, `backbone.fpn`, `rpn.head`: maskrcnn-benchmark and the authors' code.
    #[default]
    MaskrcnnBenchmark,
    /// `backbone.body`, `backbone.fpn`, `head.classification_head`.
    Torchvision,
}

/// What makes the maps that the pyramid is built over.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BackboneConfig {
    /// c3, c4 and c5 of a ResNet.
    Resnet(ResNetConfig),
    /// The outputs of features 6, 13 and 17.
    MobilenetV2(MobileNetV2Config),
}

/// How the head's convolutions see the maps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Packing {
    /// All maps in one plane.
    #[default]
    Packed,
    /// Map by map, each with statistics of its own: `nsp` in the names of configurations.
    Separate,
    /// Map by map, group norms of the long head and the towers over all maps: "ch-gn" without packing.
    CrossHead,
}

/// What becomes of the last convolution's four values, each times a learned scale of its level.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoxRule {
    /// `relu(z)` strides.
    #[default]
    Relu,
    /// `exp(z)` pixels.
    Exp,
}

/// One of a head's two towers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tower {
    /// The classes'.
    Classes,
    /// The boxes'.
    #[default]
    Boxes,
}

/// What the long head is, behind which the towers follow (Section 3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongHeadConfig {
    /// Where maps lie in the plane, and whether there are extra ones.
    pub layout: Layout,
    /// Whether they do.
    #[serde(default)]
    pub packing: Packing,
    /// Channels.
    pub channels: usize,
    /// 3×3 convolutions behind the reduction.
    pub blocks: usize,
    /// Convolutions of a tower.
    pub tower: usize,
}

impl LongHeadConfig {
    /// `fe-128-12-2`.
    pub const fn paper(layout: Layout) -> Self {
        Self { layout, packing: Packing::Packed, channels: 128, blocks: 12, tower: 2 }
    }
}

/// How heads without anchors predict boxes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointsConfig {
    /// What the four values mean.
    pub boxes: BoxRule,
    /// The tower that centerness is read from.
    pub centerness: Tower,
    /// The last convolution of each tower is deformable.
    pub deformable: bool,
}

/// The part behind the pyramid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HeadConfig {
    /// The paper's.
    PackDet {
        /// The shared part.
        long: LongHeadConfig,
        /// The outputs.
        points: PointsConfig,
    },
    /// Four convolutions a tower, level by level: Tian et al., "FCOS", ICCV 2019.
    Fcos(PointsConfig),
    /// The same without norms, on anchors: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    RetinaNet,
    /// RetinaNet's towers behind the long head.
    RetinaPack(LongHeadConfig),
}

/// The whole net.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The backbone.
    pub backbone: BackboneConfig,
    /// Channels of the pyramid's levels.
    pub pyramid: usize,
    /// The head.
    pub head: HeadConfig,
    /// Classes that are scored.
    pub classes: usize,
    /// Whose names the tensors have.
    #[serde(default)]
    pub flavour: Flavour,
}

impl HeadConfig {
    /// The part that the levels share, where they do.
    pub fn long(&self) -> Option<&LongHeadConfig> {
        match self {
            Self::PackDet { long, .. } | Self::RetinaPack(long) => Some(long),
            Self::Fcos(_) | Self::RetinaNet => None,
        }
    }

    /// Whether boxes are measured from anchors.
    pub fn has_anchors(&self) -> bool {
        matches!(self, Self::RetinaNet | Self::RetinaPack(_))
    }

    /// Whether all maps lie in one plane.
    pub fn is_packed(&self) -> bool {
        self.long().is_some_and(|long| long.packing == Packing::Packed)
    }
}

impl Config {
    /// Whether the backbone's batch norms are a scale and a shift that are never learned.
    pub fn has_frozen_norms(&self) -> bool {
        matches!(self.backbone, BackboneConfig::Resnet(_))
    }

    /// The maps, their order and their levels.
    pub fn layout(&self) -> Layout {
        self.head.long().map_or(Layout::Type1, |long| long.layout)
    }

    /// What points the cells stand for.
    pub fn locations(&self) -> Locations {
        match (self.flavour, self.head.has_anchors()) {
            (Flavour::Torchvision, _) => Locations::Shares,
            (Flavour::MaskrcnnBenchmark, true) => Locations::Corners,
            (Flavour::MaskrcnnBenchmark, false) => Locations::Centres,
        }
    }

    /// The pyramid. P6 is made from P5, but from C5 under anchors of maskrcnn-benchmark, unless the backbone is a
    /// MobileNetV2.
    pub fn fpn(&self) -> FpnConfig {
        let is_resnet = matches!(self.backbone, BackboneConfig::Resnet(_));
        let names = match self.flavour {
            Flavour::MaskrcnnBenchmark => FpnNames::MaskrcnnBenchmark,
            Flavour::Torchvision => FpnNames::Torchvision,
        };
        let from_c5 = self.head.has_anchors() && is_resnet && self.flavour == Flavour::MaskrcnnBenchmark;
        let extra = if from_c5 { ExtraLevels::FromC5 } else { ExtraLevels::FromP5 };
        FpnConfig { channels: self.pyramid, extra, names }
    }

    /// Whether it makes a net.
    ///
    /// # Errors
    /// If a count is 0, the groups of the norms do not divide the channels, or parts do not go together.
    pub fn validate(&self) -> Result<()> {
        let fault = |why: String| Err(Error::Config(why));
        if self.classes == 0 {
            return fault("0 classes: expected at least 1".to_owned());
        }
        let divides = |what: &str, channels: usize| match channels {
            0 => fault(format!("{what} of 0 channels: expected a multiple of {GN_GROUPS}")),
            n if !n.is_multiple_of(GN_GROUPS) => fault(format!(
                "{what} of {n} channels: the {GN_GROUPS} groups of a group norm do not divide them"
            )),
            _ => Ok(()),
        };
        if matches!(self.head, HeadConfig::RetinaNet) {
            if self.pyramid == 0 {
                return fault("a pyramid of 0 channels: expected at least 1".to_owned());
            }
        } else {
            divides("a pyramid", self.pyramid)?;
        }
        if let Some(long) = self.head.long() {
            divides("a long head", long.channels)?;
            if long.tower == 0 {
                return fault("towers of 0 convolutions: expected at least 1".to_owned());
            }
        }
        if self.flavour == Flavour::Torchvision {
            match self.head {
                HeadConfig::RetinaNet => {}
                HeadConfig::Fcos(PointsConfig {
                    boxes: BoxRule::Relu,
                    centerness: Tower::Boxes,
                    deformable: false,
                }) => {}
                _ => {
                    return fault(
                        "torchvision has RetinaNet's head and FCOS's with relu boxes and centerness on the boxes' tower only"
                            .to_owned(),
                    );
                }
            }
        }
        if matches!(self.head, HeadConfig::RetinaPack(LongHeadConfig { packing: Packing::CrossHead, .. })) {
            return fault("RetinaPack's towers have no norms to compute over all maps".to_owned());
        }
        Ok(())
    }

    /// The next size that the net takes: multiples of 32, of packed heads at least 64.
    pub fn padded(&self, size: FrameSize) -> FrameSize {
        let next = |side: usize| side.next_multiple_of(UNIT).max(self.smallest_side());
        FrameSize::new(next(size.height), next(size.width))
    }

    fn smallest_side(&self) -> usize {
        if self.head.is_packed() { SMALLEST_PACKED } else { UNIT }
    }

    /// Whether the net takes inputs of this size.
    ///
    /// # Errors
    /// If not, with the next one that it takes.
    pub fn check_input(&self, got: FrameSize) -> Result<()> {
        let (smallest, nearest) = (self.smallest_side(), self.padded(got));
        if nearest == got { Ok(()) } else { Err(Error::InputSize { got, unit: UNIT, smallest, nearest }) }
    }

    /// What the cells of the outputs for an input of this size are about.
    ///
    /// # Errors
    /// If the net does not take such inputs.
    pub fn places(&self, input: FrameSize) -> Result<Places> {
        self.check_input(input)?;
        match self.head.is_packed() {
            true => Places::packed(self.layout(), input, self.locations()),
            false => Ok(Places::separate(self.layout(), input, self.locations())),
        }
    }
}
