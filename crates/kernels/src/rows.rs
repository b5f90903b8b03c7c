//! Sums and softmax of a row of values.

use crate::epilogue::Float;
use crate::simd::{MAX_LANES, Simd};
use crate::vector_math::exp;

/// Σ f of the rows' values at the same place, in as many partial sums as the widest vectors have
/// lanes. The rows are of one length.
#[inline(always)]
pub(crate) fn sum<T: Float, const N: usize>(rows: [&[T]; N], f: impl Fn([T; N]) -> T) -> T {
    let (whole, rest) =
        (rows.map(|row| row.as_chunks::<MAX_LANES>().0), rows.map(|row| row.as_chunks::<MAX_LANES>().1));
    let mut sums = [T::ZERO; MAX_LANES];
    for i in 0..whole[0].len() {
        let chunks = whole.map(|chunks| &chunks[i]);
        for (lane, sum) in sums.iter_mut().enumerate() {
            *sum += f(chunks.map(|chunk| chunk[lane]));
        }
    }
    for i in 0..rest[0].len() {
        sums[i] += f(rest.map(|rest| rest[i]));
    }
    // By halves: sixteen additions one after the other would take as long as a short row.
    let mut width = MAX_LANES;
    while width > 1 {
        width /= 2;
        let (low, high) = sums.split_at_mut(width);
        low.iter_mut().zip(high).for_each(|(low, high)| *low += *high);
    }
    sums[0]
}

/// What a row of scores is shifted by before the exponential: its largest, or 0 where that is −∞,
/// so that a row that is masked as a whole has weights of 0.
#[inline(always)]
pub(crate) fn shift<T: Float>(largest: T) -> T {
    if largest == T::NEG_INFINITY { T::ZERO } else { largest }
}

/// What a row's weights are multiplied by to sum to 1. The largest weight is 1, so that a smaller
/// sum is that of a row that is masked as a whole.
#[inline(always)]
pub(crate) fn normaliser<T: Float>(sum: T) -> T {
    T::one() / if sum < T::one() { T::one() } else { sum }
}

/// The largest of whole vectors.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`; `row` holds whole vectors of it.
#[inline(always)]
pub(crate) unsafe fn largest<S: Simd>(row: &[f32]) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let mut largest = S::splat(f32::NEG_INFINITY);
        for xs in row.chunks_exact(S::LANES) {
            largest = S::max(S::load(xs.as_ptr()), largest);
        }
        S::largest(largest)
    }
}

/// Adds `other` to the row's first values and returns its largest; the rest of the row is whole vectors.
///
/// # Safety
/// As [`largest`].
#[inline(always)]
pub(crate) unsafe fn add_largest<S: Simd>(row: &mut [f32], other: &[f32]) -> f32 {
    // SAFETY: the caller's promise; a chunk of `other` holds as many values as it says.
    unsafe {
        let mut largest = S::splat(f32::NEG_INFINITY);
        for (xs, other) in row.chunks_exact_mut(S::LANES).zip(other.chunks(S::LANES)) {
            let y = S::add(S::load(xs.as_ptr()), S::load_first(other.as_ptr(), other.len()));
            S::store(xs.as_mut_ptr(), y);
            largest = S::max(y, largest);
        }
        S::largest(largest)
    }
}

/// Replaces whole vectors by e^(x − shift) and sums them.
///
/// # Safety
/// As [`largest`].
#[inline(always)]
pub(crate) unsafe fn exp_shifted<S: Simd>(row: &mut [f32], shift: f32) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let shift = S::splat(shift);
        let mut sum = S::splat(0.0);
        for xs in row.chunks_exact_mut(S::LANES) {
            let y = exp::<S>(S::sub(S::load(xs.as_ptr()), shift));
            S::store(xs.as_mut_ptr(), y);
            sum = S::add(sum, y);
        }
        S::sum(sum)
    }
}

/// Multiplies `len` values at `row`.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`; `row` is good for `len` values that nobody else touches.
#[inline(always)]
pub(crate) unsafe fn multiply<S: Simd>(row: *mut f32, len: usize, factor: f32) {
    // SAFETY: the caller's promise.
    unsafe {
        let factor = S::splat(factor);
        for from in (0..len).step_by(S::LANES) {
            let (p, lanes) = (row.add(from), S::LANES.min(len - from));
            S::store_first(p, S::mul(S::load_first(p, lanes), factor), lanes);
        }
    }
}
