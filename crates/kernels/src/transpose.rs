//! Channels last: the order of memory that packed weights work on, and of a head's predictions.

use candle_core::{DType, Device, Result, Shape, Tensor};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::memory::filled;
use crate::operation::{Custom, Operation, compute};
use crate::tape;
use crate::threads::{items_per_task, share_chunks};

/// Side of the square that is moved at a time: its rows and columns stay in the nearest cache.
const BLOCK: usize = 32;

/// `[B, C, H, W]` → `[B, H, W, C]`, contiguous, with a gradient: the same memory where that runs
/// channel first already.
///
/// # Errors
/// If `xs` is not of rank 4.
pub fn channels_last(xs: &Tensor) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let last = xs.permute((0, 2, 3, 1))?;
    if last.is_contiguous() {
        tape::turn(xs, &last);
        return Ok(last);
    }
    if matches!(xs.device(), Device::Cpu) && matches!(xs.dtype(), DType::F32 | DType::F64) {
        let op = Transpose { batch: b, channels: c, values: h * w };
        return xs.contiguous()?.reshape((b, c, h * w))?.apply_op1(Custom(op))?.reshape((b, h, w, c));
    }
    last.contiguous()
}

/// `[B, C, N]` → `[B, N, C]`
struct Transpose {
    batch: usize,
    channels: usize,
    /// Of a channel.
    values: usize,
}

impl Operation<1> for Transpose {
    const NAME: &'static str = "channels-last";

    fn shape(&self) -> Shape {
        (self.batch, self.values, self.channels).into()
    }

    fn run<T: Float>(&self, _: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let (c, n) = (self.channels, self.values);
        let image = (c * n).max(1);
        let per_task = items_per_task(n.div_ceil(BLOCK), BLOCK * c) * BLOCK;
        // SAFETY: the images are the whole result, and every channel of each pixel is written.
        unsafe {
            filled(xs.len(), |ys| {
                let ys = ys.unwritten(xs.len()).chunks_exact_mut(image);
                for (xs, ys) in xs.chunks_exact(image).zip(ys) {
                    share_chunks(ys, per_task * c, |task, ys| {
                        for (i, ys) in ys.chunks_mut(BLOCK * c).enumerate() {
                            let first = task * per_task + i * BLOCK;
                            for from in (0..c).step_by(BLOCK) {
                                for (j, ys) in ys.chunks_exact_mut(c).enumerate() {
                                    for channel in from..(from + BLOCK).min(c) {
                                        ys[channel].write(xs[channel * n + first + j]);
                                    }
                                }
                            }
                        }
                    });
                }
            })
        }
    }

    fn gradients(&self, _: [&Tensor; 1], grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let Self { batch, channels, values } = *self;
        let back = Self { batch, channels: values, values: channels };
        Ok([Some(compute(&back, [&grad.contiguous()?])?)])
    }
}
