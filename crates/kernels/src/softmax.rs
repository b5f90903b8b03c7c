//! Softmax over the last dimension.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, D, DType, Device, Layout, Result, Shape, Tensor, bail};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Operation, compute};
use crate::rows::{exp_shifted, normaliser, shift, sum};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{items_per_task, share_chunks};

/// Operations that a value costs, roughly.
const COST: usize = 8;

/// `softmax(scale · xs + bias)` over the last dimension.
///
/// `xs`: `[.., N]`; `bias` broadcasts to it. A row that is −∞ throughout, as a mask may leave it,
/// becomes zeros, and has a gradient of zeros. Has gradients for both.
///
/// # Errors
/// If the shapes do not fit, or `ZOO_ISA` is wrong.
pub fn softmax(xs: &Tensor, scale: f64, bias: Option<&Tensor>) -> Result<Tensor> {
    if xs.rank() == 0 {
        bail!("softmax: expected at least one dimension, got a scalar")
    }
    if let Some(bias) = bias {
        return softmax(&(xs * scale)?.broadcast_add(bias)?, 1.0, None);
    }
    if xs.elem_count() == 0 {
        return Ok(xs.clone());
    }
    if matches!(xs.device(), Device::Cpu) && matches!(xs.dtype(), DType::F32 | DType::F64) {
        return xs.contiguous()?.apply_op1(Softmax { scale });
    }
    softmax_candle(&(xs * scale)?)
}

/// In candle's own operations.
fn softmax_candle(xs: &Tensor) -> Result<Tensor> {
    let lowest = if xs.dtype() == DType::F16 { -65_504.0 } else { f64::from(f32::MIN) };
    // The shift cancels, so that it needs no gradient; where all of a row is masked it is finite.
    let shift = xs.max_keepdim(D::Minus1)?.maximum(lowest)?.detach();
    let weights = xs.broadcast_sub(&shift)?.exp()?;
    weights.broadcast_div(&weights.sum_keepdim(D::Minus1)?.maximum(1.0)?)
}

#[derive(Debug, Clone, Copy)]
struct Softmax {
    scale: f64,
}

/// The length of a row, and the values of contiguous rows.
fn rows<'a, T>(xs: &'a [T], layout: &Layout) -> Result<(usize, &'a [T])> {
    match (layout.dims().last(), layout.contiguous_offsets()) {
        (Some(&n), Some((from, to))) if n > 0 => Ok((n, &xs[from..to])),
        _ => bail!("softmax: expected contiguous rows, got {layout:?}"),
    }
}

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ys = match storage {
            CpuStorage::F32(xs) => {
                let (isa, (n, xs)) = (Isa::current()?, rows(xs, layout)?);
                let mut ys = vec![0.0; xs.len()];
                let share = items_per_task(xs.len() / n, COST * n) * n;
                share_chunks(&mut ys, share, |i, ys| {
                    let xs = &xs[i * share..][..ys.len()];
                    dispatch(isa, Forward { n, scale: self.scale as f32, xs, ys });
                });
                CpuStorage::F32(ys)
            }
            CpuStorage::F64(xs) => {
                let (n, xs) = rows(xs, layout)?;
                let mut ys: Vec<f64> = xs.iter().map(|x| x * self.scale).collect();
                for ys in ys.chunks_exact_mut(n) {
                    let shift = shift(ys.iter().copied().fold(f64::NEG_INFINITY, f64::max));
                    ys.iter_mut().for_each(|y| *y = (*y - shift).exp());
                    let scale = normaliser(ys.iter().sum::<f64>());
                    ys.iter_mut().for_each(|y| *y *= scale);
                }
                CpuStorage::F64(ys)
            }
            _ => bail!("softmax: no kernel for {:?}", storage.dtype()),
        };
        Ok((ys, layout.shape().clone()))
    }

    fn bwd(&self, _xs: &Tensor, ys: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let op = SoftmaxGrad { shape: ys.shape().clone(), n: ys.dim(D::Minus1)?, scale: self.scale };
        compute(&op, [ys, &grad.contiguous()?]).map(Some)
    }
}

struct Forward<'a> {
    n: usize,
    scale: f32,
    xs: &'a [f32],
    ys: &'a mut [f32],
}

impl Kernel for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let n = self.n;
        // The row at hand in whole vectors; −∞ in the last one's other lanes counts for nothing.
        let mut row = vec![0.0; n.next_multiple_of(S::LANES)];
        for (xs, ys) in self.xs.chunks_exact(n).zip(self.ys.chunks_exact_mut(n)) {
            // SAFETY: the row holds whole vectors, the other chunks as many values as they say; `run`
            // is called by `S::enter`.
            unsafe {
                let (scale, none) = (S::splat(self.scale), S::splat(f32::NEG_INFINITY));
                let mut largest = none;
                for (xs, to) in xs.chunks(S::LANES).zip(row.chunks_exact_mut(S::LANES)) {
                    let y = S::mul(S::load_first(xs.as_ptr(), xs.len()), scale);
                    let y = S::first_or(y, none, xs.len());
                    S::store(to.as_mut_ptr(), y);
                    largest = S::max(y, largest);
                }
                let sum = exp_shifted::<S>(&mut row, shift(S::largest(largest)));
                let factor = S::splat(normaliser(sum));
                for (ys, from) in ys.chunks_mut(S::LANES).zip(row.chunks_exact(S::LANES)) {
                    S::store_first(ys.as_mut_ptr(), S::mul(S::load(from.as_ptr()), factor), ys.len());
                }
            }
        }
    }
}

/// From the result and its gradient: (g − Σ g·y) · y · scale.
struct SoftmaxGrad {
    shape: Shape,
    n: usize,
    scale: f64,
}

impl Operation<2> for SoftmaxGrad {
    const NAME: &'static str = "softmax's gradient";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn run<T: Float>(&self, isa: Isa, [ys, grad]: [&[T]; 2]) -> Vec<T> {
        let Self { n, scale, .. } = *self;
        let mut to_xs = vec![T::ZERO; ys.len()];
        let share = items_per_task(ys.len() / n, COST * n) * n;
        share_chunks(&mut to_xs, share, |i, to_xs| {
            let part = i * share..i * share + to_xs.len();
            dispatch(isa, Backward { n, scale, ys: &ys[part.clone()], grad: &grad[part], to_xs });
        });
        to_xs
    }
}

struct Backward<'a, T> {
    n: usize,
    scale: f64,
    ys: &'a [T],
    grad: &'a [T],
    to_xs: &'a mut [T],
}

impl<T: Float> Kernel for Backward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let scale = T::from_f64(self.scale);
        let rows = self.ys.chunks_exact(self.n).zip(self.grad.chunks_exact(self.n));
        for ((ys, grad), to_xs) in rows.zip(self.to_xs.chunks_exact_mut(self.n)) {
            let mean = sum([ys, grad], |[y, g]| y * g);
            for ((to, y), g) in to_xs.iter_mut().zip(ys).zip(grad) {
                *to = (*g - mean) * *y * scale;
            }
        }
    }
}
