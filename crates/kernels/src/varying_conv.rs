//! Convolution whose filter differs from pixel to pixel.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Operation, compute, contiguous_nhwc, map_sizes};
use crate::packed::from_nhwc;
use crate::pixels::each_pixel;
use crate::tape::apply;
use crate::transpose::channels_last;

const NAME: &str = "spatially varying convolution";

/// What one of a pixel's weights is multiplied by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Candidate {
    /// The map's pixel so many rows down and columns to the right; zero outside the map.
    Shift {
        /// Rows, upwards if negative.
        down: isize,
        /// Columns, to the left if negative.
        right: isize,
    },
    /// The same pixel of the other map.
    Other,
    /// Nothing: the weight has no effect.
    Nothing,
}

/// `ys[b, c, p] = Σ_n weights[b, n, p] · candidate_n[b, c, p]`: each pixel has weights of its own, which all
/// channels share.
///
/// `xs` and `other`: `[B, C, H, W]`, `weights`: `[B, candidates, H, W]`. Result: like `xs`, channels last in memory
/// on the CPU. The candidates are never put side by side. Has gradients for all three.
///
/// # Errors
/// If a shape does not fit, or the types differ.
pub fn varying_conv2d(
    xs: &Tensor,
    weights: &Tensor,
    other: &Tensor,
    candidates: &[Candidate],
) -> Result<Tensor> {
    let (batch, channels, height, width) = map_sizes(NAME, xs)?;
    if weights.dims() != [batch, candidates.len(), height, width] || other.dims() != xs.dims() {
        bail!(
            "{NAME}: for a map of {:?} and {} candidates, expected weights of [{batch}, {}, {height}, {width}] and another map of the same shape, got {:?} and {:?}",
            xs.dims(),
            candidates.len(),
            candidates.len(),
            weights.dims(),
            other.dims()
        )
    }
    if [weights, other].iter().any(|ys| ys.dtype() != xs.dtype()) {
        bail!(
            "{NAME}: expected one type, got {:?}, {:?} and {:?}",
            xs.dtype(),
            weights.dtype(),
            other.dtype()
        )
    }
    if !matches!(xs.device(), Device::Cpu) || !matches!(xs.dtype(), DType::F32 | DType::F64) {
        return in_candle(xs, weights, other, candidates);
    }
    let op = Varying { batch, channels, height, width, candidates: candidates.to_vec() };
    from_nhwc(&apply(op, [&channels_last(xs)?, &channels_last(weights)?, &channels_last(other)?])?)
}

/// The same in candle's own operations.
fn in_candle(xs: &Tensor, weights: &Tensor, other: &Tensor, candidates: &[Candidate]) -> Result<Tensor> {
    let (_, _, height, width) = xs.dims4()?;
    let mut ys = xs.zeros_like()?;
    for (n, candidate) in candidates.iter().enumerate() {
        let values = match *candidate {
            Candidate::Nothing => continue,
            Candidate::Other => other.clone(),
            Candidate::Shift { down, right } => {
                let rows = shifted(xs, 2, down, height)?;
                shifted(&rows, 3, right, width)?
            }
        };
        ys = (ys + values.broadcast_mul(&weights.narrow(1, n, 1)?)?)?;
    }
    Ok(ys)
}

/// `ys[i] = xs[i + step]` along one dimension, zero outside.
fn shifted(xs: &Tensor, dim: usize, step: isize, size: usize) -> Result<Tensor> {
    let by = step.unsigned_abs().min(size);
    let (before, after) = if step < 0 { (by, 0) } else { (0, by) };
    xs.pad_with_zeros(dim, before, after)?.narrow(dim, after, size)
}

/// (map, weights, other map) → map, all `[B, H, W, …]`
#[derive(Debug, Clone)]
struct Varying {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    candidates: Vec<Candidate>,
}

impl Varying {
    /// The pixel, of the batch's, that lies so far from one of them; none outside the map.
    #[inline(always)]
    fn neighbour(&self, pixel: usize, down: isize, right: isize) -> Option<usize> {
        let (row, x) = (pixel / self.width, pixel % self.width);
        let y = (row % self.height).checked_add_signed(down).filter(|&y| y < self.height)?;
        let x = x.checked_add_signed(right).filter(|&x| x < self.width)?;
        Some((row / self.height * self.height + y) * self.width + x)
    }

    fn pixels(&self) -> usize {
        self.batch * self.height * self.width
    }

    fn shape_of(&self, channels: usize) -> Shape {
        (self.batch, self.height, self.width, channels).into()
    }

    /// A map of `channels` values a pixel: `pixel(p, values)` adds to the pixel's values, which are zeros.
    fn map_of<T: Float>(&self, isa: Isa, channels: usize, pixel: impl Fn(usize, &mut [T]) + Sync) -> Vec<T> {
        let mut ys = vec![T::ZERO; self.pixels() * channels];
        each_pixel(isa, &mut ys, channels, self.channels * self.candidates.len(), pixel);
        ys
    }
}

/// `ys += factor · xs`
#[inline(always)]
fn add<T: Float>(ys: &mut [T], factor: T, xs: &[T]) {
    for (y, &x) in ys.iter_mut().zip(xs) {
        *y += factor * x;
    }
}

#[inline(always)]
fn dot<T: Float>(xs: &[T], ys: &[T]) -> T {
    let mut sum = T::ZERO;
    for (&x, &y) in xs.iter().zip(ys) {
        sum += x * y;
    }
    sum
}

/// The values of a pixel.
#[inline(always)]
fn of<T>(xs: &[T], pixel: usize, channels: usize) -> &[T] {
    &xs[pixel * channels..][..channels]
}

impl Operation<3> for Varying {
    const NAME: &'static str = NAME;

    fn shape(&self) -> Shape {
        self.shape_of(self.channels)
    }

    fn run<T: Float>(&self, isa: Isa, [xs, weights, other]: [&[T]; 3]) -> Vec<T> {
        let c = self.channels;
        self.map_of(isa, c, |pixel, ys: &mut [T]| {
            let weights = of(weights, pixel, self.candidates.len());
            for (candidate, &weight) in self.candidates.iter().zip(weights) {
                match *candidate {
                    Candidate::Nothing => {}
                    Candidate::Other => add(ys, weight, of(other, pixel, c)),
                    Candidate::Shift { down, right } => {
                        if let Some(from) = self.neighbour(pixel, down, right) {
                            add(ys, weight, of(xs, from, c));
                        }
                    }
                }
            }
        })
    }

    fn gradients(&self, [xs, weights, other]: [&Tensor; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let grad = &contiguous_nhwc(grad)?;
        Ok([
            Some(compute(&ToMap(self.clone()), [weights, grad])?),
            Some(compute(&ToWeights(self.clone()), [xs, other, grad])?),
            Some(compute(&ToOther(self.clone()), [weights, grad])?),
        ])
    }
}

/// (weights, gradient) → the map's gradient: each pixel gathers what it was used for.
struct ToMap(Varying);

impl Operation<2> for ToMap {
    const NAME: &'static str = "spatially varying convolution's gradient for the map";

    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn run<T: Float>(&self, isa: Isa, [weights, grad]: [&[T]; 2]) -> Vec<T> {
        let Varying { channels: c, candidates, .. } = &self.0;
        self.0.map_of(isa, *c, |pixel, ys: &mut [T]| {
            for (n, candidate) in candidates.iter().enumerate() {
                if let Candidate::Shift { down, right } = *candidate
                    && let Some(user) = self.0.neighbour(pixel, -down, -right)
                {
                    add(ys, of(weights, user, candidates.len())[n], of(grad, user, *c));
                }
            }
        })
    }
}

/// (map, other map, gradient) → the weights' gradient.
struct ToWeights(Varying);

impl Operation<3> for ToWeights {
    const NAME: &'static str = "spatially varying convolution's gradient for the weights";

    fn shape(&self) -> Shape {
        self.0.shape_of(self.0.candidates.len())
    }

    fn run<T: Float>(&self, isa: Isa, [xs, other, grad]: [&[T]; 3]) -> Vec<T> {
        let Varying { channels: c, candidates, .. } = &self.0;
        self.0.map_of(isa, candidates.len(), |pixel, ys: &mut [T]| {
            let grad = of(grad, pixel, *c);
            for (y, candidate) in ys.iter_mut().zip(candidates) {
                let from = match *candidate {
                    Candidate::Nothing => None,
                    Candidate::Other => Some(of(other, pixel, *c)),
                    Candidate::Shift { down, right } => {
                        self.0.neighbour(pixel, down, right).map(|from| of(xs, from, *c))
                    }
                };
                *y = from.map_or(T::ZERO, |from| dot(grad, from));
            }
        })
    }
}

/// (weights, gradient) → the other map's gradient.
struct ToOther(Varying);

impl Operation<2> for ToOther {
    const NAME: &'static str = "spatially varying convolution's gradient for the other map";

    fn shape(&self) -> Shape {
        self.0.shape()
    }

    fn run<T: Float>(&self, isa: Isa, [weights, grad]: [&[T]; 2]) -> Vec<T> {
        let Varying { channels: c, candidates, .. } = &self.0;
        self.0.map_of(isa, *c, |pixel, ys: &mut [T]| {
            let weights = of(weights, pixel, candidates.len());
            for (candidate, &weight) in candidates.iter().zip(weights) {
                if *candidate == Candidate::Other {
                    add(ys, weight, of(grad, pixel, *c));
                }
            }
        })
    }
}
