//! `patchwork-det`: windowed detection and segmentation in video.

mod compare;
mod measure;
mod original;
mod run;
mod score;
mod selftest;
mod stream_args;
mod tables;

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use patchwork_det::config::Config;
use patchwork_det::flops::StepCost;
use patchwork_det::{DetectorConfig, DetectorNet, DetectorWeights, Preset, SegmenterNet, SegmenterWeights};
use serde_json::{Value as Json, json};
use zoo_core::{ModelInfo, Weights as _};
use zoo_hub::Checkpoint;
use zoo_parity::Case;

pub use compare::{compare, demo_modes};

use compare::picture_area;
pub use stream_args::{StreamArgs, clip_size, parse_mode};

use super::{Model, check_fit, no_weights};
use crate::args::RunArgs;
use crate::commands::bench::BenchArgs;
use crate::commands::eval::EvalArgs;
use crate::exit::{Outcome, Usage};

pub struct Patchwork;

const NAME: &str = "patchwork-det";

/// The demo binary's command line.
#[derive(Parser)]
#[command(name = NAME, version, about = "Patchwork (ICCV 2019): objects in pictures and video, a window a frame")]
pub struct Demo {
    /// Say what is loaded from where (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(flatten)]
    run: RunArgs,
    /// Configuration
    #[arg(
        long,
        value_name = "PRESET",
        default_value = "coco",
        value_parser = Preset::ALL.map(Preset::name),
        help_heading = stream_args::HEADING,
        display_order = 0
    )]
    preset: String,
}

impl Demo {
    /// Runs it.
    pub fn run(&self) -> Result<Outcome> {
        // The default must not contradict `--task segment`.
        let preset = Some(self.preset.as_str()).filter(|&preset| preset != Preset::Coco.name());
        Patchwork.run(preset, &self.run)
    }
}

impl Model for Patchwork {
    fn name(&self) -> &'static str {
        NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        Preset::ALL.map(Preset::name).into()
    }

    fn infos(&self) -> Result<Vec<ModelInfo>> {
        Preset::ALL.into_iter().map(info).collect()
    }

    fn print_tables(&self, out: &mut dyn Write) -> Result<()> {
        tables::print(out)
    }

    fn run(&self, preset: Option<&str>, args: &RunArgs) -> Result<Outcome> {
        if args.patchwork.selftest {
            args.compute.start()?;
            return selftest::run();
        }
        run::run(preset.map(Preset::parse).transpose()?, args)
    }

    fn bench(&self, preset: Option<&str>, args: &BenchArgs) -> Result<()> {
        match preset {
            None | Some("coco") => measure::bench(args),
            Some(other) => {
                Err(Usage::error(format_args!("{NAME}/{other} has no benchmark: {NAME}/coco has")))
            }
        }
    }

    fn eval(&self, preset: Option<&str>, args: &EvalArgs) -> Result<()> {
        score::eval(preset.map(Preset::parse).transpose()?, args)
    }

    fn fit(&self, preset: Option<&str>, checkpoint: Checkpoint) -> Result<Json> {
        let preset = preset.map_or(Ok(Preset::Coco), Preset::parse)?;
        let config = preset.config();
        let name = format!("{NAME}/{}", preset.name());
        match &config {
            Config::Detector(cfg) => check_fit(&name, checkpoint, |vb| DetectorNet::new(cfg, vb))?,
            Config::Segmenter(cfg) => check_fit(&name, checkpoint, |vb| SegmenterNet::new(cfg, vb))?,
        }
        Ok(json!({ "architecture": name, "config": config }))
    }

    fn parity_cases(&self) -> Vec<Case> {
        let mut cases = patchwork_det::parity::cases(true);
        cases.push(original::case());
        cases
    }
}

fn info(preset: Preset) -> Result<ModelInfo> {
    let name = format!("{NAME}/{}", preset.name());
    let (summary, task, input, cost, weights) = match preset.config() {
        Config::Detector(cfg) => {
            let (summary, weights) = if cfg == DetectorConfig::coco() {
                let summary = "COCO SSDLite-MobileNetV2, single frame or in windows without further training";
                (summary.to_owned(), vec![DetectorWeights::CocoSsdLite.spec()])
            } else {
                let summary = format!("Table 4's detector of ImageNet VID, depth {}", cfg.backbone.depth);
                (summary, vec![DetectorWeights::ImagenetVid.spec()])
            };
            let cost = DetectorNet::new(&cfg, no_weights())?.step_cost(cfg.frame, cfg.frame, false);
            (summary, "detection", cfg.frame, cost, weights)
        }
        Config::Segmenter(cfg) => {
            let summary = format!("Table 5's segmenter of DAVIS, depth {}", cfg.backbone.depth);
            let cost = SegmenterNet::new(&cfg, no_weights())?.step_cost(cfg.frame, cfg.frame, false);
            (summary, "segmentation", cfg.frame, cost, vec![SegmenterWeights::Davis.spec()])
        }
    };
    Ok(ModelInfo { name, summary, task, input, cost, weights })
}

/// Mistakes on the command line are usage errors, with what to type instead.
fn usage(error: patchwork_det::Error) -> anyhow::Error {
    use patchwork_det::Error;
    match error {
        Error::FrameSize { nearest, .. } => Usage::error(format_args!(
            "{error}: --size {}x{} (rows x columns)",
            nearest.height, nearest.width
        )),
        Error::Grid { .. }
        | Error::Action { .. }
        | Error::Policy { .. }
        | Error::Unknown { .. }
        | Error::Config(_) => Usage::error(error),
        other => other.into(),
    }
}
