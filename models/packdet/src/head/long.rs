//! The part that all levels share: extra maps, PackOp, and a long row of convolutions (Section 3.3 of the paper), each
//! `y = relu(gn(conv(y))) + reduced`.
//!
//! Nothing masks the plane: behind the reduction its gaps hold values like any other cell, filters read across the maps' edges,
//! and norms count all of it. Trained weights expect that.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::pack_maps;

use super::block::{ConvBlock, cost_shared};
use super::{Maps, Probe, show};
use crate::config::{LongHeadConfig, Packing};
use crate::plane::{LEVELS, Places, level_sizes};

/// The first level with an extra map: P5.
const FIRST_EXTRA: usize = 2;

/// Extra maps, packing, the reduction and the blocks behind it, to each of which the reduction's output is added.
#[derive(Debug, Clone)]
pub(super) struct LongHead {
    config: LongHeadConfig,
    /// Of P5, P6 and P7; none where the layout has no extra maps.
    extra: Vec<ConvBlock>,
    reduction: ConvBlock,
    blocks: Vec<ConvBlock>,
}

impl LongHead {
    /// `vb` holds `mf` and `fe`.
    pub(super) fn new(config: LongHeadConfig, pyramid: usize, vb: VarBuilder) -> Result<Self> {
        let extra = match config.layout.has_extra_maps() {
            true => FIRST_EXTRA..LEVELS,
            false => 0..0,
        };
        let extra = extra.map(|level| {
            ConvBlock::named((pyramid, pyramid, 3), false, vb.pp("mf").pp(format!("mf_s{level}_1")))
        });
        let (extra, vb, c) = (extra.collect::<Result<_>>()?, vb.pp("fe"), config.channels);
        let block = |i: usize| ConvBlock::named((c, c, 3), false, vb.pp("conv_blocks").pp(i));
        Ok(Self {
            config,
            extra,
            reduction: ConvBlock::named((pyramid, c, 1), false, vb.pp("reduction"))?,
            blocks: (0..config.blocks).map(block).collect::<Result<_>>()?,
        })
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.extra
            .iter_mut()
            .chain([&mut self.reduction])
            .chain(&mut self.blocks)
            .try_for_each(ConvBlock::prepare)
    }

    /// Whether norms go over all maps, which are apart.
    pub(super) fn is_joint(&self) -> bool {
        self.config.packing == Packing::CrossHead
    }

    /// From P3 … P7 to one plane, or to the maps in the layout's order.
    pub(super) fn forward(&self, levels: Vec<Tensor>, places: &Places, probe: Probe) -> Result<Maps> {
        let mut maps = levels;
        for (i, block) in self.extra.iter().enumerate() {
            let ys = block.forward(&maps[FIRST_EXTRA + i])?;
            probe(&format!("extra_p{}", FIRST_EXTRA + i + 3), &ys)?;
            maps.push(ys);
        }
        if self.config.packing == Packing::Packed {
            let boxes: Vec<_> = places.maps.iter().map(|map| map.at).collect();
            let FrameSize { height, width } = places.grids[0].size;
            maps = vec![pack_maps(&maps.iter().collect::<Vec<_>>(), &boxes, (height, width))?];
        }
        let reduced = self.reduction.forward_all(&maps, &[], self.is_joint())?;
        drop(maps);
        show(probe, "fe_reduction", places, &reduced)?;
        let mut ys = reduced.clone();
        for (i, block) in self.blocks.iter().enumerate() {
            ys = block.forward_all(&ys, &reduced, self.is_joint())?;
            show(probe, &format!("fe_block{i}"), places, &ys)?;
        }
        show(probe, "fe", places, &ys)?;
        Ok(ys)
    }

    /// Counts every layer; `grids` are the sizes that convolutions see.
    pub(super) fn cost(&self, input: FrameSize, grids: &[FrameSize], tally: &mut Tally) {
        for (block, size) in self.extra.iter().zip(&level_sizes(input)[FIRST_EXTRA..]) {
            block.cost(*size, tally);
        }
        for block in [&self.reduction].into_iter().chain(&self.blocks) {
            cost_shared(grids, tally, |size, tally| block.cost(size, tally));
        }
    }
}
