//! Activations of whole tensors.

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Tensor, bail};
use rayon::prelude::*;

use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::vector_math;

/// Values that are worth a task of their own.
const TASK: usize = 1 << 14;

/// Applies `act` to every value.
///
/// On the CPU in f32, outside an autograd graph, `xs` is changed **in place** and returned: pass a
/// tensor that nobody else reads. Otherwise the result is a new tensor with a gradient.
///
/// # Errors
/// If candle refuses the tensor's type, or `ZOO_ISA` is wrong.
pub fn activate(xs: Tensor, act: Activation) -> Result<Tensor> {
    if !matches!(xs.device(), Device::Cpu) || xs.dtype() != DType::F32 || xs.track_op() {
        return act.apply(&xs);
    }
    if act != Activation::None {
        // Values in a row, whichever dimension they run along.
        let dense = match xs.rank() {
            4 if !xs.is_contiguous() => xs.permute((0, 2, 3, 1))?,
            _ => xs.clone(),
        };
        if !dense.is_contiguous() {
            return activate(xs.force_contiguous()?, act);
        }
        dense.inplace_op1(&Activate { isa: Isa::current()?, act })?;
    }
    Ok(xs)
}

struct Activate {
    isa: Isa,
    act: Activation,
}

impl InplaceOp1 for Activate {
    fn name(&self) -> &'static str {
        "activation"
    }

    fn cpu_fwd(&self, storage: &mut CpuStorage, layout: &Layout) -> Result<()> {
        let (CpuStorage::F32(xs), Some((from, to))) = (storage, layout.contiguous_offsets()) else {
            bail!("activation: expected contiguous values of f32")
        };
        xs[from..to].par_chunks_mut(TASK).for_each(|xs| dispatch(self.isa, Chunk { xs, act: self.act }));
        Ok(())
    }
}

struct Chunk<'a> {
    xs: &'a mut [f32],
    act: Activation,
}

impl Kernel for Chunk<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for xs in self.xs.chunks_mut(S::LANES) {
            // SAFETY: a chunk holds as many values as it says; `run` is called by `S::enter`.
            unsafe {
                let y = vector_math::activate::<S>(S::load_first(xs.as_ptr(), xs.len()), self.act);
                S::store_first(xs.as_mut_ptr(), y, xs.len());
            }
        }
    }
}
