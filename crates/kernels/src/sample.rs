//! Sampling a map at given positions: by a grid, and along a flow.

use candle_core::{Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::bilinear::Corners;
use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Custom, Operation, contiguous_nhwc, items_per_task, kernel_dtype, map_sizes};
use crate::packed::from_nhwc;
use crate::simd::{Kernel, Simd, dispatch};
use crate::transpose::channels_last;

/// What lies outside a map that is sampled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// Zeros: a sample half outside takes half of its value from them.
    Zeros,
    /// The nearest pixel of the border.
    Border,
}

/// Samples `xs`, `[B, C, H, W]`, between its pixels at the positions `grid`, `[B, h, w, 2]` (x, y), as
/// PyTorch's `grid_sample` does: −1 and 1 are the centres of the first and last pixel with
/// `align_corners`, otherwise their outer edges. Result: `[B, C, h, w]`.
///
/// Any position is allowed. One that is not finite lies outside; with [`Outside::Border`], a NaN
/// counts as the first column or row.
///
/// Has gradients for both; a coordinate that is moved to the border has none.
///
/// # Errors
/// If a shape does not fit, or the operands are not of one float type on the CPU.
pub fn grid_sample(xs: &Tensor, grid: &Tensor, outside: Outside, align_corners: bool) -> Result<Tensor> {
    let (batch, _, height, width) = map_sizes("grid-sample", xs)?;
    let (out_h, out_w) = match *grid.dims() {
        [b, h, w, 2] if b == batch && h * w > 0 => (h, w),
        _ => bail!("grid-sample: expected a grid of [{batch}, h, w, 2], got {:?}", grid.dims()),
    };
    let axis = |pixels: usize| {
        let pixels = pixels as f64;
        let scale = if align_corners { (pixels - 1.0) / 2.0 } else { pixels / 2.0 };
        Axis { scale, offset: (pixels - 1.0) / 2.0, step: 0.0 }
    };
    sample("grid-sample", xs, grid, (out_h, out_w), (axis(height), axis(width)), outside)
}

/// Samples `xs`, `[B, C, H, W]`, at each pixel's place plus its flow (x to the right, y down, in
/// pixels): `ys[b, c, y, x] = xs[b, c, y + flow[b, 1, y, x], x + flow[b, 0, y, x]]`, bilinearly.
///
/// `flow`: `[B, 2, h, w]`, which need not have the size of `xs`. Result: `[B, C, h, w]`. Positions
/// outside and gradients are as for [`grid_sample`].
///
/// # Errors
/// As [`grid_sample`].
pub fn warp(xs: &Tensor, flow: &Tensor, outside: Outside) -> Result<Tensor> {
    let (batch, _, _, _) = map_sizes("warp", xs)?;
    let (out_h, out_w) = match *flow.dims() {
        [b, 2, h, w] if b == batch && h * w > 0 => (h, w),
        _ => bail!("warp: expected a flow of [{batch}, 2, h, w], got {:?}", flow.dims()),
    };
    let axis = Axis { scale: 1.0, offset: 0.0, step: 1.0 };
    sample("warp", xs, &channels_last(flow)?, (out_h, out_w), (axis, axis), outside)
}

fn sample(
    name: &str,
    xs: &Tensor,
    positions: &Tensor,
    (out_h, out_w): (usize, usize),
    (rows, columns): (Axis, Axis),
    outside: Outside,
) -> Result<Tensor> {
    let dtype = kernel_dtype(name, &[xs, positions])?;
    let (batch, channels, height, width) = xs.dims4()?;
    let op = Sample { batch, channels, height, width, out_h, out_w, rows, columns, outside };
    let positions = positions.to_dtype(dtype)?.contiguous()?;
    let ys = channels_last(&xs.to_dtype(dtype)?)?.apply_op2(&positions, Custom(op))?;
    from_nhwc(&ys)?.to_dtype(xs.dtype())
}

/// From a given coordinate to one in pixels: `scale · given + offset + step · the output's index`.
#[derive(Debug, Clone, Copy)]
struct Axis {
    scale: f64,
    offset: f64,
    step: f64,
}

/// (map `[B, H, W, C]`, positions `[B, h, w, 2]`) → `[B, h, w, C]`
#[derive(Clone, Copy)]
struct Sample {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
    out_h: usize,
    out_w: usize,
    rows: Axis,
    columns: Axis,
    outside: Outside,
}

impl Sample {
    /// What the sample at an output pixel of the batch reads, and whether it was moved to the border:
    /// (row, column).
    #[inline(always)]
    fn corners<T: Float>(&self, pixel: usize, positions: &[T]) -> (Option<Corners>, (bool, bool)) {
        let place = |given: T, axis: Axis, index: usize, size: usize| {
            let at = axis.scale * given.to_f64() + axis.offset + axis.step * index as f64;
            match self.outside {
                Outside::Zeros => (at, false),
                // `max` leaves a NaN for 0.
                Outside::Border => {
                    let last = (size - 1) as f64;
                    (at.max(0.0).min(last), !(at > 0.0 && at < last))
                }
            }
        };
        let (y, at_y) =
            place(positions[2 * pixel + 1], self.rows, pixel / self.out_w % self.out_h, self.height);
        let (x, at_x) = place(positions[2 * pixel], self.columns, pixel % self.out_w, self.width);
        (Corners::new(y, x, self.height, self.width), (at_y, at_x))
    }

    /// Values of one image's map.
    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// Output pixels of one image.
    fn out_pixels(&self) -> usize {
        self.out_h * self.out_w
    }
}

impl Operation<2> for Sample {
    const NAME: &'static str = "bilinear-sample";

    fn shape(&self) -> Shape {
        (self.batch, self.out_h, self.out_w, self.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, positions]: [&[T]; 2]) -> Vec<T> {
        let pixels = self.batch * self.out_pixels();
        let per_task = items_per_task(pixels, 4 * self.channels + 16);
        let mut ys = vec![T::ZERO; pixels * self.channels];
        ys.par_chunks_mut(per_task * self.channels).enumerate().for_each(|(task, ys)| {
            dispatch(isa, Forward { op: self, first: task * per_task, xs, positions, ys });
        });
        ys
    }

    fn gradients(&self, [xs, positions]: [&Tensor; 2], grad: &Tensor) -> Result<[Option<Tensor>; 2]> {
        let grad = contiguous_nhwc(grad)?;
        let to_xs = positions.apply_op2_no_bwd(&grad, &Custom(ToMap(*self)))?;
        let to_positions = xs.apply_op3_no_bwd(positions, &grad, &Custom(ToPositions(*self)))?;
        Ok([Some(to_xs), Some(to_positions)])
    }
}

/// Some output pixels.
struct Forward<'a, T> {
    op: &'a Sample,
    first: usize,
    xs: &'a [T],
    positions: &'a [T],
    /// Zeros before.
    ys: &'a mut [T],
}

impl<T: Float> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let op = self.op;
        for (i, ys) in self.ys.chunks_exact_mut(op.channels).enumerate() {
            let pixel = self.first + i;
            if let (Some(corners), _) = op.corners(pixel, self.positions) {
                let xs = &self.xs[pixel / op.out_pixels() * op.image()..][..op.image()];
                corners.sample(xs, op.channels, T::from_f64(1.0), ys);
            }
        }
    }
}

/// (positions, gradient of the samples) → gradient of the map
struct ToMap(Sample);

impl Operation<2> for ToMap {
    const NAME: &'static str = "bilinear-sample-map-grad";

    fn shape(&self) -> Shape {
        (self.0.batch, self.0.height, self.0.width, self.0.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [positions, grad]: [&[T]; 2]) -> Vec<T> {
        let op = &self.0;
        let mut to_map = vec![T::ZERO; op.batch * op.image()];
        // Each task goes over all positions and serves those that fall into its rows: no two tasks
        // write to one place, and the order of additions is always the same.
        let rows = op.height.div_ceil(rayon::current_num_threads());
        to_map.par_chunks_mut(op.image()).enumerate().for_each(|(image, to_map)| {
            to_map.par_chunks_mut(rows * op.width * op.channels).enumerate().for_each(|(task, to_map)| {
                let first = task * rows * op.width;
                dispatch(isa, Scatter { op, image, first, positions, grad, to_map });
            });
        });
        to_map
    }
}

/// The gradient of some rows of one image's map.
struct Scatter<'a, T> {
    op: &'a Sample,
    image: usize,
    /// The rows' first pixel.
    first: usize,
    positions: &'a [T],
    grad: &'a [T],
    to_map: &'a mut [T],
}

impl<T: Float> Kernel for Scatter<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (op, c) = (self.op, self.op.channels);
        let pixels = self.first..self.first + self.to_map.len() / c;
        for pixel in self.image * op.out_pixels()..(self.image + 1) * op.out_pixels() {
            let (Some(corners), _) = op.corners(pixel, self.positions) else { continue };
            corners.each(|at, weight, _| {
                if pixels.contains(&at) {
                    let weight = T::from_f64(weight);
                    let to = &mut self.to_map[(at - self.first) * c..][..c];
                    for (to, &grad) in to.iter_mut().zip(&self.grad[pixel * c..][..c]) {
                        *to += weight * grad;
                    }
                }
            });
        }
    }
}

/// (map, positions, gradient of the samples) → gradient of the positions
struct ToPositions(Sample);

impl Operation<3> for ToPositions {
    const NAME: &'static str = "bilinear-sample-position-grad";

    fn shape(&self) -> Shape {
        (self.0.batch, self.0.out_h, self.0.out_w, 2).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, positions, grad]: [&[T]; 3]) -> Vec<T> {
        let op = &self.0;
        let pixels = op.batch * op.out_pixels();
        let per_task = items_per_task(pixels, 8 * op.channels + 16);
        let mut to_positions = vec![T::ZERO; 2 * pixels];
        to_positions.par_chunks_mut(2 * per_task).enumerate().for_each(|(task, to)| {
            dispatch(isa, Slopes { op, first: task * per_task, xs, positions, grad, to });
        });
        to_positions
    }
}

/// The gradient of some positions.
struct Slopes<'a, T> {
    op: &'a Sample,
    first: usize,
    xs: &'a [T],
    positions: &'a [T],
    grad: &'a [T],
    /// Zeros before.
    to: &'a mut [T],
}

impl<T: Float> Kernel for Slopes<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (op, c) = (self.op, self.op.channels);
        for (i, to) in self.to.chunks_exact_mut(2).enumerate() {
            let pixel = self.first + i;
            let (Some(corners), moved) = op.corners(pixel, self.positions) else { continue };
            let xs = &self.xs[pixel / op.out_pixels() * op.image()..][..op.image()];
            let (to_y, to_x, _) = corners.slopes(xs, c, &self.grad[pixel * c..][..c]);
            if !moved.1 {
                to[0] = to_x * T::from_f64(op.columns.scale);
            }
            if !moved.0 {
                to[1] = to_y * T::from_f64(op.rows.scale);
            }
        }
    }
}
