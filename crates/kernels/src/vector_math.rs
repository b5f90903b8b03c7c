//! exp, and the activations, of a vector at a time.

use crate::epilogue::Activation;
use crate::simd::Simd;

/// eˣ to 2 units in the last place; 0 below −86.9, infinity where it overflows, NaN of NaN.
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
    /// Below it, results near the smallest normal number are zero.
    const LOWEST: f32 = -86.9;
    /// Above it, everything is infinite.
    const HIGHEST: f32 = 88.8;
    // SAFETY: the caller's promise.
    unsafe {
        let within = S::max(S::splat(LOWEST), S::min(S::splat(HIGHEST), x));
        let n = S::round(S::mul(within, S::splat(std::f32::consts::LOG2_E)));
        let r = S::fma(n, S::splat(-LN2_HIGH), within);
        let r = S::fma(n, S::splat(-LN2_LOW), r);
        let mut p = S::splat(COEFFICIENTS[0]);
        for c in &COEFFICIENTS[1..] {
            p = S::fma(p, r, S::splat(*c));
        }
        let y = S::fma(p, S::mul(r, r), S::add(r, S::splat(1.0)));
        S::zero_below(S::scale_exp2(y, n), x, S::splat(LOWEST))
    }
}

/// 1 / (1 + e⁻ˣ) to 2e-7; 0 below −86.
///
/// e⁻ˣ = 2ⁿ · 2ᶠ with n the whole number next to −x / ln 2: with 1 added to it, it need not be as exact
/// as [`exp`].
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
pub(crate) unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    /// Of 2ᶠ for |f| ≤ ½, highest power first: interpolated at Chebyshev's six points.
    const COEFFICIENTS: [f32; 6] =
        [1.339_086_3e-3, 9.676_032e-3, 5.550_357e-2, 2.402_210_7e-1, 6.931_472e-1, 1.000_000_1];
    /// Where 1 + e⁻ˣ is nearly 2¹²⁵.
    const LOWEST: f32 = -86.0;
    // SAFETY: the caller's promise.
    unsafe {
        let minus_log2_e = S::splat(-std::f32::consts::LOG2_E);
        let within = S::max(S::splat(LOWEST), S::min(S::splat(-LOWEST), x));
        let n = S::round(S::mul(within, minus_log2_e));
        let f = S::fma(within, minus_log2_e, S::sub(S::splat(0.0), n));
        let mut p = S::splat(COEFFICIENTS[0]);
        for c in &COEFFICIENTS[1..] {
            p = S::fma(p, f, S::splat(*c));
        }
        let y = S::reciprocal(S::add(S::splat(1.0), S::scale_exp2(p, n)));
        S::zero_below(y, x, S::splat(LOWEST))
    }
}

/// The error function to 6e-7: Abramowitz and Stegun, formula 7.1.26.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
pub(crate) unsafe fn erf<S: Simd>(x: S::V) -> S::V {
    /// The function is 1 long before.
    const LARGE: f32 = 16.0;
    const COEFFICIENTS: [f32; 5] = [1.061_405_4, -1.453_152, 1.421_413_7, -0.284_496_74, 0.254_829_6];
    // SAFETY: the caller's promise.
    unsafe {
        let one = S::splat(1.0);
        let size = S::abs(x);
        let t = S::reciprocal(S::fma(S::min(S::splat(LARGE), size), S::splat(0.327_591_1), one));
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

/// The derivative of `act` at every lane; of a corner that of its steeper side, but 0 at the ends of a clamp.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`.
#[inline(always)]
pub(crate) unsafe fn slope<S: Simd>(x: S::V, act: Activation) -> S::V {
    // SAFETY: the caller's promise.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let positive = S::splat(f32::MIN_POSITIVE);
        match act {
            Activation::None => one,
            Activation::Relu => S::zero_below(one, x, positive),
            Activation::Relu6 => {
                S::sub(S::zero_below(one, x, positive), S::zero_below(one, x, S::splat(6.0)))
            }
            Activation::LeakyRelu(slope) => {
                S::add(S::splat(slope), S::zero_below(S::splat(1.0 - slope), x, zero))
            }
            Activation::Silu => {
                let sigmoid = sigmoid::<S>(x);
                S::fma(S::mul(x, sigmoid), S::sub(one, sigmoid), sigmoid)
            }
            Activation::Gelu => {
                /// 1 / √(2π)
                const DENSITY: f32 = 0.398_942_3;
                let half = S::splat(0.5);
                let density = exp::<S>(S::mul(S::mul(x, x), S::splat(-0.5)));
                let share =
                    S::fma(half, erf::<S>(S::mul(x, S::splat(std::f32::consts::FRAC_1_SQRT_2))), half);
                S::fma(S::mul(x, S::splat(DENSITY)), density, share)
            }
        }
    }
}

/// `act` of `count` values at `at`.
///
/// # Safety
/// Inside [`Simd::enter`] of `S`; nobody else touches the values.
#[inline(always)]
pub(crate) unsafe fn activate_all<S: Simd>(at: *mut f32, count: usize, act: Activation) {
    let mut from = 0;
    while from < count {
        let lanes = S::LANES.min(count - from);
        // SAFETY: the caller's promise.
        unsafe {
            let y = activate::<S>(S::load_first(at.add(from), lanes), act);
            S::store_first(at.add(from), y, lanes);
        }
        from += S::LANES;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::isa::Isa;
    use crate::simd::{Kernel, dispatch};

    /// A function of a vector.
    #[derive(Debug, Clone, Copy)]
    enum Function {
        Exp,
        Sigmoid,
        Erf,
        Act(Activation),
    }

    /// A function of many values.
    struct Each<'a>(Function, &'a [f32]);

    impl Kernel for Each<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self) -> Vec<f32> {
            let mut ys = self.1.to_vec();
            for ys in ys.chunks_mut(S::LANES) {
                // SAFETY: a chunk holds as many values as it says; `run` is called by `S::enter`.
                unsafe {
                    let x = S::load_first(ys.as_ptr(), ys.len());
                    let y = match self.0 {
                        Function::Exp => exp::<S>(x),
                        Function::Sigmoid => sigmoid::<S>(x),
                        Function::Erf => erf::<S>(x),
                        Function::Act(act) => activate::<S>(x, act),
                    };
                    S::store_first(ys.as_mut_ptr(), y, ys.len());
                }
            }
            ys
        }
    }

    fn each(isa: Isa, function: Function, xs: &[f32]) -> Vec<f32> {
        dispatch(isa, Each(function, xs))
    }

    /// `count` values evenly from `low` to `high`.
    fn range(low: f32, high: f32, count: usize) -> Vec<f32> {
        (0..=count).map(|i| low + (high - low) * i as f32 / count as f32).collect()
    }

    /// The error function in f64: 2/√π · e^(−x²) · Σ 2ⁿ x²ⁿ⁺¹ / (2n + 1)!!, and 1 where that is 1.
    fn erf_exact(x: f64) -> f64 {
        if x.abs() > 6.0 {
            return x.signum();
        }
        let (mut term, mut sum) = (x, x);
        for n in 1..200 {
            term *= 2.0 * x * x / f64::from(2 * n + 1);
            sum += term;
        }
        sum * (-x * x).exp() * std::f64::consts::FRAC_2_SQRT_PI
    }

    #[test]
    fn exp_is_within_two_units_of_the_last_place_over_its_whole_range() {
        let xs: Vec<f32> = [range(-86.8, 88.72, 200_001), range(-1.0, 1.0, 100_001)].concat();
        for isa in Isa::available() {
            for (x, y) in xs.iter().zip(each(isa, Function::Exp, &xs)) {
                let exact = f64::from(*x).exp();
                let unit = f64::from((exact as f32).next_up()) - f64::from(exact as f32);
                assert!((f64::from(y) - exact).abs() <= 2.0 * unit, "exp({x}) = {y}, not {exact}, on {isa}");
            }
        }
    }

    #[test]
    fn sigmoid_erf_and_the_smooth_activations_follow_their_definitions() {
        let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
        let silu = |x: f64| x / (1.0 + (-x).exp());
        let gelu = |x: f64| 0.5 * x * (1.0 + erf_exact(x * std::f64::consts::FRAC_1_SQRT_2));
        type Exact<'a> = &'a dyn Fn(f64) -> f64;
        let cases: [(Function, Exact, f64); 4] = [
            (Function::Sigmoid, &sigmoid, 2e-7),
            (Function::Erf, &erf_exact, 6e-7),
            (Function::Act(Activation::Silu), &silu, 4e-7),
            (Function::Act(Activation::Gelu), &gelu, 4e-7),
        ];
        let xs: Vec<f32> = [range(-6.0, 6.0, 50_000), range(-200.0, 200.0, 20_000)].concat();
        for (function, exact, within) in cases {
            for isa in Isa::available() {
                for (x, y) in xs.iter().zip(each(isa, function, &xs)) {
                    let exact = exact(f64::from(*x));
                    let allowed = within * exact.abs().max(1.0);
                    assert!((f64::from(y) - exact).abs() <= allowed, "{function:?} of {x} is {y} on {isa}");
                }
            }
        }
    }

    #[test]
    fn the_ends_of_the_line_and_nan_are_defined() {
        let xs = [f32::NEG_INFINITY, f32::MIN, -87.0, 0.0, 88.73, f32::MAX, f32::INFINITY];
        for isa in Isa::available() {
            for (function, expected) in [
                (Function::Exp, [0.0, 0.0, 0.0, 1.0, f32::INFINITY, f32::INFINITY, f32::INFINITY]),
                (Function::Sigmoid, [0.0, 0.0, 0.0, 0.5, 1.0, 1.0, 1.0]),
                (Function::Erf, [-1.0, -1.0, -1.0, 0.0, 1.0, 1.0, 1.0]),
            ] {
                for (i, (y, expected)) in each(isa, function, &xs).into_iter().zip(expected).enumerate() {
                    assert!(
                        (y - expected).abs() < 1e-7 || y == expected,
                        "{function:?} of {} is {y} on {isa}",
                        xs[i]
                    );
                }
            }
            let smooth = [Activation::Silu, Activation::Gelu].map(Function::Act);
            for function in [Function::Exp, Function::Sigmoid, Function::Erf].into_iter().chain(smooth) {
                assert!(
                    each(isa, function, &[f32::NAN; 3]).iter().all(|y| y.is_nan()),
                    "{function:?} on {isa}"
                );
            }
        }
    }
}
