//! `zoo eval`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use patchwork_det::Mode;
use zoo_core::FrameSize;

use crate::args::{ComputeArgs, WeightArgs, at_least_one, frame_size};
use crate::exit::Outcome;
use crate::models::{self, patchwork};

/// What to measure on what.
#[derive(Args)]
pub struct EvalArgs {
    /// MODEL or MODEL/PRESET
    model: String,
    /// A clip: how much of the single-frame detector's boxes cheaper modes keep
    pub clip: Option<String>,
    /// COCO annotations: average precision
    #[arg(long, value_name = "FILE", requires = "images", conflicts_with = "clip")]
    pub coco: Option<PathBuf>,
    /// The annotated images
    #[arg(long, value_name = "DIR")]
    pub images: Option<PathBuf>,
    /// DAVIS's folder: J and F
    #[arg(long, value_name = "DIR", conflicts_with_all = ["clip", "coco"])]
    pub davis: Option<PathBuf>,
    /// Modes to compare: interval=4, m4n2-motion, … [default: the demo's]
    #[arg(long, value_name = "MODE", num_args = 1.., value_parser = patchwork::parse_mode)]
    pub modes: Vec<Mode>,
    /// The size that frames are resized to
    #[arg(long, value_name = "ROWSxCOLUMNS", value_parser = frame_size)]
    pub size: Option<FrameSize>,
    /// Frames, images or sequences, from the start
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Frames of the clip to pass over
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub weights: WeightArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// Measures it.
pub fn run(args: &EvalArgs) -> Result<Outcome> {
    let chosen = models::find(&args.model)?;
    chosen.model.eval(chosen.preset, args)?;
    Ok(Outcome::Success)
}
