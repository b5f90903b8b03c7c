//! Depthwise convolution: one k×k filter a channel.
//!
//! candle runs a grouped convolution as one convolution a group and concatenates the results, which
//! for 960 channels is 960 convolutions. Here each plane is one pass. Its region is copied once, with
//! its border and split by row and column phase, so that strided reads become contiguous. Several
//! output rows are then one sum of k² contiguous runs, which keeps the vector units busy on the
//! narrow maps where such nets spend their depth; what falls between two rows is thrown away.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};
use rayon::prelude::*;

use crate::epilogue::{Activation, Float, clamp};
use crate::isa::Isa;
use crate::operation::{Custom, Operation};
use crate::region::{Pads, Region};
use crate::simd::{Kernel, Simd, dispatch};

/// Convolves each channel of `region` with its own filter:
/// `ys[b, c, y, x] = act(bias[c] + Σ weight[c, 0, i, j] · xs[b, c, y·stride + i − top, x·stride + j − left])`,
/// where `xs` reads the region's plane and is zero outside it.
///
/// `weight`: `[C, 1, k, k]`; `bias`: `[C]`. Result: `[B, C, h', w']` with
/// `h' = (height + top + bottom − k) / stride + 1`.
///
/// Has gradients for plane, weight and bias.
///
/// # Errors
/// If shapes, types or devices do not match, the stride is 0, or the filter is larger than the
/// padded region.
pub fn depthwise_conv2d(
    region: &Region,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    pads: Pads,
    act: Activation,
) -> Result<Tensor> {
    let op = DepthwiseConv2d { geometry: Geometry::new(region, weight, stride, pads)?, act };
    if let Some(bias) = bias
        && bias.dims() != [op.geometry.channels]
    {
        bail!("depthwise: expected a bias of [{}], got {:?}", op.geometry.channels, bias.dims())
    }
    let plane = &region.plane;
    let on_cpu = matches!(plane.device(), Device::Cpu);
    let has_kernel = matches!(plane.dtype(), DType::F32 | DType::F64) && plane.dtype() == weight.dtype();
    if !on_cpu || !has_kernel {
        return depthwise_conv2d_candle(region, weight, bias, stride, pads, act);
    }
    let (plane, weight) = (plane.contiguous()?, weight.contiguous()?);
    let bias = match bias {
        Some(bias) => bias.contiguous()?,
        None => Tensor::zeros(op.geometry.channels, plane.dtype(), plane.device())?,
    };
    if plane.track_op() || weight.track_op() || bias.track_op() || !act.is_clamp() {
        // The activation stays a separate operation, whose gradient is candle's.
        let ys = plane.apply_op3(&weight, &bias, Custom(DepthwiseConv2d { act: Activation::None, ..op }))?;
        return act.apply(&ys);
    }
    plane.apply_op3_no_bwd(&weight, &bias, &Custom(op))
}

/// [`depthwise_conv2d`] in candle's own operations: k² shifted products, summed. It serves the
/// devices and types that have no kernel, and is what the kernel is tested against.
///
/// # Errors
/// As [`depthwise_conv2d`].
pub fn depthwise_conv2d_candle(
    region: &Region,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    pads: Pads,
    act: Activation,
) -> Result<Tensor> {
    let g = Geometry::new(region, weight, stride, pads)?;
    let xs = region.bordered(pads)?;
    // Room for the last tap's step, so that every tap can be cut into whole strides.
    let (rows, columns) = (g.out_h * stride + g.kernel - 1, g.out_w * stride + g.kernel - 1);
    let xs = xs.pad_with_zeros(2, 0, rows.saturating_sub(xs.dim(2)?))?.pad_with_zeros(
        3,
        0,
        columns.saturating_sub(xs.dim(3)?),
    )?;
    let every = |xs: &Tensor, dim: usize, from: usize, n: usize| -> Result<Tensor> {
        let taken = xs.narrow(dim, from, n * stride)?;
        if stride == 1 {
            return Ok(taken);
        }
        let mut dims = taken.dims().to_vec();
        dims.splice(dim..=dim, [n, stride]);
        taken.contiguous()?.reshape(dims)?.narrow(dim + 1, 0, 1)?.squeeze(dim + 1)
    };
    let mut ys: Option<Tensor> = None;
    for i in 0..g.kernel {
        let row = every(&xs, 2, i, g.out_h)?;
        for j in 0..g.kernel {
            let tap = weight.narrow(2, i, 1)?.narrow(3, j, 1)?.reshape((1, g.channels, 1, 1))?;
            let product = every(&row, 3, j, g.out_w)?.broadcast_mul(&tap)?;
            ys = Some(match ys {
                Some(ys) => (ys + product)?,
                None => product,
            });
        }
    }
    let Some(mut ys) = ys else { bail!("depthwise: the filter {:?} is empty", weight.dims()) };
    if let Some(bias) = bias {
        ys = ys.broadcast_add(&bias.reshape((1, g.channels, 1, 1))?)?;
    }
    act.apply(&ys)
}

/// Values of one run over several narrow rows: few enough to stay in the nearest cache.
const RUN: usize = 1024;
/// Rows from here on are runs of their own.
const WIDE: usize = 128;

/// Sizes of one depthwise convolution.
#[derive(Debug, Clone, Copy)]
struct Geometry {
    batch: usize,
    channels: usize,
    plane_h: usize,
    plane_w: usize,
    top: usize,
    left: usize,
    height: usize,
    width: usize,
    kernel: usize,
    stride: usize,
    pads: Pads,
    out_h: usize,
    out_w: usize,
}

impl Geometry {
    fn new(region: &Region, weight: &Tensor, stride: usize, pads: Pads) -> Result<Self> {
        let (batch, channels, plane_h, plane_w) = region.plane.dims4()?;
        let (c, one, kernel, kw) = weight.dims4()?;
        if c != channels || one != 1 || kernel != kw || kernel == 0 {
            bail!("depthwise: expected a weight of [{channels}, 1, k, k], got {:?}", weight.dims())
        }
        if stride == 0 {
            bail!("depthwise: stride must be at least 1")
        }
        let out = |n: usize, before: usize, after: usize| {
            (n + before + after).checked_sub(kernel).map(|room| room / stride + 1)
        };
        let (Some(out_h), Some(out_w)) =
            (out(region.height, pads.top, pads.bottom), out(region.width, pads.left, pads.right))
        else {
            bail!(
                "depthwise: a {kernel}×{kernel} filter does not fit a padded input of {}×{}",
                region.height + pads.top + pads.bottom,
                region.width + pads.left + pads.right
            )
        };
        Ok(Self {
            batch,
            channels,
            plane_h,
            plane_w,
            top: region.top,
            left: region.left,
            height: region.height,
            width: region.width,
            kernel,
            stride,
            pads,
            out_h,
            out_w,
        })
    }

    /// Rows and columns of one of the stride² phases of the padded region.
    fn phase(&self) -> (usize, usize) {
        let rows = self.height + self.pads.top + self.pads.bottom;
        let columns = self.width + self.pads.left + self.pads.right;
        (rows.div_ceil(self.stride), columns.div_ceil(self.stride))
    }

    /// Output rows that are summed in one run.
    fn rows_per_run(&self) -> usize {
        if self.out_w >= WIDE {
            return 1;
        }
        let (_, columns) = self.phase();
        (RUN / columns.max(1)).clamp(1, self.out_h)
    }

    /// The row of the plane under a row of the padded region.
    fn plane_row(&self, row: usize) -> Option<usize> {
        (self.top + row).checked_sub(self.pads.top).filter(|&y| y < self.plane_h)
    }

    /// The columns of the padded region that lie inside the plane, and the plane's column under the first.
    fn inside(&self) -> (std::ops::Range<usize>, usize) {
        let first = self.pads.left.saturating_sub(self.left);
        let from = self.left.saturating_sub(self.pads.left);
        let end = (self.left + self.width + self.pads.right).min(self.plane_w);
        (first..first + end.saturating_sub(from), from)
    }

    /// Planes that are worth a task of their own.
    fn planes_per_task(&self) -> usize {
        (1usize << 14).div_ceil((self.out_h * self.out_w).max(1))
    }
}

#[derive(Debug, Clone, Copy)]
struct DepthwiseConv2d {
    geometry: Geometry,
    act: Activation,
}

impl Operation<3> for DepthwiseConv2d {
    const NAME: &'static str = "depthwise";

    fn shape(&self) -> Shape {
        let g = &self.geometry;
        (g.batch, g.channels, g.out_h, g.out_w).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, weight, bias]: [&[T]; 3]) -> Vec<T> {
        let g = &self.geometry;
        let taps = g.kernel * g.kernel;
        let mut ys = vec![T::ZERO; g.batch * g.channels * g.out_h * g.out_w];
        ys.par_chunks_mut(g.out_h * g.out_w).enumerate().with_min_len(g.planes_per_task()).for_each_init(
            || Scratch::new(g),
            |scratch, (i, ys)| {
                let c = i % g.channels;
                let xs = &xs[i * g.plane_h * g.plane_w..][..g.plane_h * g.plane_w];
                let weight = &weight[c * taps..][..taps];
                dispatch(isa, Plane { g, act: self.act, xs, weight, bias: bias[c], scratch, ys });
            },
        );
        ys
    }

    fn gradients(&self, [plane, weight, _]: [&Tensor; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let grad = grad.contiguous()?;
        let to_plane = grad.apply_op2_no_bwd(weight, &Custom(PlaneGrad(self.geometry)))?;
        let to_weight = plane.apply_op2_no_bwd(&grad, &Custom(WeightGrad(self.geometry)))?;
        Ok([Some(to_plane), Some(to_weight), Some(grad.sum((0, 2, 3))?)])
    }
}

/// What one thread needs for a plane. The border stays zero from plane to plane.
struct Scratch<T> {
    phases: Vec<T>,
    run: Vec<T>,
}

impl<T: Float> Scratch<T> {
    fn new(g: &Geometry) -> Self {
        let (rows, columns) = g.phase();
        // The last taps of the last row may reach past it by less than a filter.
        let phases = vec![T::ZERO; g.stride * g.stride * rows * columns + g.kernel];
        Self { phases, run: vec![T::ZERO; g.rows_per_run() * columns] }
    }
}

/// One plane. All instruction sets add in the same order, without fused multiply–add, so their results
/// are equal to the bit.
struct Plane<'a, T> {
    g: &'a Geometry,
    act: Activation,
    xs: &'a [T],
    weight: &'a [T],
    bias: T,
    scratch: &'a mut Scratch<T>,
    ys: &'a mut [T],
}

impl<T: Float> Kernel for Plane<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { g, act, xs, weight, bias, scratch, ys } = self;
        let (phase_rows, columns) = g.phase();
        let Scratch { phases, run } = scratch;
        split_phases(g, xs, phases);
        let rows_per_run = g.rows_per_run();
        for (i, ys) in ys.chunks_mut(rows_per_run * g.out_w).enumerate() {
            let rows = ys.len() / g.out_w;
            let len = (rows - 1) * columns + g.out_w;
            // The values that tap (y, x) reads for the run's rows, one row after the other.
            let tap = |y: usize, x: usize| {
                let phase = (y % g.stride) * g.stride + x % g.stride;
                let row = phase * phase_rows + i * rows_per_run + y / g.stride;
                &phases[row * columns + x / g.stride..][..len]
            };
            if rows == 1 {
                sum_taps(g.kernel, ys, tap, weight, bias, act.bounds());
                continue;
            }
            sum_taps(g.kernel, &mut run[..len], tap, weight, bias, act.bounds());
            for (ys, run) in ys.chunks_exact_mut(g.out_w).zip(run.chunks(columns)) {
                ys.copy_from_slice(&run[..g.out_w]);
            }
        }
    }
}

/// sums[n] = act(bias + Σ weight · tap[n])
#[inline(always)]
fn sum_taps<'a, T: Float>(
    kernel: usize,
    sums: &mut [T],
    tap: impl Fn(usize, usize) -> &'a [T],
    weight: &[T],
    bias: T,
    (lo, hi): (T, T),
) {
    if let Ok(weight) = <&[T; 9]>::try_from(weight) {
        let taps: [&[T]; 9] = std::array::from_fn(|t| &tap(t / 3, t % 3)[..sums.len()]);
        for (n, sum) in sums.iter_mut().enumerate() {
            let mut y = bias;
            for t in 0..9 {
                y += weight[t] * taps[t][n];
            }
            *sum = clamp(y, lo, hi);
        }
        return;
    }
    sums.fill(bias);
    for (t, &w) in weight.iter().enumerate() {
        for (sum, &x) in sums.iter_mut().zip(tap(t / kernel, t % kernel)) {
            *sum += w * x;
        }
    }
    for sum in sums {
        *sum = clamp(*sum, lo, hi);
    }
}

/// Copies the padded region: row y, column x to phase (y % stride, x % stride), there to row
/// y / stride, column x / stride. Places outside the plane are left as they are.
#[inline(always)]
fn split_phases<T: Float>(g: &Geometry, xs: &[T], phases: &mut [T]) {
    let (phase_rows, columns) = g.phase();
    let (inside, from) = g.inside();
    let rows = g.height + g.pads.top + g.pads.bottom;
    for row in 0..rows {
        let Some(y) = g.plane_row(row) else { continue };
        let xs = &xs[y * g.plane_w + from..][..inside.len()];
        let to_row =
            |phase: usize| ((row % g.stride * g.stride + phase) * phase_rows + row / g.stride) * columns;
        if g.stride == 1 {
            phases[to_row(0) + inside.start..][..inside.len()].copy_from_slice(xs);
            continue;
        }
        for phase in 0..g.stride {
            // The first column of this phase at or after the inside's start.
            let skip = (phase + g.stride - inside.start % g.stride) % g.stride;
            let to = to_row(phase) + (inside.start + skip) / g.stride;
            for (to, &x) in phases[to..].iter_mut().zip(xs.iter().skip(skip).step_by(g.stride)) {
                *to = x;
            }
        }
    }
}

impl Geometry {
    /// Calls `f(out_row, plane_row, tap_row)` for each pair of rows that meet.
    fn row_pairs(&self, mut f: impl FnMut(usize, usize, usize)) {
        for y in 0..self.out_h {
            for i in 0..self.kernel {
                if let Some(row) = self.plane_row(y * self.stride + i) {
                    f(y, row, i);
                }
            }
        }
    }

    /// For tap column `j`: the output columns whose input lies inside the plane, and the plane's
    /// column under the first of them.
    fn tap_columns(&self, j: usize) -> (std::ops::Range<usize>, usize) {
        let (inside, from) = self.inside();
        let first = inside.start.saturating_sub(j).div_ceil(self.stride);
        let end = inside.end.saturating_sub(j).div_ceil(self.stride).min(self.out_w);
        let column = (first * self.stride + j).saturating_sub(inside.start) + from;
        (first..end.max(first), column)
    }
}

/// (grad of the result, weight) → grad of the plane.
struct PlaneGrad(Geometry);

impl Operation<2> for PlaneGrad {
    const NAME: &'static str = "depthwise-conv2d-plane-grad";

    fn shape(&self) -> Shape {
        let g = &self.0;
        (g.batch, g.channels, g.plane_h, g.plane_w).into()
    }

    fn run<T: Float>(&self, _: Isa, [grad, weight]: [&[T]; 2]) -> Vec<T> {
        let g = &self.0;
        let taps = g.kernel * g.kernel;
        let mut to_plane = vec![T::ZERO; g.batch * g.channels * g.plane_h * g.plane_w];
        to_plane.par_chunks_mut(g.plane_h * g.plane_w).enumerate().for_each(|(p, to)| {
            let weight = &weight[p % g.channels * taps..][..taps];
            let grad = &grad[p * g.out_h * g.out_w..][..g.out_h * g.out_w];
            g.row_pairs(|y, row, i| {
                for j in 0..g.kernel {
                    let (columns, x0) = g.tap_columns(j);
                    let to = to[row * g.plane_w..][..g.plane_w].iter_mut().skip(x0).step_by(g.stride);
                    for (to, &d) in to.zip(&grad[y * g.out_w..][columns]) {
                        *to += weight[i * g.kernel + j] * d;
                    }
                }
            });
        });
        to_plane
    }
}

/// (plane, grad of the result) → grad of the weight.
struct WeightGrad(Geometry);

impl Operation<2> for WeightGrad {
    const NAME: &'static str = "depthwise-conv2d-weight-grad";

    fn shape(&self) -> Shape {
        let g = &self.0;
        (g.channels, 1, g.kernel, g.kernel).into()
    }

    fn run<T: Float>(&self, _: Isa, [plane, grad]: [&[T]; 2]) -> Vec<T> {
        let g = &self.0;
        let taps = g.kernel * g.kernel;
        let mut to_weight = vec![T::ZERO; g.channels * taps];
        to_weight.par_chunks_mut(taps).enumerate().for_each(|(c, to)| {
            for b in 0..g.batch {
                let p = b * g.channels + c;
                let plane = &plane[p * g.plane_h * g.plane_w..][..g.plane_h * g.plane_w];
                let grad = &grad[p * g.out_h * g.out_w..][..g.out_h * g.out_w];
                g.row_pairs(|y, row, i| {
                    for j in 0..g.kernel {
                        let (columns, x0) = g.tap_columns(j);
                        let xs = plane[row * g.plane_w..][..g.plane_w].iter().skip(x0).step_by(g.stride);
                        let mut sum = T::ZERO;
                        for (&x, &d) in xs.zip(&grad[y * g.out_w..][columns]) {
                            sum += x * d;
                        }
                        to[i * g.kernel + j] += sum;
                    }
                });
            }
        });
        to_weight
    }
}
