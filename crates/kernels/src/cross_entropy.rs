//! Cross entropy of classes of pixels.

use candle_core::{D, Device, Result, Shape, Tensor, bail};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Custom, Operation, kernel_dtype, map_sizes};
use crate::softmax::softmax;
use crate::tape;
use crate::threads::{items_per_task, share_chunks};
use crate::transpose::channels_last;

/// Operations that a score costs, roughly: most of it the exponential.
const COST: usize = 16;

/// −log of each pixel's softmax at its label, `[B, H, W]`, for scores `xs`, `[B, C, H, W]`, and one label a pixel, row
/// by row. A pixel whose label is no class has a loss and a gradient of 0. Has a gradient.
///
/// # Errors
/// If `xs` is not a map, or there are not as many labels as pixels.
pub fn cross_entropy(xs: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let (b, classes, h, w) = map_sizes("cross-entropy", xs)?;
    if labels.len() != b * h * w {
        bail!(
            "cross-entropy: expected {} labels, one a pixel of {:?}, got {}",
            b * h * w,
            xs.dims(),
            labels.len()
        )
    }
    if !matches!(xs.device(), Device::Cpu) {
        return cross_entropy_candle(xs, labels);
    }
    let dtype = kernel_dtype("cross-entropy", &[xs])?;
    let op = CrossEntropy { shape: (b, h, w).into(), classes, labels: labels.to_vec() };
    tape::apply(op, [&channels_last(&xs.to_dtype(dtype)?)?])?.to_dtype(xs.dtype())
}

/// In candle's own operations.
fn cross_entropy_candle(xs: &Tensor, labels: &[u32]) -> Result<Tensor> {
    let (b, classes, h, w) = xs.dims4()?;
    let is_class = |label: u32| (label as usize) < classes;
    let own: Vec<u32> = labels.iter().map(|&label| if is_class(label) { label } else { 0 }).collect();
    let counted: Vec<f32> = labels.iter().map(|&label| if is_class(label) { 1.0 } else { 0.0 }).collect();
    let last = xs.permute((0, 2, 3, 1))?.contiguous()?;
    // The shift cancels, so that it needs no gradient.
    let shifted = last.broadcast_sub(&last.detach().max_keepdim(D::Minus1)?)?;
    let own = shifted.gather(&Tensor::from_vec(own, (b, h, w, 1), xs.device())?, 3)?;
    let losses = (shifted.exp()?.sum_keepdim(D::Minus1)?.log()? - own)?.squeeze(3)?;
    losses * Tensor::from_vec(counted, (b, h, w), xs.device())?.to_dtype(xs.dtype())?
}

/// `[B, H, W, C]` → `[B, H, W]`
struct CrossEntropy {
    shape: Shape,
    classes: usize,
    labels: Vec<u32>,
}

impl Operation<1> for CrossEntropy {
    const NAME: &'static str = "cross-entropy";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn run<T: Float>(&self, _: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let mut losses = vec![T::ZERO; self.labels.len()];
        let pixels = items_per_task(losses.len(), COST * self.classes);
        share_chunks(&mut losses, pixels, |task, losses| {
            let from = task * pixels;
            let scores = xs[from * self.classes..].chunks_exact(self.classes);
            for ((loss, scores), &label) in losses.iter_mut().zip(scores).zip(&self.labels[from..]) {
                let Some(own) = scores.get(label as usize) else { continue };
                let largest = scores.iter().fold(T::NEG_INFINITY, |max, &x| if x > max { x } else { max });
                let sum: f64 = scores.iter().map(|&x| (x - largest).to_f64().exp()).sum();
                *loss = T::from_f64(sum.ln() + (largest - *own).to_f64());
            }
        });
        losses
    }

    fn gradients(&self, [xs]: [&Tensor; 1], grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let shares = softmax(xs, 1.0, None)?;
        let op = Custom(LabelGradient {
            shape: xs.shape().clone(),
            classes: self.classes,
            labels: self.labels.clone(),
        });
        Ok([Some(shares.apply_op2_no_bwd(&grad.contiguous()?, &op)?)])
    }
}

/// From each pixel's softmax and its loss's gradient g: g · (softmax − 1 at the label).
struct LabelGradient {
    shape: Shape,
    classes: usize,
    labels: Vec<u32>,
}

impl Operation<2> for LabelGradient {
    const NAME: &'static str = "cross-entropy's gradient";

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn run<T: Float>(&self, _: Isa, [shares, grads]: [&[T]; 2]) -> Vec<T> {
        let mut to_xs = vec![T::ZERO; shares.len()];
        let pixels = items_per_task(self.labels.len(), self.classes);
        share_chunks(&mut to_xs, pixels * self.classes, |task, to_xs| {
            let from = task * pixels;
            let of_pixel = grads[from..].iter().zip(&self.labels[from..]);
            let shares = shares[from * self.classes..].chunks_exact(self.classes);
            for ((to, shares), (&grad, &label)) in
                to_xs.chunks_exact_mut(self.classes).zip(shares).zip(of_pixel)
            {
                // A pixel that does not count has a gradient of zeros.
                if label as usize >= self.classes {
                    continue;
                }
                for (to, &share) in to.iter_mut().zip(shares) {
                    *to = grad * share;
                }
                to[label as usize] -= grad;
            }
        });
        to_xs
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Var};

    use super::*;

    #[test]
    fn candles_operations_give_the_same() -> Result<()> {
        let labels: Vec<u32> = (0..24).map(|i| if i % 5 == 0 { 255 } else { i % 3 }).collect();
        for dtype in [DType::F32, DType::F64] {
            let xs = (Tensor::arange(0f64, 72.0, &Device::Cpu)?.reshape((2, 3, 4, 3))?.sin()? * 5.0)?
                .to_dtype(dtype)?;
            let var = Var::from_tensor(&xs)?;
            let weights = Tensor::arange(1f64, 25.0, &Device::Cpu)?.reshape((2, 4, 3))?.to_dtype(dtype)?;
            let (got, want) = (cross_entropy(&var, &labels)?, cross_entropy_candle(&var, &labels)?);
            let gradient = |ys: &Tensor| -> Result<Tensor> {
                let grads = (ys * &weights)?.sum_all()?.backward()?;
                grads.get(&var).cloned().ok_or_else(|| candle_core::Error::msg("no gradient"))
            };
            for (a, b) in [(&got, &want), (&gradient(&got)?, &gradient(&want)?)] {
                assert_eq!(a.dtype(), dtype);
                let difference = (a - b)?.abs()?.max_all()?.to_dtype(DType::F64)?.to_scalar::<f64>()?;
                assert!(difference < 2e-5, "{dtype:?}: {difference}");
            }
        }
        Ok(())
    }

    #[test]
    fn labels_that_do_not_fit_are_refused() -> Result<()> {
        let xs = Tensor::zeros((1, 3, 2, 2), DType::F32, &Device::Cpu)?;
        let error = cross_entropy(&xs, &[0; 5]).map_err(|error| error.to_string());
        assert!(
            error.is_err_and(|text| text.contains("expected 4 labels, one a pixel of [1, 3, 2, 2], got 5"))
        );
        Ok(())
    }
}
