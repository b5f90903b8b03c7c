use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::Statistics;

use super::{DynamicConv, LevelInput, MetaBlock};
use crate::config::{LevelShape, Version};

/// A level m_i of the decoder.
#[derive(Debug, Clone)]
pub enum Level {
    /// One dynamic 1×1 convolution, through ReLU.
    Pointwise(DynamicConv),
    /// A block of three.
    Block(Box<MetaBlock>),
}

impl Level {
    /// `vb` holds what checkpoints call the level's layer 0; there is no other.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(version: Version, shape: &LevelShape, vb: VarBuilder) -> Result<Self> {
        match shape.hidden {
            None => DynamicConv::pointwise(shape.inputs, shape.outputs, Activation::Relu, vb.pp(1))
                .map(Self::Pointwise),
            Some(hidden) => MetaBlock::new(version, shape, hidden, vb).map(|block| Self::Block(block.into())),
        }
    }

    /// `weights`: `[B, P, fh, fw]`. Result: `[B, C', H, W]`, as large as the input's feature.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, input: &LevelInput, weights: &Tensor) -> Result<Tensor> {
        match self {
            Self::Pointwise(conv) => conv.forward_first(input, weights),
            Self::Block(block) => block.forward(input, weights),
        }
    }

    /// P: dynamic weights of a patch.
    pub fn params(&self) -> usize {
        match self {
            Self::Pointwise(conv) => conv.params(),
            Self::Block(block) => block.params(),
        }
    }

    /// Takes the norms' scales out and gives them, as a factor for each of the level's parameters.
    ///
    /// # Errors
    /// If candle cannot compute them.
    pub fn fold(&mut self) -> Result<Tensor> {
        match self {
            Self::Pointwise(conv) => conv.fold(),
            Self::Block(block) => {
                let scales = block.convs_mut().map(DynamicConv::fold).collect::<Result<Vec<_>>>()?;
                Tensor::cat(&scales, 0)
            }
        }
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        match self {
            Self::Pointwise(conv) => conv.set_statistics(statistics),
            Self::Block(block) => block.set_statistics(statistics),
        }
    }

    /// Counts it for a map of `size` in a grid of patches.
    pub fn cost(&self, size: FrameSize, grid: FrameSize, tally: &mut Tally) {
        match self {
            Self::Pointwise(conv) => conv.cost(size, tally),
            Self::Block(block) => block.cost(size, grid, tally),
        }
    }
}
