//! Backbones with their ImageNet heads.

use std::fmt::Debug;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{Backbone, FrameSize, Tally};
use zoo_kernels::global_avg_pool2d;

use crate::{
    EfficientNet, EfficientNetConfig, Linear, MobileNetV2, MobileNetV2Config, ResNet, ResNetConfig,
    Statistics,
};

/// A backbone up to the map that a classifier averages.
pub trait Trunk: Backbone + Debug + Send + Sync {
    /// `xs`: `[B, 3, H, W]`, normalised. Result: `[B, C, h, w]`.
    ///
    /// # Errors
    /// If the input's shape does not fit the net.
    fn trunk(&self, xs: &Tensor) -> Result<Tensor>;

    /// C of that map.
    fn trunk_channels(&self) -> usize;

    /// Folds batch norm and packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    fn prepare(&mut self) -> Result<()>;

    /// What the norms normalise by, as long as they are not folded.
    fn set_statistics(&mut self, statistics: Statistics);

    /// Counts every layer for an input of `input`.
    fn cost(&self, input: FrameSize, tally: &mut Tally);
}

/// Which backbone, and its options.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(tag = "family", rename_all = "lowercase")]
pub enum Architecture {
    /// See [`MobileNetV2`].
    MobileNetV2(MobileNetV2Config),
    /// See [`ResNet`].
    ResNet(ResNetConfig),
    /// See [`EfficientNet`].
    EfficientNet(EfficientNetConfig),
}

impl Architecture {
    /// Builds the backbone; `vb` holds its tensors.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn build(&self, vb: VarBuilder) -> Result<Box<dyn Trunk>> {
        Ok(match self {
            Self::MobileNetV2(cfg) => Box::new(MobileNetV2::new(cfg, vb)?),
            Self::ResNet(cfg) => Box::new(ResNet::new(cfg, vb)?),
            Self::EfficientNet(cfg) => Box::new(EfficientNet::new(cfg, vb)?),
        })
    }

    /// What its checkpoints call the last layer.
    fn head(&self) -> &'static str {
        match self {
            Self::MobileNetV2(_) => "classifier.1",
            Self::ResNet(_) => "fc",
            Self::EfficientNet(cfg) => cfg.names.classifier(),
        }
    }
}

impl From<&MobileNetV2Config> for Architecture {
    fn from(cfg: &MobileNetV2Config) -> Self {
        Self::MobileNetV2(*cfg)
    }
}

impl From<&ResNetConfig> for Architecture {
    fn from(cfg: &ResNetConfig) -> Self {
        Self::ResNet(*cfg)
    }
}

impl From<&EfficientNetConfig> for Architecture {
    fn from(cfg: &EfficientNetConfig) -> Self {
        Self::EfficientNet(*cfg)
    }
}

/// A backbone with its ImageNet head: global mean, then a linear layer.
#[derive(Debug)]
pub struct Classifier {
    trunk: Box<dyn Trunk>,
    head: Linear,
}

impl Classifier {
    /// `vb` holds what the architecture's checkpoints hold, the head under the name that it has there.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(architecture: impl Into<Architecture>, classes: usize, vb: VarBuilder) -> Result<Self> {
        let architecture = architecture.into();
        let trunk = architecture.build(vb.clone())?;
        let head = Linear::new(trunk.trunk_channels(), classes, vb.pp(architecture.head()))?;
        Ok(Self { trunk, head })
    }

    /// The backbone.
    pub fn trunk(&self) -> &dyn Trunk {
        &*self.trunk
    }

    /// Folds batch norm and packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.trunk.prepare()?;
        self.head.prepare()
    }

    /// What the norms normalise by, as long as they are not folded: [`Statistics::Batch`] for training.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.trunk.set_statistics(statistics);
    }

    /// `xs`: `[B, 3, H, W]`, normalised. Result: class scores before softmax, `[B, classes]`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let means = global_avg_pool2d(&self.trunk.trunk(xs)?)?;
        self.head.forward(&means.flatten_from(1)?)
    }

    /// Counts every layer for an input of `input`.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) {
        self.trunk.cost(input, tally);
        self.head.cost(1, tally);
    }
}
