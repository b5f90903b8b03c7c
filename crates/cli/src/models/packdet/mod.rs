//! `packdet`: detection with a long head on one plane of all levels, and what it is compared with.

mod bench;
mod eval;
mod plane;
mod run;
mod tables;
mod view;

use std::io::Write;

use anyhow::Result;
use clap::Parser;
use packdet::weights::PackDetWeights;
use packdet::{ModelConfig, PackDetNet, PictureConfig, Preset};
use serde_json::{Value as Json, json};
use zoo_core::{ModelInfo, Weights as _};
use zoo_hub::Checkpoint;
use zoo_hub::convert::{StateDict, TorchFile};
use zoo_parity::Case;

pub use bench::packop;
pub use view::{DetectArgs, PlaneArgs};

use super::{Model, check_fit, no_weights, refuse_others};
use crate::args::RunArgs;
use crate::commands::bench::BenchArgs;
use crate::commands::eval::EvalArgs;
use crate::exit::{Outcome, Usage};

pub struct Pack;

const NAME: &str = "packdet";
/// Where maskrcnn-benchmark keeps the net in its checkpoints.
const NET_ENTRY: &str = "model";

/// The demo binary's command line.
#[derive(Parser)]
#[command(name = NAME, version, about = "PackDet (ECCV 2020): objects in pictures, all levels of a pyramid in one plane")]
pub struct Demo {
    /// Say what is loaded from where (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(flatten)]
    run: RunArgs,
    /// Net [default: what the config.json beside the weights says, else r50-m4]
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
        Pack.run(self.preset.as_deref(), &self.run)
    }
}

impl Model for Pack {
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
        bench::bench(preset.map(Preset::parse).transpose()?, args)
    }

    fn eval(&self, preset: Option<&str>, args: &EvalArgs) -> Result<()> {
        eval::eval(preset.map(Preset::parse).transpose()?, args)
    }

    fn fit(&self, preset: Option<&str>, checkpoint: Checkpoint) -> Result<Json> {
        let preset = preset.map_or(Ok(Preset::default()), Preset::parse)?;
        let config = preset.config();
        let name = format!("{NAME}/{}", preset.name());
        check_fit(&name, checkpoint, |vb| PackDetNet::new(&config, vb))?;
        Ok(json!({ "architecture": name, "config": config, "pictures": PictureConfig::for_net(&config) }))
    }

    /// The authors' files have the optimiser's state beside the net's.
    fn state_dict(&self, file: &TorchFile, others: &[TorchFile], key: Option<&str>) -> Result<StateDict> {
        refuse_others(NAME, others)?;
        let own = || file.candidates().iter().any(|found| found.key == NET_ENTRY).then_some(NET_ENTRY);
        Ok(file.state_dict(key.or_else(own))?)
    }

    /// What the nets do not ask for: counters, and anchors, which follow from the configuration.
    fn convert(&self, preset: Option<&str>, _: &TorchFile, state: &mut StateDict) -> Result<Json> {
        state.leave_out("a counter of training", |name| name.ends_with("num_batches_tracked"));
        state.leave_out("anchors, which are drawn anew", |name| {
            name.contains("anchor_generator.cell_anchors")
        });
        self.fit(preset, state.to_checkpoint()?)
    }

    fn parity_cases(&self) -> Vec<Case> {
        packdet::parity::cases(true)
    }
}

fn info(preset: Preset) -> Result<ModelInfo> {
    let ModelConfig { net, .. } = preset.into();
    let input = preset.size();
    Ok(ModelInfo {
        name: format!("{NAME}/{}", preset.name()),
        summary: format!("{}, {} classes", tables::title(&net), net.classes),
        task: "detection",
        input,
        cost: PackDetNet::new(&net, no_weights())?.cost(input)?,
        weights: vec![PackDetWeights(preset).spec()],
    })
}

/// Mistakes on the command line are usage errors.
fn usage(error: packdet::Error) -> anyhow::Error {
    use packdet::Error;
    match error {
        Error::Config(_) | Error::Unknown { .. } | Error::InputSize { .. } => Usage::error(error),
        other => other.into(),
    }
}
