//! The weight files that there are, and how the loaders build detectors from them.

use std::path::Path;

use candle_nn::VarBuilder;
use zoo_core::{Status, WeightSpec, Weights as _};
use zoo_hub::{Description, Pretrained};

use crate::config::{Config, Flavour, HeadConfig, ModelConfig, PictureConfig, Preset};
use crate::{Error, PackDet, PackDetNet, Result};

/// The authors' files, on drives of theirs, and torchvision's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PackDetWeights(
    /// What they are of.
    pub Preset,
);

impl PackDetWeights {
    /// torchvision's file, where it has one.
    pub fn torchvision(self) -> Option<&'static str> {
        match self.0 {
            Preset::FcosR50Torchvision => Some("fcos_resnet50_fpn_coco-99b0c9b7.pth"),
            Preset::RetinaNetR50Torchvision => Some("retinanet_resnet50_fpn_coco-eeacb38b.pth"),
            _ => None,
        }
    }

    fn status(self) -> Status {
        let convert = |from: String, file: &str| {
            let name = self.0.name();
            Status::Convert(format!("get {from}, and `zoo convert {file} --arch packdet/{name} -o DIR`"))
        };
        let config = self.0.config();
        match (self.torchvision(), config.head) {
            (Some(file), _) => {
                convert(format!("torchvision's {file} from download.pytorch.org/models"), file)
            }
            // Named after nobody's training.
            _ if self.0 == Preset::Mnv2Tiny => Status::Random,
            (None, HeadConfig::Fcos(_) | HeadConfig::RetinaNet) => Status::Random,
            (None, HeadConfig::PackDet { .. } | HeadConfig::RetinaPack(_)) => convert(
                "the .pth file that the front page of github.com/kding1225/PackDet links to".to_owned(),
                "FILE.pth",
            ),
        }
    }
}

impl zoo_core::Weights for PackDetWeights {
    fn spec(&self) -> WeightSpec {
        let preset = self.0;
        let status = self.status();
        let (license, trained_on) = match (&status, preset.config().flavour) {
            (Status::Random, _) => ("none", "nothing yet"),
            (_, Flavour::Torchvision) => ("BSD-3-Clause", "COCO 2017, from ImageNet weights"),
            (_, Flavour::MaskrcnnBenchmark) => (
                "unstated (the authors' code: Apache-2.0)",
                "COCO 2014 (train and valminusminival), from ImageNet weights",
            ),
        };
        WeightSpec {
            name: format!("packdet/{}", preset.name()),
            file: format!("packdet-{}.safetensors", preset.name()),
            status,
            size: None,
            sha256: None,
            license: license.to_owned(),
            trained_on: trained_on.to_owned(),
            metrics: vec![],
        }
    }
}

impl Pretrained for PackDetNet {
    type Config = Config;
    type Weights = PackDetWeights;

    fn config(weights: &PackDetWeights) -> Config {
        weights.0.config()
    }

    fn new(config: &Config, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
        Self::new(config, vb)
    }

    fn prepare(&mut self) -> candle_core::Result<()> {
        Self::prepare(self)
    }
}

impl Pretrained for PackDet {
    type Config = ModelConfig;
    type Weights = PackDetWeights;

    /// With the pictures that go with the net.
    fn config(weights: &PackDetWeights) -> ModelConfig {
        weights.0.into()
    }

    fn new(config: &ModelConfig, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
        Self::new(config, vb).map_err(candle_core::Error::wrap)
    }

    fn prepare(&mut self) -> candle_core::Result<()> {
        Self::prepare(self)
    }
}

/// The configuration in the `config.json` beside a file of weights, where `zoo convert` has put one. Of one without an
/// entry `pictures`, the net decides them; one whose `architecture` is null says nothing here.
///
/// # Errors
/// If there is a file of that name that is not a configuration of this crate's nets.
pub fn config_beside(weights: &Path) -> Result<Option<ModelConfig>> {
    let Some(description) = Description::beside(weights)? else { return Ok(None) };
    let net: Config = description.required("config")?;
    net.validate().map_err(|error| description.fault(error))?;
    let pictures = description.entry("pictures")?.unwrap_or_else(|| PictureConfig::for_net(&net));
    pictures.validate(&net).map_err(|error| description.fault(error))?;
    Ok(Some(ModelConfig { net, pictures }))
}

/// What to build for a file of weights: what the `config.json` beside it says, else the preset's.
///
/// # Errors
/// As [`config_beside`], if it is of another net than the preset, or if there is neither.
pub fn config_of(weights: &Path, preset: Option<Preset>) -> Result<ModelConfig> {
    let file = weights.display();
    match (config_beside(weights)?, preset) {
        (Some(config), Some(preset)) if config.net != preset.config() => Err(Error::Config(format!(
            "the config.json beside {file} is of another net than preset {}: leave the preset out",
            preset.name()
        ))),
        (Some(config), _) => Ok(config),
        (None, Some(preset)) => Ok(preset.into()),
        (None, None) => Err(Error::Config(format!(
            "no config.json beside {file} says which net it is of: put there the one that `zoo convert` wrote, or name a preset: {}",
            Preset::ALL.map(Preset::name).join(", ")
        ))),
    }
}

/// Everything that `zoo info` lists of this crate's weights.
pub fn all() -> Vec<WeightSpec> {
    Preset::ALL.map(|preset| PackDetWeights(preset).spec()).into()
}
