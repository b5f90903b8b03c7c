//! `hyperseg`: segmentation by a decoder whose weights a net makes for each patch.

mod losses;
mod pictures;
mod tables;

use std::io::Write;

use anyhow::{Result, bail};
use clap::Parser;
use hyperseg::weights::HyperSegWeights;
use hyperseg::{Config, HyperSegNet, PictureConfig, Preset, checkpoint};
use serde_json::{Value as Json, json};
use zoo_core::{ModelInfo, Weights as _};
use zoo_hub::convert::{StateDict, TorchFile};
use zoo_hub::{Checkpoint, Pretrained as _};
use zoo_parity::Case;

use super::{Model, check_fit, no_weights};
use crate::args::RunArgs;
use crate::commands::bench::BenchArgs;
use crate::commands::eval::EvalArgs;
use crate::exit::{Outcome, Usage};

pub struct HyperSeg;

const NAME: &str = "hyperseg";

/// The demo binary's command line.
#[derive(Parser)]
#[command(name = NAME, version, about = "HyperSeg (CVPR 2021): a class for every pixel of pictures and clips")]
pub struct Demo {
    /// Say what is loaded from where (-vv: everything)
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
    #[command(flatten)]
    run: RunArgs,
    /// Model of the paper [default: what the config.json beside the weights says, else voc-l]
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
        HyperSeg.run(self.preset.as_deref(), &self.run)
    }
}

impl Model for HyperSeg {
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
        pictures::run(preset.map(Preset::parse).transpose()?, args)
    }

    fn bench(&self, preset: Option<&str>, args: &BenchArgs) -> Result<()> {
        pictures::bench(preset.map_or(Ok(Preset::default()), Preset::parse)?, args)
    }

    fn eval(&self, preset: Option<&str>, args: &EvalArgs) -> Result<()> {
        pictures::eval(preset.map(Preset::parse).transpose()?, args)
    }

    fn fit(&self, preset: Option<&str>, checkpoint: Checkpoint) -> Result<Json> {
        fit(preset.map_or(Ok(Preset::default()), Preset::parse)?.config(), checkpoint)
    }

    fn recognises(&self, file: &TorchFile) -> bool {
        checkpoint::is_hyperseg(file)
    }

    fn convert(&self, preset: Option<&str>, file: &TorchFile, state: &mut StateDict) -> Result<Json> {
        let preset = preset.map(Preset::parse).transpose()?;
        let config = match (preset.map(Preset::config), checkpoint::config(file)) {
            (Some(config), Ok(own)) if own != config => bail!(Usage(format!(
                "the file's own description is of another net than {NAME}/{}: leave --arch out, and the \
                 description decides",
                preset.map_or("", Preset::name)
            ))),
            (Some(config), _) => config,
            (None, own) => own?,
        };
        checkpoint::leave_out_unused(state);
        fit(config, state.to_checkpoint()?)
    }

    fn parity_cases(&self) -> Vec<Case> {
        let mut cases = hyperseg::parity::cases(true);
        cases.push(losses::case());
        cases
    }
}

fn fit(config: Config, checkpoint: Checkpoint) -> Result<Json> {
    let preset = Preset::ALL.into_iter().find(|preset| preset.config() == config);
    let name = preset.map_or_else(|| NAME.to_owned(), |preset| format!("{NAME}/{}", preset.name()));
    HyperSegNet::check(&config, &checkpoint).map_err(anyhow::Error::from_boxed)?;
    check_fit(&name, checkpoint, |vb| HyperSegNet::new(&config, vb))?;
    Ok(json!({ "architecture": name, "config": config, "pictures": PictureConfig::for_net(&config) }))
}

fn info(preset: Preset) -> Result<ModelInfo> {
    let cfg = preset.config();
    let summary = format!(
        "Table S1's {} of the authors' code {}, {} classes",
        preset.title(),
        cfg.version,
        cfg.num_classes
    );
    Ok(ModelInfo {
        name: format!("{NAME}/{}", preset.name()),
        summary,
        task: "segmentation",
        input: preset.size(),
        cost: HyperSegNet::new(&cfg, no_weights())?.cost(preset.size()),
        weights: vec![HyperSegWeights(preset).spec()],
    })
}

/// Mistakes on the command line are usage errors, with what to type instead.
fn usage(error: hyperseg::Error) -> anyhow::Error {
    use hyperseg::Error;
    match error {
        Error::ImageSize { nearest, .. } => Usage::error(format_args!(
            "{error}: --size {}x{} (rows x columns)",
            nearest.height, nearest.width
        )),
        Error::Views(_) | Error::Config(_) | Error::Unknown { .. } => Usage::error(error),
        other => other.into(),
    }
}
