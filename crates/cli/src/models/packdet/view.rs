//! How pictures are looked at, and what is shown of it, from the command line.

use anyhow::Result;
use clap::Args;
use packdet::{PackDet, Resizing, Views};

use super::usage;
use crate::view_args::{ViewArgs, refuse};

/// What the help lists the model's options under.
const HEADING: &str = "packdet";

/// Options that `run` and `eval` share.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct DetectArgs {
    /// Look at each picture in nine sizes and mirrored, and put all boxes together; some twenty times the cost
    #[arg(long, conflicts_with = "flip")]
    pub tta: bool,
}

impl DetectArgs {
    /// Another model has none of these options.
    pub fn refuse_for(&self, model: &str) -> Result<()> {
        refuse(model, &[("--tta", self.tta)])
    }

    /// The model with what the command line says of pictures: `--size` is the short side and the longest long one.
    pub fn looking(&self, model: PackDet, view: &ViewArgs) -> Result<PackDet> {
        let views = match self.tta {
            true => Views::paper(),
            false => Views { mirrored: view.flip, ..Views::default() },
        };
        let model = model.with_views(views).map_err(usage)?;
        let Some(size) = view.size else { return Ok(model) };
        let (short, long) = (size.height.min(size.width), size.height.max(size.width));
        let rule = model.pictures().resizing.rule;
        model.with_resizing(Resizing { short, long, rule }).map_err(usage)
    }
}

/// Options of `run` alone.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct PlaneArgs {
    #[command(flatten)]
    pub detect: DetectArgs,
    /// Put the plane of all levels beside each picture, and what the long head makes of it (Figure 4)
    #[arg(long)]
    pub show_plane: bool,
}

impl PlaneArgs {
    /// Another model has none of these options.
    pub fn refuse_for(&self, model: &str) -> Result<()> {
        self.detect.refuse_for(model)?;
        refuse(model, &[("--show-plane", self.show_plane)])
    }
}
