//! `gsvnet-seg`: segmentation of key frames, propagated through video.

mod baselines;
mod convert;
mod eval;
mod measure;
mod run;
mod stream_args;
mod tables;

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use gsvnet_seg::weights::GsvWeights;
use gsvnet_seg::{GsvNetSeg, Preset, tables::Counts};
use serde_json::{Value as Json, json};
use zoo_core::{ModelInfo, Weights as _};
use zoo_hub::Checkpoint;
use zoo_hub::convert::{StateDict, TorchFile};
use zoo_parity::Case;

pub use stream_args::{GsvArgs, ScheduleArgs};

use super::{Model, check_fit};
use crate::args::RunArgs;
use crate::commands::bench::BenchArgs;
use crate::commands::eval::EvalArgs;
use crate::exit::{Outcome, Usage};

pub struct Gsv;

const NAME: &str = "gsvnet-seg";

/// The demo binary's command line.
#[derive(Parser)]
#[command(name = NAME, version, about = "GSVNet (ICME 2021): a class for every pixel of clips, from key frames on")]
pub struct Demo {
    /// Say what is loaded from where (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(flatten)]
    run: RunArgs,
    /// Net for key frames and its classes [default: what the config.json beside the weights says, else
    /// swiftnet-r18]
    #[arg(
        long,
        value_name = "PRESET",
        value_parser = Preset::ALL.map(Preset::name),
        help_heading = "Weights"
    )]
    preset: Option<String>,
}

impl Demo {
    /// Runs it.
    pub fn run(&self) -> Result<Outcome> {
        Gsv.run(self.preset.as_deref(), &self.run)
    }
}

impl Model for Gsv {
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
        run::run(preset.map(Preset::parse).transpose()?, args)
    }

    fn bench(&self, preset: Option<&str>, args: &BenchArgs) -> Result<()> {
        measure::bench(preset.map_or(Ok(Preset::default()), Preset::parse)?, args)
    }

    fn eval(&self, preset: Option<&str>, args: &EvalArgs) -> Result<()> {
        eval::eval(preset.map(Preset::parse).transpose()?, args)
    }

    fn fit(&self, preset: Option<&str>, checkpoint: Checkpoint) -> Result<Json> {
        let preset = preset.map_or(Ok(Preset::default()), Preset::parse)?;
        let name = format!("{NAME}/{}", preset.name());
        let config = preset.config();
        check_fit(&name, checkpoint, |vb| <GsvNetSeg as zoo_hub::Pretrained>::new(&preset.into(), vb))?;
        Ok(json!({ "architecture": name, "config": config, "pictures": preset.pictures() }))
    }

    fn state_dict(&self, file: &TorchFile, others: &[TorchFile], key: Option<&str>) -> Result<StateDict> {
        convert::joined(file, others, key)
    }

    fn convert(&self, preset: Option<&str>, _: &TorchFile, state: &mut StateDict) -> Result<Json> {
        convert::leave_out_unused(state);
        self.fit(preset, state.to_checkpoint()?)
    }

    fn parity_cases(&self) -> Vec<Case> {
        gsvnet_seg::parity::cases(true)
    }
}

fn info(preset: Preset) -> Result<ModelInfo> {
    let counts = Counts::of(preset, gsvnet_seg::KeyframeScale::ThreeQuarters)?;
    Ok(ModelInfo {
        name: format!("{NAME}/{}", preset.name()),
        summary: format!(
            "key frames by {} at three quarters, {} classes; between them {:.1} GMACs",
            preset.config().keyframe.net.name(),
            preset.config().keyframe.classes,
            counts.between.macs as f64 / 1e9
        ),
        task: "segmentation",
        input: preset.size(),
        cost: counts.key,
        weights: vec![GsvWeights(preset).spec()],
    })
}

/// Mistakes on the command line are usage errors.
fn usage(error: gsvnet_seg::Error) -> anyhow::Error {
    use gsvnet_seg::Error;
    match error {
        Error::FrameSize { .. } | Error::KeyFrameSize { .. } | Error::Config(_) | Error::Unknown { .. } => {
            Usage::error(error)
        }
        other => other.into(),
    }
}
