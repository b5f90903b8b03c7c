use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{Backbone as _, FrameSize, Tally};
use zoo_layers::{ResNet, ResNetConfig, Statistics, Trunk as _};

use super::{STRIDES, Xception};
use crate::Probe;
use crate::keyframe::KeyframeKind;

/// The context path (Section 3.2 of BiSeNet's paper): maps of strides 8, 16 and 32.
#[derive(Debug, Clone)]
pub enum ContextPath {
    /// ResNet-18.
    ResNet(ResNet),
    /// Xception39.
    Xception(Xception),
}

impl ContextPath {
    /// `vb` holds torchvision's names for ResNet-18, `conv1` and `layer1` … `layer3` for Xception39.
    ///
    /// # Errors
    /// If BiSeNet has no such path, or a tensor is missing or has another shape.
    pub fn new(net: KeyframeKind, vb: VarBuilder) -> Result<Self> {
        Ok(match net {
            KeyframeKind::BisenetR18 => Self::ResNet(ResNet::new(&ResNetConfig::resnet18(), vb)?),
            KeyframeKind::BisenetX39 => Self::Xception(Xception::new(vb)?),
            other => bail!("bisenet: {} is no BiSeNet", other.name()),
        })
    }

    /// Of the three maps, finest first.
    pub(super) fn channels(&self) -> Result<[usize; 3]> {
        match self {
            Self::ResNet(net) => last_three(net.info().iter().map(|level| level.channels).collect()),
            Self::Xception(net) => Ok(net.channels()),
        }
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        match self {
            Self::ResNet(net) => net.prepare(),
            Self::Xception(net) => net.prepare(),
        }
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        match self {
            Self::ResNet(net) => net.set_statistics(statistics),
            Self::Xception(net) => net.set_statistics(statistics),
        }
    }

    /// `xs`: `[B, 3, H, W]`. Result: three maps, finest first, each `[B, C, ceil(H / stride), ceil(W / stride)]`.
    ///
    /// # Errors
    /// If the input's shape does not fit, and what the probe returns.
    pub fn forward(&self, xs: &Tensor, probe: Probe) -> Result<[Tensor; 3]> {
        let mut maps = Vec::new();
        let mut see = |name: &str, ys: &Tensor| {
            if name != "stem" {
                maps.push(ys.clone());
            }
            probe(name, ys)
        };
        match self {
            Self::ResNet(net) => net.forward(xs, &mut see)?,
            Self::Xception(net) => net.forward(xs, &mut see)?,
        };
        last_three(maps)
    }

    pub(super) fn cost(&self, input: FrameSize, tally: &mut Tally) {
        match self {
            Self::ResNet(net) => net.cost(input, tally),
            Self::Xception(net) => net.cost(input, tally),
        }
    }
}

fn last_three<T>(mut list: Vec<T>) -> Result<[T; 3]> {
    let others = list.len().saturating_sub(STRIDES.len());
    list.drain(..others);
    list.try_into().map_err(|list: Vec<T>| {
        candle_core::Error::msg(format!("bisenet: expected a context path of three maps, got {}", list.len()))
    })
}
