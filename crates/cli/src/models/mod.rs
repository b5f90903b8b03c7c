//! The models that the commands know. A new one is a module here and a line in [`all`].

mod classifiers;
mod detection;
pub mod gsvnet;
pub mod hyperseg;
pub mod packdet;
pub mod patchwork;
mod segmentation;

use std::io::Write;

use anyhow::{Result, bail};
use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use serde_json::Value as Json;
use zoo_core::ModelInfo;
use zoo_hub::convert::{StateDict, TorchFile};
use zoo_hub::{Checkpoint, LoadOptions};
use zoo_parity::{Case, seeded};

use crate::args::RunArgs;
use crate::commands::bench::BenchArgs;
use crate::commands::eval::EvalArgs;
use crate::exit::{Outcome, Usage};

/// A model as the commands see it. A preset is one of [`Model::presets`].
pub trait Model: Sync {
    /// As on the command line: the crate's name, or `layers/NAME`.
    fn name(&self) -> &'static str;

    /// Its configurations that have a name; the first is the default.
    fn presets(&self) -> Vec<&'static str>;

    /// What `zoo info` lists, one entry a preset.
    fn infos(&self) -> Result<Vec<ModelInfo>>;

    /// What `zoo info MODEL` adds for people: the paper's tables.
    fn print_tables(&self, _: &mut dyn Write) -> Result<()> {
        Ok(())
    }

    /// `zoo run`.
    fn run(&self, preset: Option<&str>, args: &RunArgs) -> Result<Outcome>;

    /// `zoo bench`.
    fn bench(&self, _: Option<&str>, _: &BenchArgs) -> Result<()> {
        bail!(Usage(format!("{} has no benchmark", self.name())))
    }

    /// `zoo eval`.
    fn eval(&self, _: Option<&str>, _: &EvalArgs) -> Result<()> {
        bail!(Usage(format!("{} has no evaluation", self.name())))
    }

    /// Holds a checkpoint against the net of a preset; gives what goes into `config.json`.
    ///
    /// # Errors
    /// If it does not fit, with the report.
    fn fit(&self, preset: Option<&str>, checkpoint: Checkpoint) -> Result<Json>;

    /// Whether a PyTorch file says itself that it is of this model.
    fn recognises(&self, _: &TorchFile) -> bool {
        false
    }

    /// The tensors of a PyTorch file, under the names that the net asks for, or of several files with a part of it
    /// each.
    ///
    /// # Errors
    /// If the parts do not make up a net, or there are some and it has none.
    fn state_dict(&self, file: &TorchFile, others: &[TorchFile], key: Option<&str>) -> Result<StateDict> {
        refuse_others(self.name(), others)?;
        Ok(file.state_dict(key)?)
    }

    /// `zoo convert`: as [`Model::fit`], for a PyTorch file, which may describe itself, and whose tensors may
    /// be more than a net asks for.
    ///
    /// # Errors
    /// If it does not fit.
    fn convert(&self, preset: Option<&str>, _: &TorchFile, state: &mut StateDict) -> Result<Json> {
        self.fit(preset, state.to_checkpoint()?)
    }

    /// What `zoo parity` can run.
    fn parity_cases(&self) -> Vec<Case> {
        Vec::new()
    }
}

/// A model whose weights are one file.
fn refuse_others(model: &str, others: &[TorchFile]) -> Result<()> {
    match others {
        [] => Ok(()),
        _ => Err(Usage::error(format_args!("{model} has no option --and: its weights are one file"))),
    }
}

/// All models.
pub fn all() -> impl Iterator<Item = &'static dyn Model> {
    let papers: [&dyn Model; 4] = [&patchwork::Patchwork, &packdet::Pack, &gsvnet::Gsv, &hyperseg::HyperSeg];
    papers.into_iter().chain(classifiers::ALL.iter().map(|model| model as &dyn Model))
}

/// The model that a PyTorch file says it is of.
pub fn recognise(file: &TorchFile) -> Option<Chosen> {
    all().find(|model| model.recognises(file)).map(|model| Chosen { model, preset: None })
}

/// A model and, if one was named, a preset of it.
pub struct Chosen {
    pub model: &'static dyn Model,
    pub preset: Option<&'static str>,
}

/// Every name that [`find`] takes.
fn names() -> impl Iterator<Item = (String, Chosen)> {
    all().flat_map(|model| {
        let plain = (model.name().to_owned(), Chosen { model, preset: None });
        let presets = model.presets().into_iter().map(move |preset| {
            (format!("{}/{preset}", model.name()), Chosen { model, preset: Some(preset) })
        });
        std::iter::once(plain).chain(presets)
    })
}

/// The model called `MODEL` or `MODEL/PRESET`.
pub fn find(text: &str) -> Result<Chosen> {
    if let Some((_, chosen)) = names().find(|(name, _)| name == text) {
        return Ok(chosen);
    }
    let nearest = names()
        .map(|(name, _)| (strsim::damerau_levenshtein(&name, text), name))
        .min()
        .filter(|(edits, _)| *edits <= text.chars().count().div_ceil(2))
        .map(|(_, name)| format!("did you mean {name}? "));
    Err(Usage::error(format_args!(
        "unknown model '{text}': {}`zoo info` lists them",
        nearest.unwrap_or_default()
    )))
}

/// For counting, which looks at shapes only.
pub fn no_weights() -> VarBuilder<'static> {
    VarBuilder::zeros(DType::F32, &Device::Cpu)
}

/// Random weights that follow from their names, their shapes and `seed`: the same on every machine.
pub fn random_weights(seed: u64, device: &Device) -> VarBuilder<'static> {
    seeded::var_builder(Some(seed), DType::F32, device)
}

/// What to do where no weights of `model` can be had by their name.
fn without_weights(error: zoo_hub::Error, model: &str) -> anyhow::Error {
    const OWN_OR_RANDOM: &str =
        "--weights FILE takes them; --random tries the machinery (what it finds means nothing)";
    match error {
        zoo_hub::Error::NeverTrained { .. } => {
            Usage::error(format_args!("nobody has published weights for {model}: {OWN_OR_RANDOM}"))
        }
        convert @ zoo_hub::Error::NeedsConversion { .. } => {
            Usage::error(format_args!("{convert}; then {OWN_OR_RANDOM}"))
        }
        other => other.into(),
    }
}

/// Builds a net only to see whether a checkpoint fits it.
fn check_fit<M>(
    name: &str,
    checkpoint: Checkpoint,
    build: impl FnOnce(VarBuilder<'static>) -> candle_core::Result<M>,
) -> Result<()> {
    zoo_hub::load(name, checkpoint, &LoadOptions::default(), build)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn models_are_found_by_name_and_unknown_ones_get_a_suggestion() {
        let chosen = find("patchwork-det/coco").unwrap();
        assert_eq!((chosen.model.name(), chosen.preset), ("patchwork-det", Some("coco")));
        assert_eq!(find("layers/mobilenet-v2").unwrap().preset, None);
        let fault = |text| find(text).err().unwrap().to_string();
        assert_eq!(
            fault("patchwork-det/cocoa"),
            "unknown model 'patchwork-det/cocoa': did you mean patchwork-det/coco? `zoo info` lists them"
        );
        assert_eq!(fault("zzz"), "unknown model 'zzz': `zoo info` lists them");
    }
}
