//! A map's memory as rows of channels: what goes over it channel by channel.
//!
//! Everything per channel is a vector that repeats. Narrow rows are taken several at a time, with the vector repeated as
//! often, which makes all loops long.

use std::mem::MaybeUninit;

use candle_core::Shape;

use crate::epilogue::{Activation, Float};
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{gather, items_per_task};

/// Values that a loop goes over at least, where a map has as many.
const WIDE: usize = 256;

/// The sizes of a map, channels last.
#[derive(Debug, Clone)]
pub(crate) struct Map {
    pub(crate) shape: Shape,
    pub(crate) pixels: usize,
    pub(crate) channels: usize,
}

impl Map {
    pub(crate) fn values(&self) -> usize {
        self.pixels * self.channels
    }

    /// Pixels that a loop takes at a time.
    pub(crate) fn repeats(&self) -> usize {
        WIDE.div_ceil(self.channels).min(self.pixels)
    }

    /// Values of a loop.
    pub(crate) fn wide(&self) -> usize {
        self.repeats() * self.channels
    }

    /// Values of a task: whole loops.
    pub(crate) fn share(&self, operations: usize) -> usize {
        let loops = self.pixels.div_ceil(self.repeats());
        items_per_task(loops, operations * self.wide()) * self.wide()
    }

    /// A vector of channels, repeated for a loop.
    pub(crate) fn repeated<T: Float>(&self, f: impl Fn(usize) -> T) -> Vec<T> {
        (0..self.wide()).map(|i| f(i % self.channels)).collect()
    }

    /// A loop's values, summed for each channel.
    pub(crate) fn gathered<T: Float>(&self, wide: &[T]) -> Vec<f64> {
        let mut sums = vec![0.0; self.channels];
        for row in wide.chunks_exact(self.channels) {
            sums.iter_mut().zip(row).for_each(|(sum, value)| *sum += value.to_f64());
        }
        sums
    }
}

/// Mean and variance of each channel.
pub(crate) struct Statistics {
    pub(crate) mean: Vec<f64>,
    pub(crate) variance: Vec<f64>,
}

impl Statistics {
    /// Of the pixels in `xs`.
    pub(crate) fn of<T: Float>(map: &Map, isa: Isa, xs: &[T]) -> Self {
        let share = map.share(3);
        let parts = gather(xs.len().div_ceil(share), |i| {
            dispatch(isa, Deviations { map, xs: &xs[i * share..xs.len().min((i + 1) * share)] })
        });
        // Parts are joined two by two: Chan, Golub and LeVeque, "Updating formulae and a pairwise
        // algorithm for computing sample variances", 1979.
        let (mut mean, mut squares) = (vec![0.0; map.channels], vec![0.0; map.channels]);
        let mut count = 0.0;
        for (part, (sums, square_sums)) in parts.into_iter().enumerate() {
            let from = part * share;
            let pixels = (share.min(xs.len() - from) / map.channels) as f64;
            for c in 0..map.channels {
                let part_mean = xs[from + c].to_f64() + sums[c] / pixels;
                let part_squares = square_sums[c] - sums[c] * sums[c] / pixels;
                let delta = part_mean - mean[c];
                mean[c] += delta * pixels / (count + pixels);
                squares[c] += part_squares + delta * delta * count * pixels / (count + pixels);
            }
            count += pixels;
        }
        let variance = squares.into_iter().map(|square| (square / count).max(0.0)).collect();
        Self { mean, variance }
    }
}

/// Sums of values and of their squares, both less the first pixel's values.
struct Deviations<'a, T> {
    map: &'a Map,
    xs: &'a [T],
}

impl<T: Float> Kernel for Deviations<'_, T> {
    type Output = (Vec<f64>, Vec<f64>);

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        let Self { map, xs } = self;
        let wide = map.wide();
        let origin = map.repeated(|c| xs[c]);
        let (mut sums, mut squares) = (vec![T::ZERO; wide], vec![T::ZERO; wide]);
        for xs in xs.chunks(wide) {
            let n = xs.len();
            let (origin, sums, squares) = (&origin[..n], &mut sums[..n], &mut squares[..n]);
            for k in 0..n {
                let deviation = xs[k] - origin[k];
                sums[k] += deviation;
                squares[k] += deviation * deviation;
            }
        }
        (map.gathered(&sums), map.gathered(&squares))
    }
}

/// The sums over some pixels.
pub(crate) struct Gathering<'a, T> {
    pub(crate) map: &'a Map,
    pub(crate) act: Activation,
    pub(crate) grad: &'a [T],
    pub(crate) xs: &'a [T],
    pub(crate) residual: Option<&'a [T]>,
    /// Repeated, as are the others.
    pub(crate) scale: &'a [T],
    pub(crate) shift: &'a [T],
    pub(crate) mean: &'a [T],
    /// Of what is kept.
    pub(crate) factor: &'a [T],
    pub(crate) kept: Option<&'a mut [MaybeUninit<T>]>,
}

impl<T: Float> Kernel for Gathering<'_, T> {
    type Output = [Vec<f64>; 2];

    #[inline(always)]
    fn run<S: Simd>(self) -> Self::Output {
        let Self { map, act, grad, xs, residual, scale, shift, mean, factor, mut kept } = self;
        let wide = map.wide();
        let (lo, hi) = act.bounds::<T>();
        let (mut of_grad, mut along_xs) = (vec![T::ZERO; wide], vec![T::ZERO; wide]);
        for (i, (grad, xs)) in grad.chunks(wide).zip(xs.chunks(wide)).enumerate() {
            let n = grad.len();
            let (xs, scale, shift, mean, factor) =
                (&xs[..n], &scale[..n], &shift[..n], &mean[..n], &factor[..n]);
            let (of_grad, along_xs) = (&mut of_grad[..n], &mut along_xs[..n]);
            let residual = residual.map(|all| &all[i * wide..][..n]);
            let kept = kept.as_mut().map(|all| &mut all[i * wide..][..n]);
            let passed = |k: usize, residual: T| {
                let y = xs[k] * scale[k] + shift[k] + residual;
                if y > lo && y < hi { grad[k] } else { T::ZERO }
            };
            let mut add = |k: usize, passed: T| {
                of_grad[k] += passed;
                along_xs[k] += passed * (xs[k] - mean[k]);
            };
            match (residual, kept) {
                (None, None) => (0..n).for_each(|k| add(k, passed(k, T::ZERO))),
                (Some(residual), None) => (0..n).for_each(|k| add(k, passed(k, residual[k]))),
                (None, Some(kept)) => {
                    for k in 0..n {
                        let passed = passed(k, T::ZERO);
                        add(k, passed);
                        kept[k].write(passed * factor[k]);
                    }
                }
                (Some(residual), Some(kept)) => {
                    for k in 0..n {
                        let passed = passed(k, residual[k]);
                        add(k, passed);
                        kept[k].write(passed * factor[k]);
                    }
                }
            }
        }
        [map.gathered(&of_grad), map.gathered(&along_xs)]
    }
}
