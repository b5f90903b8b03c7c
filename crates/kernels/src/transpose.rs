//! Channels last: the order of memory that packed weights work on, and of a head's predictions.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, DType, Device, Layout, Result, Shape, Tensor, WithDType, bail};

use crate::operation::items_per_task;
use crate::tape;
use crate::threads::share_chunks;

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
        return xs.contiguous()?.reshape((b, c, h * w))?.apply_op1(Transpose)?.reshape((b, h, w, c));
    }
    last.contiguous()
}

/// `[B, C, N]` → `[B, N, C]`
struct Transpose;

impl Transpose {
    fn run<T: WithDType>(xs: &[T], c: usize, n: usize) -> Vec<T> {
        let mut ys = vec![T::zero(); xs.len()];
        if xs.is_empty() {
            return ys;
        }
        for (xs, ys) in xs.chunks_exact(c * n).zip(ys.chunks_exact_mut(c * n)) {
            let per_task = items_per_task(n.div_ceil(BLOCK), BLOCK * c) * BLOCK;
            share_chunks(ys, per_task * c, |task, ys| {
                for (i, ys) in ys.chunks_mut(BLOCK * c).enumerate() {
                    let first = task * per_task + i * BLOCK;
                    for from in (0..c).step_by(BLOCK) {
                        for (j, ys) in ys.chunks_exact_mut(c).enumerate() {
                            for channel in from..(from + BLOCK).min(c) {
                                ys[channel] = xs[channel * n + first + j];
                            }
                        }
                    }
                }
            });
        }
        ys
    }
}

impl CustomOp1 for Transpose {
    fn name(&self) -> &'static str {
        "channels-last"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, c, n) = layout.shape().dims3()?;
        let Some((from, to)) = layout.contiguous_offsets() else {
            bail!("channels-last: operand is not contiguous")
        };
        let ys = match storage {
            CpuStorage::F32(xs) => CpuStorage::F32(Self::run(&xs[from..to], c, n)),
            CpuStorage::F64(xs) => CpuStorage::F64(Self::run(&xs[from..to], c, n)),
            _ => bail!("channels-last: no kernel for {:?}", storage.dtype()),
        };
        Ok((ys, (b, n, c).into()))
    }

    fn bwd(&self, _arg: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        grad.contiguous()?.apply_op1(Transpose).map(Some)
    }
}
