//! Layer normalisation, forward and backward.
//!
//! Plain loops over rows, of which the compiler makes vectors for each instruction set.

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Custom, Operation};
use crate::packed::from_nhwc;
use crate::rows::sum;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{gather_chunks, items_per_task, share_chunks};
use crate::transpose::channels_last;

/// Normalises each row of the last dimension and scales it:
/// `ys = (xs − mean) / √(variance + eps) · weight + bias`, the variance divided by the row's length.
///
/// `xs`: `[.., N]`; `weight` and `bias`: `[N]`. Has gradients for all three.
///
/// # Errors
/// If a shape does not fit, the types differ, or `ZOO_ISA` is wrong.
pub fn layer_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let n = match xs.dims().last() {
        Some(&n) if n > 0 && weight.dims() == [n] && bias.dims() == [n] => n,
        _ => bail!(
            "layer-norm: expected [.., N] and a weight and a bias of [N], got {:?}, {:?} and {:?}",
            xs.dims(),
            weight.dims(),
            bias.dims()
        ),
    };
    let types = [xs.dtype(), weight.dtype(), bias.dtype()];
    if types != [types[0]; 3] {
        bail!("layer-norm: expected values, weight and bias of one type, got {types:?}")
    }
    if !matches!(xs.device(), Device::Cpu) || !matches!(types[0], DType::F32 | DType::F64) {
        return layer_norm_candle(xs, weight, bias, eps);
    }
    let op = LayerNorm { rows: xs.elem_count() / n, n, eps };
    let ys = xs.contiguous()?.apply_op3(&weight.contiguous()?, &bias.contiguous()?, Custom(op))?;
    ys.reshape(xs.shape())
}

/// [`layer_norm`] over the channels of each place of a map `[B, C, H, W]`.
///
/// # Errors
/// As [`layer_norm`], and if `xs` is not of rank 4.
pub fn channel_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    from_nhwc(&layer_norm(&channels_last(xs)?, weight, bias, eps)?)
}

/// In candle's own operations; short floats are summed in f32.
fn layer_norm_candle(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Result<Tensor> {
    let dtype = xs.dtype();
    let wide = if dtype == DType::F64 { dtype } else { DType::F32 };
    let xs = xs.to_dtype(wide)?;
    let last = xs.rank().saturating_sub(1);
    let centred = xs.broadcast_sub(&xs.mean_keepdim(last)?)?;
    let deviation = (centred.sqr()?.mean_keepdim(last)? + eps)?.sqrt()?;
    centred.broadcast_div(&deviation)?.to_dtype(dtype)?.broadcast_mul(weight)?.broadcast_add(bias)
}

/// Rows of `n` values.
#[derive(Debug, Clone, Copy)]
struct LayerNorm {
    rows: usize,
    n: usize,
    eps: f64,
}

/// A row's mean, and 1 over its standard deviation.
#[inline(always)]
fn moments<T: Float>(xs: &[T], eps: f64) -> (T, T) {
    let scale = T::from_f64(1.0 / xs.len() as f64);
    let mean = sum([xs], |[x]| x) * scale;
    let variance = sum([xs], |[x]| (x - mean) * (x - mean)) * scale;
    (mean, T::from_f64(1.0 / (variance.to_f64() + eps).sqrt()))
}

impl Operation<3> for LayerNorm {
    const NAME: &'static str = "layer-norm";

    fn shape(&self) -> Shape {
        (self.rows, self.n).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, weight, bias]: [&[T]; 3]) -> Vec<T> {
        let mut ys = vec![T::ZERO; xs.len()];
        let share = items_per_task(self.rows, 4 * self.n) * self.n;
        share_chunks(&mut ys, share, |i, ys| {
            let xs = &xs[i * share..][..ys.len()];
            dispatch(isa, Forward { xs, weight, bias, ys, eps: self.eps });
        });
        ys
    }

    fn gradients(&self, [xs, weight, _]: [&Tensor; 3], grad: &Tensor) -> Result<[Option<Tensor>; 3]> {
        let grads = xs.apply_op3_no_bwd(weight, &grad.contiguous()?, &Custom(LayerNormGrad(*self)))?;
        let to_xs = grads.narrow(0, 0, self.rows)?.reshape(xs.shape())?;
        let row = |i: usize| grads.narrow(0, self.rows + i, 1)?.flatten_all();
        Ok([Some(to_xs), Some(row(0)?), Some(row(1)?)])
    }
}

struct Forward<'a, T> {
    xs: &'a [T],
    weight: &'a [T],
    bias: &'a [T],
    ys: &'a mut [T],
    eps: f64,
}

impl<T: Float> Kernel for Forward<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let n = self.weight.len();
        let (weight, bias) = (&self.weight[..n], &self.bias[..n]);
        for (xs, ys) in self.xs.chunks_exact(n).zip(self.ys.chunks_exact_mut(n)) {
            let (mean, scale) = moments(xs, self.eps);
            for i in 0..n {
                ys[i] = (xs[i] - mean) * scale * weight[i] + bias[i];
            }
        }
    }
}

/// From values, weight and the result's gradient: the values' gradient, and below it as two more
/// rows the weight's and the bias's.
struct LayerNormGrad(LayerNorm);

impl Operation<3> for LayerNormGrad {
    const NAME: &'static str = "layer-norm's gradient";

    fn shape(&self) -> Shape {
        (self.0.rows + 2, self.0.n).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, weight, grad]: [&[T]; 3]) -> Vec<T> {
        let LayerNorm { rows, n, eps } = self.0;
        let mut grads = vec![T::ZERO; (rows + 2) * n];
        let (to_xs, to_others) = grads.split_at_mut(rows * n);
        let share = items_per_task(rows, 12 * n) * n;
        let parts = gather_chunks(to_xs, share, |i, to_xs| {
            let part = i * share..i * share + to_xs.len();
            let (xs, grad) = (&xs[part.clone()], &grad[part]);
            dispatch(isa, Backward { xs, weight, grad, to_xs, eps })
        });
        for part in parts {
            for (to, from) in to_others.iter_mut().zip(part) {
                *to += from;
            }
        }
        grads
    }
}

/// Writes the gradient of some rows and returns their part of the weight's and the bias's.
struct Backward<'a, T> {
    xs: &'a [T],
    weight: &'a [T],
    grad: &'a [T],
    to_xs: &'a mut [T],
    eps: f64,
}

impl<T: Float> Kernel for Backward<'_, T> {
    type Output = Vec<T>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<T> {
        let n = self.weight.len();
        let weight = &self.weight[..n];
        let mut to_others = vec![T::ZERO; 2 * n];
        let (to_weight, to_bias) = to_others.split_at_mut(n);
        let rows = self.xs.chunks_exact(n).zip(self.grad.chunks_exact(n));
        for ((xs, grad), to_xs) in rows.zip(self.to_xs.chunks_exact_mut(n)) {
            let (mean, scale) = moments(xs, self.eps);
            // With x̂ the normalised row and g the gradient times the weight, the row's gradient is
            // (g − mean(g) − x̂ · mean(g · x̂)) / deviation.
            let share = T::from_f64(1.0 / n as f64);
            let along_mean = sum([grad, weight], |[g, w]| g * w) * share;
            let along_row = sum([grad, weight, xs], |[g, w, x]| g * w * (x - mean)) * scale * share;
            for i in 0..n {
                let normal = (xs[i] - mean) * scale;
                to_xs[i] = (grad[i] * weight[i] - along_mean - normal * along_row) * scale;
                to_weight[i] += grad[i] * normal;
                to_bias[i] += grad[i];
            }
        }
        to_others
    }
}
