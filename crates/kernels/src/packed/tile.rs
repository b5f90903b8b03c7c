//! The innermost loop of every dense product: a few rows of pixels times a few vectors of channels,
//! all sums in registers.

use crate::aligned::LINE;
use crate::epilogue::Activation;
use crate::simd::{Kernel, Simd};
use crate::vector_math::activate;

/// Values of the weights that a tile asks for ahead of their use.
const AHEAD: usize = 512;

/// One tile: `out[m][n] = act(bias[n] + residual[m][n] + Σ rows[t][m][k] · weights[t][k][n])`.
///
/// `M` pixels, `N` = `vectors` · LANES channels of which the last vector counts `last` lanes.
#[derive(Clone, Copy)]
pub(crate) struct Tile {
    /// A pointer for each pixel, tap by tap: M of them at each of `taps` places, `row_step` apart.
    pub(crate) rows: *const *const f32,
    /// Pointers between two taps.
    pub(crate) row_step: usize,
    /// Added to every pointer: the first value that counts.
    pub(crate) offset: usize,
    /// Between two of a pointer's values.
    pub(crate) value_step: usize,
    /// Places that a pixel reads.
    pub(crate) taps: usize,
    /// Values at each place.
    pub(crate) depth: usize,
    /// `[depth][N]` for each tap, `weight_step` values apart.
    pub(crate) weights: *const f32,
    /// Values between two taps' weights.
    pub(crate) weight_step: usize,
    /// N values.
    pub(crate) bias: *const f32,
    /// The first pixel's first channel; further pixels at `stride`.
    pub(crate) out: *mut f32,
    /// Like `out`, or null.
    pub(crate) residual: *const f32,
    /// Values between two pixels of `out` and of `residual`.
    pub(crate) stride: usize,
    /// Lanes of the last vector that exist, 1..=LANES.
    pub(crate) last: usize,
    /// Applied last.
    pub(crate) act: Activation,
    pub(crate) piece: Piece,
}

/// Which piece of its products a tile computes, where many pixels go through the weights piece by piece:
/// a piece then comes from memory once, and while the pixels go through it, the next one is asked for.
#[derive(Clone, Copy)]
pub(crate) struct Piece {
    /// The sums begin with the bias, not with what `out` holds.
    pub(crate) first: bool,
    /// Residual and activation follow; otherwise the sums are left in `out`.
    pub(crate) last: bool,
    /// The weights that will be read next, as far as that is known.
    pub(crate) next: Option<NextWeights>,
}

/// Weights that all tiles of some pixels ask for together.
#[derive(Clone, Copy)]
pub(crate) struct NextWeights {
    pub(crate) from: *const f32,
    pub(crate) values: usize,
}

impl Piece {
    /// All of the products.
    pub(crate) const WHOLE: Self = Self { first: true, last: true, next: None };
}

/// Computes a tile of `rows` × `vectors`, one of the shapes in [`Simd::TILES`] or with fewer rows.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`; the tile's pointers are good for what its fields say, and nobody
/// else touches `out`.
#[inline(always)]
pub(crate) unsafe fn compute<S: Simd>(tile: &Tile, vectors: usize, rows: usize) {
    /// Each shape is a function of its own: inlined together they would share one register allocation.
    macro_rules! shapes {
        ($($v:literal: $($m:literal)+;)+) => {
            match (vectors, rows) {
                $($(
                    // SAFETY: S is entered already; the rest is the caller's promise.
                    ($v, $m) => unsafe { S::enter(Fixed::<$m, $v>(tile)) },
                )+)+
                _ => unreachable!("tiles are cut by Simd::TILES"),
            }
        };
    }
    shapes! {
        1: 1 2 3 4 5 6 7 8 9 10 11 12 13 14;
        2: 1 2 3 4 5 6 7 8 9 10 11 12;
        3: 1 2 3 4 5 6 7 8;
        4: 1 2 3 4 5 6;
    }
}

/// Computes `count` pixels, of which `first` describes the tile at the first one: tiles of heights as
/// equal as possible, for one of a single row would wait for its loads.
///
/// # Safety
/// As [`compute`], for all of the pixels: their pointers follow the first one's, their results lie
/// `stride` apart.
#[inline(always)]
pub(crate) unsafe fn compute_pixels<S: Simd>(first: Tile, vectors: usize, count: usize) {
    let tallest = S::TILES.iter().find(|shape| shape.0 == vectors).map_or(1, |shape| shape.1);
    let tiles = count.div_ceil(tallest);
    let mut tile = first;
    for i in 0..tiles {
        let height = count / tiles + usize::from(i < count % tiles);
        // SAFETY: the caller's promise; a tile asks for its part of the next weights.
        unsafe {
            if let (Some(of_tile), Some(next)) = (&mut tile.piece.next, first.piece.next) {
                of_tile.from = next.from.wrapping_add(next.values * i / tiles / LINE * LINE);
            }
            compute::<S>(&tile, vectors, height);
            tile.rows = tile.rows.add(height);
            tile.out = tile.out.add(height * tile.stride);
            if !tile.residual.is_null() {
                tile.residual = tile.residual.add(height * tile.stride);
            }
        }
    }
}

struct Fixed<'a, const M: usize, const V: usize>(&'a Tile);

impl<const M: usize, const V: usize> Kernel for Fixed<'_, M, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        // Shapes that a narrower set never asks for need not be compiled for it.
        if !S::TILES.iter().any(|&(vectors, rows)| vectors == V && rows >= M) {
            return;
        }
        let t = self.0;
        // SAFETY: the pointers are good for what the tile's fields say, by the promise that
        // `compute` was given; `run` is called by `S::enter` alone.
        unsafe {
            let lanes = |n: usize| if n + 1 < V { S::LANES } else { t.last };
            let mut sums = if t.piece.first {
                let bias: [S::V; V] = std::array::from_fn(|n| S::load(t.bias.add(n * S::LANES)));
                [bias; M]
            } else {
                std::array::from_fn(|m| {
                    std::array::from_fn(|n| S::load_first(t.out.add(m * t.stride + n * S::LANES), lanes(n)))
                })
            };
            // What the results go to and are added to comes from memory, while the sums are computed.
            for m in 0..M {
                for n in 0..V {
                    let at = m * t.stride + n * S::LANES;
                    S::prefetch(t.out.wrapping_add(at));
                    if t.piece.last && !t.residual.is_null() {
                        S::prefetch(t.residual.wrapping_add(at));
                    }
                }
            }
            // Without next weights: a line that is there already.
            let (mut next, line) = t.piece.next.map_or((t.bias, 0), |next| (next.from, LINE));
            for tap in 0..t.taps {
                let mut weights = t.weights.add(tap * t.weight_step);
                let rows: [*const f32; M] =
                    std::array::from_fn(|m| (*t.rows.add(tap * t.row_step + m)).add(t.offset));
                for k in 0..t.depth {
                    let w: [S::V; V] = std::array::from_fn(|n| {
                        S::prefetch(weights.wrapping_add(n * S::LANES + AHEAD));
                        S::load(weights.add(n * S::LANES))
                    });
                    weights = weights.add(V * S::LANES);
                    S::prefetch_second(next);
                    next = next.wrapping_add(line);
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let x = S::splat(*row.add(k * t.value_step));
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = S::fma(x, w, *sum);
                        }
                    }
                }
            }
            if !t.piece.last {
                for (m, sums) in sums.into_iter().enumerate() {
                    for (n, sum) in sums.into_iter().enumerate() {
                        S::store_first(t.out.add(m * t.stride + n * S::LANES), sum, lanes(n));
                    }
                }
                return;
            }
            // The usual activations are two instructions; the others go over the stored tile in a
            // loop, which keeps this function short.
            let (low, high) = t.act.bounds::<f32>();
            let (low, high) = (S::splat(low), S::splat(high));
            for (m, sums) in sums.into_iter().enumerate() {
                for (n, mut sum) in sums.into_iter().enumerate() {
                    let (at, whole) = (m * t.stride + n * S::LANES, n + 1 < V);
                    if !t.residual.is_null() {
                        let residual = t.residual.add(at);
                        let residual =
                            if whole { S::load(residual) } else { S::load_first(residual, t.last) };
                        sum = S::add(sum, residual);
                    }
                    let y = S::min(high, S::max(low, sum));
                    if whole { S::store(t.out.add(at), y) } else { S::store_first(t.out.add(at), y, t.last) }
                }
            }
            if !t.act.is_clamp() {
                for m in 0..M {
                    for n in 0..V {
                        let at = t.out.add(m * t.stride + n * S::LANES);
                        S::store_first(at, activate::<S>(S::load_first(at, lanes(n)), t.act), lanes(n));
                    }
                }
            }
        }
    }
}

/// Splits `vectors` into panels no wider than the set's widest tile: as few as possible, and as
/// equal as possible, since narrow tiles wait for loads.
pub(crate) fn panels(vectors: usize, widest: usize) -> impl Iterator<Item = usize> {
    let count = vectors.div_ceil(widest).max(1);
    (0..count).map(move |i| vectors / count + usize::from(i < vectors % count))
}
