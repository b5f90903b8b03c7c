//! ResNet: He et al., "Deep Residual Learning for Image Recognition", CVPR 2016; ResNeXt: Xie et al.,
//! "Aggregated Residual Transformations for Deep Neural Networks", CVPR 2017.
//!
//! | map | stride | widths of a block, ResNet-18/34 | ResNet-50/101 | ResNeXt, 32×4d | 64×4d |
//! |---|---|---|---|---|---|
//! | stem | 4 | 7×7, 64, then max-pool | same | same | same |
//! | c2 | 4 | 64, 64 | 64, 64, 256 | 128, 128, 256 | 256, 256, 256 |
//! | c3 | 8 | 128, 128 | 128, 128, 512 | 256, 256, 512 | 512, 512, 512 |
//! | c4 | 16 | 256, 256 | 256, 256, 1024 | 512, 512, 1024 | 1024, 1024, 1024 |
//! | c5 | 32 | 512, 512 | 512, 512, 2048 | 1024, 1024, 2048 | 2048, 2048, 2048 |
//!
//! Tensor names are torchvision's, which timm shares. Its bottlenecks stride in the 3×3 convolution
//! ("v1.5"); [`ResNetConfig::caffe`] has what detectors that start from Caffe's weights use instead.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{Backbone, FeatureInfo, FrameSize, Tally};
use zoo_kernels::{Activation, Pool, activated, max_pool2d};

use crate::{ConvNormAct, ConvSpec, ResNetBlock, Residual, ResidualSpec, Statistics, Trunk};

/// Channels of the stem.
const STEM_CHANNELS: usize = 64;
/// Channels of a stage's 3×3 convolutions, where a block is not split into groups.
const WIDTHS: [usize; 4] = [64, 128, 256, 512];
/// A bottleneck's output over its width in [`WIDTHS`].
const EXPANSION: usize = 4;
/// The pool behind the stem.
const POOL: Pool = Pool::square(3, 2, 1);

/// Options of a [`ResNet`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResNetConfig {
    /// What the stages repeat.
    pub block: ResNetBlock,
    /// Blocks of each stage.
    pub blocks: [usize; 4],
    /// Groups of a bottleneck's 3×3 convolution.
    pub groups: usize,
    /// Channels of a group in the first stage.
    pub group_width: usize,
    /// A stage's stride sits on its first 1×1 convolution instead of the 3×3.
    pub stride_in_1x1: bool,
    /// The 3×3 convolutions of a stage's bottlenecks are [deformable](crate::DeformableConv).
    #[serde(default)]
    pub deformable: [bool; 4],
    /// Batch norm's epsilon.
    pub bn_eps: f64,
    /// The stem's tensors lie under `stem`.
    pub nested_stem: bool,
    /// [`Backbone::features`] gives the sums before the last ReLU of each stage.
    pub linear_features: bool,
}

impl ResNetConfig {
    const fn torchvision(block: ResNetBlock, blocks: [usize; 4]) -> Self {
        Self {
            block,
            blocks,
            groups: 1,
            group_width: 64,
            stride_in_1x1: false,
            deformable: [false; 4],
            bn_eps: 1e-5,
            nested_stem: false,
            linear_features: false,
        }
    }

    /// ResNet-18.
    pub const fn resnet18() -> Self {
        Self::torchvision(ResNetBlock::Basic, [2, 2, 2, 2])
    }

    /// ResNet-34.
    pub const fn resnet34() -> Self {
        Self::torchvision(ResNetBlock::Basic, [3, 4, 6, 3])
    }

    /// ResNet-50.
    pub const fn resnet50() -> Self {
        Self::torchvision(ResNetBlock::Bottleneck, [3, 4, 6, 3])
    }

    /// ResNet-101.
    pub const fn resnet101() -> Self {
        Self::torchvision(ResNetBlock::Bottleneck, [3, 4, 23, 3])
    }

    /// ResNeXt-50 32×4d.
    pub const fn resnext50_32x4d() -> Self {
        Self { groups: 32, group_width: 4, ..Self::resnet50() }
    }

    /// ResNeXt-101 64×4d.
    pub const fn resnext101_64x4d() -> Self {
        Self { groups: 64, group_width: 4, ..Self::resnet101() }
    }

    /// The same as maskrcnn-benchmark and its descendants have it: stride in the first 1×1
    /// convolution unless there are groups, batch norm without an epsilon (it is frozen: a scale and
    /// a shift), the stem's tensors under `stem`.
    pub const fn caffe(self) -> Self {
        Self { stride_in_1x1: self.groups == 1, bn_eps: 0.0, nested_stem: true, ..self }
    }

    /// Channels of a stage's inner convolutions and of its output; `stage` from 0.
    fn widths(&self, stage: usize) -> (usize, usize) {
        let width = WIDTHS[stage];
        match self.block {
            ResNetBlock::Basic => (width, width),
            ResNetBlock::Bottleneck => {
                (width * self.group_width / STEM_CHANNELS * self.groups, EXPANSION * width)
            }
        }
    }
}

impl Default for ResNetConfig {
    /// torchvision's `resnet50`.
    fn default() -> Self {
        Self::resnet50()
    }
}

/// Stem and four stages.
///
/// [`Backbone::features`] gives c2, c3, c4 and c5.
#[derive(Debug, Clone)]
pub struct ResNet {
    stem: ConvNormAct,
    stages: Vec<Vec<Residual>>,
    linear_features: bool,
    levels: Vec<FeatureInfo>,
}

impl ResNet {
    /// `vb` holds `conv1`, `bn1` (both under `stem` if nested) and `layer1` … `layer4`.
    ///
    /// # Errors
    /// As [`Residual::new`].
    pub fn new(cfg: &ResNetConfig, vb: VarBuilder) -> Result<Self> {
        let root = if cfg.nested_stem { vb.pp("stem") } else { vb.clone() };
        let stem = ConvSpec::dense(3, STEM_CHANNELS, 7, 2, cfg.bn_eps, Activation::Relu);
        let stem = ConvNormAct::new(stem, root.pp("conv1"), root.pp("bn1"))?;
        let (mut inputs, mut reduction) = (STEM_CHANNELS, 4);
        let (mut stages, mut levels) = (Vec::new(), Vec::new());
        for (stage, &blocks) in cfg.blocks.iter().enumerate() {
            let name = format!("layer{}", stage + 1);
            let vb = vb.pp(&name);
            let (width, outputs) = cfg.widths(stage);
            let mut residuals = Vec::with_capacity(blocks);
            for block in 0..blocks {
                let stride = if stage > 0 && block == 0 { 2 } else { 1 };
                let is_tapped = cfg.linear_features && block + 1 == blocks;
                let act = if is_tapped { Activation::None } else { Activation::Relu };
                let spec = ResidualSpec {
                    block: cfg.block,
                    inputs,
                    width,
                    outputs,
                    stride,
                    stride_in_1x1: cfg.stride_in_1x1,
                    groups: cfg.groups,
                    deformable: cfg.deformable[stage],
                    eps: cfg.bn_eps,
                    act,
                };
                residuals.push(Residual::new(&spec, vb.pp(block))?);
                inputs = outputs;
                reduction *= stride;
            }
            stages.push(residuals);
            levels.push(FeatureInfo { channels: outputs, reduction, name });
        }
        Ok(Self { stem, stages, linear_features: cfg.linear_features, levels })
    }

    /// `xs`: `[B, 3, H, W]`, normalised. Shows what comes out of the pool as `stem` and each stage's map by its
    /// level's name, as [`Backbone::features`] gives them, and returns the last one, `[B, C, H/32, W/32]` (rounded up
    /// at each of the five strides), after its ReLU.
    ///
    /// # Errors
    /// If the input's shape does not fit, and what `see` returns.
    pub fn forward(&self, xs: &Tensor, see: &mut dyn FnMut(&str, &Tensor) -> Result<()>) -> Result<Tensor> {
        let mut xs = max_pool2d(&self.stem.forward(xs)?, POOL)?;
        see("stem", &xs)?;
        for (stage, level) in self.stages.iter().zip(&self.levels) {
            for residual in stage {
                xs = residual.forward(&xs)?;
            }
            see(&level.name, &xs)?;
            if self.linear_features {
                xs = activated(&xs, Activation::Relu)?;
            }
        }
        Ok(xs)
    }
}

impl Trunk for ResNet {
    fn trunk(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward(xs, &mut |_, _| Ok(()))
    }

    fn trunk_channels(&self) -> usize {
        self.levels.last().map_or(STEM_CHANNELS, |level| level.channels)
    }

    fn prepare(&mut self) -> Result<()> {
        self.stem.prepare()?;
        self.stages.iter_mut().flatten().try_for_each(Residual::prepare)
    }

    fn set_statistics(&mut self, statistics: Statistics) {
        self.stem.set_statistics(statistics);
        for residual in self.stages.iter_mut().flatten() {
            residual.set_statistics(statistics);
        }
    }

    fn cost(&self, input: FrameSize, tally: &mut Tally) {
        let FrameSize { height, width } = self.stem.cost(input, tally);
        let pooled = FrameSize::new(height.div_ceil(2), width.div_ceil(2));
        self.stages.iter().flatten().fold(pooled, |size, residual| residual.cost(size, tally));
    }
}

impl Backbone for ResNet {
    fn features(&self, xs: &Tensor) -> Result<Vec<Tensor>> {
        let mut maps = Vec::with_capacity(self.stages.len());
        self.forward(xs, &mut |name, ys| {
            if name != "stem" {
                maps.push(ys.clone());
            }
            Ok(())
        })?;
        Ok(maps)
    }

    fn info(&self) -> &[FeatureInfo] {
        &self.levels
    }
}
