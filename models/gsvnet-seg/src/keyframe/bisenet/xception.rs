use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Pool, max_pool2d};
use zoo_layers::{ConvNormAct, ConvSpec, SeparableConv, Statistics};

use super::conv_norm_relu;
use crate::Probe;
use crate::config::BN_EPS;

/// Channels of the stem.
const STEM: usize = 8;
/// Blocks of each stage, and the channels inside them.
const STAGES: [(usize, usize); 3] = [(4, 16), (8, 32), (4, 64)];
/// A block's channels over those inside it.
const EXPANSION: usize = 4;
/// The pool behind the stem.
const POOL: Pool = Pool::square(3, 2, 1);

/// Xception39: F. Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions", CVPR 2017, as BiSeNet
/// narrows it. Stages of strides 8, 16 and 32.
#[derive(Debug, Clone)]
pub struct Xception {
    stem: ConvNormAct,
    stages: Vec<Vec<Block>>,
}

/// Three separable convolutions and a shortcut, ReLU behind their sum.
#[derive(Debug, Clone)]
struct Block {
    branch: [SeparableConv; 3],
    /// The input itself where there is none.
    shortcut: Option<SeparableConv>,
}

/// A separable convolution; the code has a norm behind the second part only.
fn separable(
    inputs: usize,
    outputs: usize,
    stride: usize,
    act: Activation,
    vb: VarBuilder,
) -> Result<SeparableConv> {
    let spec = ConvSpec::dense3(inputs, outputs, stride, BN_EPS, act);
    let pointwise = vb.pp("point_wise_cbr");
    SeparableConv::new(spec, vb.pp("conv1"), pointwise.pp("conv"), pointwise.pp("bn"))
}

impl Block {
    fn new(inputs: usize, inner: usize, stride: usize, vb: VarBuilder) -> Result<Self> {
        let relu = Activation::Relu;
        let branch = |i: usize| vb.pp("residual_branch").pp(i);
        let outputs = EXPANSION * inner;
        Ok(Self {
            branch: [
                separable(inputs, inner, stride, relu, branch(0))?,
                separable(inner, inner, 1, relu, branch(1))?,
                separable(inner, outputs, 1, relu, branch(2))?,
            ],
            shortcut: (stride > 1)
                .then(|| separable(inputs, outputs, stride, Activation::None, vb.pp("proj")))
                .transpose()?,
        })
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut SeparableConv> {
        self.branch.iter_mut().chain(&mut self.shortcut)
    }

    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let [first, second, last] = &self.branch;
        let ys = second.forward(&first.forward(xs)?)?;
        match &self.shortcut {
            Some(shortcut) => last.forward_add(&ys, &shortcut.forward(xs)?),
            None => last.forward_add(&ys, xs),
        }
    }

    fn cost(&self, input: FrameSize, tally: &mut Tally) -> FrameSize {
        let output = self.branch.iter().fold(input, |size, layer| layer.cost(size, tally));
        if let Some(shortcut) = &self.shortcut {
            shortcut.cost(input, tally);
        }
        output
    }
}

impl Xception {
    /// `vb` holds `conv1` and `layer1` … `layer3`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(vb: VarBuilder) -> Result<Self> {
        let stem = ConvSpec::dense3(3, STEM, 2, BN_EPS, Activation::Relu);
        let mut inputs = STEM;
        let mut stages = Vec::with_capacity(STAGES.len());
        for (stage, (blocks, inner)) in STAGES.into_iter().enumerate() {
            let vb = vb.pp(format!("layer{}", stage + 1));
            let mut built = Vec::with_capacity(blocks);
            for i in 0..blocks {
                let stride = if i == 0 { 2 } else { 1 };
                built.push(Block::new(inputs, inner, stride, vb.pp(i))?);
                inputs = EXPANSION * inner;
            }
            stages.push(built);
        }
        Ok(Self { stem: conv_norm_relu(stem, vb.pp("conv1"))?, stages })
    }

    /// Of the three maps, finest first.
    pub fn channels(&self) -> [usize; 3] {
        STAGES.map(|(_, inner)| EXPANSION * inner)
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.stem.prepare()?;
        self.stages.iter_mut().flatten().flat_map(Block::layers_mut).try_for_each(SeparableConv::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.stem.set_statistics(statistics);
        for layer in self.stages.iter_mut().flatten().flat_map(Block::layers_mut) {
            layer.set_statistics(statistics);
        }
    }

    /// `xs`: `[B, 3, H, W]`. Shows each stage's map as `layer1` … `layer3` and returns the last one,
    /// `[B, 256, ceil(H / 32), ceil(W / 32)]`.
    ///
    /// # Errors
    /// If there are not three channels, and what `see` returns.
    pub fn forward(&self, xs: &Tensor, see: Probe) -> Result<Tensor> {
        let mut xs = max_pool2d(&self.stem.forward(xs)?, POOL)?;
        for (i, stage) in self.stages.iter().enumerate() {
            xs = stage.iter().try_fold(xs, |xs, block| block.forward(&xs))?;
            see(&format!("layer{}", i + 1), &xs)?;
        }
        Ok(xs)
    }

    pub(super) fn cost(&self, input: FrameSize, tally: &mut Tally) {
        let FrameSize { height, width } = self.stem.cost(input, tally);
        let pooled = FrameSize::new(height.div_ceil(2), width.div_ceil(2));
        self.stages.iter().flatten().fold(pooled, |size, block| block.cost(size, tally));
    }
}
