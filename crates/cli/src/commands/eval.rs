//! `zoo eval`.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use patchwork_det::Mode;
use zoo_vision::Layout;

use crate::args::{ComputeArgs, WeightArgs, at_least_one};
use crate::exit::Outcome;
use crate::models::{self, gsvnet, packdet, patchwork};
use crate::view_args::{SegmentArgs, ViewArgs, refuse};

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
    /// A data set's folder. Of a model that labels pixels: IoU of each class, accuracy; of packdet, COCO's or PASCAL VOC's:
    /// average precision
    #[arg(long, value_name = "DIR", conflicts_with_all = ["clip", "coco", "davis"])]
    pub data: Option<PathBuf>,
    /// How it lies there: camvid, segnet (CamVid of the SegNet tutorial), cityscapes, voc [default: as its
    /// folders say]
    #[arg(long, value_name = "LAYOUT", value_parser = parse_layout, requires = "data")]
    pub layout: Option<Layout>,
    /// Which part of it [default: the papers': val, of CamVid test, of COCO val2017]
    #[arg(long, value_name = "NAME", requires = "data")]
    pub split: Option<String>,
    /// Modes to compare: interval=4, m4n2-motion, … [default: the demo's]
    #[arg(long, value_name = "MODE", num_args = 1.., value_parser = patchwork::parse_mode)]
    pub modes: Vec<Mode>,
    /// Frames, images or sequences, from the start
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    pub limit: Option<usize>,
    /// Frames of the clip to pass over
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// The frames of the videos that labelled pictures are frames of, for gsvnet-seg [default: Cityscapes'
    /// leftImg8bit_sequence; of the others the labelled pictures themselves]
    #[arg(long, value_name = "DIR", requires = "data")]
    pub frames: Option<PathBuf>,
    /// How far apart the numbers of neighbouring frames are, for gsvnet-seg; CamVid's labelled pictures are 30 apart
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = at_least_one, requires = "data")]
    pub frame_step: usize,
    #[command(flatten)]
    pub key_frames: gsvnet::ScheduleArgs,
    #[command(flatten)]
    pub view: ViewArgs,
    #[command(flatten)]
    pub segment: SegmentArgs,
    #[command(flatten)]
    pub packdet: packdet::DetectArgs,
    #[command(flatten)]
    pub weights: WeightArgs,
    #[command(flatten)]
    pub compute: ComputeArgs,
}

impl EvalArgs {
    /// A model that does not label pixels has none of these options.
    pub fn refuse_labelled_data(&self, model: &str) -> Result<()> {
        refuse(model, &[("--data", self.data.is_some())])?;
        self.packdet.refuse_for(model)?;
        self.refuse_videos(model)?;
        self.segment.refuse_for(model)
    }

    /// A model that knows no key frames has none of these options.
    pub fn refuse_videos(&self, model: &str) -> Result<()> {
        refuse(model, &[("--frames", self.frames.is_some()), ("--frame-step", self.frame_step > 1)])?;
        self.key_frames.refuse_for(model)
    }

    /// A model that only labels pixels has none of the other models' options.
    pub fn refuse_all_but_labelled_data(&self, model: &str) -> Result<()> {
        self.packdet.refuse_for(model)?;
        let others = [
            ("CLIP", self.clip.is_some()),
            ("--coco", self.coco.is_some()),
            ("--davis", self.davis.is_some()),
            ("--modes", !self.modes.is_empty()),
            ("--skip", self.skip > 0),
        ];
        refuse(model, &others)
    }
}

fn parse_layout(text: &str) -> Result<Layout, String> {
    let names = || Layout::ALL.map(Layout::name).join(", ");
    Layout::parse(text).ok_or_else(|| format!("expected one of {}", names()))
}

/// Measures it.
pub fn run(args: &EvalArgs) -> Result<Outcome> {
    let chosen = models::find(&args.model)?;
    chosen.model.eval(chosen.preset, args)?;
    Ok(Outcome::Success)
}
