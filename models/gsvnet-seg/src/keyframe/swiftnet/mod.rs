//! SwiftNet: M. Oršić, I. Krešo, P. Bevandić, S. Šegvić, "In Defense of Pre-trained ImageNet Architectures for Real-time
//! Semantic Segmentation of Road-driving Images", CVPR 2019.
//!
//! An encoder whose last map goes through a pyramid of pools, and a ladder that climbs back with the encoder's maps as
//! rungs. The authors' code is under the GPL and was not read; this is from a description of what it computes.
//! It differs from the paper in that the maps for the ladder are those behind the ReLU of their stage, as the
//! published weights were trained.

mod encoder;
mod ladder;
mod pooling;
mod pyramid;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::{ConvSpec, NormActConv, Statistics};

pub use encoder::Encoder;
pub use ladder::Ladder;
pub use pooling::PyramidPooling;
pub use pyramid::PyramidSwiftNet;

use super::{Joins, KeyframeConfig, PartCosts};
use crate::Probe;
use crate::config::BN_EPS;

/// Channels of the pyramid's result, the ladder and what the head reads.
const FEATURES: usize = 128;
/// The ladder's filters.
const LADDER_KERNEL: usize = 3;

/// The code's unit: norm → ReLU → `kernel`×`kernel` convolution without bias.
fn norm_relu_conv(inputs: usize, outputs: usize, kernel: usize, vb: VarBuilder) -> Result<NormActConv> {
    let spec = ConvSpec::dense(inputs, outputs, kernel, 1, BN_EPS, Activation::Relu);
    NormActConv::new(spec, vb.pp("norm"), vb.pp("conv"))
}

/// Norm → ReLU → 1×1 convolution with a bias, to the classes.
fn head(classes: usize, vb: VarBuilder) -> Result<NormActConv> {
    let spec = ConvSpec::pointwise(FEATURES, classes, BN_EPS, Activation::Relu);
    NormActConv::biased(spec, vb.pp("norm"), vb.pp("conv"))
}

/// SwiftNet for images of one size.
///
/// Its probes see the encoder's maps (`stem` and `layer1` … `layer4` of a ResNet, `features.3`, `.6`, `.13` and `.17` of
/// MobileNetV2), `spp`, and `up0` … `up2` from coarse to fine.
#[derive(Debug, Clone)]
pub struct SwiftNet {
    encoder: Encoder,
    pooling: PyramidPooling,
    ladder: Ladder,
    head: NormActConv,
    classes: usize,
    is_prepared: bool,
}

impl SwiftNet {
    /// `vb` holds `backbone` and `logits`.
    ///
    /// # Errors
    /// If the configuration is of another net, or a tensor is missing or has another shape.
    pub fn new(cfg: &KeyframeConfig, vb: VarBuilder) -> Result<Self> {
        let backbone = vb.pp("backbone");
        let encoder = Encoder::new(cfg.net, backbone.clone())?;
        let [c2, c3, c4, c5] = encoder.channels()?;
        Ok(Self {
            pooling: PyramidPooling::new(c5, backbone.pp("spp").pp("spp"))?,
            ladder: Ladder::new([c4, c3, c2], backbone.pp("upsample"))?,
            head: head(cfg.classes, vb.pp("logits"))?,
            encoder,
            classes: cfg.classes,
            is_prepared: false,
        })
    }

    /// Classes that it scores.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Folds batch norm and packs the weights. Inference only: gradients end here. A second call does nothing.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self, joins: Joins) -> Result<()> {
        if self.is_prepared {
            return Ok(());
        }
        if joins == Joins::Joined {
            self.ladder.join(self.pooling.last(), &mut self.head)?;
        }
        self.encoder.prepare()?;
        self.pooling.prepare()?;
        self.ladder.prepare()?;
        self.head.prepare()?;
        self.is_prepared = true;
        Ok(())
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.encoder.set_statistics(statistics);
        self.pooling.set_statistics(statistics);
        self.ladder.set_statistics(statistics);
        self.head.set_statistics(statistics);
    }

    /// `xs`: `[B, 3, H, W]`, RGB, normalised. Result: logits, `[B, classes, ceil(H / 4), ceil(W / 4)]`.
    ///
    /// # Errors
    /// If the input's shape does not fit, and what the probe returns.
    pub fn forward(&self, xs: &Tensor, probe: Probe) -> Result<Tensor> {
        let [c2, c3, c4, c5] = self.encoder.forward(xs, probe)?;
        let xs = self.pooling.forward(&c5)?;
        probe("spp", &xs)?;
        let xs = self.ladder.forward(&xs, [&c4, &c3, &c2], probe)?;
        self.head.forward(&xs)
    }

    /// Parameters and operations for images of `input`: `encoder`, `pooling`, `ladder`, `head`.
    pub fn costs(&self, input: FrameSize) -> PartCosts {
        let size =
            |stride: usize| FrameSize::new(input.height.div_ceil(stride), input.width.div_ceil(stride));
        let [mut encoder, mut pooling, mut ladder, mut head] = [const { Tally::new() }; 4];
        self.encoder.cost(input, &mut encoder);
        self.pooling.cost(size(32), &mut pooling);
        self.ladder.cost([16, 8, 4].map(size), &mut ladder);
        self.head.cost(size(4), &mut head);
        vec![("encoder", encoder), ("pooling", pooling), ("ladder", ladder), ("head", head)]
    }
}
