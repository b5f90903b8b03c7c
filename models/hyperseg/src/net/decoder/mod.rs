//! The decoder d: dynamic levels m_i, from coarse to fine (Section 3.2).

mod dynamic_conv;
mod input;
mod level;
mod meta_block;
mod positions;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_layers::Statistics;

pub use dynamic_conv::DynamicConv;
pub use input::LevelInput;
pub use level::Level;
pub use meta_block::MetaBlock;
pub use zoo_kernels::position_map;

use crate::config::{Config, FEATURES, Layout};
use crate::net::Probe;
use positions::Positions;

/// The levels and what lies between them.
#[derive(Debug, Clone)]
pub struct Decoder {
    levels: Vec<Level>,
    /// `None` where the levels do not see positions.
    positions: Option<Positions>,
}

impl Decoder {
    /// `vb` holds the whole checkpoint.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &Config, layout: &Layout, vb: VarBuilder) -> Result<Self> {
        let levels = layout.levels.iter().enumerate();
        let levels = levels
            .map(|(k, shape)| Level::new(cfg.version, shape, vb.pp(cfg.level_name(k))))
            .collect::<Result<_>>()?;
        Ok(Self { levels, positions: cfg.positions.then(Positions::default) })
    }

    /// The levels, coarsest first.
    pub fn levels(&self) -> &[Level] {
        &self.levels
    }

    /// The levels, to fold them.
    pub fn levels_mut(&mut self) -> &mut [Level] {
        &mut self.levels
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        for level in &mut self.levels {
            level.set_statistics(statistics);
        }
    }

    /// `features`: the maps F_1 … F_5, finest first; `image`: what stands for a sixth. `weights`: those
    /// of each level, `[B, P, fh, fw]`. Result: the last level's, at the size of its feature. Shows
    /// `level.{k}`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(
        &self,
        image: &Tensor,
        features: &[Tensor],
        weights: &[Tensor],
        probe: Probe,
    ) -> Result<Tensor> {
        let mut coarser: Option<Tensor> = None;
        let features = features.iter().rev().chain([image]);
        for (k, ((level, feature), weights)) in self.levels.iter().zip(features).zip(weights).enumerate() {
            let positions = self.positions.as_ref();
            let input = LevelInput { positions, feature, coarser: coarser.as_ref() };
            let ys = level.forward(&input, weights)?;
            probe(&format!("level.{k}"), &ys)?;
            coarser = Some(ys);
        }
        match coarser {
            Some(ys) => Ok(ys),
            None => bail!("a decoder without levels"),
        }
    }

    /// Counts every level for images of `input` in a grid of patches.
    pub fn cost(&self, input: FrameSize, grid: FrameSize, tally: &mut Tally) {
        for (k, level) in self.levels.iter().enumerate() {
            let stride = 1 << (FEATURES.saturating_sub(k));
            level.cost(FrameSize::new(input.height / stride, input.width / stride), grid, tally);
        }
    }
}
