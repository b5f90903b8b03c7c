//! How pictures are looked at: options of several models, which the others refuse.

use anyhow::Result;
use clap::{Args, ValueEnum};
use zoo_core::FrameSize;

use crate::args::frame_size;
use crate::exit::Usage;

/// What a net sees of a picture.
#[derive(Debug, Args)]
#[command(next_help_heading = "Looking")]
pub struct ViewArgs {
    /// The size that pictures and frames are fitted to; for patchwork-det's windows multiples of 32·M [default:
    /// the model's own]
    #[arg(long, value_name = "ROWSxCOLUMNS", value_parser = frame_size)]
    pub size: Option<FrameSize>,
    /// Mirror images, too (of patchwork-det's clips a second stream), both results merged; twice the cost
    #[arg(long)]
    pub flip: bool,
}

impl ViewArgs {
    /// Another model has none of these options.
    pub fn refuse_for(&self, model: &str) -> Result<()> {
        refuse(model, &[("--size", self.size.is_some()), ("--flip", self.flip)])
    }
}

/// Options of the models that label every pixel of a picture.
#[derive(Debug, Args)]
#[command(next_help_heading = "Segmentation")]
pub struct SegmentArgs {
    /// Look at each picture in several sizes, as multiples of the usual one: 1,0.75,1.25
    #[arg(long, value_name = "S,…", value_delimiter = ',')]
    pub scales: Vec<f64>,
    /// How the scores of several sizes become one: by a running mean (a later size weighs more), or the largest
    #[arg(long, value_enum, value_name = "HOW", requires = "scales")]
    pub merge: Option<Merge>,
    /// Slide windows over each picture at its own size instead of fitting it; neighbours share this part of
    /// their sides [0.25 if none is given]
    #[arg(
        long,
        value_name = "OVERLAP",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "0.25"
    )]
    pub slide: Option<f64>,
}

/// `--merge`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Merge {
    Mean,
    Max,
}

impl SegmentArgs {
    /// Another model has none of these options.
    pub fn refuse_for(&self, model: &str) -> Result<()> {
        refuse(model, &[("--scales", !self.scales.is_empty()), ("--slide", self.slide.is_some())])
    }
}

/// Refuses the first option that was given.
pub fn refuse(model: &str, options: &[(&str, bool)]) -> Result<()> {
    match options.iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Usage::error(format_args!("{model} has no option {option}"))),
        None => Ok(()),
    }
}
