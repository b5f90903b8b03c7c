//! Activations of whole tensors.

use std::mem::MaybeUninit;

use candle_core::{CpuStorage, DType, Device, InplaceOp1, Layout, Result, Shape, Tensor, bail};

use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::filled_chunks;
use crate::operation::on_cpu;
use crate::packed::{from_nhwc, values};
use crate::simd::{Kernel, Simd, dispatch};
use crate::tape::{Differentiable, apply};
use crate::threads::share_chunks;
use crate::transpose::channels_last;
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
        share_chunks(&mut xs[from..to], TASK, |_, xs| dispatch(self.isa, Chunk { xs, act: self.act }));
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

/// `act` of every value, as a new tensor, with a gradient. Of a map, channels last in memory stay so.
///
/// # Errors
/// As [`activate`].
pub fn activated(xs: &Tensor, act: Activation) -> Result<Tensor> {
    if !matches!(xs.device(), Device::Cpu) || xs.dtype() != DType::F32 {
        return act.apply(xs);
    }
    if xs.is_contiguous() {
        return apply(Activated(act), [xs]);
    }
    if xs.rank() == 4 {
        return from_nhwc(&apply(Activated(act), [&channels_last(xs)?])?);
    }
    apply(Activated(act), [&xs.contiguous()?])
}

struct Activated(Activation);

impl Differentiable<1> for Activated {
    fn evaluate(&self, [xs]: [&Tensor; 1]) -> Result<(CpuStorage, Shape)> {
        let isa = Isa::current()?;
        let ys = on_cpu("activation", [xs], |[storage], [layout]| {
            let xs = values("activation", storage, layout)?;
            // SAFETY: the kernel writes every value of its part.
            Ok(unsafe {
                filled_chunks(xs.len(), TASK, |i, ys| {
                    let xs = &xs[i * TASK..][..ys.len()];
                    dispatch(isa, Each { xs, grad: None, act: self.0, ys });
                })
            })
        })?;
        Ok((CpuStorage::F32(ys), xs.shape().clone()))
    }

    fn gradients(&self, [xs]: [&Tensor; 1], _: [bool; 1], grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let isa = Isa::current()?;
        let to_xs = on_cpu("activation", [xs, grad], |[s1, s2], [l1, l2]| {
            let (xs, grad) = (values("activation", s1, l1)?, values("activation", s2, l2)?);
            // SAFETY: the kernel writes every value of its part.
            Ok(unsafe {
                filled_chunks(xs.len(), TASK, |i, ys| {
                    let part = i * TASK..i * TASK + ys.len();
                    let (xs, grad) = (&xs[part.clone()], Some(&grad[part]));
                    dispatch(isa, Each { xs, grad, act: self.0, ys });
                })
            })
        })?;
        Ok([Some(Tensor::from_vec(to_xs, xs.shape(), &Device::Cpu)?)])
    }
}

/// The activation of some values, or its derivative times a gradient.
struct Each<'a> {
    xs: &'a [f32],
    grad: Option<&'a [f32]>,
    act: Activation,
    ys: &'a mut [MaybeUninit<f32>],
}

impl Kernel for Each<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for (i, (ys, xs)) in self.ys.chunks_mut(S::LANES).zip(self.xs.chunks(S::LANES)).enumerate() {
            let n = ys.len();
            // SAFETY: the chunks hold n values; `run` is called by `S::enter`.
            unsafe {
                let x = S::load_first(xs.as_ptr(), n);
                let y = match self.grad {
                    Some(grad) => {
                        let grad = S::load_first(grad.as_ptr().add(i * S::LANES), n);
                        S::mul(grad, vector_math::slope::<S>(x, self.act))
                    }
                    None => vector_math::activate::<S>(x, self.act),
                };
                S::store_first(ys.as_mut_ptr().cast(), y, n);
            }
        }
    }
}
