//! Dense and grouped convolution with packed weights; bias, residual and activation in registers.
//!
//! One loop serves every filter: for each output pixel it takes a pointer to each place that the
//! filter reads (a row of zeros where that lies in the border), so nothing is padded or unrolled
//! beforehand. Only where a place holds fewer values than the pointers cost, in an image of three
//! channels, are the places of a pixel copied together first.

use std::sync::{Arc, OnceLock};

use candle_core::{Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::geometry::{Filter, Geometry};
use super::tile::{Tile, compute_pixels, panels};
use super::{PackedOp, Shared, SharedRead, check_operand, filled, weight_values, winograd, with_residual};
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::region::{Pads, Region};
use crate::simd::{Kernel, Simd, TileShapes, dispatch};
use crate::threads::share;
use crate::transpose::channels_last;

/// Bytes of input and output that a task goes over at a time: they should stay in the second cache.
const CHUNK_BYTES: usize = 384 << 10;
/// Weights of at most so many bytes stay in the second cache beside a task's pixels.
const RESIDENT_WEIGHTS: usize = 256 << 10;
/// Multiply–adds that are worth a task of their own, and tasks a thread that even out their times.
const TASK_MACS: usize = 1 << 18;
const TASKS_PER_THREAD: usize = 4;
/// Whole tiles of six, eight and twelve pixels.
const WHOLE_TILES: usize = 24;
/// Pixels that go through all panels of small weights at a time.
const PIXELS_AT_A_TIME: usize = 2 * WHOLE_TILES;
/// Places with fewer values are copied together.
const FEW_CHANNELS: usize = 5;

/// How a convolution moves over its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConvOptions {
    /// Step between outputs.
    pub stride: usize,
    /// Step between a filter's taps.
    pub dilation: usize,
    /// The channels are split into so many parts that do not see each other.
    pub groups: usize,
    /// Whether Winograd's filtering may be used where it is faster: 3×3 filters of stride 1 between
    /// medium channel counts, on maps that are large enough. It rounds more: about 2e-5 of the
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
    weights: Vec<f32>,
    /// Where Winograd's filtering may be used: the transformed filters, made when a map is first large
    /// enough to be worth it. The positions of a filter take the taps' place.
    transformed: Option<Arc<OnceLock<Vec<f32>>>>,
    /// Panel by panel, padded likewise.
    bias: Vec<f32>,
    /// What a tap in the border reads.
    zeros: Vec<f32>,
}

/// Neighbouring output channels that are computed together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panel {
    pub(crate) vectors: usize,
    /// First input channel that they read, and how many.
    pub(crate) input: usize,
    pub(crate) depth: usize,
    /// First output channel, and how many.
    pub(crate) output: usize,
    pub(crate) channels: usize,
    /// Offsets into the packed weights and biases.
    pub(crate) weights: usize,
    pub(crate) bias: usize,
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
        let weight = weight_values("convolution", weight)?;
        let bias = bias.map(|bias| weight_values("convolution", bias)).transpose()?;
        let winograd = winograd && groups == 1 && winograd::suits(filter, per_group, outputs)?;
        let isa = Isa::current()?;
        let weight = Filters::in_order(&weight, filter, per_group);
        Ok(Self::pack(isa, filter, groups, winograd, per_group, outputs, weight, bias.as_deref(), act))
    }

    /// A convolution from `per_group` inputs a group.
    #[expect(clippy::too_many_arguments, reason = "what a convolution is")]
    pub(crate) fn pack(
        isa: Isa,
        filter: Filter,
        groups: usize,
        winograd: bool,
        per_group: usize,
        outputs: usize,
        weight: Filters<impl Fn(usize, usize) -> usize + Sync>,
        bias: Option<&[f32]>,
        act: Activation,
    ) -> Self {
        let (lanes, shapes) = dispatch(isa, TileShape);
        let taps = filter.taps();
        let group_outputs = outputs / groups;
        // Groups narrower than a vector are computed side by side, with zeros where they don't meet.
        let merged =
            (1..=groups).rev().find(|&n| groups.is_multiple_of(n) && group_outputs * n <= lanes).unwrap_or(1);
        let (wide_inputs, wide_outputs) = (per_group * merged, group_outputs * merged);
        let mut packed = Self {
            isa,
            filter,
            inputs: per_group * groups,
            outputs,
            act,
            transformed: winograd.then(Arc::default),
            panels: vec![],
            weights: vec![],
            bias: vec![],
            zeros: vec![0.0; per_group * groups],
        };
        for group in 0..groups / merged {
            let mut first = 0;
            for vectors in panels(wide_outputs.div_ceil(lanes), widest(shapes)) {
                let columns = vectors * lanes;
                let panel = Panel {
                    vectors,
                    input: group * wide_inputs,
                    depth: wide_inputs,
                    output: group * wide_outputs + first,
                    channels: columns.min(wide_outputs - first),
                    weights: packed.weights.len(),
                    bias: packed.bias.len(),
                };
                packed.bias.resize(panel.bias + columns, 0.0);
                if let Some(bias) = bias {
                    packed.bias[panel.bias..][..panel.channels]
                        .copy_from_slice(&bias[panel.output..][..panel.channels]);
                }
                packed.weights.resize(panel.weights + taps * wide_inputs * columns, 0.0);
                packed.panels.push(panel);
                first += panel.channels;
            }
        }
        let mut rest = packed.weights.as_mut_slice();
        let mut parts = vec![];
        for panel in &packed.panels {
            let (of_panel, others) = rest.split_at_mut(taps * wide_inputs * panel.vectors * lanes);
            parts.push((panel, of_panel));
            rest = others;
        }
        parts.into_par_iter().for_each(|(panel, weights)| {
            let columns = panel.vectors * lanes;
            in_blocks(per_group, panel.channels, |input, column| {
                let output = panel.output + column;
                let from = (output / group_outputs) * per_group - panel.input;
                let values = &weight.values[(weight.at)(output, input)..];
                for (tap, &value) in weight.taps.iter().enumerate() {
                    weights[(tap * wide_inputs + from + input) * columns + column] = values[value];
                }
            });
        });
        packed
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
        let gather = self.inputs < FEW_CHANNELS && self.panels.iter().all(|p| p.depth == self.inputs);
        let planar = gather && region.plane.is_contiguous();
        let plane = if planar { region.plane.clone() } else { channels_last(&region.plane)? };
        let gather = gather.then(|| Gather::new(&geometry, self.inputs, planar));
        let call = Call { conv: self, geometry, gather };
        with_residual(call, &plane, residual)
    }
}

/// The filters of a convolution.
pub(crate) struct Filters<'a, F> {
    pub(crate) values: &'a [f32],
    /// Where the filter from an input of a group to an output begins.
    pub(crate) at: F,
    /// Where each tap of it lies from there.
    pub(crate) taps: Vec<usize>,
}

impl<'a> Filters<'a, ()> {
    /// `values`: `[outputs, per_group, height, width]`.
    pub(crate) fn in_order(
        values: &'a [f32],
        filter: Filter,
        per_group: usize,
    ) -> Filters<'a, impl Fn(usize, usize) -> usize + Sync> {
        let taps = filter.taps();
        let at = move |output: usize, input: usize| (output * per_group + input) * taps;
        Filters { values, at, taps: (0..taps).collect() }
    }
}

/// Calls `f(input, output)` for all pairs, block by block: what a block reads and writes, on either side
/// of a transposition, stays in the nearest cache.
pub(crate) fn in_blocks(inputs: usize, outputs: usize, mut f: impl FnMut(usize, usize)) {
    const INPUTS: usize = 8;
    const OUTPUTS: usize = 16;
    for first_input in (0..inputs).step_by(INPUTS) {
        for first_output in (0..outputs).step_by(OUTPUTS) {
            for output in first_output..(first_output + OUTPUTS).min(outputs) {
                for input in first_input..(first_input + INPUTS).min(inputs) {
                    f(input, output);
                }
            }
        }
    }
}

/// Lanes and tiles of an instruction set.
pub(crate) struct TileShape;

impl Kernel for TileShape {
    type Output = (usize, TileShapes);

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        (S::LANES, S::TILES)
    }
}

pub(crate) fn widest(shapes: TileShapes) -> usize {
    shapes.iter().map(|&(vectors, _)| vectors).max().unwrap_or(1)
}

/// One call of a packed convolution.
struct Call<'a> {
    conv: &'a PackedConv,
    geometry: Geometry,
    gather: Option<Gather>,
}

impl PackedConv {
    /// The convolution of `[B, H, W, I]`, as the geometry says.
    pub(crate) fn run(&self, geometry: Geometry, xs: &[f32]) -> Vec<f32> {
        let gather = self.inputs < FEW_CHANNELS && self.panels.iter().all(|p| p.depth == self.inputs);
        let gather = gather.then(|| Gather::new(&geometry, self.inputs, false));
        Call { conv: self, geometry, gather }.compute(xs, None)
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

impl Call<'_> {
    fn compute(&self, xs: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
        let Self { conv, geometry: g, gather } = *self;
        if let Some(transformed) = &conv.transformed
            && winograd::pays(&g, conv.inputs, conv.outputs)
        {
            let layer = winograd::Layer {
                isa: conv.isa,
                inputs: conv.inputs,
                outputs: conv.outputs,
                act: conv.act,
                panels: &conv.panels,
                weights: transformed
                    .get_or_init(|| winograd::transform(&conv.weights, &conv.panels, conv.isa)),
                bias: &conv.bias,
                zeros: &conv.zeros,
            };
            return winograd::run(layer, &g, xs, residual);
        }
        let pixels = g.pixels();
        let taps = conv.filter.taps();
        let macs_per_pixel = conv.weights.len();
        // Pixels a task: what fits the cache, fewer where threads would have nothing to do.
        let threads = rayon::current_num_threads();
        // A pixel brings stride² new places, and of the other taps' about one is not in the cache yet.
        let bytes = 4 * (conv.inputs * taps.min(conv.filter.stride * conv.filter.stride + 1) + conv.outputs);
        let wanted = (pixels * macs_per_pixel / TASK_MACS)
            .clamp(1, if threads == 1 { 1 } else { TASKS_PER_THREAD * threads });
        let chunk = (CHUNK_BYTES / bytes).min(pixels.div_ceil(wanted)).next_multiple_of(WHOLE_TILES);
        let chunks = pixels.div_ceil(chunk);
        // Too few pixels for all threads: the panels are shared out as well.
        let splits = (wanted / chunks.max(1)).clamp(1, conv.panels.len().max(1));
        let shares: Vec<_> = conv.panels.chunks(conv.panels.len().div_ceil(splits).max(1)).collect();
        let tasks = chunks * shares.len();

        // SAFETY: the tasks write every panel of every pixel, each its own.
        unsafe {
            filled(pixels * conv.outputs, |out| {
                let part = |task: usize| Part {
                    conv,
                    geometry: g,
                    xs: SharedRead(xs.as_ptr()),
                    residual: residual.map(|r| SharedRead(r.as_ptr())),
                    out,
                    pixels: {
                        let first = task / shares.len() * chunk;
                        (first, chunk.min(pixels - first))
                    },
                    panels: shares[task % shares.len()],
                    gather,
                };
                share(tasks, |task| dispatch(conv.isa, part(task)));
            })
        }
    }
}

/// Copies every `step`th value from `from` on: the usual steps are loops of their own, which compilers
/// make vectors of.
///
/// # Safety
/// `from` is good for all that is copied.
#[inline(always)]
unsafe fn every_nth(from: *const f32, step: usize, to: &mut [f32]) {
    /// # Safety
    /// As [`every_nth`].
    #[inline(always)]
    unsafe fn copy(from: *const f32, step: usize, to: &mut [f32]) {
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *to = unsafe { *from.add(i * step) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        match step {
            1 => copy(from, 1, to),
            2 => copy(from, 2, to),
            _ => copy(from, step, to),
        }
    }
}

/// How the values of an input of few channels lie: as whole planes, or channels last.
#[derive(Clone, Copy)]
struct Gather {
    channels: usize,
    channel_step: usize,
    pixel_step: usize,
}

impl Gather {
    fn new(g: &Geometry, channels: usize, planar: bool) -> Self {
        let (channel_step, pixel_step) = if planar { (g.plane_h * g.plane_w, 1) } else { (1, channels) };
        Self { channels, channel_step, pixel_step }
    }
}

/// What one task does: some pixels, some panels.
struct Part<'a> {
    conv: &'a PackedConv,
    geometry: Geometry,
    xs: SharedRead,
    residual: Option<SharedRead>,
    out: Shared,
    /// First pixel of the batch's outputs, and how many.
    pixels: (usize, usize),
    panels: &'a [Panel],
    gather: Option<Gather>,
}

impl Part<'_> {
    /// Calls `f(index within the part, image, row, column)` for each pixel.
    #[inline(always)]
    fn each_pixel(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let g = &self.geometry;
        let (first, count) = self.pixels;
        let (mut x, mut y, mut image) =
            (first % g.out_w, first / g.out_w % g.out_h, first / (g.out_w * g.out_h));
        for i in 0..count {
            f(i, image, y, x);
            x += 1;
            if x == g.out_w {
                (x, y) = (0, y + 1);
                if y == g.out_h {
                    (y, image) = (0, image + 1);
                }
            }
        }
    }

    /// Pointers to the places that each pixel reads, `[tap][pixel]`.
    #[inline(always)]
    fn places(&self) -> Vec<*const f32> {
        let (g, c) = (&self.geometry, self.conv.inputs);
        let (first, count) = self.pixels;
        let xs = self.xs.get();
        if g.is_pointwise() {
            // SAFETY: pixels of the output are pixels of the input here.
            return (first..first + count).map(|p| unsafe { xs.add(p * c) }).collect();
        }
        let zeros = self.conv.zeros.as_ptr();
        let mut places = vec![zeros; g.filter.taps() * count];
        self.each_pixel(|i, image, y, x| {
            for ky in 0..g.filter.height {
                let Some(row) = g.row(y, ky) else { continue };
                for kx in 0..g.filter.width {
                    if let Some(column) = g.column(x, kx) {
                        let pixel = (image * g.plane_h + row) * g.plane_w + column;
                        // SAFETY: row and column lie inside the plane.
                        places[(ky * g.filter.width + kx) * count + i] = unsafe { xs.add(pixel * c) };
                    }
                }
            }
        });
        places
    }

    /// What each tap reads in each channel, `[tap][channel][pixel]`.
    #[inline(always)]
    fn gathered(&self, gather: Gather) -> Vec<f32> {
        let g = &self.geometry;
        let Gather { channels, channel_step, pixel_step } = gather;
        let (first, count) = self.pixels;
        let mut copied = vec![0.0; g.filter.taps() * channels * count];
        let step = g.filter.stride * pixel_step;
        // Row by row of the output, of which the first and the last may be cut.
        let mut done = 0;
        while done < count {
            let (x, y) = ((first + done) % g.out_w, (first + done) / g.out_w % g.out_h);
            let image = (first + done) / (g.out_w * g.out_h);
            let len = (g.out_w - x).min(count - done);
            for ky in 0..g.filter.height {
                let Some(row) = g.row(y, ky) else { continue };
                for kx in 0..g.filter.width {
                    // The outputs whose tap lies inside the plane.
                    let Some(skip) = (0..len).find(|i| g.column(x + i, kx).is_some()) else { continue };
                    let Some(column) = g.column(x + skip, kx) else { continue };
                    let inside = (g.plane_w - column).div_ceil(g.filter.stride).min(len - skip);
                    let from =
                        image * channels * g.plane_h * g.plane_w + (row * g.plane_w + column) * pixel_step;
                    for channel in 0..channels {
                        let to = ((ky * g.filter.width + kx) * channels + channel) * count + done + skip;
                        // SAFETY: image, row, channel and the columns lie inside the input.
                        unsafe {
                            let from = self.xs.get().add(from + channel * channel_step);
                            every_nth(from, step, &mut copied[to..to + inside]);
                        }
                    }
                }
            }
            done += len;
        }
        copied
    }
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (first, count) = self.pixels;
        let conv = self.conv;
        let copied = self.gather.map(|gather| self.gathered(gather));
        let pointers = match &copied {
            // SAFETY: the copy begins with a value of each pixel.
            Some(copied) => (0..count).map(|i| unsafe { copied.as_ptr().add(i) }).collect(),
            None => self.places(),
        };
        let taps = conv.filter.taps();
        let places = match &copied {
            Some(_) => Places {
                pointers: &pointers,
                count,
                taps: 1,
                depth: Some(taps * conv.inputs),
                value_step: count,
            },
            None => Places { pointers: &pointers, count, taps, depth: None, value_step: 1 },
        };
        let at = first * conv.outputs;
        // SAFETY: the pixels lie inside all operands, and no other part has both these pixels and
        // these panels; `run` is called by `S::enter`.
        unsafe {
            let residual = self.residual.map_or(std::ptr::null(), |r| r.get().add(at));
            conv.pixels::<S>(self.panels, &places, self.out.at(at), residual);
        }
    }
}

/// Where some pixels read their inputs.
pub(crate) struct Places<'a> {
    /// A pointer for each tap of each pixel, `[tap][pixel]`.
    pub(crate) pointers: &'a [*const f32],
    /// Pixels.
    pub(crate) count: usize,
    pub(crate) taps: usize,
    /// Values at each place, where that is not what the panel says.
    pub(crate) depth: Option<usize>,
    /// Between two values of a place.
    pub(crate) value_step: usize,
}

impl PackedConv {
    /// Whether each output sees just one pixel, in order: a 1×1 filter of stride 1 over all channels.
    pub(crate) fn is_pointwise(&self) -> bool {
        let Filter { height, width, stride, .. } = self.filter;
        (height, width, stride) == (1, 1, 1) && self.panels.iter().all(|panel| panel.depth == self.inputs)
    }

    /// Whether all weights stay in the second cache.
    pub(crate) fn stays_in_cache(&self) -> bool {
        self.weights.len() * 4 <= RESIDENT_WEIGHTS
    }

    /// Computes `count` pixels of a 1×1 convolution, whose inputs lie one after the other from `xs` on.
    ///
    /// # Safety
    /// As [`PackedConv::pixels`], and `xs` is good for all pixels.
    #[inline(always)]
    pub(crate) unsafe fn rows<S: Simd>(
        &self,
        xs: *const f32,
        count: usize,
        out: *mut f32,
        residual: *const f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let pointers: Vec<_> = (0..count).map(|i| xs.add(i * self.inputs)).collect();
            let places = Places { pointers: &pointers, count, taps: 1, depth: None, value_step: 1 };
            self.pixels::<S>(&self.panels, &places, out, residual);
        }
    }

    /// Computes some panels of some pixels: the first pixel's first channel goes to `out`, the other
    /// pixels follow.
    ///
    /// # Safety
    /// The places are good for what they say, `out` and `residual` (unless null) for all channels of
    /// all pixels, and nobody else touches those panels of `out`. Called inside [`Simd::enter`] of
    /// `S`, which is the set that the weights were packed for.
    #[inline(always)]
    pub(crate) unsafe fn pixels<S: Simd>(
        &self,
        panels: &[Panel],
        places: &Places,
        out: *mut f32,
        residual: *const f32,
    ) {
        let Places { count, .. } = *places;
        // Small weights stay in the cache while a few pixels at a time go through all panels; large
        // ones are read once, panel by panel, with all of the task's pixels.
        let step = if self.stays_in_cache() { PIXELS_AT_A_TIME } else { count };
        for from in (0..count).step_by(step.max(1)) {
            let step = step.min(count - from);
            for panel in panels {
                let at = from * self.outputs + panel.output;
                // SAFETY: pixels and panel lie inside what the caller promised.
                unsafe {
                    let tile = Tile {
                        rows: places.pointers.as_ptr().add(from),
                        row_step: count,
                        offset: panel.input,
                        value_step: places.value_step,
                        taps: places.taps,
                        depth: places.depth.unwrap_or(panel.depth),
                        weights: self.weights.as_ptr().add(panel.weights),
                        weight_step: panel.depth * panel.vectors * S::LANES,
                        bias: self.bias.as_ptr().add(panel.bias),
                        out: out.add(at),
                        residual: if residual.is_null() { residual } else { residual.add(at) },
                        stride: self.outputs,
                        last: panel.channels - (panel.vectors - 1) * S::LANES,
                        act: self.act,
                    };
                    compute_pixels::<S>(tile, panel.vectors, step);
                }
            }
        }
    }
}
