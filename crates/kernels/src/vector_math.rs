//! exp, and the activations, of a vector at a time.

use crate::epilogue::Activation;
use crate::simd::Simd;

/// eˣ to 2 units in the last place; 0 below −87.3, the largest normal number above 88.7, NaN of NaN.
///
/// Cephes' `expf`: x = n·ln 2 + r, eʳ by a polynomial of degree 6.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
pub(crate) unsafe fn exp<S: Simd>(x: S::V) -> S::V {
    // ln 2 in two parts, so that n·ln 2 loses nothing.
    const LN2_HIGH: f32 = 0.693_359_4;
    const LN2_LOW: f32 = -2.121_944_4e-4;
    const COEFFICIENTS: [f32; 6] =
        [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];
    // SAFETY: the caller's promise.
    unsafe {
        let x = S::max(S::splat(-87.3), S::min(S::splat(88.7), x));
        let n = S::min(S::splat(127.0), S::round(S::mul(x, S::splat(std::f32::consts::LOG2_E))));
        let r = S::fma(n, S::splat(-LN2_HIGH), x);
        let r = S::fma(n, S::splat(-LN2_LOW), r);
        let mut p = S::splat(COEFFICIENTS[0]);
        for c in &COEFFICIENTS[1..] {
            p = S::fma(p, r, S::splat(*c));
        }
        let y = S::fma(p, S::mul(r, r), S::add(r, S::splat(1.0)));
        S::mul(y, S::exp2_whole(n))
    }
}

/// 1 / (1 + e⁻ˣ)
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, exp::<S>(S::sub(S::splat(0.0), x))))
    }
}

/// The error function to 1.5e-7: Abramowitz and Stegun, formula 7.1.26.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
pub(crate) unsafe fn erf<S: Simd>(x: S::V) -> S::V {
    const COEFFICIENTS: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    // SAFETY: the caller's promise.
    unsafe {
        let one = S::splat(1.0);
        let size = S::abs(x);
        let t = S::div(one, S::fma(size, S::splat(0.327_591_1), one));
        let mut p = S::splat(COEFFICIENTS[0]);
        for c in &COEFFICIENTS[1..] {
            p = S::fma(p, t, S::splat(*c));
        }
        let tail = S::mul(S::mul(p, t), exp::<S>(S::sub(S::splat(0.0), S::mul(size, size))));
        S::copysign(S::max(S::splat(0.0), S::sub(one, tail)), x)
    }
}

/// `act` of every lane; a NaN stays a NaN.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
pub(crate) unsafe fn activate<S: Simd>(x: S::V, act: Activation) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        match act {
            Activation::None => x,
            Activation::Relu => S::max(S::splat(0.0), x),
            Activation::Relu6 => S::min(S::splat(6.0), S::max(S::splat(0.0), x)),
            Activation::LeakyRelu(slope) => {
                S::fma(S::splat(slope), S::min(S::splat(0.0), x), S::max(S::splat(0.0), x))
            }
            Activation::Silu => S::mul(x, sigmoid::<S>(x)),
            Activation::Gelu => {
                let half = S::mul(x, S::splat(0.5));
                S::fma(half, erf::<S>(S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2))), half)
            }
        }
    }
}
