//! How a clip is to be processed, from the command line.

use anyhow::Result;
use clap::{Args, ValueEnum};
use gsvnet_seg::{KeyframeScale, Schedule};

use crate::args::at_least_one;
use crate::exit::Usage;
use crate::view_args::refuse;

/// When key frames come.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct ScheduleArgs {
    /// Every L-th frame of a clip is a key frame [default: 3]
    #[arg(long, value_name = "L", value_parser = at_least_one)]
    pub interval: Option<usize>,
    /// How large the key frames' net sees a frame [default: 0.75]
    #[arg(long, value_name = "S", value_parser = scale)]
    pub key_scale: Option<KeyframeScale>,
}

/// What the help lists the model's options under.
const HEADING: &str = "gsvnet-seg";

/// Options of gsvnet-seg.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct GsvArgs {
    #[command(flatten)]
    schedule: ScheduleArgs,
    /// A frame that differs by more than D from the one before is a key frame, too; D is a mean over all pixels, in
    /// standard deviations of colour: 0.5 finds most cuts
    #[arg(long, value_name = "D")]
    scene_change: Option<f32>,
    /// Put these beside each frame of a clip
    #[arg(long, value_enum, value_name = "WHAT", value_delimiter = ',')]
    show: Vec<Show>,
    /// The same as --show flow
    #[arg(long)]
    show_flow: bool,
}

/// `--show`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Show {
    /// Motion on a colour wheel: red to the right, white is still
    Flow,
    /// Where the warped labels change, beside where the labels are not those of the key frames' net (Figure A7)
    Edges,
    /// Each pixel's weights: of the warped scores, of those moved, of the frame's own
    Guide,
}

fn scale(text: &str) -> Result<KeyframeScale, String> {
    let names = || KeyframeScale::ALL.map(KeyframeScale::name).join(", ");
    let found = KeyframeScale::ALL.into_iter().find(|scale| scale.name() == text);
    found.ok_or_else(|| format!("expected one of {}", names()))
}

impl ScheduleArgs {
    fn given(&self) -> [(&'static str, bool); 2] {
        [("--interval", self.interval.is_some()), ("--key-scale", self.key_scale.is_some())]
    }

    /// Another model has none of these options.
    pub fn refuse_for(&self, model: &str) -> Result<()> {
        refuse(model, &self.given())
    }

    /// When key frames come.
    pub fn schedule(&self) -> Schedule {
        let usual = Schedule::default();
        Schedule {
            interval: self.interval.unwrap_or(usual.interval),
            scale: self.key_scale.unwrap_or(usual.scale),
            ..usual
        }
    }
}

impl GsvArgs {
    /// Another model has none of these options.
    pub fn refuse_for(&self, model: &str) -> Result<()> {
        self.schedule.refuse_for(model)?;
        let others = [
            ("--scene-change", self.scene_change.is_some()),
            ("--show", !self.show.is_empty()),
            ("--show-flow", self.show_flow),
        ];
        refuse(model, &others)
    }

    /// When key frames come.
    pub fn schedule(&self) -> Schedule {
        Schedule { scene_change: self.scene_change, ..self.schedule.schedule() }
    }

    /// A picture by itself has no frame before it.
    pub fn refuse_for_stills(&self, input: &str) -> Result<()> {
        let clips = [
            ("--interval", self.schedule.interval.is_some()),
            ("--scene-change", self.scene_change.is_some()),
            ("--show", !self.show.is_empty() || self.show_flow),
        ];
        match clips.iter().find(|(_, given)| *given) {
            Some((option, _)) => Err(Usage::error(format_args!(
                "{option} is for clips, and {input} is single pictures: name the folder of its frames, or leave {option} out"
            ))),
            None => Ok(()),
        }
    }

    /// Whether to show this.
    pub fn shows(&self, what: Show) -> bool {
        self.show.contains(&what) || (what == Show::Flow && self.show_flow)
    }
}
