//! A level of a patch-wise decoder in one pass: each patch's input is put together, convolved and written
//! while it is in the cache.

mod grid;
mod patch;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};

use self::grid::PatchGrid;
use self::patch::Pass;
use super::{Halo, Patchwise, patches_with_halo, patchwise_conv2d, rows_of, weight_rows};
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::packed::from_nhwc;
use crate::resize::{Interpolation, resize2d};
use crate::simd::MAX_LANES;
use crate::transpose::channels_last;

/// What error messages call it.
const NAME: &str = "patchwise-level";
/// Rows and columns of the filter, its places, and what it reads around a pixel.
const SIDE: usize = 3;
const TAPS: usize = SIDE * SIDE;
const HALO: usize = SIDE / 2;
/// The column and the row of a pixel.
const POSITIONS: usize = 2;

/// What follows a convolution: a bias, and an activation.
#[derive(Debug, Clone)]
pub struct LevelStage {
    /// One value a channel, and zeros up to a whole vector.
    bias: Vec<f32>,
    channels: usize,
    act: Activation,
}

impl LevelStage {
    /// `bias`: one value for each of the convolution's output channels.
    pub fn new(mut bias: Vec<f32>, act: Activation) -> Self {
        let channels = bias.len();
        bias.resize(channels.next_multiple_of(MAX_LANES), 0.0);
        Self { bias, channels, act }
    }

    fn bias(&self, like: &Tensor) -> Result<Tensor> {
        Tensor::new(&self.bias[..self.channels], like.device())?.to_dtype(like.dtype())
    }
}

/// The convolutions of a level.
#[derive(Debug, Clone, Copy)]
pub enum LevelConvs<'a> {
    /// 1×1.
    Pointwise(&'a LevelStage),
    /// 1×1, 3×3 on each channel alone, 1×1: an inverted residual. The filter sees one pixel around its
    /// patch, which the patch's own weights widen.
    Block([&'a LevelStage; 3]),
    /// The last two of them, of a map that is wide already.
    Rest([&'a LevelStage; 2]),
}

/// A level of a decoder whose weights are made for each patch; see [`patchwise_level`].
#[derive(Debug, Clone, Copy)]
pub struct PatchwiseLevel<'a> {
    /// Whether the first two channels of the input say where each pixel lies ([`position_map`]).
    pub positions: bool,
    /// What the input goes through.
    pub convs: LevelConvs<'a>,
}

/// Runs a level on positions, a map, and the coarser level's result, which is brought to the map's size
/// (bilinear, `align_corners = false`); all as channels one after the other, never written as a whole.
///
/// `map`: `[B, C, H, W]`; `coarser`: `[B, C', h, w]`; `weights`: `[B, P, fh, fw]`, a vector for each patch of
/// H / fh × W / fw pixels: those of the convolutions one after the other, each as [`patchwise_conv2d`] takes them.
/// Result: `[B, outputs, H, W]`. No gradient of its own: in a graph, and for other types than f32, it is what its
/// parts are. (A level of HyperSeg's decoder, batch norm folded.)
///
/// # Errors
/// If the grid does not divide the map, a shape does not fit, or the operands are not on the CPU.
pub fn patchwise_level(
    map: &Tensor,
    coarser: Option<&Tensor>,
    weights: &Tensor,
    level: PatchwiseLevel,
) -> Result<Tensor> {
    let grid = PatchGrid::new(map, coarser, weights, level)?;
    let mut operands = [map, weights].into_iter().chain(coarser);
    if operands.any(|xs| xs.dtype() != DType::F32 || xs.track_op() || !xs.device().is_cpu()) {
        return level.composed(map, coarser, weights, &grid);
    }
    let op = LevelOp { grid, level };
    let (map, weights) = (channels_last(map)?, rows_of(weights)?);
    let ys = match coarser {
        Some(coarser) => map.apply_op3_no_bwd(&channels_last(coarser)?, &weights, &op)?,
        None => map.apply_op2_no_bwd(&weights, &op)?,
    };
    from_nhwc(&ys)
}

/// Where each pixel lies: `[1, 2, H, W]`, first the column, then the row, each from −1 to 1 with both ends.
/// One pixel alone lies at −1.
///
/// # Errors
/// If the device refuses the tensor.
pub fn position_map(height: usize, width: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let values: Vec<f32> = (0..height)
        .flat_map(|y| (0..width).flat_map(move |x| [position(x, width), position(y, height)]))
        .collect();
    Tensor::from_vec(values, (1, height, width, POSITIONS), device)?.to_dtype(dtype)?.permute((0, 3, 1, 2))
}

fn position(at: usize, count: usize) -> f32 {
    (at as f64 * (2.0 / count.saturating_sub(1).max(1) as f64) - 1.0) as f32
}

impl PatchwiseLevel<'_> {
    fn halo(&self) -> usize {
        match self.convs {
            LevelConvs::Pointwise(_) => 0,
            LevelConvs::Block(_) | LevelConvs::Rest(_) => HALO,
        }
    }

    /// Channels out.
    fn outputs(&self) -> usize {
        match self.convs {
            LevelConvs::Pointwise(stage) | LevelConvs::Block([.., stage]) | LevelConvs::Rest([.., stage]) => {
                stage.channels
            }
        }
    }

    /// Values of a patch's weights, for so many channels in.
    fn params(&self, inputs: usize) -> Result<usize> {
        match self.convs {
            LevelConvs::Pointwise(stage) => Ok(inputs * stage.channels),
            LevelConvs::Block([widen, filter, narrow]) => {
                Ok(inputs * widen.channels + rest_params(widen.channels, filter, narrow)?)
            }
            LevelConvs::Rest([filter, narrow]) => rest_params(inputs, filter, narrow),
        }
    }

    /// In the operations that it is made of.
    fn composed(
        &self,
        map: &Tensor,
        coarser: Option<&Tensor>,
        weights: &Tensor,
        g: &PatchGrid,
    ) -> Result<Tensor> {
        let size = (g.height, g.width);
        let positions = self.positions.then(|| {
            let one = position_map(g.height, g.width, map.dtype(), map.device())?;
            one.broadcast_as((g.batch, POSITIONS, g.height, g.width))
        });
        let positions = positions.transpose()?;
        let coarser = coarser.map(|xs| resize2d(xs, size, Interpolation::Bilinear)).transpose()?;
        let parts: Vec<&Tensor> = positions.iter().chain([map]).chain(&coarser).collect();
        let xs = Tensor::cat(&parts, 1)?;
        let mut from = 0;
        let mut conv = |xs: &Tensor, options: Patchwise, depth: usize, stage: &LevelStage| {
            let count = options.outputs * depth;
            let part = weights.narrow(1, from, count)?;
            from += count;
            patchwise_conv2d(xs, &part, options, Some(&stage.bias(xs)?), stage.act)
        };
        match self.convs {
            LevelConvs::Pointwise(stage) => {
                conv(&xs, Patchwise::pointwise(stage.channels), g.inputs(), stage)
            }
            LevelConvs::Block([widen, filter, narrow]) => {
                let ys = patches_with_halo(&xs, (g.rows, g.columns), HALO)?;
                let ys = conv(&ys, Patchwise::pointwise(widen.channels), g.inputs(), widen)?;
                let own = Patchwise { halo: Halo::Own, ..Patchwise::depthwise(widen.channels) };
                let ys = conv(&ys, own, TAPS, filter)?;
                conv(&ys, Patchwise::pointwise(narrow.channels), widen.channels, narrow)
            }
            LevelConvs::Rest([filter, narrow]) => {
                let ys = conv(&xs, Patchwise::depthwise(filter.channels), TAPS, filter)?;
                conv(&ys, Patchwise::pointwise(narrow.channels), filter.channels, narrow)
            }
        }
    }
}

/// Weights of a filter on `hidden` channels, and of the 1×1 convolution behind it.
fn rest_params(hidden: usize, filter: &LevelStage, narrow: &LevelStage) -> Result<usize> {
    if filter.channels != hidden {
        bail!("{NAME}: {hidden} channels go into a filter of {}", filter.channels)
    }
    Ok(TAPS * hidden + hidden * narrow.channels)
}

/// (map, coarser map, weights) or (map, weights), maps and result as `[B, H, W, C]`.
struct LevelOp<'a> {
    grid: PatchGrid,
    level: PatchwiseLevel<'a>,
}

impl LevelOp<'_> {
    fn run(
        &self,
        map: (&CpuStorage, &Layout),
        coarser: Option<(&CpuStorage, &Layout)>,
        weights: (&CpuStorage, &Layout),
    ) -> Result<(CpuStorage, Shape)> {
        fn slice<'a>((storage, layout): (&'a CpuStorage, &Layout)) -> Result<&'a [f32]> {
            match (storage, layout.contiguous_offsets()) {
                (CpuStorage::F32(xs), Some((from, to))) => Ok(&xs[from..to]),
                _ => bail!("{NAME}: expected contiguous maps of f32"),
            }
        }
        let CpuStorage::F32(all) = weights.0 else { bail!("{NAME}: expected weights of f32") };
        let pass = Pass {
            g: &self.grid,
            level: self.level,
            map: slice(map)?,
            coarser: coarser.map(slice).transpose()?.unwrap_or_default(),
            weights: weight_rows(all, weights.1)?,
            params: self.level.params(self.grid.inputs())?,
        };
        let g = &self.grid;
        let shape = (g.batch, g.height, g.width, self.level.outputs());
        Ok((CpuStorage::F32(pass.run(Isa::current()?)), shape.into()))
    }
}

impl CustomOp2 for LevelOp<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        map: &CpuStorage,
        l1: &Layout,
        weights: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((map, l1), None, (weights, l2))
    }
}

impl CustomOp3 for LevelOp<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn cpu_fwd(
        &self,
        map: &CpuStorage,
        l1: &Layout,
        coarser: &CpuStorage,
        l2: &Layout,
        weights: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        self.run((map, l1), Some((coarser, l2)), (weights, l3))
    }
}
