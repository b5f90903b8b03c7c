//! The weight files that there are, and how the loaders build nets from them.

use std::path::Path;

use candle_nn::VarBuilder;
use serde_json::Value;
use zoo_core::{Status, WeightSpec, Weights as _};
use zoo_hub::{Checkpoint, Pretrained};

use crate::config::{Config, Preset};
use crate::{Error, HyperSegNet, Result, checkpoint};

/// What `zoo convert` writes beside the weights.
const CONFIG_FILE: &str = "config.json";

/// The authors' files. They are PyTorch checkpoints on a drive of theirs, linked from the front page of
/// their repository; we have seen none of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HyperSegWeights(
    /// The preset whose training configuration the file is named after.
    pub Preset,
);

impl HyperSegWeights {
    /// The file's name without its ending, where the authors have published one.
    pub fn published(&self) -> Option<&'static str> {
        Some(match self.0 {
            Preset::VocL => "vocsbd_efficientnet_b3_hyperseg-l",
            Preset::CityscapesS => "cityscapes_efficientnet_b1_hyperseg-s",
            Preset::CityscapesM => "cityscapes_efficientnet_b1_hyperseg-m",
            Preset::CamvidS => "camvid_efficientnet_b1_hyperseg-s",
            Preset::CamvidL => return None,
        })
    }
}

impl zoo_core::Weights for HyperSegWeights {
    fn spec(&self) -> WeightSpec {
        let name = format!("hyperseg/{}", self.0.name());
        let data = match self.0 {
            Preset::VocL => "PASCAL VOC 2012 and SBD, from ImageNet weights",
            Preset::CityscapesS | Preset::CityscapesM => "Cityscapes (non-commercial), from ImageNet weights",
            Preset::CamvidS | Preset::CamvidL => "CamVid, from ImageNet weights",
        };
        let file = format!("hyperseg-{}.safetensors", self.0.name());
        let spec = WeightSpec {
            name,
            file,
            status: Status::Random,
            size: None,
            sha256: None,
            license: "none".to_owned(),
            trained_on: format!("nothing yet (the paper: {data})"),
            metrics: vec![],
        };
        match self.published() {
            Some(published) => WeightSpec {
                status: Status::Convert(format!(
                    "get {published}.pth, which the front page of github.com/YuvalNirkin/hyperseg links to, and \
                     `zoo convert {published}.pth -o DIR`"
                )),
                license: "unstated (the authors' code: CC0-1.0)".to_owned(),
                trained_on: data.to_owned(),
                ..spec
            },
            None => spec,
        }
    }
}

impl Pretrained for HyperSegNet {
    type Config = Config;
    type Weights = HyperSegWeights;

    /// The published training configuration. A released file may differ from it: its own description
    /// decides, which `zoo convert` writes beside the weights ([`config_beside`]).
    fn config(weights: &HyperSegWeights) -> Config {
        weights.0.config()
    }

    fn check(config: &Config, checkpoint: &Checkpoint) -> std::result::Result<(), zoo_hub::BoxError> {
        let tensors = checkpoint.tensors().iter();
        let shapes = tensors.map(|(name, entry)| (name.clone(), entry.shape.clone())).collect();
        Ok(checkpoint::check(config, &shapes)?)
    }

    fn new(config: &Config, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
        Self::new(config, vb)
    }

    fn prepare(&mut self) -> candle_core::Result<()> {
        Self::prepare(self)
    }
}

/// The configuration in the `config.json` beside a file of weights, where `zoo convert` has put one.
///
/// # Errors
/// If there is a file of that name that is not a HyperSeg configuration.
pub fn config_beside(weights: &Path) -> Result<Option<Config>> {
    let path = weights.with_file_name(CONFIG_FILE);
    let Ok(text) = std::fs::read_to_string(&path) else { return Ok(None) };
    let fault = |error: &dyn std::fmt::Display| Error::Config(format!("{}: {error}", path.display()));
    let mut value: Value = serde_json::from_str(&text).map_err(|error| fault(&error))?;
    let config =
        value.get_mut("config").map(Value::take).ok_or_else(|| fault(&"it has no entry 'config'"))?;
    let config: Config = serde_json::from_value(config).map_err(|error| fault(&error))?;
    config.validate()?;
    Ok(Some(config))
}

/// Everything that `zoo info` lists of this crate's weights.
pub fn all() -> Vec<WeightSpec> {
    Preset::ALL.map(|preset| HyperSegWeights(preset).spec()).into()
}
