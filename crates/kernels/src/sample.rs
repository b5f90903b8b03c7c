//! Sampling a map at given positions: by a grid, and along a flow.

use candle_core::{Result, Shape, Tensor, bail};

use crate::bilinear::{Corners, share_bands};
use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Custom, Operation, contiguous_nhwc, kernel_dtype, map_sizes};
use crate::packed::from_nhwc;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{items_per_task, share_chunks};
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
    /// Calls `f(column, corners, whether the position was moved to the border: (row, column))` for each
    /// sample of a row of the batch's outputs that touches the map.
    #[inline(always)]
    fn each_sample<T: Float>(
        &self,
        row: usize,
        positions: &[T],
        mut f: impl FnMut(usize, &Corners, (bool, bool)),
    ) {
        let y = row % self.out_h;
        for (x, position) in positions[2 * row * self.out_w..][..2 * self.out_w].chunks_exact(2).enumerate() {
            let (down, moved_y) = self.place(position[1], self.rows, y, self.height);
            let (right, moved_x) = self.place(position[0], self.columns, x, self.width);
            if let Some(corners) = Corners::new(down, right, self.height, self.width) {
                f(x, &corners, (moved_y, moved_x));
            }
        }
    }

    /// A coordinate in pixels, and whether it was moved to the border.
    #[inline(always)]
    fn place<T: Float>(&self, given: T, axis: Axis, index: usize, size: usize) -> (f64, bool) {
        let at = axis.scale * given.to_f64() + axis.offset + axis.step * index as f64;
        match self.outside {
            Outside::Zeros => (at, false),
            // `max` leaves a NaN for 0.
            Outside::Border => {
                let last = (size - 1) as f64;
                (at.max(0.0).min(last), !(at > 0.0 && at < last))
            }
        }
    }

    /// Values of one image's map.
    fn image(&self) -> usize {
        self.height * self.width * self.channels
    }

    /// The map of the image that a row of the batch's outputs is of.
    #[inline(always)]
    fn map<'a, T>(&self, row: usize, xs: &'a [T]) -> &'a [T] {
        &xs[row / self.out_h * self.image()..][..self.image()]
    }
}

impl Operation<2> for Sample {
    const NAME: &'static str = "bilinear-sample";

    fn shape(&self) -> Shape {
        (self.batch, self.out_h, self.out_w, self.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, positions]: [&[T]; 2]) -> Vec<T> {
        let (rows, row) = (self.batch * self.out_h, self.out_w * self.channels);
        let per_task = items_per_task(rows, 4 * row + 16 * self.out_w);
        let mut ys = vec![T::ZERO; rows * row];
        share_chunks(&mut ys, per_task * row, |task, ys| {
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

/// Some output rows.
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
        let (op, c) = (self.op, self.op.channels);
        for (i, ys) in self.ys.chunks_exact_mut(op.out_w * c).enumerate() {
            let row = self.first + i;
            let xs = op.map(row, self.xs);
            op.each_sample(row, self.positions, |x, corners, _| {
                corners.sample(xs, c, T::from_f64(1.0), &mut ys[x * c..][..c]);
            });
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
        share_bands(&mut to_map, (op.height, op.width, op.channels), |image, first, to_map| {
            dispatch(isa, Scatter { op, image, first, positions, grad, to_map });
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
        for row in self.image * op.out_h..(self.image + 1) * op.out_h {
            let grad = &self.grad[row * op.out_w * c..][..op.out_w * c];
            op.each_sample(row, self.positions, |x, corners, _| {
                corners.each(|at, weight, _| {
                    if pixels.contains(&at) {
                        let weight = T::from_f64(weight);
                        let to = &mut self.to_map[(at - self.first) * c..][..c];
                        for (to, &grad) in to.iter_mut().zip(&grad[x * c..][..c]) {
                            *to += weight * grad;
                        }
                    }
                });
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
        let (rows, row) = (op.batch * op.out_h, 2 * op.out_w);
        let per_task = items_per_task(rows, (4 * op.channels + 8) * row);
        let mut to_positions = vec![T::ZERO; rows * row];
        share_chunks(&mut to_positions, per_task * row, |task, to| {
            dispatch(isa, Slopes { op, first: task * per_task, xs, positions, grad, to });
        });
        to_positions
    }
}

/// The gradient of some rows of positions.
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
        for (i, to) in self.to.chunks_exact_mut(2 * op.out_w).enumerate() {
            let row = self.first + i;
            let (xs, grad) = (op.map(row, self.xs), &self.grad[row * op.out_w * c..][..op.out_w * c]);
            op.each_sample(row, self.positions, |x, corners, moved| {
                let (to_y, to_x, _) = corners.slopes(xs, c, &grad[x * c..][..c]);
                if !moved.1 {
                    to[2 * x] = to_x * T::from_f64(op.columns.scale);
                }
                if !moved.0 {
                    to[2 * x + 1] = to_y * T::from_f64(op.rows.scale);
                }
            });
        }
    }
}
