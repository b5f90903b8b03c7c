//! Pooling over windows, over a given number of cells, and over the whole map.

use candle_core::{Device, Result, Shape, Tensor, bail};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Custom, Operation, contiguous_nhwc, kernel_dtype, map_sizes};
use crate::packed::from_nhwc;
use crate::region::Pads;
use crate::simd::{Kernel, Simd, dispatch};
use crate::tape::apply;
use crate::taps::{self, Taps};
use crate::threads::{gather, items_per_task, share_chunks};
use crate::transpose::channels_last;

/// Windows of a pool and how they move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pool {
    /// Rows and columns of a window.
    pub kernel: (usize, usize),
    /// Steps between windows, down and to the right.
    pub stride: (usize, usize),
    /// Rows and columns around the map that windows may reach into; each less than a window.
    pub pads: Pads,
    /// Whether a last window that sticks out beyond the padding counts, as long as it starts inside.
    pub ceil: bool,
}

impl Pool {
    /// Square windows, the same padding on all sides, whole windows only.
    pub const fn square(kernel: usize, stride: usize, pad: usize) -> Self {
        Self { kernel: (kernel, kernel), stride: (stride, stride), pads: Pads::all(pad), ceil: false }
    }

    /// The windows along both axes of a map.
    fn axes(&self, name: &str, height: usize, width: usize) -> Result<(Axis, Axis)> {
        let Pads { top, bottom, left, right } = self.pads;
        let rows = Axis::new(height, self.kernel.0, self.stride.0, (top, bottom), self.ceil);
        let columns = Axis::new(width, self.kernel.1, self.stride.1, (left, right), self.ceil);
        match (rows, columns) {
            (Some(rows), Some(columns)) => Ok((rows, columns)),
            _ => bail!(
                "{name}: {self:?} does not fit a map of {height}×{width}: kernel and stride must be at least 1, pads less than the kernel, and a window no larger than the padded map"
            ),
        }
    }
}

/// The windows along one axis.
#[derive(Debug, Clone, Copy)]
struct Axis {
    inputs: usize,
    outputs: usize,
    kernel: usize,
    stride: usize,
    before: usize,
    after: usize,
}

impl Axis {
    fn new(
        inputs: usize,
        kernel: usize,
        stride: usize,
        (before, after): (usize, usize),
        ceil: bool,
    ) -> Option<Self> {
        if kernel == 0 || stride == 0 || before >= kernel || after >= kernel {
            return None;
        }
        let padded = inputs.checked_add(before)?.checked_add(after)?;
        let room = padded.checked_sub(kernel)?;
        let mut outputs = if ceil { room.div_ceil(stride) } else { room / stride } + 1;
        if ceil && (outputs - 1) * stride >= inputs + before {
            outputs -= 1;
        }
        Some(Self { inputs, outputs, kernel, stride, before, after })
    }

    /// The inputs under a window: first and one past the last. Never none.
    #[inline(always)]
    fn window(&self, output: usize) -> (usize, usize) {
        let start = output * self.stride;
        let end = (start + self.kernel).saturating_sub(self.before).min(self.inputs);
        (start.saturating_sub(self.before), end)
    }

    /// The mean of each window; `padded`: of its padding too.
    fn means(&self, padded: bool) -> Taps {
        Taps::new(self.inputs, self.outputs, |output, taps| {
            let (from, to) = self.window(output);
            let start = output * self.stride;
            let whole = (start + self.kernel).min(self.before + self.inputs + self.after) - start;
            let weight = 1.0 / if padded { whole } else { to - from } as f64;
            taps.extend((from..to).map(|input| (input, weight)));
        })
    }
}

/// The largest value of each window, `[B, C, H, W]` → `[B, C, h', w']` with
/// `h' = (H + top + bottom − kernel) / stride + 1`, rounded down, or up with [`Pool::ceil`] (PyTorch's
/// rule). The border never wins; a NaN does.
///
/// The gradient goes to a window's first largest value, row by row.
///
/// # Errors
/// If the map is empty or the windows do not fit it.
pub fn max_pool2d(xs: &Tensor, pool: Pool) -> Result<Tensor> {
    let (batch, channels, height, width) = map_sizes("max-pool", xs)?;
    let (rows, columns) = pool.axes("max-pool", height, width)?;
    if !matches!(xs.device(), Device::Cpu) {
        return max_pool2d_candle(xs, rows, columns);
    }
    let dtype = kernel_dtype("max-pool", &[xs])?;
    let op = MaxPool { batch, channels, rows, columns };
    let ys = apply(op, [&channels_last(&xs.to_dtype(dtype)?)?])?;
    from_nhwc(&ys)?.to_dtype(xs.dtype())
}

/// The largest of shifted copies. What a window has in the border is replaced by its nearest value
/// inside, which it covers anyway.
fn max_pool2d_candle(xs: &Tensor, rows: Axis, columns: Axis) -> Result<Tensor> {
    let shifted = |xs: &Tensor, dim: usize, axis: Axis, tap: usize| {
        let indices = (0..axis.outputs).map(|output| {
            let (from, to) = axis.window(output);
            (output * axis.stride + tap).saturating_sub(axis.before).clamp(from, to - 1) as u32
        });
        let indices = Tensor::from_vec(indices.collect(), axis.outputs, xs.device())?;
        xs.index_select(&indices, dim)
    };
    let largest = |xs: &Tensor, dim: usize, axis: Axis| {
        (1..axis.kernel)
            .try_fold(shifted(xs, dim, axis, 0)?, |ys, tap| ys.maximum(&shifted(xs, dim, axis, tap)?))
    };
    largest(&largest(&xs.contiguous()?, 2, rows)?, 3, columns)
}

/// The mean of each window, sizes as for [`max_pool2d`]. With `count_padding`, zeros in the border
/// count as values; otherwise a window's mean is of what it covers of the map. Has a gradient.
///
/// # Errors
/// If the map is empty or the windows do not fit it.
pub fn avg_pool2d(xs: &Tensor, pool: Pool, count_padding: bool) -> Result<Tensor> {
    let (_, _, height, width) = map_sizes("avg-pool", xs)?;
    let (rows, columns) = pool.axes("avg-pool", height, width)?;
    taps::apply("avg-pool", xs, rows.means(count_padding), columns.means(count_padding))
}

/// The means of `height` × `width` cells that cover the map: cell i of n spans
/// `floor(i·H / n) .. ceil((i + 1)·H / n)`, as in PyTorch; there may be more cells than pixels. Has a
/// gradient.
///
/// # Errors
/// If the map is empty, or there are no cells.
pub fn adaptive_avg_pool2d(xs: &Tensor, (height, width): (usize, usize)) -> Result<Tensor> {
    let (_, _, h, w) = map_sizes("adaptive-avg-pool", xs)?;
    if height * width == 0 {
        bail!("adaptive-avg-pool: expected at least one cell, got {height}×{width}")
    }
    let cells = |inputs: usize, outputs: usize| {
        Taps::new(inputs, outputs, |i, taps| {
            let (from, to) = (i * inputs / outputs, ((i + 1) * inputs).div_ceil(outputs));
            taps.extend((from..to).map(|input| (input, 1.0 / (to - from) as f64)));
        })
    };
    taps::apply("adaptive-avg-pool", xs, cells(h, height), cells(w, width))
}

/// The mean of each channel over the whole map, `[B, C, H, W]` → `[B, C, 1, 1]`. Has a gradient.
///
/// # Errors
/// If the map is empty.
pub fn global_avg_pool2d(xs: &Tensor) -> Result<Tensor> {
    let (batch, channels, height, width) = map_sizes("global-avg-pool", xs)?;
    if !matches!(xs.device(), Device::Cpu) {
        return xs.mean_keepdim((2, 3));
    }
    let dtype = kernel_dtype("global-avg-pool", &[xs])?;
    let op = GlobalMean { batch, channels, height, width };
    let ys = apply(op, [&channels_last(&xs.to_dtype(dtype)?)?])?;
    ys.reshape((batch, channels, 1, 1))?.to_dtype(xs.dtype())
}

/// `[B, H, W, C]` → `[B, h', w', C]`
#[derive(Clone, Copy)]
struct MaxPool {
    batch: usize,
    channels: usize,
    rows: Axis,
    columns: Axis,
}

impl Operation<1> for MaxPool {
    const NAME: &'static str = "max-pool";

    fn shape(&self) -> Shape {
        (self.batch, self.rows.outputs, self.columns.outputs, self.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let row = self.columns.outputs * self.channels;
        let rows = self.batch * self.rows.outputs;
        let per_task = items_per_task(rows, row * self.rows.kernel * self.columns.kernel);
        let mut ys = vec![T::NEG_INFINITY; rows * row];
        share_chunks(&mut ys, row * per_task, |task, ys| {
            dispatch(isa, Largest { pool: self, first: task * per_task, xs, ys });
        });
        ys
    }

    fn gradients(&self, [xs]: [&Tensor; 1], grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let op = MaxPoolGrad(*self);
        Ok([Some(xs.apply_op2_no_bwd(&contiguous_nhwc(grad)?, &Custom(op))?)])
    }
}

impl MaxPool {
    /// Calls `f(output pixel of the row, tap, input pixel)` for each tap of each window of a row of
    /// the batch's outputs.
    #[inline(always)]
    fn each_tap(&self, row: usize, mut f: impl FnMut(usize, usize, usize)) {
        let (image, y) = (row / self.rows.outputs, row % self.rows.outputs);
        let (top, bottom) = self.rows.window(y);
        for x in 0..self.columns.outputs {
            let (left, right) = self.columns.window(x);
            for i in top..bottom {
                for j in left..right {
                    let tap = (i - top) * self.columns.kernel + j - left;
                    f(x, tap, (image * self.rows.inputs + i) * self.columns.inputs + j);
                }
            }
        }
    }
}

/// Some output rows of a max pool. `ys` is −∞ before.
struct Largest<'a, T> {
    pool: &'a MaxPool,
    first: usize,
    xs: &'a [T],
    ys: &'a mut [T],
}

impl<T: Float> Kernel for Largest<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let c = self.pool.channels;
        for (i, ys) in self.ys.chunks_exact_mut(self.pool.columns.outputs * c).enumerate() {
            self.pool.each_tap(self.first + i, |x, _, pixel| {
                for (y, &x) in ys[x * c..][..c].iter_mut().zip(&self.xs[pixel * c..][..c]) {
                    *y = if wins(x, *y) { x } else { *y };
                }
            });
        }
    }
}

/// Whether a value takes the place of the largest so far; NaN always does.
#[inline(always)]
fn wins<T: Float>(x: T, largest: T) -> bool {
    x > largest || x.partial_cmp(&x).is_none()
}

/// (map, gradient of the pooled map) → gradient of the map
struct MaxPoolGrad(MaxPool);

impl Operation<2> for MaxPoolGrad {
    const NAME: &'static str = "max-pool-grad";

    fn shape(&self) -> Shape {
        let MaxPool { batch, channels, rows, columns } = self.0;
        (batch, rows.inputs, columns.inputs, channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, grad]: [&[T]; 2]) -> Vec<T> {
        let MaxPool { batch, channels, rows, columns } = self.0;
        let image = rows.inputs * columns.inputs * channels;
        let mut to_xs = vec![T::ZERO; batch * image];
        share_chunks(&mut to_xs, image, |i, to_xs| {
            dispatch(isa, Winners { pool: &self.0, image: i, xs, grad, to_xs });
        });
        to_xs
    }
}

/// The gradient of one image.
struct Winners<'a, T> {
    pool: &'a MaxPool,
    image: usize,
    xs: &'a [T],
    grad: &'a [T],
    to_xs: &'a mut [T],
}

impl<T: Float> Kernel for Winners<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let c = self.pool.channels;
        let width = self.pool.columns.outputs * c;
        let from = self.image * self.to_xs.len() / c;
        let (mut largest, mut winner) = (vec![T::ZERO; width], vec![0usize; width]);
        for y in 0..self.pool.rows.outputs {
            let row = self.image * self.pool.rows.outputs + y;
            self.pool.each_tap(row, |x, tap, pixel| {
                let largest = largest[x * c..][..c].iter_mut().zip(&mut winner[x * c..][..c]);
                for ((largest, winner), &x) in largest.zip(&self.xs[pixel * c..][..c]) {
                    if tap == 0 || wins(x, *largest) {
                        (*largest, *winner) = (x, pixel - from);
                    }
                }
            });
            let grad = self.grad[row * width..][..width].chunks_exact(c);
            for (winner, grad) in winner.chunks_exact(c).zip(grad) {
                for (channel, (&winner, &grad)) in winner.iter().zip(grad).enumerate() {
                    self.to_xs[winner * c + channel] += grad;
                }
            }
        }
    }
}

/// `[B, H, W, C]` → `[B, C]`
struct GlobalMean {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl Operation<1> for GlobalMean {
    const NAME: &'static str = "global-avg-pool";

    fn shape(&self) -> Shape {
        (self.batch, self.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let c = self.channels;
        let pixels = self.height * self.width;
        let per_task = items_per_task(pixels, c).max(64);
        let scale = T::from_f64(1.0 / pixels as f64);
        let mean = |xs: &[T]| {
            let parts = gather(pixels.div_ceil(per_task), |i| {
                let xs = &xs[i * per_task * c..xs.len().min((i + 1) * per_task * c)];
                dispatch(isa, Sum { channels: c, xs })
            });
            let mut sums = vec![T::ZERO; c];
            for part in parts {
                add(&mut sums, &part);
            }
            for sum in &mut sums {
                *sum *= scale;
            }
            sums
        };
        xs.chunks_exact(pixels * c).flat_map(mean).collect()
    }

    fn gradients(&self, _: [&Tensor; 1], grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let Self { batch, channels, height, width } = *self;
        let grad = (grad / (height * width) as f64)?.reshape((batch, 1, 1, channels))?;
        Ok([Some(grad.broadcast_as((batch, height, width, channels))?.contiguous()?)])
    }
}

/// The sum of some pixels.
struct Sum<'a, T> {
    channels: usize,
    xs: &'a [T],
}

impl<T: Float> Kernel for Sum<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<T> {
        /// Pixels that are summed before they join the others, which keeps the rounding small.
        const PIXELS: usize = 64;
        let mut sums = vec![T::ZERO; self.channels];
        let mut some = vec![T::ZERO; self.channels];
        for xs in self.xs.chunks(PIXELS * self.channels) {
            some.fill(T::ZERO);
            for xs in xs.chunks_exact(self.channels) {
                add(&mut some, xs);
            }
            add(&mut sums, &some);
        }
        sums
    }
}

#[inline(always)]
fn add<T: Float>(sums: &mut [T], xs: &[T]) {
    for (sum, &x) in sums.iter_mut().zip(xs) {
        *sum += x;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candles_operations_give_the_same() -> Result<()> {
        let xs = Tensor::arange(0f32, 420.0, &Device::Cpu)?.reshape((2, 3, 7, 10))?.sin()?;
        for pool in [Pool::square(3, 2, 1), Pool { ceil: true, ..Pool::square(3, 2, 2) }] {
            let (rows, columns) = pool.axes("test", 7, 10)?;
            let difference = (max_pool2d(&xs, pool)? - max_pool2d_candle(&xs, rows, columns)?)?.abs()?;
            assert_eq!(difference.max_all()?.to_scalar::<f32>()?, 0.0, "{pool:?}");
        }
        Ok(())
    }
}
