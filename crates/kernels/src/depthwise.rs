//! Depthwise convolution with gradients: one k×k filter a channel, channels last.
//!
//! candle runs a grouped convolution as one convolution a group and concatenates the results, which
//! for 960 channels is 960 convolutions. Here all channels of a pixel are neighbours in memory, and a
//! vector of them is computed at a time: forward and, at stride 1, backward to the input by
//! [`PackedDepthwise`], the rest below.

use candle_core::{CpuStorage, DType, Device, Result, Shape, Tensor, bail};

use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{Shared, SharedRead, filled};
use crate::operation::on_cpu;
use crate::packed::{Filter, Geometry, MAX_KERNEL, PackedDepthwise, Phase, from_nhwc, values};
use crate::region::{Pads, Region};
use crate::simd::{Kernel, Simd, dispatch};
use crate::tape::{Differentiable, apply};
use crate::threads::{gather, items_per_task, share};
use crate::transpose::channels_last;

const NAME: &str = "depthwise";

/// Convolves each channel of `region` with its own filter:
/// `ys[b, c, y, x] = Σ weight[c, 0, i, j] · xs[b, c, y·stride + i − top, x·stride + j − left]`,
/// where `xs` reads the region's plane and is zero outside it.
///
/// `weight`: `[C, 1, k, k]`. Result: `[B, C, h', w']` with
/// `h' = (height + top + bottom − k) / stride + 1`, channels last in memory on the CPU.
///
/// Has gradients for plane and weight.
///
/// # Errors
/// If shapes, types or devices do not match, the stride is 0, or the filter is larger than the
/// padded region.
pub fn depthwise_conv2d(region: &Region, weight: &Tensor, stride: usize, pads: Pads) -> Result<Tensor> {
    let geometry = geometry(region, weight, stride, pads)?;
    let f32_on_cpu = |t: &Tensor| matches!(t.device(), Device::Cpu) && t.dtype() == DType::F32;
    if !f32_on_cpu(&region.plane) || !f32_on_cpu(weight) || geometry.filter.height > MAX_KERNEL {
        return depthwise_conv2d_candle(region, weight, stride, pads);
    }
    let op = Depthwise { geometry, channels: weight.dim(0)? };
    from_nhwc(&apply(op, [&channels_last(&region.plane)?, &weight.contiguous()?])?)
}

/// [`depthwise_conv2d`] in candle's own operations: k² shifted products, summed. It serves the
/// devices and types that have no kernel, and is what the kernel is tested against.
///
/// # Errors
/// As [`depthwise_conv2d`].
pub fn depthwise_conv2d_candle(
    region: &Region,
    weight: &Tensor,
    stride: usize,
    pads: Pads,
) -> Result<Tensor> {
    let g = geometry(region, weight, stride, pads)?;
    let (kernel, channels) = (g.filter.height, weight.dim(0)?);
    let xs = region.bordered(pads)?;
    // Room for the last tap's step, so that every tap can be cut into whole strides.
    let (rows, columns) = (g.out_h * stride + kernel - 1, g.out_w * stride + kernel - 1);
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
    for i in 0..kernel {
        let row = every(&xs, 2, i, g.out_h)?;
        for j in 0..kernel {
            let tap = weight.narrow(2, i, 1)?.narrow(3, j, 1)?.reshape((1, channels, 1, 1))?;
            let product = every(&row, 3, j, g.out_w)?.broadcast_mul(&tap)?;
            ys = Some(match ys {
                Some(ys) => (ys + product)?,
                None => product,
            });
        }
    }
    let Some(ys) = ys else { bail!("{NAME}: the filter {:?} is empty", weight.dims()) };
    Ok(ys)
}

fn geometry(region: &Region, weight: &Tensor, stride: usize, pads: Pads) -> Result<Geometry> {
    let channels = region.plane.dims4()?.1;
    let (c, one, kernel, width) = weight.dims4()?;
    if c != channels || one != 1 || kernel != width || kernel == 0 {
        bail!("{NAME}: expected a weight of [{channels}, 1, k, k], got {:?}", weight.dims())
    }
    if stride == 0 {
        bail!("{NAME}: stride must be at least 1")
    }
    let filter = Filter { height: kernel, width: kernel, stride, dilation: 1 };
    Geometry::new(NAME, region, filter, pads, channels)
}

#[derive(Debug, Clone, Copy)]
struct Depthwise {
    geometry: Geometry,
    channels: usize,
}

impl Differentiable<2> for Depthwise {
    fn evaluate(&self, [xs, weight]: [&Tensor; 2]) -> Result<(CpuStorage, Shape)> {
        let g = &self.geometry;
        let conv = PackedDepthwise::new(weight, None, g.filter.stride, Activation::None)?;
        let ys = on_cpu(NAME, [xs], |[storage], [layout]| conv.run(*g, values(NAME, storage, layout)?))?;
        Ok((CpuStorage::F32(ys), (g.batch, g.out_h, g.out_w, self.channels).into()))
    }

    fn gradients(
        &self,
        [xs, weight]: [&Tensor; 2],
        [to_xs, to_weight]: [bool; 2],
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; 2]> {
        let to_xs = to_xs.then(|| self.input_gradient(weight, grad)).transpose()?;
        let to_weight = to_weight.then(|| self.weight_gradient(xs, grad)).transpose()?;
        Ok([to_xs, to_weight])
    }
}

impl Depthwise {
    /// `[B, H, W, C]`, from `[B, h', w', C]`.
    fn input_gradient(&self, weight: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (g, channels) = (&self.geometry, self.channels);
        let (kernel, stride) = (g.filter.height, g.filter.stride);
        let phases = |pad: isize, size: usize| -> Vec<Phase> {
            (0..stride).map(|remainder| Phase::new(remainder, kernel, pad, size, stride, 1)).collect()
        };
        let (rows, columns) = (phases(-g.origin.0, g.plane_h), phases(-g.origin.1, g.plane_w));
        let turned = weight.flip(&[2, 3])?;
        let to_xs = on_cpu(NAME, [grad], |[storage], [layout]| {
            let grad = values(NAME, storage, layout)?;
            if let ([rows], [columns]) = (rows.as_slice(), columns.as_slice()) {
                let back = Geometry {
                    batch: g.batch,
                    plane_h: g.out_h,
                    plane_w: g.out_w,
                    out_h: g.plane_h,
                    out_w: g.plane_w,
                    filter: g.filter,
                    origin: (rows.origin, columns.origin),
                };
                return PackedDepthwise::new(&turned, None, 1, Activation::None)?.run(back, grad);
            }
            let isa = Isa::current()?;
            let weights = weight.reshape((channels, kernel * kernel))?.t()?.contiguous()?;
            let weights = weights.flatten_all()?.to_vec1::<f32>()?;
            let all_rows = g.batch * g.plane_h;
            let per_task =
                items_per_task(all_rows, g.plane_w * channels * kernel * kernel / (stride * stride));
            // SAFETY: the tasks write every row, each its own.
            Ok(unsafe {
                filled(all_rows * g.plane_w * channels, |out| {
                    share(all_rows.div_ceil(per_task), |task| {
                        let part = ToInput {
                            g,
                            channels,
                            phases: (&rows, &columns),
                            weights: &weights,
                            grad: SharedRead(grad.as_ptr()),
                            out,
                            rows: (task * per_task, ((task + 1) * per_task).min(all_rows)),
                        };
                        dispatch(isa, part);
                    });
                })
            })
        })?;
        Tensor::from_vec(to_xs, (g.batch, g.plane_h, g.plane_w, channels), &Device::Cpu)
    }

    /// `[C, 1, k, k]`
    fn weight_gradient(&self, xs: &Tensor, grad: &Tensor) -> Result<Tensor> {
        let (g, channels) = (&self.geometry, self.channels);
        let (kernel, isa) = (g.filter.height, Isa::current()?);
        let rows = g.batch * g.out_h;
        let per_task = items_per_task(rows, g.out_w * channels * kernel * kernel);
        let sums = on_cpu(NAME, [xs, grad], |[s1, s2], [l1, l2]| {
            let (xs, grad) = (values(NAME, s1, l1)?, values(NAME, s2, l2)?);
            Ok(gather(rows.div_ceil(per_task), |task| {
                let rows = (task * per_task, ((task + 1) * per_task).min(rows));
                dispatch(isa, ToWeight { g, channels, xs, grad, rows })
            }))
        })?;
        let mut total = vec![0.0; kernel * kernel * channels];
        for part in sums {
            total.iter_mut().zip(part).for_each(|(total, part)| *total += part);
        }
        Tensor::from_vec(total, (kernel * kernel, channels), &Device::Cpu)?
            .t()?
            .contiguous()?
            .reshape((channels, 1, kernel, kernel))
    }
}

/// Some rows of the input's gradient at a stride over 1: what each pixel met, through which tap.
struct ToInput<'a> {
    g: &'a Geometry,
    channels: usize,
    phases: (&'a [Phase], &'a [Phase]),
    /// `[tap][channel]`
    weights: &'a [f32],
    grad: SharedRead,
    out: Shared,
    rows: (usize, usize),
}

impl Kernel for ToInput<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { g, channels, phases, weights, grad, out, rows } = self;
        let (kernel, stride) = (g.filter.height, g.filter.stride);
        // The results that a row (or column) meets, with the tap through which it does.
        let met = |phases: &[Phase], at: usize, size: usize| {
            let phase = &phases[at % stride];
            let first = phase.origin + (at / stride) as isize;
            let taps: Vec<(usize, usize)> = (first..)
                .zip(&phase.taps)
                .filter(|(y, _)| (0..size as isize).contains(y))
                .map(|(y, &tap)| (y as usize, tap))
                .collect();
            taps
        };
        let columns: Vec<_> = (0..g.plane_w).map(|x| met(phases.1, x, g.out_w)).collect();
        let mut places = Vec::with_capacity(kernel * kernel);
        for row in rows.0..rows.1 {
            let (image, y) = (row / g.plane_h, row % g.plane_h);
            let met_rows = met(phases.0, y, g.out_h);
            for (x, met_columns) in columns.iter().enumerate() {
                places.clear();
                for &(out_y, ky) in &met_rows {
                    for &(out_x, kx) in met_columns {
                        let pixel = (image * g.out_h + out_y) * g.out_w + out_x;
                        places.push((pixel * channels, (ky * kernel + kx) * channels));
                    }
                }
                let to = (row * g.plane_w + x) * channels;
                for channel in (0..channels).step_by(S::LANES) {
                    let lanes = S::LANES.min(channels - channel);
                    // SAFETY: the places are pixels of the results, the tap's weights hold all
                    // channels, and the pixel belongs to this task; `run` is called by `S::enter`.
                    unsafe {
                        let mut sum = S::splat(0.0);
                        for &(pixel, tap) in &places {
                            let d = S::load_first(grad.get().add(pixel + channel), lanes);
                            let w = S::load_first(weights.as_ptr().add(tap + channel), lanes);
                            sum = S::fma(d, w, sum);
                        }
                        S::store_first(out.at(to + channel), sum, lanes);
                    }
                }
            }
        }
    }
}

/// The weights' gradient from some rows of the results, `[tap][channel]`.
struct ToWeight<'a> {
    g: &'a Geometry,
    channels: usize,
    xs: &'a [f32],
    grad: &'a [f32],
    rows: (usize, usize),
}

impl Kernel for ToWeight<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<f32> {
        let kernel = self.g.filter.height;
        let mut sums = vec![0.0; kernel * kernel * self.channels];
        for row in self.rows.0..self.rows.1 {
            let (image, y) = (row / self.g.out_h, row % self.g.out_h);
            for ky in 0..kernel {
                let Some(plane_row) = self.g.row(y, ky) else { continue };
                let xs = (image * self.g.plane_h + plane_row) * self.g.plane_w * self.channels;
                let xs = &self.xs[xs..][..self.g.plane_w * self.channels];
                let grad = &self.grad[row * self.g.out_w * self.channels..][..self.g.out_w * self.channels];
                let sums = &mut sums[ky * kernel * self.channels..][..kernel * self.channels];
                let row = WeightRow { g: self.g, channels: self.channels, xs, grad };
                // SAFETY: S is entered already.
                unsafe {
                    match kernel {
                        3 => S::enter(Taps::<3>(row, sums, 0)),
                        5 => S::enter(Taps::<5>(row, sums, 0)),
                        7 => S::enter(Taps::<7>(row, sums, 0)),
                        _ => (0..kernel).for_each(|kx| {
                            let sums = &mut sums[kx * self.channels..][..self.channels];
                            S::enter(Taps::<1>(row, sums, kx));
                        }),
                    }
                }
            }
        }
        sums
    }
}

/// A row of the results' gradient, and the row of the input that it meets through one row of the filter.
#[derive(Clone, Copy)]
struct WeightRow<'a> {
    g: &'a Geometry,
    channels: usize,
    xs: &'a [f32],
    grad: &'a [f32],
}

/// Adds to the sums, `[tap][channel]`, of `K` taps of a row of the filter, from one on.
struct Taps<'a, const K: usize>(WeightRow<'a>, &'a mut [f32], usize);

impl<const K: usize> Kernel for Taps<'_, K> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self(WeightRow { g, channels, xs, grad }, sums, first) = self;
        let column = |x: usize, kx: usize| g.column(x, first + kx);
        // Outputs all of whose taps lie inside the plane.
        let whole = |x: &usize| column(*x, 0).is_some() && column(*x, K - 1).is_some();
        let from = (0..g.out_w).find(whole).unwrap_or(g.out_w);
        let end = (from..g.out_w).find(|x| !whole(x)).unwrap_or(g.out_w);
        let start = column(from, 0).unwrap_or(0);
        let step = g.filter.stride * channels;
        for channel in (0..channels).step_by(S::LANES) {
            let lanes = S::LANES.min(channels - channel);
            // SAFETY: pixels and columns lie inside their rows, which hold `channels` values a
            // pixel; `run` is called by `S::enter`.
            unsafe {
                let mut totals: [S::V; K] = std::array::from_fn(|kx| {
                    S::load_first(sums.as_ptr().add(kx * channels + channel), lanes)
                });
                for x in (0..from).chain(end..g.out_w) {
                    let d = S::load_first(grad.as_ptr().add(x * channels + channel), lanes);
                    for (kx, total) in totals.iter_mut().enumerate() {
                        if let Some(column) = column(x, kx) {
                            let x = S::load_first(xs.as_ptr().add(column * channels + channel), lanes);
                            *total = S::fma(x, d, *total);
                        }
                    }
                }
                let mut place = xs.as_ptr().wrapping_add(start * channels + channel);
                for x in from..end {
                    let d = S::load_first(grad.as_ptr().add(x * channels + channel), lanes);
                    for (kx, total) in totals.iter_mut().enumerate() {
                        let x = S::load_first(place.add(kx * channels), lanes);
                        *total = S::fma(x, d, *total);
                    }
                    place = place.wrapping_add(step);
                }
                for (kx, total) in totals.into_iter().enumerate() {
                    S::store_first(sums.as_mut_ptr().add(kx * channels + channel), total, lanes);
                }
            }
        }
    }
}
