//! Convolutions of a few outputs, such as a flow's two or a box's four: a vector of outputs would be empty for
//! the most part, so the vectors lie along the inputs, and their lanes are added up at the end.

use super::PackedConv;
use super::pack::{ConvShape, Filters};
use super::pixels::Places;
use crate::aligned::Weights;
use crate::epilogue::clamp;
use crate::simd::{Kernel, MAX_LANES, Simd};
use crate::vector_math::activate;

/// As many as leave registers for the sums of several pixels.
const MOST_OUTPUTS: usize = 5;
/// With fewer, the vectors along the inputs would be empty for the most part, too.
const LEAST_INPUTS: usize = 16;

/// `[tap][output][input]`, inputs padded to whole vectors.
#[derive(Debug, Clone)]
pub(super) struct FewOutputs {
    weights: Weights,
    /// Inputs, padded.
    depth: usize,
}

impl FewOutputs {
    /// The weights of a convolution that has few outputs.
    pub(super) fn pack(shape: &ConvShape, filters: &Filters<impl Fn(usize, usize) -> usize>) -> Option<Self> {
        let ConvShape { groups, per_group, outputs, .. } = *shape;
        if groups != 1 || outputs > MOST_OUTPUTS || per_group < LEAST_INPUTS {
            return None;
        }
        let depth = per_group.next_multiple_of(MAX_LANES);
        let weights = Weights::written(filters.taps.len() * outputs * depth, |packed| {
            for (tap, &place) in filters.taps.iter().enumerate() {
                for output in 0..outputs {
                    let to = &mut packed[(tap * outputs + output) * depth..][..per_group];
                    for (input, to) in to.iter_mut().enumerate() {
                        *to = filters.values[(filters.at)(output, input) + place];
                    }
                }
            }
        });
        Some(Self { weights, depth })
    }

    /// [`PackedConv::pixels`] with all outputs.
    ///
    /// # Safety
    /// As there.
    #[inline(always)]
    pub(super) unsafe fn pixels<S: Simd>(
        &self,
        conv: &PackedConv,
        places: &Places,
        out: *mut f32,
        residual: *const f32,
    ) {
        let at_a_time = if S::LANES == MAX_LANES { 4 } else { 2 };
        let mut first = 0;
        while first < places.count {
            let pixels = if places.count - first < at_a_time { 1 } else { at_a_time };
            let tile = Tile { few: self, conv, places, first, out, residual };
            // SAFETY: S is entered already; the rest is the caller's promise.
            unsafe {
                match (conv.outputs, pixels) {
                    (1, 4) => S::enter(Fixed::<4, 1>(tile)),
                    (2, 4) => S::enter(Fixed::<4, 2>(tile)),
                    (3, 4) => S::enter(Fixed::<4, 3>(tile)),
                    (4, 4) => S::enter(Fixed::<4, 4>(tile)),
                    (5, 4) => S::enter(Fixed::<4, 5>(tile)),
                    (1, 2) => S::enter(Fixed::<2, 1>(tile)),
                    (2, 2) => S::enter(Fixed::<2, 2>(tile)),
                    (3, 2) => S::enter(Fixed::<2, 3>(tile)),
                    (4, 2) => S::enter(Fixed::<2, 4>(tile)),
                    (5, 2) => S::enter(Fixed::<2, 5>(tile)),
                    (1, _) => S::enter(Fixed::<1, 1>(tile)),
                    (2, _) => S::enter(Fixed::<1, 2>(tile)),
                    (3, _) => S::enter(Fixed::<1, 3>(tile)),
                    (4, _) => S::enter(Fixed::<1, 4>(tile)),
                    _ => S::enter(Fixed::<1, MOST_OUTPUTS>(tile)),
                }
            }
            first += pixels;
        }
        if !conv.act.is_clamp() {
            let values = places.count * conv.outputs;
            for at in (0..values).step_by(S::LANES) {
                let lanes = S::LANES.min(values - at);
                // SAFETY: the values are those just written; S is entered.
                unsafe {
                    let y = activate::<S>(S::load_first(out.add(at), lanes), conv.act);
                    S::store_first(out.add(at), y, lanes);
                }
            }
        }
    }
}

/// Some pixels from `first` on.
#[derive(Clone, Copy)]
struct Tile<'a> {
    few: &'a FewOutputs,
    conv: &'a PackedConv,
    places: &'a Places<'a>,
    first: usize,
    out: *mut f32,
    residual: *const f32,
}

/// `M` pixels, `N` outputs. A function of its own each: inlined together they would share one register allocation.
struct Fixed<'a, const M: usize, const N: usize>(Tile<'a>);

impl<const M: usize, const N: usize> Kernel for Fixed<'_, M, N> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Tile { few, conv, places, first, out, residual } = self.0;
        let whole = conv.inputs / S::LANES * S::LANES;
        let rest = conv.inputs - whole;
        // SAFETY: each place has `inputs` values, weights are padded to whole vectors, and the outputs of the pixels
        // lie one after the other; `run` is called by `S::enter`.
        unsafe {
            let mut sums = [[S::splat(0.0); N]; M];
            for tap in 0..places.taps {
                let rows: [*const f32; M] =
                    std::array::from_fn(|m| *places.pointers.as_ptr().add(tap * places.count + first + m));
                let weights = few.weights.as_ptr().add(tap * N * few.depth);
                for k in (0..whole).step_by(S::LANES) {
                    let w: [S::V; N] = std::array::from_fn(|n| S::load(weights.add(n * few.depth + k)));
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let x = S::load(row.add(k));
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = S::fma(x, w, *sum);
                        }
                    }
                }
                if rest > 0 {
                    let w: [S::V; N] = std::array::from_fn(|n| S::load(weights.add(n * few.depth + whole)));
                    for (sums, row) in sums.iter_mut().zip(rows) {
                        let x = S::load_first(row.add(whole), rest);
                        for (sum, w) in sums.iter_mut().zip(w) {
                            *sum = S::fma(x, w, *sum);
                        }
                    }
                }
            }
            let (low, high) = conv.act.bounds::<f32>();
            for (m, sums) in sums.into_iter().enumerate() {
                for (n, sum) in sums.into_iter().enumerate() {
                    let at = (first + m) * N + n;
                    let mut y = S::sum(sum) + conv.bias[n];
                    if !residual.is_null() {
                        y += *residual.add(at);
                    }
                    *out.add(at) = clamp(y, low, high);
                }
            }
        }
    }
}
