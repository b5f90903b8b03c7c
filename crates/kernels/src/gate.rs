//! A factor for each channel of each image.

use std::mem::MaybeUninit;

use candle_core::{DType, Device, Result, Shape, Tensor, bail};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::memory::filled_chunks;
use crate::operation::{Operation, compute, map_sizes};
use crate::packed::from_nhwc;
use crate::simd::{Kernel, Simd, dispatch};
use crate::tape::apply;
use crate::threads::items_per_task;
use crate::transpose::channels_last;

/// `xs · gates`: `[B, C, H, W]` and `[B, C, 1, 1]`. Result: like `xs`, channels last in memory on the CPU.
/// Has gradients for both.
///
/// # Errors
/// If a shape does not fit, or the types differ.
pub fn gate(xs: &Tensor, gates: &Tensor) -> Result<Tensor> {
    gated(xs, gates, None)
}

/// `xs · gates + addend`, in one pass: as [`gate`], with an addend of the shape of `xs`. Has gradients for all three.
///
/// # Errors
/// As there.
pub fn gate_add(xs: &Tensor, gates: &Tensor, addend: &Tensor) -> Result<Tensor> {
    gated(xs, gates, Some(addend))
}

fn gated(xs: &Tensor, gates: &Tensor, addend: Option<&Tensor>) -> Result<Tensor> {
    let (batch, channels, height, width) = map_sizes("gate", xs)?;
    if gates.dims() != [batch, channels, 1, 1] || gates.dtype() != xs.dtype() {
        bail!(
            "gate: expected gates of [{batch}, {channels}, 1, 1] in {:?}, got {:?} in {:?}",
            xs.dtype(),
            gates.dims(),
            gates.dtype()
        )
    }
    if let Some(addend) = addend
        && (addend.dims() != xs.dims() || addend.dtype() != xs.dtype())
    {
        bail!(
            "gate: expected an addend of {:?} in {:?}, got {:?} in {:?}",
            xs.dims(),
            xs.dtype(),
            addend.dims(),
            addend.dtype()
        )
    }
    if !matches!(xs.device(), Device::Cpu) || !matches!(xs.dtype(), DType::F32 | DType::F64) {
        let ys = xs.broadcast_mul(gates)?;
        return addend.map_or(Ok(ys.clone()), |addend| ys + addend);
    }
    let op = Gate { batch, channels, height, width };
    let (xs, gates) = (channels_last(xs)?, gates.reshape((batch, channels))?.contiguous()?);
    from_nhwc(&match addend {
        Some(addend) => apply(op, [&xs, &gates, &channels_last(addend)?])?,
        None => apply(op, [&xs, &gates])?,
    })
}

/// `[B, H, W, C]` · `[B, C]`, plus a third operand like the first if there is one.
#[derive(Debug, Clone, Copy)]
struct Gate {
    batch: usize,
    channels: usize,
    height: usize,
    width: usize,
}

impl<const N: usize> Operation<N> for Gate {
    const NAME: &'static str = "gate";

    fn shape(&self) -> Shape {
        (self.batch, self.height, self.width, self.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, operands: [&[T]; N]) -> Vec<T> {
        let (xs, gates) = (operands[0], operands[1]);
        let (c, pixels) = (self.channels, self.height * self.width);
        let per_task = items_per_task(self.batch * pixels, c);
        // SAFETY: the kernel writes every value of its part.
        unsafe {
            filled_chunks(xs.len(), per_task * c, |i, ys| {
                let part = i * per_task * c..i * per_task * c + ys.len();
                let (xs, addend) = (&xs[part.clone()], operands.get(2).map(|all| &all[part]));
                dispatch(isa, Gated { channels: c, first: i * per_task, pixels, xs, gates, addend, ys });
            })
        }
    }

    fn gradients(&self, operands: [&Tensor; N], grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let mut gradients = [const { None }; N];
        gradients[0] = Some(compute(self, [grad, operands[1]])?);
        gradients[1] = Some(compute(&ToGates(*self), [grad, operands[0]])?);
        if let Some(to_addend) = gradients.get_mut(2) {
            *to_addend = Some(grad.clone());
        }
        Ok(gradients)
    }
}

/// Some pixels of the batch.
struct Gated<'a, T> {
    channels: usize,
    first: usize,
    /// Of an image.
    pixels: usize,
    xs: &'a [T],
    gates: &'a [T],
    addend: Option<&'a [T]>,
    ys: &'a mut [MaybeUninit<T>],
}

impl<T: Float> Kernel for Gated<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let c = self.channels;
        for (i, (ys, xs)) in self.ys.chunks_exact_mut(c).zip(self.xs.chunks_exact(c)).enumerate() {
            let gates = &self.gates[(self.first + i) / self.pixels * c..][..c];
            match self.addend {
                Some(addend) => {
                    let addend = &addend[i * c..][..c];
                    for (((y, &x), &gate), &a) in ys.iter_mut().zip(xs).zip(gates).zip(addend) {
                        y.write(x * gate + a);
                    }
                }
                None => {
                    for ((y, &x), &gate) in ys.iter_mut().zip(xs).zip(gates) {
                        y.write(x * gate);
                    }
                }
            }
        }
    }
}

/// (gradient, map) → the gates' gradient, `[B, C]`: for each image the sum of the products.
struct ToGates(Gate);

impl Operation<2> for ToGates {
    const NAME: &'static str = "gate's gradient";

    fn shape(&self) -> Shape {
        (self.0.batch, self.0.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [grad, xs]: [&[T]; 2]) -> Vec<T> {
        let Gate { batch, channels, height, width } = self.0;
        let image = height * width * channels;
        // SAFETY: the kernel writes every value of its part.
        unsafe {
            filled_chunks(batch * channels, channels, |i, sums| {
                let part = i * image..(i + 1) * image;
                dispatch(isa, Products { grad: &grad[part.clone()], xs: &xs[part], sums });
            })
        }
    }
}

/// The sums over one image.
struct Products<'a, T> {
    grad: &'a [T],
    xs: &'a [T],
    sums: &'a mut [MaybeUninit<T>],
}

impl<T: Float> Kernel for Products<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let c = self.sums.len();
        let mut sums = vec![T::ZERO; c];
        for (grad, xs) in self.grad.chunks_exact(c).zip(self.xs.chunks_exact(c)) {
            for ((sum, &d), &x) in sums.iter_mut().zip(grad).zip(xs) {
                *sum += d * x;
            }
        }
        for (to, sum) in self.sums.iter_mut().zip(sums) {
            to.write(sum);
        }
    }
}
