//! What can be chosen.

mod arch;
mod division;
mod layout;
mod pictures;
mod presets;
mod version;

use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_layers::{EfficientNetConfig, EfficientNetNames};

pub use division::divide_channels;
pub use layout::{Layout, LevelShape, MapShape};
pub use pictures::{ModelConfig, PictureConfig};
pub use presets::Preset;
pub use version::Version;

use crate::{Error, Result};

/// Feature maps F_1 … F_5 of the backbone.
pub const FEATURES: usize = 5;
/// Stride of the signal, and of the grid of patches.
pub const SIGNAL_STRIDE: usize = 32;
/// Channels of the two position maps.
pub(crate) const POSITIONS: usize = 2;

/// The net b of Section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(missing_docs, reason = "the names are the papers' own")]
pub enum BackboneName {
    EfficientnetB0,
    EfficientnetB1,
    EfficientnetB2,
    EfficientnetB3,
    /// Not in the paper: smaller, without squeeze-and-excitation, and with free ImageNet weights.
    EfficientnetLite0,
}

impl BackboneName {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::EfficientnetB0,
        Self::EfficientnetB1,
        Self::EfficientnetB2,
        Self::EfficientnetB3,
        Self::EfficientnetLite0,
    ];

    /// As EfficientNet-PyTorch spells it.
    pub fn name(self) -> &'static str {
        match self {
            Self::EfficientnetB0 => "efficientnet-b0",
            Self::EfficientnetB1 => "efficientnet-b1",
            Self::EfficientnetB2 => "efficientnet-b2",
            Self::EfficientnetB3 => "efficientnet-b3",
            Self::EfficientnetLite0 => "efficientnet-lite0",
        }
    }

    /// The backbone of that name.
    ///
    /// # Errors
    /// If there is none.
    pub fn parse(name: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|backbone| backbone.name() == name).ok_or_else(|| Error::Unknown {
            what: "backbone",
            got: name.to_owned(),
            expected: Self::ALL.map(Self::name).join(", "),
        })
    }

    /// What EfficientNet-PyTorch, and with it the authors, drop in training; of Lite0, what TensorFlow does.
    pub fn drop_rates(self) -> DropRates {
        let dropout = match self {
            Self::EfficientnetB0 | Self::EfficientnetB1 | Self::EfficientnetLite0 => 0.2,
            Self::EfficientnetB2 | Self::EfficientnetB3 => 0.3,
        };
        DropRates { drop_connect: 0.2, dropout }
    }

    /// Its sizes, under EfficientNet-PyTorch's names, with that project's fixed padding.
    pub fn config(self) -> EfficientNetConfig {
        match self {
            Self::EfficientnetB0 => EfficientNetConfig::b0(),
            Self::EfficientnetB1 => EfficientNetConfig::b1(),
            Self::EfficientnetB2 => EfficientNetConfig::b2(),
            Self::EfficientnetB3 => EfficientNetConfig::b3(),
            Self::EfficientnetLite0 => EfficientNetConfig::lite0(),
        }
        .with_names(EfficientNetNames::EfficientNetPytorch)
    }
}

/// What the training of a backbone drops at random.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DropRates {
    /// Of residual branches, whole samples: this times i / n in block i of n, counted from 0.
    pub drop_connect: f64,
    /// Of the values of the last map.
    pub dropout: f64,
}

/// A HyperSeg net. Lists run from the coarsest level to the finest, except for `out_feat_scale`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Whose code.
    pub version: Version,
    /// The net b.
    pub backbone: BackboneName,
    /// Classes, of which one is predicted for each pixel.
    pub num_classes: usize,
    /// r_1 … r_5: channels of the feature map F_i over those of the backbone's. At 1 the map is taken as
    /// it is.
    pub out_feat_scale: [f64; FEATURES],
    /// Sizes that the context head h works at, the signal's own included.
    pub head_levels: usize,
    /// Filter of each level: 1 for one dynamic 1×1 convolution, 3 for a block of three.
    pub kernel_sizes: Vec<usize>,
    /// Channels out of each level but the last; `None` for as many as the level's feature map has.
    pub level_channels: Option<Vec<usize>>,
    /// Hidden channels of a block over those of its input.
    pub expand_ratio: f64,
    /// g_w: parts that each weight mapping is cut into, in the order of the mappings. Further entries
    /// only count towards the unit of the channels' division.
    pub weight_groups: Vec<usize>,
    /// Counted from 1, the level from which on all share one weight mapping ([`Version::V1_0Unify`]).
    pub unify_level: Option<usize>,
    /// Table S2's grid g × g: the signal is pooled to it. 1 takes the mean of the backbone's last map
    /// and has no context head. Our reading: the paper says no more than that, and its code has no such
    /// option. `None` for the signal's own grid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal_grid: Option<usize>,
    /// Whether levels see the positions of their pixels (Table S2).
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub positions: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
fn is_yes(value: &bool) -> bool {
    *value
}

impl Config {
    /// The sizes that follow.
    ///
    /// # Errors
    /// If the configuration is not valid.
    pub fn layout(&self) -> Result<Layout> {
        self.validate()?;
        Layout::resolve(self)
    }

    /// Levels of the decoder.
    pub fn levels(&self) -> usize {
        self.kernel_sizes.len()
    }

    /// Weight mappings.
    pub fn maps(&self) -> usize {
        match self.unify_level {
            Some(level) => level.min(self.levels()),
            None => self.levels(),
        }
    }

    /// Whether there is a context head.
    pub fn has_head(&self) -> bool {
        self.signal_grid != Some(1)
    }

    /// Where a checkpoint has the weights of each mapping.
    pub(crate) fn map_names(&self) -> Vec<String> {
        let name = |j: usize| match self.version {
            Version::V0_1 => format!("weight_mapper.out_conv.conv_{j}"),
            Version::V1_0Unify => format!("decoder.weight_blocks.{j}.signal2weights"),
            Version::V0_2 | Version::V1_0 if self.kernel_sizes.get(j) == Some(&1) => {
                format!("{}.0.signal2weights", self.level_name(j))
            }
            Version::V0_2 | Version::V1_0 => format!("{}.signal2weights", self.level_name(j)),
        };
        (0..self.maps()).map(name).collect()
    }

    /// Where a checkpoint has a level's first and only layer.
    pub(crate) fn level_name(&self, k: usize) -> String {
        match self.version {
            Version::V1_0Unify => format!("decoder.level_blocks.{k}.0"),
            _ => format!("decoder.level_{k}.0"),
        }
    }

    /// Where a checkpoint has the norm that ends a level.
    pub(crate) fn last_norm_name(&self, k: usize) -> String {
        let level = self.level_name(k);
        let is_block = self.kernel_sizes.get(k).is_some_and(|kernel| *kernel > 1);
        match (self.version, is_block) {
            (_, false) => format!("{level}.1"),
            // The oldest version's blocks have no widening convolution where it would not widen.
            (Version::V0_1, true) if self.expand_ratio == 1.0 => format!("{level}.conv.1.1"),
            (Version::V0_1, true) => format!("{level}.conv.2.1"),
            (_, true) => format!("{level}.bn3"),
        }
    }

    /// Whether the fields fit each other, and the version.
    ///
    /// # Errors
    /// If not: which, and what is possible.
    pub fn validate(&self) -> Result<()> {
        let fault = |text: String| Err(Error::Config(text));
        let levels = self.levels();
        if !(1..=FEATURES + 1).contains(&levels) {
            return fault(format!(
                "kernel_sizes has {levels} levels, expected 1 to {}: one for each feature map and one for the image",
                FEATURES + 1
            ));
        }
        if self.version == Version::V0_1 && levels != FEATURES + 1 {
            return fault(format!(
                "kernel_sizes has {levels} levels, but version v0_1 always has {}: one for each feature map and one for the image",
                FEATURES + 1
            ));
        }
        if let Some(kernel) = self.kernel_sizes.iter().find(|kernel| ![1, 3].contains(*kernel)) {
            return fault(format!("kernel_sizes has {kernel}, expected 1 or 3"));
        }
        if self.num_classes == 0 {
            return fault("num_classes = 0, expected at least one".to_owned());
        }
        if let Some(scale) = self.out_feat_scale.iter().find(|scale| !(**scale > 0.0 && **scale <= 8.0)) {
            return fault(format!("out_feat_scale has {scale}, expected factors above 0, at most 8"));
        }
        if !(self.expand_ratio > 0.0 && self.expand_ratio <= 64.0) {
            return fault(format!("expand_ratio = {}, expected above 0, at most 64", self.expand_ratio));
        }
        if !(1..=8).contains(&self.head_levels) {
            return fault(format!("head_levels = {}, expected 1 to 8", self.head_levels));
        }
        if let Some(channels) = &self.level_channels
            && (channels.len() + 1 != levels || channels.contains(&0))
        {
            return fault(format!(
                "level_channels = {channels:?}, expected {} counts above 0: one for each of {levels} levels but the last, which has num_classes",
                levels - 1
            ));
        }
        match (self.version, self.unify_level) {
            (Version::V1_0Unify, Some(level)) if (1..=levels).contains(&level) => {}
            (Version::V1_0Unify, level) => {
                return fault(format!(
                    "unify_level = {level:?}, expected 1 to {levels} in version v1_0_unify"
                ));
            }
            (version, Some(_)) => {
                return fault(format!(
                    "version {version} has no unify_level: leave it out, or take v1_0_unify"
                ));
            }
            (_, None) => {}
        }
        if self.weight_groups.len() < self.maps() || self.weight_groups.contains(&0) {
            return fault(format!(
                "weight_groups = {:?}, expected {} counts above 0: one for each weight mapping",
                self.weight_groups,
                self.maps()
            ));
        }
        if self.signal_grid == Some(0) {
            return fault("signal_grid = 0, expected at least 1".to_owned());
        }
        let layout = Layout::resolve(self)?;
        if self.version == Version::V0_1 {
            let own: Vec<usize> = layout.levels.iter().map(|level| level.feature).collect();
            let own = own.get(..levels - 1).unwrap_or_default();
            if self.level_channels.as_deref().is_some_and(|channels| channels != own) {
                return fault(format!(
                    "level_channels = {:?}, but levels of version v0_1 have as many channels as their features: {own:?}",
                    self.level_channels
                ));
            }
        }
        Ok(())
    }

    /// What the sides of images must be multiples of: the signal's stride, times what halves it in the
    /// context head or cuts it into the grid.
    pub fn size_unit(&self) -> usize {
        let halvings = if self.has_head() { 1 << (self.head_levels - 1) } else { 1 };
        SIGNAL_STRIDE * least_common_multiple(halvings, self.signal_grid.unwrap_or(1))
    }

    /// Whether nothing of the context head but its first convolution reaches the logits: all weight
    /// mappings read the first half of the signal, which is that convolution's result.
    pub fn head_is_dead(&self) -> Result<bool> {
        if self.version == Version::V0_1 || !self.has_head() {
            return Ok(false);
        }
        let layout = Layout::resolve(self)?;
        Ok(layout.maps.iter().all(|map| map.offset + map.split <= layout.signal / 2))
    }
}

/// Whether images of `size` have sides that are multiples of `unit`.
pub(crate) fn check_size(size: FrameSize, unit: usize, why: &str) -> Result<()> {
    if size.area() > 0 && size.height.is_multiple_of(unit) && size.width.is_multiple_of(unit) {
        return Ok(());
    }
    Err(Error::ImageSize { got: size, unit, why: why.to_owned(), nearest: nearest_size(size, unit) })
}

/// The size next to `size` whose sides are multiples of `unit`.
pub(crate) fn nearest_size(size: FrameSize, unit: usize) -> FrameSize {
    let near = |side: usize| ((side + unit / 2) / unit).max(1) * unit;
    FrameSize::new(near(size.height), near(size.width))
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a.max(1), b.max(1));
    while y != 0 {
        (x, y) = (y, x % y);
    }
    a.max(1) / x * b.max(1)
}
