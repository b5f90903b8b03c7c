use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, concat_channels};
use zoo_layers::{ConvNormAct, Statistics};

use super::{halving, mean_everywhere, pointwise, repeated};

/// The head of the oldest version, at the signal's full width throughout. The signal itself, which its
/// last convolution makes, goes through no activation.
#[derive(Debug, Clone)]
pub struct FullWidthHead {
    downs: Vec<ConvNormAct>,
    flats: Vec<ConvNormAct>,
}

impl FullWidthHead {
    /// `channels` in and out, over `levels` sizes.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(channels: usize, levels: usize, vb: VarBuilder) -> Result<Self> {
        let flat = |j: usize| {
            let act = if j > 0 { Activation::Relu } else { Activation::None };
            pointwise(2 * channels, channels, act, vb.pp(format!("flat_{j}")))
        };
        Ok(Self {
            downs: (0..levels - 1)
                .map(|j| halving(channels, vb.pp(format!("down_{j}"))))
                .collect::<Result<_>>()?,
            flats: (0..levels - 1).map(flat).collect::<Result<_>>()?,
        })
    }

    /// Folds batch norm and packs the weights. Inference only.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.downs.iter_mut().chain(&mut self.flats).try_for_each(ConvNormAct::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        for conv in self.downs.iter_mut().chain(&mut self.flats) {
            conv.set_statistics(statistics);
        }
    }

    /// `[B, C, h, w]` → `[B, C, h, w]`.
    ///
    /// # Errors
    /// If h or w cannot be halved often enough.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let mut maps = vec![];
        let mut last = xs.clone();
        for down in &self.downs {
            let below = down.forward(&last)?;
            maps.push(std::mem::replace(&mut last, below));
        }
        if self.downs.is_empty() {
            return Ok(last);
        }
        let mut ys = mean_everywhere(&last)?;
        for (flat, map) in self.flats.iter().zip(&maps).rev() {
            ys = flat.forward(&concat_channels(&[map, &repeated(&ys, 2, 2)?])?)?;
        }
        Ok(ys)
    }

    pub(super) fn cost(&self, size: FrameSize, tally: &mut Tally) {
        let mut sizes = vec![size];
        for down in &self.downs {
            sizes.push(down.cost(sizes.last().copied().unwrap_or(size), tally));
        }
        for (flat, size) in self.flats.iter().zip(sizes) {
            flat.cost(size, tally);
        }
    }
}
