use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use zoo_core::SegClass;
use zoo_vision::Normalization;

use crate::{Error, Result};

/// What frames need beyond the net: their range of values, and what the classes mean.
///
/// Flow and intra-frame nets are trained with the normalisation of the key frames' net that they come with: weights
/// of two presets are not interchangeable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PictureConfig {
    /// From pixels to the nets' input.
    pub normalization: Normalization,
    /// The classes by index.
    pub labels: Cow<'static, [SegClass]>,
}

impl PictureConfig {
    /// Whether it suits a net of so many classes.
    ///
    /// # Errors
    /// If not: why.
    pub fn validate(&self, classes: usize) -> Result<()> {
        if self.labels.len() != classes {
            return Err(Error::Labels { labels: self.labels.len(), classes });
        }
        match self.normalization {
            Normalization::MeanStd { mean, std }
                if mean.iter().chain(&std).any(|v| !v.is_finite()) || std.contains(&0.0) =>
            {
                Err(Error::Config(format!(
                    "frames are normalised by mean {mean:?} and std {std:?}, expected numbers, and no std of 0"
                )))
            }
            _ => Ok(()),
        }
    }
}
