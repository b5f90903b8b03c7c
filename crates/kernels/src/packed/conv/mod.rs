//! Dense and grouped convolution with packed weights; bias, residual and activation in registers.
//!
//! One loop serves every filter: for each output pixel it takes a pointer to each place that the
//! filter reads (a row of zeros where that lies in the border), so nothing is padded or unrolled
//! beforehand. Only where a place would hold fewer values than its pointer costs, in an image of three
//! channels, is the input copied with its border first.

mod few_outputs;
mod pack;
mod padded_rows;
mod pixels;

use std::sync::{Arc, OnceLock};

use candle_core::{Result, Shape, Tensor, bail};

use self::few_outputs::FewOutputs;
pub(crate) use self::pack::{ConvShape, Filters, Panel, TileShape, in_blocks, widest};
use self::padded_rows::PaddedRows;
use self::pixels::Part;
pub(crate) use self::pixels::Places;
use super::geometry::{Filter, Geometry};
use super::{PackedOp, check_operand, weight_values, winograd, with_residual, with_weight_values};
use crate::aligned::Weights;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{SharedRead, filled};
use crate::region::{Pads, Region};
use crate::simd::dispatch;
use crate::threads::{share, tasks_for};
use crate::transpose::channels_last;

/// Bytes of input and output that a task goes over at a time: they should stay in the second cache.
const CHUNK_BYTES: usize = 384 << 10;
/// The same where the weights are too large to stay there too: fewer tasks read them.
const LONG_CHUNK_BYTES: usize = 1 << 20;
/// Multiply–adds that are worth a task of their own, and tasks a thread that even out their times.
pub(crate) const TASK_MACS: usize = 1 << 18;
pub(crate) const TASKS_PER_THREAD: usize = 4;
/// Whole tiles of six, eight and twelve pixels.
const WHOLE_TILES: usize = 24;
/// Inputs of fewer channels are copied with their border.
const FEW_CHANNELS: usize = 8;

/// How a convolution moves over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvOptions {
    /// Step between outputs.
    pub stride: usize,
    /// Step between a filter's taps.
    pub dilation: usize,
    /// The channels are split into so many parts that do not see each other.
    pub groups: usize,
    /// Whether Winograd's filtering may be used where it is faster: 3×3 filters of stride 1, of any dilation,
    /// not grouped, between 8 and 512 channels, on maps that are large enough. It rounds more: about 2e-5 of the
    /// largest output instead of 1e-6. `ZOO_WINOGRAD=0` and [`without_winograd`](crate::without_winograd)
    /// forbid it everywhere.
    pub winograd: bool,
}

impl Default for ConvOptions {
    fn default() -> Self {
        Self { stride: 1, dilation: 1, groups: 1, winograd: true }
    }
}

/// A convolution with its weights packed for the instruction set at hand.
#[derive(Debug, Clone)]
pub struct PackedConv {
    pub(crate) isa: Isa,
    filter: Filter,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    act: Activation,
    pub(crate) panels: Vec<Panel>,
    /// Panel by panel `[tap][input][output]`, outputs padded to whole vectors.
    weights: Weights,
    /// The weights once more, where the outputs are so few that the vectors lie along the inputs.
    few_outputs: Option<FewOutputs>,
    /// Where Winograd's filtering may be used: the transformed filters, kept from the first map on that is large
    /// enough for it, but not so large that transforming them anew costs nothing beside it. The positions of a filter take the taps' place.
    transformed: Option<Arc<OnceLock<Weights>>>,
    /// Panel by panel, padded likewise.
    bias: Weights,
    /// What a tap in the border reads.
    zeros: Weights,
}

impl PackedConv {
    /// `weight`: `[O, I / groups, kh, kw]`; `bias`: `[O]`.
    ///
    /// # Errors
    /// If a shape does not fit, the weights are not f32 on the CPU, or `ZOO_ISA` is wrong.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: ConvOptions,
        act: Activation,
    ) -> Result<Self> {
        let (outputs, per_group, height, width) = weight.dims4()?;
        let ConvOptions { stride, dilation, groups, winograd } = options;
        if stride == 0
            || dilation == 0
            || groups == 0
            || !outputs.is_multiple_of(groups)
            || height * width == 0
        {
            bail!(
                "convolution: a weight of {:?} with {options:?}: stride, dilation and groups must be at least 1, and groups must divide the outputs",
                weight.dims()
            )
        }
        if let Some(bias) = bias
            && bias.dims() != [outputs]
        {
            bail!("convolution: expected a bias of [{outputs}], got {:?}", bias.dims())
        }
        let filter = Filter { height, width, stride, dilation };
        let bias = bias.map(|bias| weight_values("convolution", bias)).transpose()?;
        let winograd = winograd && groups == 1 && winograd::suits(filter, per_group, outputs)?;
        let shape = ConvShape { isa: Isa::current()?, filter, groups, per_group, outputs, winograd, act };
        with_weight_values("convolution", weight, |weight| {
            Self::pack(shape, Filters::in_order(weight, filter, per_group), bias.as_deref())
        })
    }

    /// Convolves a region; its border is read from the region's plane and is zero outside it.
    /// `residual`, shaped like the result, is added before the activation.
    ///
    /// Result: `[B, O, h', w']` with `h' = (height + top + bottom − reach) / stride + 1`, channels
    /// last in memory. There is no gradient: training takes the weights before they are packed.
    ///
    /// # Errors
    /// If a shape does not fit, or a tensor is not f32 on the CPU.
    pub fn forward(&self, region: &Region, pads: Pads, residual: Option<&Tensor>) -> Result<Tensor> {
        let geometry = Geometry::new("convolution", region, self.filter, pads, self.inputs)?;
        check_operand("convolution", &region.plane)?;
        let planar = self.has_few_channels() && region.plane.is_contiguous();
        let plane = if planar { region.plane.clone() } else { channels_last(&region.plane)? };
        let call = Call { conv: self, geometry, planar };
        with_residual(call, &plane, residual)
    }
}

/// One call of a packed convolution.
struct Call<'a> {
    conv: &'a PackedConv,
    geometry: Geometry,
    /// Whether the input lies as whole planes, which only inputs of few channels may.
    planar: bool,
}

impl PackedConv {
    /// Whether the input is copied with its border first.
    fn has_few_channels(&self) -> bool {
        self.inputs < FEW_CHANNELS
            && self.filter.dilation == 1
            && !self.is_pointwise()
            && self.panels.iter().all(|p| p.depth == self.inputs)
    }

    /// The convolution of `[B, H, W, I]`, as the geometry says.
    pub(crate) fn run(&self, geometry: Geometry, xs: &[f32]) -> Vec<f32> {
        Call { conv: self, geometry, planar: false }.compute(xs, None)
    }
}

impl PackedOp for Call<'_> {
    const NAME: &'static str = "convolution";

    fn shape(&self) -> Shape {
        let g = &self.geometry;
        (g.batch, g.out_h, g.out_w, self.conv.outputs).into()
    }

    fn run(&self, xs: &[f32], residual: Option<&[f32]>) -> Result<Vec<f32>> {
        Ok(self.compute(xs, residual))
    }
}

/// How a convolution is cut into tasks: each has a chunk of the pixels and a share of the panels.
struct Cut {
    pixels: usize,
    chunks: usize,
    shares: usize,
}

impl Cut {
    /// First pixel of a chunk, and how many it has. Chunks are as equal as whole tiles make them: with two
    /// threads, each has the same half of every map, and finds in its cache what it wrote itself.
    fn chunk(&self, i: usize) -> (usize, usize) {
        let from = |i| match i == self.chunks {
            true => self.pixels,
            false => i * self.pixels / self.chunks / WHOLE_TILES * WHOLE_TILES,
        };
        (from(i), from(i + 1) - from(i))
    }
}

impl Call<'_> {
    /// What comes from memory more than once should be the smaller of the two: all tasks of some panels read all
    /// pixels, all tasks of some pixels read all weights.
    fn cut(&self) -> Cut {
        let Self { conv, geometry: g, .. } = self;
        let (pixels, panels) = (g.pixels(), conv.panels.len().max(1));
        let tasks = tasks_for(pixels * conv.weights.len(), TASK_MACS, TASKS_PER_THREAD);
        let values = g.batch * g.plane_h * g.plane_w * conv.inputs + pixels * conv.outputs;
        let weights_are_larger = conv.weights.len() > values;
        let wanted = if weights_are_larger { tasks / tasks.min(panels) } else { tasks };
        // A pixel brings stride² new places, and of the other taps' about one is not in the cache yet.
        let (taps, stride) = (conv.filter.taps(), conv.filter.stride);
        let bytes = 4 * (conv.inputs * taps.min(stride * stride + 1) + conv.outputs);
        let most = if conv.stays_in_cache() { CHUNK_BYTES } else { LONG_CHUNK_BYTES } / bytes;
        let chunks = wanted.max(pixels.div_ceil(most.max(1))).clamp(1, (pixels / WHOLE_TILES).max(1));
        // Where there are too few chunks for all threads, the panels are shared out as well.
        Cut { pixels, chunks, shares: (tasks / chunks).clamp(1, panels) }
    }

    fn compute(&self, xs: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let Self { conv, geometry: g, planar } = *self;
        if let Some(transformed) = &conv.transformed
            && winograd::pays(&g, conv.inputs, conv.outputs)
        {
            let transform = || winograd::transform(&conv.weights, &conv.panels, conv.isa);
            let for_this_call;
            let weights = match transformed.get() {
                Some(kept) => kept,
                None if winograd::outweighs_its_filters(&g) => {
                    for_this_call = transform();
                    &for_this_call
                }
                None => transformed.get_or_init(transform),
            };
            let layer = winograd::Layer {
                isa: conv.isa,
                inputs: conv.inputs,
                outputs: conv.outputs,
                act: conv.act,
                panels: &conv.panels,
                weights,
                bias: &conv.bias,
                zeros: &conv.zeros,
            };
            return winograd::run(layer, &g, xs, residual);
        }
        let pixels = g.pixels();
        let cut = self.cut();
        let shares: Vec<_> = conv.panels.chunks(conv.panels.len().div_ceil(cut.shares).max(1)).collect();
        let tasks = cut.chunks * shares.len();
        let rows = conv.has_few_channels().then(|| PaddedRows::copy(&g, conv.inputs, planar, xs));

        // SAFETY: the tasks write every panel of every pixel, each its own.
        unsafe {
            filled(pixels * conv.outputs, |out| {
                let part = |task: usize| Part {
                    conv,
                    geometry: g,
                    xs: SharedRead(xs.as_ptr()),
                    residual: residual.map(|r| SharedRead(r.as_ptr())),
                    out,
                    pixels: cut.chunk(task % cut.chunks),
                    panels: shares[task / cut.chunks],
                    rows: rows.as_ref(),
                };
                share(tasks, |task| dispatch(conv.isa, part(task)));
            })
        }
    }
}
