use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, concat_channels};
use zoo_layers::{ConvNormAct, Statistics};

use super::{halving, mean_everywhere, pointwise, repeated};

/// The head of all versions but the oldest, at half the signal's width: down by 2×2 convolutions, the
/// mean of the last map, and up again beside the maps of the way down.
///
/// Its first convolution is the signal's first half. Weight mappings that all start at the signal's first
/// channel read nothing else, and then all that follows is without effect.
#[derive(Debug, Clone)]
pub struct NestedHead {
    in_conv: ConvNormAct,
    /// `None` once it is known to be without effect.
    inner: Option<Inner>,
}

#[derive(Debug, Clone)]
struct Inner {
    down_blocks: Vec<ConvNormAct>,
    up_blocks: Vec<ConvNormAct>,
}

impl NestedHead {
    /// `channels` in and out, over `levels` sizes.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(channels: usize, levels: usize, vb: VarBuilder) -> Result<Self> {
        let half = channels / 2;
        let blocks = |name: &str, block: &dyn Fn(VarBuilder) -> Result<ConvNormAct>| {
            let vb = vb.pp(name);
            (0..levels - 1).map(|j| block(vb.pp(j))).collect::<Result<Vec<_>>>()
        };
        let inner = Inner {
            down_blocks: blocks("down_blocks", &|vb| halving(half, vb))?,
            up_blocks: blocks("up_blocks", &|vb| pointwise(2 * half, half, Activation::Relu, vb))?,
        };
        let in_conv = pointwise(channels, half, Activation::Relu, vb.pp("in_conv"))?;
        Ok(Self { in_conv, inner: Some(inner) })
    }

    /// See [`ContextHead::prepare`](super::ContextHead::prepare).
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self, only_first_half: bool) -> Result<()> {
        if only_first_half {
            self.inner = None;
        }
        self.convs_mut().try_for_each(ConvNormAct::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.convs_mut().for_each(|conv| conv.set_statistics(statistics));
    }

    fn convs_mut(&mut self) -> impl Iterator<Item = &mut ConvNormAct> {
        let inner =
            self.inner.iter_mut().flat_map(|inner| inner.down_blocks.iter_mut().chain(&mut inner.up_blocks));
        inner.chain([&mut self.in_conv])
    }

    /// `[B, C, h, w]` → `[B, C, h, w]`, or its first C / 2 channels.
    ///
    /// # Errors
    /// If h or w cannot be halved often enough.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let first = self.in_conv.forward(xs)?;
        let Some(Inner { down_blocks, up_blocks }) = &self.inner else { return Ok(first) };
        let mut maps = vec![first];
        let mut last = maps[0].clone();
        for down in down_blocks {
            last = down.forward(&last)?;
            maps.push(last.clone());
        }
        let mut ys = mean_everywhere(&last)?;
        for (up, map) in up_blocks.iter().zip(&maps[1..]).rev() {
            ys = repeated(&up.forward(&concat_channels(&[map, &ys])?)?, 2, 2)?;
        }
        concat_channels(&[&maps[0], &ys])
    }

    pub(super) fn cost(&self, size: FrameSize, tally: &mut Tally) {
        self.in_conv.cost(size, tally);
        let Some(Inner { down_blocks, up_blocks }) = &self.inner else { return };
        let mut sizes = Vec::with_capacity(down_blocks.len());
        for down in down_blocks {
            sizes.push(down.cost(sizes.last().copied().unwrap_or(size), tally));
        }
        for (up, size) in up_blocks.iter().zip(sizes) {
            up.cost(size, tally);
        }
    }
}
