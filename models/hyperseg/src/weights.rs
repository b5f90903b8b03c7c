//! The weight files that there are, and how the loaders build nets from them.

use std::path::Path;

use candle_nn::VarBuilder;
use zoo_core::{Status, WeightSpec, Weights as _};
use zoo_hub::{Checkpoint, Description, Pretrained};

use crate::config::{Config, ModelConfig, PictureConfig, Preset};
use crate::{Error, HyperSeg, HyperSegNet, Result, checkpoint};

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

impl Pretrained for HyperSeg {
    type Config = ModelConfig;
    type Weights = HyperSegWeights;

    /// As for the net; pictures as the preset has them.
    fn config(weights: &HyperSegWeights) -> ModelConfig {
        weights.0.into()
    }

    fn check(config: &ModelConfig, checkpoint: &Checkpoint) -> std::result::Result<(), zoo_hub::BoxError> {
        HyperSegNet::check(&config.net, checkpoint)
    }

    fn new(config: &ModelConfig, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
        Self::new(config, vb).map_err(candle_core::Error::wrap)
    }

    fn prepare(&mut self) -> candle_core::Result<()> {
        Self::prepare(self)
    }
}

/// The configuration in the `config.json` beside a file of weights, where `zoo convert` has put one. Of one
/// without an entry `pictures`, the net decides them ([`PictureConfig::for_net`]); one whose `architecture` is
/// null is of a conversion that nothing was known of, and says nothing here.
///
/// # Errors
/// If there is a file of that name that is not a HyperSeg configuration.
pub fn config_beside(weights: &Path) -> Result<Option<ModelConfig>> {
    let Some(description) = Description::beside(weights)? else { return Ok(None) };
    let net: Config = description.required("config")?;
    net.validate().map_err(|error| description.fault(error))?;
    let pictures = description.entry("pictures")?.unwrap_or_else(|| PictureConfig::for_net(&net));
    pictures.validate(net.num_classes).map_err(|error| description.fault(error))?;
    Ok(Some(ModelConfig { net, pictures }))
}

/// What to build for a file of weights: what the `config.json` beside it says, else the preset's. A file may
/// differ from the preset of its name, but a preset of other classes than its own is refused.
///
/// # Errors
/// As [`config_beside`], if that contradicts the preset, or if there is neither.
pub fn config_of(weights: &Path, preset: Option<Preset>) -> Result<ModelConfig> {
    let file = weights.display();
    match (config_beside(weights)?, preset) {
        (Some(config), Some(preset)) if config.pictures.labels != preset.pictures().labels => {
            Err(Error::Config(format!(
                "the config.json beside {file} says {}, and preset {} is of {}: leave the preset out",
                classes(&config.pictures),
                preset.name(),
                classes(&preset.pictures())
            )))
        }
        (Some(config), _) => Ok(config),
        (None, Some(preset)) => Ok(preset.into()),
        (None, None) => Err(Error::Config(format!(
            "no config.json beside {file} says which net it is of: put there the one that `zoo convert` wrote of a file that describes itself, or name a preset: {}",
            Preset::ALL.map(Preset::name).join(", ")
        ))),
    }
}

/// How many classes, and the first of them.
fn classes(pictures: &PictureConfig) -> String {
    let first: Vec<&str> = pictures.labels.iter().take(3).map(|class| class.name.as_ref()).collect();
    format!("{} classes ({}, …)", pictures.labels.len(), first.join(", "))
}

/// Everything that `zoo info` lists of this crate's weights.
pub fn all() -> Vec<WeightSpec> {
    Preset::ALL.map(|preset| HyperSegWeights(preset).spec()).into()
}
