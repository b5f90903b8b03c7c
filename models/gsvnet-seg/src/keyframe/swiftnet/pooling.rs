use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Interpolation, adaptive_avg_pool2d, concat_channels};
use zoo_layers::{NormActConv, Statistics, resize_like};

use super::{FEATURES, norm_relu_conv};

/// Rows of each level's grid. The code lists a fourth, 1, which it does not use.
const GRIDS: [usize; 3] = [8, 4, 2];
/// Channels of a level: a third of the others, rounded down.
const LEVEL_CHANNELS: usize = FEATURES / GRIDS.len();

/// Pyramid pooling (Section 3.3 of SwiftNet's paper): the map beside the means of its cells in three grids.
#[derive(Debug, Clone)]
pub struct PyramidPooling {
    reduce: NormActConv,
    levels: Vec<NormActConv>,
    fuse: NormActConv,
}

impl PyramidPooling {
    /// For a map of `channels`; `vb` holds `spp_bn`, `spp0` … `spp2` and `spp_fuse`.
    pub(super) fn new(channels: usize, vb: VarBuilder) -> Result<Self> {
        let level = |i: usize| norm_relu_conv(FEATURES, LEVEL_CHANNELS, 1, vb.pp(format!("spp{i}")));
        let all = FEATURES + GRIDS.len() * LEVEL_CHANNELS;
        Ok(Self {
            reduce: norm_relu_conv(channels, FEATURES, 1, vb.pp("spp_bn"))?,
            levels: (0..GRIDS.len()).map(level).collect::<Result<_>>()?,
            fuse: norm_relu_conv(all, FEATURES, 1, vb.pp("spp_fuse"))?,
        })
    }

    /// The layer that makes the result.
    pub(super) fn last(&mut self) -> &mut NormActConv {
        &mut self.fuse
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut NormActConv> {
        self.levels.iter_mut().chain([&mut self.reduce, &mut self.fuse])
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.layers_mut().try_for_each(NormActConv::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.layers_mut().for_each(|layer| layer.set_statistics(statistics));
    }

    /// `xs`: `[B, C, h, w]`. Result: `[B, 128, h, w]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = self.reduce.forward(xs)?;
        let (_, _, height, width) = xs.dims4()?;
        let mut maps = vec![xs.clone()];
        for (rows, level) in GRIDS.into_iter().zip(&self.levels) {
            let means = adaptive_avg_pool2d(&xs, grid(rows, FrameSize::new(height, width)))?;
            maps.push(resize_like(&level.forward(&means)?, &xs, Interpolation::Bilinear)?);
        }
        self.fuse.forward(&concat_channels(&maps.iter().collect::<Vec<_>>())?)
    }

    pub(super) fn cost(&self, size: FrameSize, tally: &mut Tally) {
        self.reduce.cost(size, tally);
        for (rows, level) in GRIDS.into_iter().zip(&self.levels) {
            let (height, width) = grid(rows, size);
            level.cost(FrameSize::new(height, width), tally);
        }
        self.fuse.cost(size, tally);
    }
}

/// Rows and columns of a grid whose cells are about square; halves are rounded to even. There may be more cells than
/// pixels.
fn grid(rows: usize, size: FrameSize) -> (usize, usize) {
    let columns = size.width as f64 / size.height as f64 * rows as f64;
    (rows, (columns.round_ties_even() as usize).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_rounded_to_even() {
        for (rows, (height, width), expected) in [
            (2, (4, 5), (2, 2)),
            (4, (4, 5), (4, 5)),
            (8, (4, 5), (8, 10)),
            (2, (4, 7), (2, 4)),
            (8, (24, 48), (8, 16)),
            (2, (45, 5), (2, 1)),
        ] {
            assert_eq!(grid(rows, FrameSize::new(height, width)), expected, "{rows} rows, {height}×{width}");
        }
    }
}
