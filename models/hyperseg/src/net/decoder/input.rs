use candle_core::{Result, Tensor};
use zoo_kernels::{Interpolation, LevelConvs, PatchwiseLevel, concat_channels, patchwise_level};
use zoo_layers::resize_like;

use super::positions::Positions;

/// What a level reads, one after the other on the channels: where each pixel lies, a feature map of the
/// backbone, and the result of the level before, brought to the feature's size.
#[derive(Debug, Clone, Copy)]
pub struct LevelInput<'a> {
    /// `None` where levels do not see positions.
    pub(super) positions: Option<&'a Positions>,
    /// `[B, C, H, W]`
    pub(super) feature: &'a Tensor,
    /// `[B, C', h, w]`; `None` for the first level.
    pub(super) coarser: Option<&'a Tensor>,
}

impl<'a> LevelInput<'a> {
    /// Of one map alone, which holds all channels.
    pub fn single(xs: &'a Tensor) -> Self {
        Self { positions: None, feature: xs, coarser: None }
    }

    /// All of it, `[B, 2 + C + C', H, W]`.
    ///
    /// # Errors
    /// If the maps are of different batches.
    pub fn concat(&self) -> Result<Tensor> {
        let positions = self.positions.map(|positions| positions.like(self.feature)).transpose()?;
        let coarser =
            self.coarser.map(|ys| resize_like(ys, self.feature, Interpolation::Bilinear)).transpose()?;
        let parts: Vec<&Tensor> = positions.iter().chain([self.feature]).chain(&coarser).collect();
        concat_channels(&parts)
    }

    /// What `convs` make of it, without writing it down.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn convolve(&self, convs: LevelConvs, weights: &Tensor) -> Result<Tensor> {
        let level = PatchwiseLevel { positions: self.positions.is_some(), convs };
        patchwise_level(self.feature, self.coarser, weights, level)
    }
}
