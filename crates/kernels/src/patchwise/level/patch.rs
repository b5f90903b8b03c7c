//! What one patch goes through.

use std::ops::Range;

use super::grid::PatchGrid;
use super::{LevelConvs, LevelStage, POSITIONS, PatchwiseLevel, SIDE, TAPS};
use crate::aligned::Aligned;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{Shared, filled};
use crate::packed::tile::{Piece, Tile, compute_pixels, panels};
use crate::patchwise::pack::pack_rows;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{items_per_task, share_with};
use crate::vector_math::activate;

/// Pixels that go through all panels before the next: their inputs and outputs stay in the first cache.
const PIXELS: usize = 96;
/// Neighbouring pixels whose depthwise sums are under way together.
const SUMS: usize = 4;

/// All patches.
pub(super) struct Pass<'a> {
    pub(super) g: &'a PatchGrid,
    pub(super) level: PatchwiseLevel<'a>,
    pub(super) map: &'a [f32],
    pub(super) coarser: &'a [f32],
    /// A row for each patch, and the distance between two.
    pub(super) weights: (&'a [f32], usize),
    pub(super) params: usize,
}

impl Pass<'_> {
    pub(super) fn run(&self, isa: Isa) -> Vec<f32> {
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
    tables: Tables,
}

/// What a convolution needs beside its operands.
#[derive(Default)]
struct Tables {
    /// Its weights in the order of their use.
    weights: Aligned,
    /// Where the pixels' values start.
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
        let Scratch { blended, input, hidden, filtered, output, tables } = self.scratch;
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
                    dense::<S>(pixels, (input, inputs), weights, stage, (output, outputs), tables);
                    return self.pass.put((image, m, n), output, self.out);
                }
                LevelConvs::Block([widen, rest @ ..]) => {
                    gather(input, inputs);
                    let padded = widen.channels.next_multiple_of(S::LANES);
                    hidden.resize(outer * padded);
                    let (first, weights) = weights.split_at(inputs * widen.channels);
                    dense::<S>(outer, (input, inputs), first, widen, (hidden, padded), tables);
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
            depthwise::<S>(g, first, filter, (hidden, filtered), tables);
            dense::<S>(pixels, (filtered, padded), second, narrow, (output, outputs), tables);
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
    tables: &mut Tables,
) {
    let outputs = stage.channels;
    let depth = weights.len() / outputs;
    let vectors = outputs.div_ceil(S::LANES);
    let widest = S::TILES.iter().map(|shape| shape.0).max().unwrap_or(1);
    let Tables { weights: packed, places } = tables;
    packed.resize(vectors * S::LANES * depth);
    let mut unpacked: &mut [f32] = packed;
    for (rows, columns) in panel_rows::<S>(outputs, vectors, widest) {
        let (panel, after) = std::mem::take(&mut unpacked).split_at_mut(columns * depth);
        pack_rows(&weights[rows.start * depth..rows.end * depth], depth, columns, panel);
        unpacked = after;
    }
    for first in (0..pixels).step_by(PIXELS) {
        let count = PIXELS.min(pixels - first);
        places.clear();
        places.extend((first..first + count).map(|pixel| from[pixel * from_stride..].as_ptr()));
        let mut panel = packed.as_ptr();
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
    g: &PatchGrid,
    weights: &[f32],
    stage: &LevelStage,
    (from, to): (&[f32], &mut [f32]),
    tables: &mut Tables,
) {
    let padded = stage.channels.next_multiple_of(S::LANES);
    let (_, outer_w) = g.outer();
    let packed = &mut tables.weights;
    packed.resize(TAPS * padded);
    packed.fill(0.0);
    for (channel, taps) in weights.chunks_exact(TAPS).enumerate() {
        for (tap, &weight) in taps.iter().enumerate() {
            packed[tap * padded + channel] = weight;
        }
    }
    for channel in (0..padded).step_by(S::LANES) {
        // SAFETY: channels up to `padded` exist in weights, bias and both maps; a patch's pixel has its neighbours
        // in the first one.
        unsafe {
            let weights = std::array::from_fn(|tap| S::load(packed.as_ptr().add(tap * padded + channel)));
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
                let from = from.add(tap / SIDE * self.line + tap % SIDE * self.stride);
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
