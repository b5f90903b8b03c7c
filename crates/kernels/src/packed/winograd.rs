//! Winograd's minimal filtering, F(4×4, 3×3): Lavin and Gray, "Fast Algorithms for Convolutional
//! Neural Networks", CVPR 2016.
//!
//! A 4×4 patch of outputs costs 36 products a channel instead of 144. Both sides are transformed,
//! `Y = Aᵀ[(G g Gᵀ) ⊙ (Bᵀ d B)]A`, and the 36 positions become 36 matrix products over channels,
//! which the tiles of [`super::tile`] compute. The transforms lose some bits: see
//! [`ConvOptions::winograd`](super::ConvOptions::winograd).

use candle_core::Result;

use super::conv::{Panel, TileShape};
use super::geometry::{Filter, Geometry};
use super::tile::{NextWeights, Piece, Tile, compute_pixels};
use super::winograd_switch::is_allowed;
use crate::aligned::{Aligned, Weights};
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{Shared, SharedRead, filled};
use crate::simd::{Kernel, MAX_LANES, Simd, dispatch};
use crate::threads::{share, share_with, threads};
use crate::vector_math::activate;

/// Outputs a side of a patch, inputs a side of a patch, and positions of a transformed one.
const OUT: usize = 4;
const IN: usize = 6;
const POSITIONS: usize = IN * IN;
/// Values of a filter.
const TAPS: usize = 9;
/// Bytes of transformed input and output that a task goes over at a time.
const BLOCK_BYTES: usize = 1 << 20;
/// Narrower layers were not measured (8 → 8 channels on 112×112 take half the time); for wider ones hardly any map is
/// large enough.
const CHANNELS: std::ops::RangeInclusive<usize> = 8..=512;
/// Transformed filters are four times the filters, and come from memory at each call. A patch saves so
/// much work that one for this many of a layer's pairs of channels makes up for that.
const CHANNEL_PAIRS_PER_PATCH: usize = 2600;

/// So many patches take fifty times as long as transforming the filters does, or longer.
const PATCHES_PER_TRANSFORM: usize = 256;
/// Outputs that a patch must have on average: at four, its 36 products would be no fewer than the direct ones.
const PIXELS_PER_PATCH: usize = 6;

/// G of the paper: 3 values of a filter to 6.
const G: [[f32; 3]; IN] = [
    [1.0 / 4.0, 0.0, 0.0],
    [-1.0 / 6.0, -1.0 / 6.0, -1.0 / 6.0],
    [-1.0 / 6.0, 1.0 / 6.0, -1.0 / 6.0],
    [1.0 / 24.0, 1.0 / 12.0, 1.0 / 6.0],
    [1.0 / 24.0, -1.0 / 12.0, 1.0 / 6.0],
    [0.0, 0.0, 1.0],
];

/// Whether it is the faster way for a filter between so many channels, and not forbidden.
pub(crate) fn suits(filter: Filter, inputs: usize, outputs: usize) -> Result<bool> {
    Ok(is_allowed()?
        && (filter.height, filter.width, filter.stride) == (3, 3, 1)
        && CHANNELS.contains(&inputs)
        && CHANNELS.contains(&outputs))
}

/// Whether a map has patches enough for the transformed filters to pay for themselves, and outputs enough in each.
pub(crate) fn pays(g: &Geometry, inputs: usize, outputs: usize) -> bool {
    let patches = Grid::new(g).patches(g.batch);
    patches * CHANNEL_PAIRS_PER_PATCH >= inputs * outputs && g.pixels() >= patches * PIXELS_PER_PATCH
}

/// Whether a map is so large that transforming the filters at each call costs next to nothing: then they need not be
/// kept, four times the memory of the filters themselves.
pub(crate) fn outweighs_its_filters(g: &Geometry) -> bool {
    Grid::new(g).patches(g.batch) >= PATCHES_PER_TRANSFORM
}

/// The patches of an image. A filter of dilation d sees d² maps that do not mix, each of every dth row and column: a
/// patch belongs to one of them, and its rows and columns lie d apart.
#[derive(Clone, Copy)]
struct Grid {
    dilation: usize,
    /// Patches one below and beside the other in each of the maps.
    down: usize,
    across: usize,
}

impl Grid {
    fn new(g: &Geometry) -> Self {
        let dilation = g.filter.dilation;
        let patches = |pixels: usize| pixels.div_ceil(dilation).div_ceil(OUT);
        Self { dilation, down: patches(g.out_h), across: patches(g.out_w) }
    }

    fn patches(&self, batch: usize) -> usize {
        batch * self.down * self.across * self.dilation * self.dilation
    }

    /// Image, first row and first column of a patch: those of neighbouring rows come one after the other. They may
    /// lie beside the map, where it has no whole number of patches.
    #[inline(always)]
    fn place(&self, patch: usize) -> (usize, usize, usize) {
        let Self { dilation, down, across } = *self;
        let (rest, x) = (patch / across, patch % across);
        let (rest, first_column) = (rest / dilation, rest % dilation);
        let (rest, first_row) = (rest / dilation, rest % dilation);
        (rest / down, rest % down * OUT * dilation + first_row, x * OUT * dilation + first_column)
    }

    /// How many of a patch's rows, from row `first` on, or of its columns the map has.
    #[inline(always)]
    fn within(&self, size: usize, first: usize) -> usize {
        size.saturating_sub(first).div_ceil(self.dilation).min(OUT)
    }
}

/// Packed 3×3 filters, transformed: panel by panel `[position][input][output]`.
pub(crate) fn transform(weights: &[f32], panels: &[Panel], isa: Isa) -> Weights {
    let (lanes, _) = dispatch(isa, TileShape);
    Weights::written(weights.len() / TAPS * POSITIONS, |transformed| {
        let out = Shared(transformed.as_mut_ptr());
        share(panels.len(), |i| {
            let panel = panels[i];
            let size = panel.depth * panel.vectors * lanes;
            let from = &weights[panel.weights..][..TAPS * size];
            // SAFETY: the panels are all of the weights, and each is written by its own task.
            let to = unsafe { out.at(panel.weights / TAPS * POSITIONS) };
            dispatch(isa, Filters { from, to, size });
        });
    })
}

/// G g Gᵀ of `size` 3×3 filters, whole vectors of them: `[tap][filter]` to `[position][filter]`.
struct Filters<'a> {
    from: &'a [f32],
    to: *mut f32,
    size: usize,
}

impl Kernel for Filters<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { from, to, size } = self;
        for i in (0..size).step_by(S::LANES) {
            // SAFETY: `from` and `to` hold `size` values for each tap and position, whole vectors;
            // `run` is called by `S::enter`.
            unsafe {
                let sum = |coefficients: [f32; 3], values: [S::V; 3]| {
                    let sum = S::mul(S::splat(coefficients[0]), values[0]);
                    let sum = S::fma(S::splat(coefficients[1]), values[1], sum);
                    S::fma(S::splat(coefficients[2]), values[2], sum)
                };
                let g: [S::V; TAPS] = std::array::from_fn(|tap| S::load(from.as_ptr().add(tap * size + i)));
                for (y, coefficients) in G.into_iter().enumerate() {
                    let row: [S::V; 3] =
                        std::array::from_fn(|x| sum(coefficients, [g[x], g[3 + x], g[6 + x]]));
                    for (x, coefficients) in G.into_iter().enumerate() {
                        S::store(to.add((y * IN + x) * size + i), sum(coefficients, row));
                    }
                }
            }
        }
    }
}

/// What a call needs to know of its convolution.
#[derive(Clone, Copy)]
pub(crate) struct Layer<'a> {
    pub(crate) isa: Isa,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) act: Activation,
    pub(crate) panels: &'a [Panel],
    /// Panel by panel `[position][input][output]`.
    pub(crate) weights: &'a [f32],
    pub(crate) bias: &'a [f32],
    pub(crate) zeros: &'a [f32],
}

/// The convolution of `xs` (`[B, H, W, C]`), `[B, h', w', O]`.
pub(crate) fn run(layer: Layer, g: &Geometry, xs: &[f32], residual: Option<&[f32]>) -> Vec<f32> {
    let grid = Grid::new(g);
    let patches = grid.patches(g.batch);
    let columns: usize = layer.bias.len();
    let depth = layer.inputs.next_multiple_of(MAX_LANES);
    // As many patches a task as the cache holds, in as many equal rounds as all threads need.
    let threads = threads();
    let most = (BLOCK_BYTES / (POSITIONS * 4 * (depth + columns))).max(12);
    let rounds = patches.div_ceil(most.min(patches.div_ceil(threads)).max(1)).next_multiple_of(threads);
    let block = patches.div_ceil(rounds).max(1);
    // SAFETY: the tasks write all outputs of all patches, each its own.
    unsafe {
        filled(g.pixels() * layer.outputs, |out| {
            share_with(patches.div_ceil(block), Aligned::default, |buffer, task| {
                let first = task * block;
                let part = Patches {
                    layer,
                    geometry: *g,
                    grid,
                    patches: (first, block.min(patches - first)),
                    depth,
                    columns,
                    xs: SharedRead(xs.as_ptr()),
                    residual: residual.map(|r| SharedRead(r.as_ptr())),
                    out,
                    buffer,
                };
                dispatch(layer.isa, part);
            });
        })
    }
}

/// What one task does: some patches, all channels.
struct Patches<'a> {
    layer: Layer<'a>,
    geometry: Geometry,
    grid: Grid,
    /// First patch of the batch, and how many.
    patches: (usize, usize),
    /// Values of a transformed input, padded to whole vectors.
    depth: usize,
    /// Values of a transformed output, padded panel by panel.
    columns: usize,
    xs: SharedRead,
    residual: Option<SharedRead>,
    out: Shared,
    /// Transformed inputs `[position][patch][depth]`, then outputs `[position][patch][columns]`.
    buffer: &'a mut Aligned,
}

impl Kernel for Patches<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(mut self) {
        let count = self.patches.1;
        let inputs = POSITIONS * count * self.depth;
        self.buffer.resize(inputs + POSITIONS * count * self.columns);
        // SAFETY: `run` is called by `S::enter`, and the buffer has room for both parts.
        unsafe {
            self.transform_inputs::<S>();
            self.multiply::<S>(inputs);
            self.transform_outputs::<S>(inputs);
        }
    }
}

impl Patches<'_> {
    /// # Safety
    /// Called inside [`Simd::enter`] of `S`, with room in the buffer.
    #[inline(always)]
    unsafe fn transform_inputs<S: Simd>(&mut self) {
        let (g, channels) = (&self.geometry, self.layer.inputs);
        let count = self.patches.1;
        for patch in 0..count {
            let (image, y, x) = self.grid.place(self.patches.0 + patch);
            let mut places = [self.layer.zeros.as_ptr(); POSITIONS];
            for i in 0..IN {
                let Some(row) = g.row(y, i) else { continue };
                for j in 0..IN {
                    if let Some(column) = g.column(x, j) {
                        let pixel = (image * g.plane_h + row) * g.plane_w + column;
                        // SAFETY: row and column lie inside the plane.
                        places[i * IN + j] = unsafe { self.xs.get().add(pixel * channels) };
                    }
                }
            }
            let mut channel = 0;
            while channel < channels {
                let lanes = S::LANES.min(channels - channel);
                // SAFETY: every place has `channels` values; the buffer has room for each position's
                // whole vectors.
                unsafe {
                    let mut rows = [[S::splat(0.0); IN]; IN];
                    for (i, row) in rows.iter_mut().enumerate() {
                        *row = input_axis::<S>(std::array::from_fn(|j| {
                            S::load_first(places[i * IN + j].add(channel), lanes)
                        }));
                    }
                    let transposed: [[S::V; IN]; IN] = std::array::from_fn(|j| rows.map(|row| row[j]));
                    for (j, column) in transposed.into_iter().enumerate() {
                        for (i, v) in input_axis::<S>(column).into_iter().enumerate() {
                            let at = ((i * IN + j) * count + patch) * self.depth + channel;
                            S::store(self.buffer.as_mut_ptr().add(at), v);
                        }
                    }
                }
                channel += S::LANES;
            }
        }
    }

    /// The products over channels, one for each position.
    ///
    /// # Safety
    /// As [`Patches::transform_inputs`]; the results go to `outputs` values on in the buffer.
    #[inline(always)]
    unsafe fn multiply<S: Simd>(&mut self, outputs: usize) {
        let (count, layer) = (self.patches.1, self.layer);
        let no_bias = Aligned::zeros(self.columns);
        let buffer = self.buffer.as_mut_ptr();
        for position in 0..POSITIONS {
            // SAFETY: each position has `count` rows of `depth` values.
            let rows: Vec<*const f32> = (0..count)
                .map(|i| unsafe { buffer.add((position * count + i) * self.depth).cast_const() })
                .collect();
            for (i, panel) in layer.panels.iter().enumerate() {
                let size = |panel: &Panel| layer.inputs * panel.vectors * S::LANES;
                let weights = |panel: &Panel, position: usize| {
                    let at = panel.weights / TAPS * POSITIONS + position * size(panel);
                    layer.weights.as_ptr().wrapping_add(at)
                };
                let (next, position_of_next) = match layer.panels.get(i + 1) {
                    Some(next) => (next, position),
                    None => (&layer.panels[0], (position + 1) % POSITIONS),
                };
                // SAFETY: rows, weights and results lie inside their buffers; S is entered.
                unsafe {
                    let tile = Tile {
                        rows: rows.as_ptr(),
                        row_step: count,
                        offset: 0,
                        value_step: 1,
                        taps: 1,
                        depth: layer.inputs,
                        weights: weights(panel, position),
                        weight_step: 0,
                        bias: no_bias.as_ptr(),
                        out: buffer.add(outputs + position * count * self.columns + panel.bias),
                        residual: std::ptr::null(),
                        stride: self.columns,
                        last: S::LANES,
                        act: Activation::None,
                        piece: Piece {
                            next: Some(NextWeights {
                                from: weights(next, position_of_next),
                                values: size(next),
                            }),
                            ..Piece::WHOLE
                        },
                    };
                    compute_pixels::<S>(tile, panel.vectors, count);
                }
            }
        }
    }

    /// # Safety
    /// As [`Patches::transform_inputs`]; the products lie `products` values on in the buffer.
    #[inline(always)]
    unsafe fn transform_outputs<S: Simd>(&mut self, products: usize) {
        let (g, layer, count) = (&self.geometry, self.layer, self.patches.1);
        for patch in 0..count {
            let (image, y, x) = self.grid.place(self.patches.0 + patch);
            let (rows_inside, columns_inside) = (self.grid.within(g.out_h, y), self.grid.within(g.out_w, x));
            for panel in layer.panels {
                let mut channel = 0;
                while channel < panel.channels {
                    let lanes = S::LANES.min(panel.channels - channel);
                    // SAFETY: the products hold whole vectors; outputs and residual hold the lanes
                    // that are touched, and the patch belongs to this task.
                    unsafe {
                        let bias = S::load(layer.bias.as_ptr().add(panel.bias + channel));
                        let mut rows = [[S::splat(0.0); OUT]; IN];
                        for (i, row) in rows.iter_mut().enumerate() {
                            *row = output_axis::<S>(std::array::from_fn(|j| {
                                let at = ((i * IN + j) * count + patch) * self.columns + panel.bias + channel;
                                S::load(self.buffer.as_ptr().add(products + at))
                            }));
                        }
                        let transposed: [[S::V; IN]; OUT] = std::array::from_fn(|j| rows.map(|row| row[j]));
                        for (j, column) in transposed.into_iter().enumerate().take(columns_inside) {
                            for (i, value) in
                                output_axis::<S>(column).into_iter().enumerate().take(rows_inside)
                            {
                                let (row, column) = (y + i * self.grid.dilation, x + j * self.grid.dilation);
                                let pixel = (image * g.out_h + row) * g.out_w + column;
                                let at = pixel * layer.outputs + panel.output + channel;
                                let mut value = S::add(value, bias);
                                if let Some(residual) = self.residual {
                                    value = S::add(value, S::load_first(residual.get().add(at), lanes));
                                }
                                S::store_first(self.out.at(at), activate::<S>(value, layer.act), lanes);
                            }
                        }
                    }
                    channel += S::LANES;
                }
            }
        }
    }
}

/// Bᵀd, six inputs along one axis:
///
/// ```text
/// 4  0 -5  0  1  0
/// 0 -4 -4  1  1  0
/// 0  4 -4 -1  1  0
/// 0 -2 -1  2  1  0
/// 0  2 -1 -2  1  0
/// 0  4  0 -5  0  1
/// ```
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
unsafe fn input_axis<S: Simd>(d: [S::V; IN]) -> [S::V; IN] {
    // SAFETY: the caller's promise.
    unsafe {
        let times = |c: f32, v: S::V, plus: S::V| S::fma(S::splat(c), v, plus);
        let even = times(-4.0, d[2], d[4]);
        let odd = times(-4.0, d[1], d[3]);
        let even2 = S::sub(d[4], d[2]);
        let odd2 = S::sub(d[3], d[1]);
        [
            times(4.0, d[0], times(-5.0, d[2], d[4])),
            S::add(even, odd),
            S::sub(even, odd),
            times(2.0, odd2, even2),
            times(-2.0, odd2, even2),
            times(4.0, d[1], times(-5.0, d[3], d[5])),
        ]
    }
}

/// Aᵀm, six products along one axis to four outputs:
///
/// ```text
/// 1  1  1  1  1  0
/// 0  1 -1  2 -2  0
/// 0  1  1  4  4  0
/// 0  1 -1  8 -8  1
/// ```
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
unsafe fn output_axis<S: Simd>(m: [S::V; IN]) -> [S::V; OUT] {
    // SAFETY: the caller's promise.
    unsafe {
        let times = |c: f32, v: S::V, plus: S::V| S::fma(S::splat(c), v, plus);
        let (sum1, difference1) = (S::add(m[1], m[2]), S::sub(m[1], m[2]));
        let (sum2, difference2) = (S::add(m[3], m[4]), S::sub(m[3], m[4]));
        [
            S::add(m[0], S::add(sum1, sum2)),
            times(2.0, difference2, difference1),
            times(4.0, sum2, sum1),
            times(8.0, difference2, S::add(difference1, m[5])),
        ]
    }
}
