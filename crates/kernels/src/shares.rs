//! Values over their sum.

use candle_core::{DType, Device, Result, Shape, Tensor};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::operation::{Operation, compute, contiguous_nhwc, map_sizes};
use crate::packed::from_nhwc;
use crate::pixels::each_pixel;
use crate::tape::apply;
use crate::transpose::channels_last;

const NAME: &str = "channel shares";

/// Each channel's share of a pixel's sum: `xs / (Σ_c xs + eps)`, `[B, C, H, W]`. Where all are zero, so is the result.
/// Has a gradient.
///
/// # Errors
/// If `xs` is not a map.
pub fn channel_shares(xs: &Tensor, eps: f64) -> Result<Tensor> {
    let (batch, channels, height, width) = map_sizes(NAME, xs)?;
    if !matches!(xs.device(), Device::Cpu) || !matches!(xs.dtype(), DType::F32 | DType::F64) {
        return xs.broadcast_div(&(xs.sum_keepdim(1)? + eps)?);
    }
    let shares = Shares { shape: (batch, height, width, channels).into(), channels, eps };
    from_nhwc(&apply(shares, [&channels_last(xs)?])?)
}

/// `[…, C]`
#[derive(Debug, Clone)]
struct Shares {
    shape: Shape,
    channels: usize,
    eps: f64,
}

impl Operation<1> for Shares {
    const NAME: &'static str = NAME;

    fn shape(&self) -> Shape {
        self.shape.clone()
    }

    fn run<T: Float>(&self, isa: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let mut ys = xs.to_vec();
        let (c, eps) = (self.channels, T::from_f64(self.eps));
        each_pixel(isa, &mut ys, c, 4 * c, |_, ys| {
            let mut sum = eps;
            ys.iter().for_each(|&y| sum += y);
            ys.iter_mut().for_each(|y| *y /= sum);
        });
        ys
    }

    fn gradients(&self, [xs]: [&Tensor; 1], grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        Ok([Some(compute(&ToValues(self.clone()), [xs, &contiguous_nhwc(grad)?])?)])
    }
}

/// (values, gradient) → the values' gradient.
struct ToValues(Shares);

impl Operation<2> for ToValues {
    const NAME: &'static str = "channel shares' gradient";

    fn shape(&self) -> Shape {
        self.0.shape.clone()
    }

    fn run<T: Float>(&self, isa: Isa, [xs, grad]: [&[T]; 2]) -> Vec<T> {
        let mut ys = grad.to_vec();
        let (c, eps) = (self.0.channels, T::from_f64(self.0.eps));
        each_pixel(isa, &mut ys, c, 8 * c, |i, ys| {
            let (mut sum, mut weighted) = (eps, T::ZERO);
            for (&x, &y) in xs[i * c..][..c].iter().zip(ys.iter()) {
                sum += x;
                weighted += x * y;
            }
            ys.iter_mut().for_each(|y| *y = (*y - weighted / sum) / sum);
        });
        ys
    }
}
