//! A level of a patch-wise decoder in one pass: each patch's input is put together, convolved and written
//! while it is in the cache.

use std::ops::Range;

use candle_core::{CpuStorage, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Tensor, bail};

use super::pack::pack_rows;
use super::{Halo, Patchwise, patches_with_halo, patchwise_conv2d, reflect, rows_of, weight_rows, whole};
use crate::aligned::Aligned;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{Shared, filled};
use crate::operation::map_sizes;
use crate::packed::from_nhwc;
use crate::packed::tile::{Piece, Tile, compute_pixels, panels};
use crate::resize::{Interpolation, resize2d};
use crate::simd::{Kernel, MAX_LANES, Simd, dispatch};
use crate::threads::{items_per_task, share_with};
use crate::transpose::channels_last;
use crate::vector_math::activate;

/// Pixels that go through all panels of weights before the next.
const PIXELS: usize = 96;
/// Places of the depthwise filter, and what it reads around a pixel.
const TAPS: usize = 9;
const HALO: usize = 1;
/// Neighbouring pixels whose depthwise sums are under way together.
const SUMS: usize = 4;
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
    let geometry = Geometry::new(map, coarser, weights, level)?;
    let mut operands = [map, weights].into_iter().chain(coarser);
    if operands.any(|xs| xs.dtype() != DType::F32 || xs.track_op() || !xs.device().is_cpu()) {
        return level.composed(map, coarser, weights, &geometry);
    }
    let op = LevelOp { geometry, level };
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
                Ok(inputs * widen.channels + rest(widen.channels, filter, narrow)?)
            }
            LevelConvs::Rest([filter, narrow]) => rest(inputs, filter, narrow),
        }
    }

    /// In the operations that it is made of.
    fn composed(
        &self,
        map: &Tensor,
        coarser: Option<&Tensor>,
        weights: &Tensor,
        g: &Geometry,
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
fn rest(hidden: usize, filter: &LevelStage, narrow: &LevelStage) -> Result<usize> {
    if filter.channels != hidden {
        bail!("patchwise-level: {hidden} channels go into a filter of {}", filter.channels)
    }
    Ok(TAPS * hidden + hidden * narrow.channels)
}

/// A row or a column of a patch and its surroundings.
#[derive(Debug, Clone, Copy)]
struct Line {
    /// Of the map.
    at: usize,
    position: f32,
    /// The two of the coarser map that it lies between, and how far on the way.
    low: usize,
    high: usize,
    part: f32,
}

/// What each patch reads.
struct Geometry {
    batch: usize,
    height: usize,
    width: usize,
    positions: usize,
    /// Channels of the map.
    map: usize,
    /// Channels, rows and columns of the coarser map; no channels where there is none.
    coarser: [usize; 3],
    /// Patches.
    rows: usize,
    columns: usize,
    /// Pixels of a patch.
    patch_h: usize,
    patch_w: usize,
    /// Of all rows of patches one after the other, and of all columns of patches.
    row_lines: Vec<Line>,
    column_lines: Vec<Line>,
    /// Around a patch.
    halo: usize,
}

impl Geometry {
    fn new(map: &Tensor, coarser: Option<&Tensor>, weights: &Tensor, level: PatchwiseLevel) -> Result<Self> {
        let (batch, channels, height, width) = map_sizes("patchwise-level", map)?;
        let (b, params, rows, columns) = map_sizes("patchwise-level", weights)?;
        let below = match coarser {
            Some(coarser) => {
                let (images, channels, h, w) = map_sizes("patchwise-level", coarser)?;
                if images != batch {
                    bail!("patchwise-level: a map of {batch} images, a coarser one of {images}")
                }
                [channels, h, w]
            }
            None => [0, 1, 1],
        };
        let positions = if level.positions { POSITIONS } else { 0 };
        let halo = level.halo();
        let lines = |size: usize, patches: usize, below: usize| {
            let patch = whole(size, patches)?;
            let step = below as f64 / size as f64;
            let line = |at: usize| {
                let at = reflect(at, halo, size)?;
                let place = ((at as f64 + 0.5) * step - 0.5).clamp(0.0, (below - 1) as f64);
                let low = place as usize;
                let (high, part) = ((low + 1).min(below - 1), place.fract() as f32);
                Some(Line { at, position: position(at, size), low, high, part })
            };
            let all = (0..patches).flat_map(|p| (0..patch + 2 * halo).map(move |i| p * patch + i));
            Some((all.map(line).collect::<Option<Vec<_>>>()?, patch))
        };
        let (Some((row_lines, patch_h)), Some((column_lines, patch_w))) =
            (lines(height, rows, below[1]), lines(width, columns, below[2]))
        else {
            bail!(
                "patchwise-level: {rows}×{columns} patches do not fit a map of {height}×{width}: the grid must divide it, and it must have more than {halo} rows and columns"
            )
        };
        let geometry = Self {
            batch,
            height,
            width,
            positions,
            map: channels,
            coarser: below,
            rows,
            columns,
            patch_h,
            patch_w,
            row_lines,
            column_lines,
            halo,
        };
        let expected = level.params(geometry.inputs())?;
        if (b, params) != (batch, expected) {
            bail!(
                "patchwise-level: expected weights of [{batch}, {expected}, fh, fw], got {:?}",
                weights.dims()
            )
        }
        Ok(geometry)
    }

    /// Channels of the input.
    fn inputs(&self) -> usize {
        self.positions + self.map + self.coarser[0]
    }

    /// Rows and columns of a patch with its surroundings.
    fn outer(&self) -> (usize, usize) {
        (self.patch_h + 2 * self.halo, self.patch_w + 2 * self.halo)
    }
}

/// (map, coarser map, weights) or (map, weights), maps and result as `[B, H, W, C]`.
struct LevelOp<'a> {
    geometry: Geometry,
    level: PatchwiseLevel<'a>,
}

const NAME: &str = "patchwise-level";

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
            g: &self.geometry,
            level: self.level,
            map: slice(map)?,
            coarser: coarser.map(slice).transpose()?.unwrap_or_default(),
            weights: weight_rows(all, weights.1)?,
            params: self.level.params(self.geometry.inputs())?,
        };
        let g = &self.geometry;
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

/// All patches.
struct Pass<'a> {
    g: &'a Geometry,
    level: PatchwiseLevel<'a>,
    map: &'a [f32],
    coarser: &'a [f32],
    /// A row for each patch, and the distance between two.
    weights: (&'a [f32], usize),
    params: usize,
}

impl Pass<'_> {
    fn run(&self, isa: Isa) -> Vec<f32> {
        let g = self.g;
        let patches = g.batch * g.rows * g.columns;
        let per_task = items_per_task(patches, self.params * g.patch_h * g.patch_w);
        // SAFETY: the patches make up all outputs, and each is written by its own task.
        unsafe {
            filled(g.batch * g.height * g.width * self.level.outputs(), |out| {
                share_with(patches.div_ceil(per_task), Scratch::default, |scratch, task| {
                    for patch in task * per_task..patches.min((task + 1) * per_task) {
                        dispatch(isa, Patch { pass: self, patch, out, scratch: &mut *scratch });
                    }
                });
            })
        }
    }
}

/// What a thread keeps from patch to patch.
#[derive(Default)]
struct Scratch {
    /// The coarser map's pixels between two of its rows.
    blended: Aligned,
    /// The patch with its surroundings, `[pixels][channels]`, and room for a vector more.
    input: Aligned,
    /// `[pixels][whole vectors of channels]`, before and after the filter.
    hidden: Aligned,
    filtered: Aligned,
    /// `[pixels][channels]`
    output: Aligned,
    weights: Packed,
}

/// Weights as the kernels read them.
#[derive(Default)]
struct Packed {
    values: Aligned,
    places: Vec<*const f32>,
}

struct Patch<'a> {
    pass: &'a Pass<'a>,
    patch: usize,
    out: Shared,
    scratch: &'a mut Scratch,
}

impl Kernel for Patch<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Pass { g, level, weights: (weights, stride), params, .. } = *self.pass;
        let weights = &weights[self.patch * stride..][..params];
        let (m, n) = (self.patch / g.columns % g.rows, self.patch % g.columns);
        let image = self.patch / (g.rows * g.columns);
        let Scratch { blended, input, hidden, filtered, output, weights: packed } = self.scratch;
        let (inputs, outputs) = (g.inputs(), level.outputs());
        let (outer_h, outer_w) = g.outer();
        let (outer, pixels) = (outer_h * outer_w, g.patch_h * g.patch_w);
        output.resize(pixels * outputs);
        // SAFETY: S is entered; the buffers have the sizes that their comments and the lines above and below say.
        unsafe {
            let mut gather = |to: &mut Aligned, stride| {
                to.resize(outer * stride + S::LANES);
                self.pass.gather::<S>((image, m, n), blended, to, stride);
            };
            let (weights, [filter, narrow]) = match level.convs {
                LevelConvs::Pointwise(stage) => {
                    gather(input, inputs);
                    dense::<S>(pixels, (input, inputs), weights, stage, (output, outputs), packed);
                    return self.pass.put((image, m, n), output, self.out);
                }
                LevelConvs::Block([widen, rest @ ..]) => {
                    gather(input, inputs);
                    let padded = widen.channels.next_multiple_of(S::LANES);
                    hidden.resize(outer * padded);
                    let (first, weights) = weights.split_at(inputs * widen.channels);
                    dense::<S>(outer, (input, inputs), first, widen, (hidden, padded), packed);
                    (weights, rest)
                }
                LevelConvs::Rest(rest) => {
                    gather(hidden, inputs.next_multiple_of(S::LANES));
                    (weights, rest)
                }
            };
            let padded = filter.channels.next_multiple_of(S::LANES);
            filtered.resize(pixels * padded);
            let (first, second) = weights.split_at(TAPS * filter.channels);
            depthwise::<S>(g, first, filter, (hidden, filtered), packed);
            dense::<S>(pixels, (filtered, padded), second, narrow, (output, outputs), packed);
        }
        self.pass.put((image, m, n), output, self.out);
    }
}

impl Pass<'_> {
    /// Writes a patch's result to its place.
    #[inline(always)]
    fn put(&self, (image, m, n): (usize, usize, usize), output: &[f32], out: Shared) {
        let (g, outputs) = (self.g, self.level.outputs());
        for (i, row) in output.chunks_exact(g.patch_w * outputs).enumerate() {
            let at = (image * g.height + m * g.patch_h + i) * g.width + n * g.patch_w;
            // SAFETY: a row of the patch, which no other task writes.
            unsafe { row.as_ptr().copy_to_nonoverlapping(out.at(at * outputs), row.len()) };
        }
    }

    /// Puts a patch's input together: positions, the map's channels, those of the coarser map.
    ///
    /// # Safety
    /// Inside [`Simd::enter`] of `S`; `input` has room for the patch and its surroundings, pixels `stride` apart, and
    /// for one vector more.
    #[inline(always)]
    unsafe fn gather<S: Simd>(
        &self,
        (image, m, n): (usize, usize, usize),
        blended: &mut Aligned,
        input: &mut [f32],
        stride: usize,
    ) {
        let g = self.g;
        let (outer_h, outer_w) = g.outer();
        let (rows, columns) =
            (&g.row_lines[m * outer_h..][..outer_h], &g.column_lines[n * outer_w..][..outer_w]);
        let [channels, below_h, below_w] = g.coarser;
        let first = columns.iter().map(|line| line.low).min().unwrap_or(0);
        let end = columns.iter().map(|line| line.high + 1).max().unwrap_or(0);
        let span = (end - first) * channels;
        blended.resize(span + S::LANES);
        let mut to = input.as_mut_ptr();
        for row in rows {
            let line =
                |y: usize| &self.coarser[((image * below_h + y) * below_w + first) * channels..][..span];
            // SAFETY: lines and `blended` have `span` values, pixels of the maps their channels; what is stored
            // beyond a pixel's channels is written over by what follows, or lies in the room at the end.
            unsafe {
                if channels > 0 {
                    blend::<S>(line(row.low), line(row.high), row.part, blended.as_mut_ptr());
                }
                for column in columns {
                    let mut next = to;
                    if g.positions > 0 {
                        *next = column.position;
                        *next.add(1) = row.position;
                        next = next.add(POSITIONS);
                    }
                    let pixel = ((image * g.height + row.at) * g.width + column.at) * g.map;
                    let pixel = &self.map[pixel..][..g.map];
                    for from in (0..g.map).step_by(S::LANES) {
                        let lanes = S::LANES.min(g.map - from);
                        S::store(next.add(from), S::load_first(pixel.as_ptr().add(from), lanes));
                    }
                    if channels > 0 {
                        let pixel = |x: usize| &blended[(x - first) * channels..][..channels];
                        blend::<S>(pixel(column.low), pixel(column.high), column.part, next.add(g.map));
                    }
                    to = to.add(stride);
                }
            }
        }
    }
}

/// to = a + part · (b − a), and what follows up to a whole vector is written too.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`; `to` has room for whole vectors; `b` is as long as `a`.
#[inline(always)]
unsafe fn blend<S: Simd>(a: &[f32], b: &[f32], part: f32, to: *mut f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let part = S::splat(part);
        for from in (0..a.len()).step_by(S::LANES) {
            let lanes = S::LANES.min(a.len() - from);
            let low = S::load_first(a.as_ptr().add(from), lanes);
            let high = S::load_first(b.as_ptr().add(from), lanes);
            S::store(to.add(from), S::fma(part, S::sub(high, low), low));
        }
    }
}

/// A 1×1 convolution: `from`, pixels and the distance between two, with weights of `[outputs][inputs]`, to `to`,
/// likewise.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`; there are as many pixels in `from` and `to`, each with its channels.
#[inline(always)]
unsafe fn dense<S: Simd>(
    pixels: usize,
    (from, from_stride): (&[f32], usize),
    weights: &[f32],
    stage: &LevelStage,
    (to, to_stride): (&mut [f32], usize),
    packed: &mut Packed,
) {
    let outputs = stage.channels;
    let depth = weights.len() / outputs;
    let vectors = outputs.div_ceil(S::LANES);
    let widest = S::TILES.iter().map(|shape| shape.0).max().unwrap_or(1);
    let Packed { values, places } = packed;
    values.resize(vectors * S::LANES * depth);
    let mut rest: &mut [f32] = values;
    for (rows, columns) in panel_rows::<S>(outputs, vectors, widest) {
        let (panel, after) = std::mem::take(&mut rest).split_at_mut(columns * depth);
        pack_rows(&weights[rows.start * depth..rows.end * depth], depth, columns, panel);
        rest = after;
    }
    for first in (0..pixels).step_by(PIXELS) {
        let count = PIXELS.min(pixels - first);
        places.clear();
        places.extend((first..first + count).map(|pixel| from[pixel * from_stride..].as_ptr()));
        let mut panel = values.as_ptr();
        for (rows, columns) in panel_rows::<S>(outputs, vectors, widest) {
            let whole = to_stride >= vectors * S::LANES;
            // SAFETY: a place has `depth` values; a panel has `depth` rows of whole vectors, and the bias has whole
            // vectors; `to` has the pixels, and the last vector is cut off where they have no room for it.
            unsafe {
                let tile = Tile {
                    rows: places.as_ptr(),
                    row_step: count,
                    offset: 0,
                    value_step: 1,
                    taps: 1,
                    depth,
                    weights: panel,
                    weight_step: depth * columns,
                    bias: stage.bias.as_ptr().add(rows.start),
                    out: to.as_mut_ptr().add(first * to_stride + rows.start),
                    residual: std::ptr::null(),
                    stride: to_stride,
                    last: if whole { S::LANES } else { rows.len() - (columns - S::LANES) },
                    act: stage.act,
                    piece: Piece::WHOLE,
                };
                compute_pixels::<S>(tile, columns / S::LANES, count);
                panel = panel.add(depth * columns);
            }
        }
    }
}

/// The output channels of each panel, and its columns: whole vectors.
#[inline(always)]
fn panel_rows<S: Simd>(
    outputs: usize,
    vectors: usize,
    widest: usize,
) -> impl Iterator<Item = (Range<usize>, usize)> {
    panels(vectors, widest).scan(0, move |first, vectors| {
        let columns = vectors * S::LANES;
        let rows = *first..outputs.min(*first + columns);
        *first += columns;
        Some((rows, columns))
    })
}

/// The 3×3 convolution of each channel alone, from a patch with its surroundings to the patch: pixels of whole
/// vectors. `weights`: `[channels][taps]`.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`; the maps have the patch's pixels, and the first one its surroundings too.
#[inline(always)]
unsafe fn depthwise<S: Simd>(
    g: &Geometry,
    weights: &[f32],
    stage: &LevelStage,
    (from, to): (&[f32], &mut [f32]),
    packed: &mut Packed,
) {
    let padded = stage.channels.next_multiple_of(S::LANES);
    let (_, outer_w) = g.outer();
    let values = &mut packed.values;
    values.resize(TAPS * padded);
    values.fill(0.0);
    for (channel, taps) in weights.chunks_exact(TAPS).enumerate() {
        for (tap, &weight) in taps.iter().enumerate() {
            values[tap * padded + channel] = weight;
        }
    }
    for channel in (0..padded).step_by(S::LANES) {
        // SAFETY: channels up to `padded` exist in weights, bias and both maps; a patch's pixel has its neighbours
        // in the first one.
        unsafe {
            let weights = std::array::from_fn(|tap| S::load(values.as_ptr().add(tap * padded + channel)));
            let filter = Filter::<S> {
                weights,
                bias: S::load(stage.bias.as_ptr().add(channel)),
                stride: padded,
                line: outer_w * padded,
                act: stage.act,
            };
            for y in 0..g.patch_h {
                let from = from.as_ptr().add(y * filter.line + channel);
                let to = to.as_mut_ptr().add(y * g.patch_w * padded + channel);
                let mut x = 0;
                while x + SUMS <= g.patch_w {
                    filter.pixels::<SUMS>(from.add(x * padded), to.add(x * padded));
                    x += SUMS;
                }
                while x < g.patch_w {
                    filter.pixels::<1>(from.add(x * padded), to.add(x * padded));
                    x += 1;
                }
            }
        }
    }
}

/// The weights of a vector of channels.
struct Filter<S: Simd> {
    weights: [S::V; TAPS],
    bias: S::V,
    /// Values between two pixels, and between two rows of the map that is read.
    stride: usize,
    line: usize,
    act: Activation,
}

impl<S: Simd> Filter<S> {
    /// `N` neighbours in a row; `from` is the first one's neighbour above and to the left.
    ///
    /// # Safety
    /// Inside [`Simd::enter`] of `S`; the pixels exist.
    #[inline(always)]
    unsafe fn pixels<const N: usize>(&self, from: *const f32, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut sums = [self.bias; N];
            for (tap, &weight) in self.weights.iter().enumerate() {
                let from = from.add(tap / 3 * self.line + tap % 3 * self.stride);
                for (i, sum) in sums.iter_mut().enumerate() {
                    *sum = S::fma(S::load(from.add(i * self.stride)), weight, *sum);
                }
            }
            for (i, sum) in sums.into_iter().enumerate() {
                S::store(to.add(i * self.stride), activate::<S>(sum, self.act));
            }
        }
    }
}
