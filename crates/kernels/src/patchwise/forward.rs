//! The convolution itself.

use super::pack::pack_rows;
use super::{Grid, Pixel, WeightOrder};
use crate::epilogue::{Activation, Float};
use crate::isa::Isa;
use crate::memory::{Shared, filled};
use crate::packed::tile::{Piece, Tile, compute_pixels, panels};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{items_per_task, share_chunks, share_with};
use crate::vector_math::activate;

/// Pixels that go through all panels before the next: their inputs and outputs stay in the cache.
const PIXELS: usize = 96;

/// In f32, through the tiles of all dense products.
pub(super) fn packed(
    grid: &Grid,
    isa: Isa,
    xs: &[f32],
    (weights, stride): (&[f32], usize),
    bias: &[f32],
    act: Activation,
) -> Vec<f32> {
    let outputs = grid.options.outputs;
    let per_task = items_per_task(grid.patches(), grid.macs());
    // SAFETY: the patches make up all outputs, and each is written by its own task.
    unsafe {
        filled(grid.batch * grid.out_h() * grid.out_w() * outputs, |out| {
            share_with(grid.patches().div_ceil(per_task), Scratch::default, |scratch, task| {
                for patch in task * per_task..grid.patches().min((task + 1) * per_task) {
                    let scratch = &mut *scratch;
                    let weights = &weights[patch * stride..][..grid.weights()];
                    let task = Patch { grid, xs, weights, bias, act, out, patch, scratch };
                    if grid.is_depthwise() {
                        dispatch(isa, Depthwise(task));
                    } else {
                        dispatch(isa, Dense(task));
                    }
                }
            });
        })
    }
}

/// What a thread keeps from patch to patch.
#[derive(Default)]
struct Scratch {
    weights: Vec<f32>,
    bias: Vec<f32>,
    places: Vec<*const f32>,
    out: Vec<f32>,
}

/// One patch.
struct Patch<'a> {
    grid: &'a Grid,
    xs: &'a [f32],
    weights: &'a [f32],
    bias: &'a [f32],
    act: Activation,
    out: Shared,
    patch: usize,
    scratch: &'a mut Scratch,
}

struct Dense<'a>(Patch<'a>);

impl Kernel for Dense<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Patch { grid, xs, weights, bias, act, out, patch, scratch } = self.0;
        let Scratch { weights: packed, bias: packed_bias, places, out: rows } = scratch;
        let (taps, depth, outputs) = (grid.taps(), grid.group_inputs(), grid.options.outputs);
        let group_outputs = grid.group_outputs();
        let vectors = group_outputs.div_ceil(S::LANES);
        let widest = S::TILES.iter().map(|t| t.0).max().unwrap_or(1);
        // (vectors, first input, first output, channels) of neighbouring outputs that are computed together.
        let all_panels = || {
            (0..grid.options.groups).flat_map(move |group| {
                panels(vectors, widest).scan(0, move |first, vectors| {
                    let channels = (vectors * S::LANES).min(group_outputs - *first);
                    let panel = (vectors, group * depth, group * group_outputs + *first, channels);
                    *first += channels;
                    Some(panel)
                })
            })
        };
        packed_bias.clear();
        for (vectors, _, output, channels) in all_panels() {
            packed_bias.extend_from_slice(&bias[output..output + channels]);
            packed_bias.resize(packed_bias.len() + vectors * S::LANES - channels, 0.0);
        }
        let straight = grid.options.order == WeightOrder::OutputLast
            && grid.options.groups == 1
            && vectors <= widest
            && outputs == vectors * S::LANES;
        if !straight {
            packed.clear();
            for (vectors, _, output, channels) in all_panels() {
                pack(grid, weights, (output, channels), vectors * S::LANES, packed);
            }
        }
        let weights = if straight { weights.as_ptr() } else { packed.as_ptr() };
        let pixels = grid.patch_h * grid.patch_w;
        for first in (0..pixels).step_by(PIXELS) {
            let count = PIXELS.min(pixels - first);
            places.resize(taps * count, std::ptr::null());
            grid.each_pixel(patch, first, count, |p, pixel| {
                grid.each_place(pixel, |tap, from| places[tap * count + p] = xs[from..].as_ptr());
            });
            rows.resize(count * outputs, 0.0);
            let (mut weights, mut bias) = (weights, packed_bias.as_ptr());
            for (vectors, input, output, channels) in all_panels() {
                // SAFETY: a place has `inputs` values, of which the panel reads `depth` from `input` on;
                // weights and bias hold the panels one after the other, in whole vectors; `rows` has
                // room for `count` pixels of all outputs. S is entered.
                unsafe {
                    let tile = Tile {
                        rows: places.as_ptr(),
                        row_step: count,
                        offset: input,
                        value_step: 1,
                        taps,
                        depth,
                        weights,
                        weight_step: depth * vectors * S::LANES,
                        bias,
                        out: rows.as_mut_ptr().add(output),
                        residual: std::ptr::null(),
                        stride: outputs,
                        last: channels - (vectors - 1) * S::LANES,
                        act,
                        piece: Piece::WHOLE,
                    };
                    compute_pixels::<S>(tile, vectors, count);
                }
                // SAFETY: to the next panel, or to the end.
                unsafe {
                    weights = weights.add(taps * depth * vectors * S::LANES);
                    bias = bias.add(vectors * S::LANES);
                }
            }
            grid.each_pixel(patch, first, count, |p, pixel| {
                let row = &rows[p * outputs..][..outputs];
                // SAFETY: a pixel of the patch, which no other task writes.
                unsafe { row.as_ptr().copy_to_nonoverlapping(out.at(grid.output(pixel)), outputs) };
            });
        }
    }
}

/// Appends the weights of some outputs as `[tap][input][columns]`, with zeros after the last.
#[inline(always)]
fn pack(
    grid: &Grid,
    weights: &[f32],
    (output, channels): (usize, usize),
    columns: usize,
    packed: &mut Vec<f32>,
) {
    let (taps, depth) = (grid.taps(), grid.group_inputs());
    let from = packed.len();
    packed.resize(from + taps * depth * columns, 0.0);
    let packed = &mut packed[from..];
    match grid.options.order {
        WeightOrder::OutputLast => {
            for (to, row) in packed.chunks_exact_mut(columns).zip(weights.chunks_exact(grid.options.outputs))
            {
                to[..channels].copy_from_slice(&row[output..output + channels]);
            }
        }
        WeightOrder::OutputFirst if taps == 1 => {
            pack_rows(&weights[output * depth..][..channels * depth], depth, columns, packed);
        }
        WeightOrder::OutputFirst => {
            let size = depth * taps;
            for (row, weights) in weights[output * size..][..channels * size].chunks_exact(size).enumerate() {
                for (at, &weight) in weights.iter().enumerate() {
                    packed[(at % taps * depth + at / taps) * columns + row] = weight;
                }
            }
        }
    }
}

struct Depthwise<'a>(Patch<'a>);

impl Kernel for Depthwise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Patch { grid, xs, weights, bias, act, out, patch, scratch } = self.0;
        let (taps, c) = (grid.taps(), grid.inputs);
        let weights = match grid.options.order {
            WeightOrder::OutputLast => weights,
            WeightOrder::OutputFirst => {
                scratch.weights.resize(weights.len(), 0.0);
                grid.ordered(weights, &mut scratch.weights);
                &scratch.weights
            }
        };
        let places = &mut scratch.places;
        places.resize(taps, std::ptr::null());
        grid.each_pixel(patch, 0, grid.patch_h * grid.patch_w, |_, pixel| {
            grid.each_place(pixel, |tap, from| places[tap] = xs[from..][..c].as_ptr());
            for channel in (0..c).step_by(S::LANES) {
                let lanes = S::LANES.min(c - channel);
                // SAFETY: places, bias and each tap's weights have `c` values, of which `lanes` are
                // read; the pixel is this task's. S is entered.
                unsafe {
                    let mut sum = S::load_first(bias.as_ptr().add(channel), lanes);
                    for (tap, place) in places.iter().enumerate() {
                        let (x, w) = (place.add(channel), weights.as_ptr().add(tap * c + channel));
                        sum = if lanes == S::LANES {
                            S::fma(S::load(x), S::load(w), sum)
                        } else {
                            S::fma(S::load_first(x, lanes), S::load_first(w, lanes), sum)
                        };
                    }
                    S::store_first(out.at(grid.output(pixel) + channel), activate::<S>(sum, act), lanes);
                }
            }
        });
    }
}

/// In any float type, without bias and activation: for gradients that are checked in f64.
pub(super) fn plain<T: Float>(grid: &Grid, isa: Isa, xs: &[T], (weights, stride): (&[T], usize)) -> Vec<T> {
    let outputs = grid.options.outputs;
    let mut ys = vec![T::ZERO; grid.batch * grid.out_h() * grid.out_w() * outputs];
    share_chunks(&mut ys, grid.patch_h * grid.out_w() * outputs, |strip, ys| {
        dispatch(isa, Plain { grid, xs, weights, stride, strip, ys });
    });
    ys
}

/// A row of patches.
struct Plain<'a, T> {
    grid: &'a Grid,
    xs: &'a [T],
    weights: &'a [T],
    stride: usize,
    strip: usize,
    /// Zeros before.
    ys: &'a mut [T],
}

impl<T: Float> Kernel for Plain<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let grid = self.grid;
        let (outputs, per_group) = (grid.options.outputs, grid.group_outputs());
        let start = self.strip * self.ys.len();
        let mut ordered = vec![T::ZERO; grid.weights()];
        for n in 0..grid.columns {
            let patch = self.strip * grid.columns + n;
            grid.ordered(&self.weights[patch * self.stride..][..grid.weights()], &mut ordered);
            grid.each_pixel(patch, 0, grid.patch_h * grid.patch_w, |_, pixel| {
                let ys = &mut self.ys[grid.output(pixel) - start..][..outputs];
                grid.each_input(pixel, |x, tap, input, group| {
                    let weights = &ordered[(tap * grid.group_inputs() + input) * outputs..][..outputs];
                    let channels = group * per_group..(group + 1) * per_group;
                    for (y, &w) in ys[channels.clone()].iter_mut().zip(&weights[channels]) {
                        *y += self.xs[x] * w;
                    }
                });
            });
        }
    }
}

impl Grid {
    /// Calls `f(place of the value in the map, tap, input of the group, group)` for each value that an
    /// output pixel of the batch reads.
    #[inline(always)]
    pub(super) fn each_input(&self, pixel: Pixel, mut f: impl FnMut(usize, usize, usize, usize)) {
        self.each_place(pixel, |tap, from| {
            for group in 0..self.options.groups {
                for input in 0..self.group_inputs() {
                    f(from + group * self.group_inputs() + input, tap, input, group);
                }
            }
        });
    }
}
