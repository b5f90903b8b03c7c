//! What pictures need beyond the net: how they become its input, and what becomes of its maps.

use std::borrow::Cow;

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use zoo_core::{FrameSize, Image, labels};
use zoo_vision::{Normalization, Resize, Resizer};

use super::{Config, Flavour, HeadConfig, Preset};
use crate::boxes::PostProcess;
use crate::error::Context as _;
use crate::{Error, Result};

/// Means of blue, green and red that the Caffe-style weights were trained with.
const CAFFE_MEAN: [f32; 3] = [102.9801, 115.9465, 122.7717];
/// What images are resized to, in training too.
const SHORT_SIDE: usize = 800;
const LONG_SIDE: usize = 1333;
/// No image becomes larger than this on a side.
const LARGEST_SIDE: usize = 8192;

/// Whose rule says what an image is resized to, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResizeRule {
    /// Whole bytes by Pillow's bilinear resizing. The long side is cut to whole pixels; where it would be too long the
    /// short one is rounded first.
    MaskrcnnBenchmark,
    /// By one factor, both sides cut to whole pixels; bilinear without antialiasing, in floats.
    Torchvision,
}

/// What images are resized to: a short side, unless the long one would become too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resizing {
    /// The short side, where the long one allows it.
    pub short: usize,
    /// The longest long side.
    pub long: usize,
    /// Rounding, and the neighbours of a pixel.
    pub rule: ResizeRule,
}

impl Resizing {
    /// 800 by 1333 at most.
    pub const fn paper(rule: ResizeRule) -> Self {
        Self { short: SHORT_SIDE, long: LONG_SIDE, rule }
    }

    /// What an image of this size becomes; each side at least 1.
    pub fn of(&self, image: FrameSize) -> FrameSize {
        let (least, most) = (image.height.min(image.width).max(1), image.height.max(image.width).max(1));
        let (height, width) = match self.rule {
            ResizeRule::MaskrcnnBenchmark => {
                let mut short = self.short;
                if most as f64 / least as f64 * short as f64 > self.long as f64 {
                    short = (self.long as f64 * least as f64 / most as f64).round_ties_even() as usize;
                }
                let along = |side: usize| short.saturating_mul(side) / least;
                if least == short {
                    (image.height, image.width)
                } else if image.width < image.height {
                    (along(image.height), short)
                } else {
                    (short, along(image.width))
                }
            }
            ResizeRule::Torchvision => {
                let scale = (self.short as f64 / least as f64).min(self.long as f64 / most as f64);
                let side = |side: usize| (side as f64 * scale).floor() as usize;
                (side(image.height), side(image.width))
            }
        };
        FrameSize::new(height.max(1), width.max(1))
    }

    /// How pixels are made of their neighbours.
    pub fn convention(&self) -> Resize {
        match self.rule {
            ResizeRule::MaskrcnnBenchmark => Resize::Pil,
            ResizeRule::Torchvision => Resize::HalfPixel,
        }
    }

    /// Whether images can be resized so.
    ///
    /// # Errors
    /// If a side is 0 or larger than 8192, or the short one larger than the long one.
    pub fn validate(&self) -> Result<()> {
        let Self { short, long, .. } = *self;
        if short == 0 || short > long || long > LARGEST_SIDE {
            return Err(Error::Config(format!(
                "images are resized to a short side of {short} and a long one of {long} at most: expected at least 1, the \
                 short one not the larger, and neither above {LARGEST_SIDE}"
            )));
        }
        Ok(())
    }
}

/// A class that a net scores.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Class {
    /// Its number in the data set: of COCO the category id.
    pub id: usize,
    /// Its name.
    pub name: Cow<'static, str>,
}

/// What pictures need beyond the net.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureConfig {
    /// What they are resized to.
    pub resizing: Resizing,
    /// From pixels to the net's input.
    pub normalization: Normalization,
    /// From the net's maps to boxes.
    pub boxes: PostProcess,
    /// The classes by index; `null` for those that are none, which are not reported.
    pub classes: Vec<Option<Class>>,
}

impl PictureConfig {
    /// Those that nets like this are trained with; classes by their numbers where they are not as many as COCO's.
    pub fn for_net(config: &Config) -> Self {
        let anchors = matches!(config.head, HeadConfig::RetinaNet | HeadConfig::RetinaPack(_));
        let (rule, normalization, boxes) = match config.flavour {
            Flavour::MaskrcnnBenchmark => (
                ResizeRule::MaskrcnnBenchmark,
                Normalization::Caffe { mean: CAFFE_MEAN },
                if anchors { PostProcess::RETINANET } else { PostProcess::FCOS },
            ),
            Flavour::Torchvision => (
                ResizeRule::Torchvision,
                Normalization::IMAGENET,
                if anchors { PostProcess::TORCHVISION_RETINANET } else { PostProcess::TORCHVISION_FCOS },
            ),
        };
        let named = |(id, name): (usize, &'static str)| Class { id, name: name.into() };
        let count = config.classes;
        let classes = match config.flavour {
            Flavour::MaskrcnnBenchmark if labels::COCO.iter().count() == count => {
                labels::COCO.iter().map(named).map(Some).collect()
            }
            // torchvision's first class is the background, and those behind it have COCO's own numbers.
            Flavour::Torchvision if labels::COCO.len() == count => {
                (0..count).map(|id| labels::COCO.get(id).map(|name| named((id, name)))).collect()
            }
            _ => (1..=count).map(|id| Some(Class { id, name: format!("class {id}").into() })).collect(),
        };
        Self { resizing: Resizing::paper(rule), normalization, boxes, classes }
    }

    /// A picture resized by `resizing` and normalised, `[1, 3, h, w]`, and its size then.
    ///
    /// # Errors
    /// If the picture cannot be resized.
    pub(crate) fn tensor(
        &self,
        image: &Image,
        resizing: Resizing,
        device: &Device,
    ) -> Result<(Tensor, FrameSize)> {
        let size = resizing.of(image.size());
        let planes = Resizer::new(image.size(), size, resizing.convention())?.planes(image)?;
        Ok((self.normalization.tensor_of(planes, size, device)?, size))
    }

    /// Whether it suits a net.
    ///
    /// # Errors
    /// If not: why.
    pub fn validate(&self, config: &Config) -> Result<()> {
        self.resizing.validate()?;
        self.boxes.validate()?;
        if self.classes.len() != config.classes {
            return Err(Error::Labels { labels: self.classes.len(), classes: config.classes });
        }
        if config.head.has_anchors() != self.boxes.form.coder().is_some() {
            return Err(Error::Config(format!(
                "boxes are decoded as {:?}, which is not what the head's maps hold",
                self.boxes.form
            )));
        }
        let values: Vec<f32> = match self.normalization {
            Normalization::MeanStd { mean, std } if std.contains(&0.0) => {
                return Err(Error::Config(format!(
                    "pictures are normalised by mean {mean:?} and std {std:?}: no std of 0"
                )));
            }
            Normalization::MeanStd { mean, std } => mean.into_iter().chain(std).collect(),
            Normalization::Caffe { mean } => mean.into(),
            _ => Vec::new(),
        };
        if values.iter().any(|value| !value.is_finite()) {
            return Err(Error::Config(format!(
                "pictures are normalised by {:?}, expected numbers",
                self.normalization
            )));
        }
        Ok(())
    }
}

/// A picture with zeros at its right and below it.
pub(crate) fn filled_up(xs: &Tensor, size: FrameSize) -> Result<Tensor> {
    let filled = || -> candle_core::Result<Tensor> {
        let (_, _, height, width) = xs.dims4()?;
        let xs = xs.pad_with_zeros(2, 0, size.height.saturating_sub(height))?;
        xs.pad_with_zeros(3, 0, size.width.saturating_sub(width))
    };
    filled().context("filling a picture up")
}

/// All that a detector on pictures is built from. `zoo convert` writes both parts to `config.json`.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The net.
    pub net: Config,
    /// Its pictures, boxes and classes.
    pub pictures: PictureConfig,
}

impl ModelConfig {
    /// A net with what goes with it.
    pub fn for_net(net: Config) -> Self {
        Self { pictures: PictureConfig::for_net(&net), net }
    }
}

impl From<Preset> for ModelConfig {
    fn from(preset: Preset) -> Self {
        Self::for_net(preset.config())
    }
}
