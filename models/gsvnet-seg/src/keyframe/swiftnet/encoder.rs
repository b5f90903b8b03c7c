use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{Backbone, FrameSize, Tally};
use zoo_layers::{
    MobileNetV2, MobileNetV2Config, ResNet, ResNetConfig, Statistics, Tap, Trunk as _, ZeroBorder,
};

use crate::Probe;
use crate::keyframe::KeyframeKind;

/// The net whose maps SwiftNet reads: those of strides 4, 8, 16 and 32.
#[derive(Debug, Clone)]
pub enum Encoder {
    /// Its maps are behind the last ReLU of each stage.
    ResNet(Box<ResNet>),
    /// Its maps are linear: the results of blocks 3, 6, 13 and 17.
    MobileNetV2(Box<MobileNetV2>),
}

impl Encoder {
    /// `vb` holds torchvision's names: `conv1`, `bn1` and `layer1` … `layer4` of a ResNet, `features.0` …
    /// `features.17` of MobileNetV2.
    ///
    /// # Errors
    /// If SwiftNet has no such encoder, or a tensor is missing or has another shape.
    pub fn new(net: KeyframeKind, vb: VarBuilder) -> Result<Self> {
        Ok(match net {
            KeyframeKind::SwiftnetR18 => Self::ResNet(Box::new(ResNet::new(&ResNetConfig::resnet18(), vb)?)),
            KeyframeKind::SwiftnetR34 => Self::ResNet(Box::new(ResNet::new(&ResNetConfig::resnet34(), vb)?)),
            KeyframeKind::SwiftnetMobilenetV2 => {
                let net = MobileNetV2::without_last(&MobileNetV2Config::torchvision(), vb)?;
                Self::MobileNetV2(Box::new(net))
            }
            other => bail!("swiftnet: {} is no SwiftNet for images of one size", other.name()),
        })
    }

    fn backbone(&self) -> &dyn Backbone {
        match self {
            Self::ResNet(net) => net.as_ref(),
            Self::MobileNetV2(net) => net.as_ref(),
        }
    }

    /// Of the four maps, finest first.
    pub(super) fn channels(&self) -> Result<[usize; 4]> {
        let channels = self.backbone().info().iter().map(|level| level.channels).collect();
        four(channels)
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        match self {
            Self::ResNet(net) => net.prepare(),
            Self::MobileNetV2(net) => net.prepare(),
        }
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        match self {
            Self::ResNet(net) => net.set_statistics(statistics),
            Self::MobileNetV2(net) => net.set_statistics(statistics),
        }
    }

    /// `xs`: `[B, 3, H, W]`. Result: four maps, finest first, each `[B, C, ceil(H / stride), ceil(W / stride)]`.
    ///
    /// # Errors
    /// If the input's shape does not fit, and what the probe returns.
    pub fn forward(&self, xs: &Tensor, probe: Probe) -> Result<[Tensor; 4]> {
        let levels = self.backbone().info();
        let mut maps = Vec::with_capacity(levels.len());
        let mut see = |name: &str, ys: &Tensor| {
            if levels.iter().any(|level| level.name == name) {
                maps.push(ys.clone());
                probe(name, ys)?;
            } else if name == "stem" {
                probe(name, ys)?;
            }
            Ok(())
        };
        match self {
            Self::ResNet(net) => net.forward(xs, &mut see)?,
            Self::MobileNetV2(net) => net.forward(xs, &mut ZeroBorder, &[], &mut |tap, ys| match tap {
                Tap::Feature(i) => see(&format!("features.{i}"), ys),
                Tap::Expansion(_) => Ok(()),
            })?,
        };
        four(maps)
    }

    pub(super) fn cost(&self, input: FrameSize, tally: &mut Tally) {
        match self {
            Self::ResNet(net) => net.cost(input, tally),
            Self::MobileNetV2(net) => {
                net.cost(input, tally);
            }
        }
    }
}

fn four<T>(list: Vec<T>) -> Result<[T; 4]> {
    list.try_into().map_err(|list: Vec<T>| {
        candle_core::Error::msg(format!("swiftnet: expected an encoder of four maps, got {}", list.len()))
    })
}
