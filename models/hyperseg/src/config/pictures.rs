use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use zoo_core::{FrameSize, SegClass};
use zoo_vision::draw::class_color;
use zoo_vision::{Fit, Normalization, Preprocess};

use super::{Config, Preset};
use crate::{Error, Result};

/// What pictures need beyond the net: how they become its input, and what its classes mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureConfig {
    /// From pixels to the net's input. [`Fit::Stretch`] resizes to it; [`Fit::Pad`] fills up at the right and
    /// below, and only shrinks a picture that is larger than the input, keeping its shape.
    pub preprocess: Preprocess,
    /// The classes by index.
    pub labels: Cow<'static, [SegClass]>,
}

impl PictureConfig {
    /// Those of the preset that a net is most like. Classes that no preset has so many of are called by their
    /// numbers.
    pub fn for_net(cfg: &Config) -> Self {
        let pictures = Preset::most_like(cfg).pictures();
        if pictures.labels.len() == cfg.num_classes {
            return pictures;
        }
        let class = |index: usize| SegClass {
            name: format!("class {index}").into(),
            id: u8::try_from(index).unwrap_or(u8::MAX),
            color: class_color(index),
        };
        Self { labels: (0..cfg.num_classes).map(class).collect(), ..pictures }
    }

    /// The size of the net's input.
    ///
    /// # Errors
    /// If pictures are fitted in another way than the two that keep all of their pixels in place.
    pub fn size(&self) -> Result<FrameSize> {
        match self.preprocess.fit {
            Fit::Stretch { size } | Fit::Pad { size, .. } => Ok(size),
            other => Err(Error::Config(format!("pictures are fitted by {other:?}, expected stretch or pad"))),
        }
    }

    /// The same for another input size.
    ///
    /// # Errors
    /// As [`PictureConfig::size`].
    pub fn with_size(mut self, size: FrameSize) -> Result<Self> {
        self.size()?;
        self.preprocess.fit = match self.preprocess.fit {
            Fit::Pad { fill, .. } => Fit::Pad { size, fill },
            _ => Fit::Stretch { size },
        };
        Ok(self)
    }

    /// Whether it suits a net of so many classes.
    ///
    /// # Errors
    /// If not: why.
    pub fn validate(&self, num_classes: usize) -> Result<()> {
        self.size()?;
        if self.labels.len() != num_classes {
            return Err(Error::Labels { labels: self.labels.len(), classes: num_classes });
        }
        match self.preprocess.normalization {
            Normalization::MeanStd { mean, std }
                if mean.iter().chain(&std).any(|v| !v.is_finite()) || std.contains(&0.0) =>
            {
                Err(Error::Config(format!(
                    "pictures are normalised by mean {mean:?} and std {std:?}, expected numbers, and no std of 0"
                )))
            }
            _ => Ok(()),
        }
    }
}

/// All that a [`HyperSeg`](crate::HyperSeg) is built from. `zoo convert` writes both parts to `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The net.
    pub net: Config,
    /// Its pictures and classes.
    pub pictures: PictureConfig,
}

impl ModelConfig {
    /// A net with the pictures of the preset that it is most like.
    pub fn for_net(net: Config) -> Self {
        Self { pictures: PictureConfig::for_net(&net), net }
    }
}

impl From<Preset> for ModelConfig {
    fn from(preset: Preset) -> Self {
        Self { net: preset.config(), pictures: preset.pictures() }
    }
}
