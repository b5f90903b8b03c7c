//! The weight files that there are, and how the loaders build nets from them.

use std::path::Path;

use candle_nn::VarBuilder;
use zoo_core::{Status, WeightSpec, Weights as _};
use zoo_hub::{Description, Pretrained};

use crate::config::{Config, ModelConfig, PictureConfig, Preset};
use crate::{Error, GsvNetSeg, Result};

/// The authors' files, on a drive of theirs; we have seen none of them. The key frames' net is a file of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GsvWeights(
    /// What they are of.
    pub Preset,
);

impl zoo_core::Weights for GsvWeights {
    fn spec(&self) -> WeightSpec {
        let preset = self.0;
        let (status, trained_on) = match preset {
            Preset::SwiftnetR18 | Preset::BisenetR18 => (
                Status::Convert(format!(
                    "get the checkpoints of the key frames' net and of the propagation, which the front page of the \
                     authors' repository links to, and `zoo convert KEYFRAME.pth --and GSVNET.tar --arch gsvnet-seg/{} \
                     -o DIR`",
                    preset.name()
                )),
                "Cityscapes (non-commercial), from ImageNet weights".to_owned(),
            ),
            _ => (Status::Random, "nothing yet".to_owned()),
        };
        WeightSpec {
            name: format!("gsvnet-seg/{}", preset.name()),
            file: format!("gsvnet-seg-{}.safetensors", preset.name()),
            license: if matches!(status, Status::Random) { "none" } else { "unstated" }.to_owned(),
            status,
            size: None,
            sha256: None,
            trained_on,
            metrics: vec![],
        }
    }
}

impl Pretrained for GsvNetSeg {
    type Config = ModelConfig;
    type Weights = GsvWeights;

    fn config(weights: &GsvWeights) -> ModelConfig {
        weights.0.into()
    }

    /// With the delay kernels of the file, if it has any.
    fn new(config: &ModelConfig, vb: VarBuilder<'static>) -> candle_core::Result<Self> {
        let mut model = Self::new(config, vb.clone()).map_err(candle_core::Error::wrap)?;
        model.net_mut().load_kernels(&vb)?;
        Ok(model)
    }

    fn prepare(&mut self) -> candle_core::Result<()> {
        Self::prepare(self)
    }
}

/// The configuration in the `config.json` beside a file of weights, where `zoo convert` has put one. One whose
/// `architecture` is null says nothing here.
///
/// # Errors
/// If there is a file of that name that is not a GSVNet configuration.
pub fn config_beside(weights: &Path) -> Result<Option<ModelConfig>> {
    let Some(description) = Description::beside(weights)? else { return Ok(None) };
    let net: Config = description.required("config")?;
    let pictures: PictureConfig = description.required("pictures")?;
    pictures.validate(net.keyframe.classes).map_err(|error| description.fault(error))?;
    Ok(Some(ModelConfig { net, pictures }))
}

/// What to build for a file of weights: what the `config.json` beside it says, else the preset's.
///
/// # Errors
/// As [`config_beside`], if it is of another net than the preset, or if there is neither.
pub fn config_of(weights: &Path, preset: Option<Preset>) -> Result<ModelConfig> {
    let file = weights.display();
    match (config_beside(weights)?, preset) {
        (Some(config), Some(preset)) if config.net.keyframe != preset.config().keyframe => {
            Err(Error::Config(format!(
                "the config.json beside {file} is of {} for {} classes, not of preset {}: leave the preset out",
                config.net.keyframe.net.name(),
                config.net.keyframe.classes,
                preset.name()
            )))
        }
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
    Preset::ALL.map(|preset| GsvWeights(preset).spec()).into()
}
