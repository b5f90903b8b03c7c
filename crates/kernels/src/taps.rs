//! Linear maps that act on rows and on columns apart: average pooling, resizing, and their gradients.
//!
//! For each output of an axis there is a short list of inputs and weights. A kernel mixes whole rows
//! by the one axis's lists, then the pixels of that row by the other's; the gradient is the same with
//! both lists turned round.

use std::mem::MaybeUninit;

use candle_core::{DType, Device, Result, Shape, Tensor};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::memory::filled_chunks;
use crate::operation::{Custom, Operation, contiguous_nhwc, kernel_dtype, map_sizes};
use crate::packed::from_nhwc;
use crate::simd::{Kernel, Simd, dispatch};
use crate::tape;
use crate::threads::items_per_task;
use crate::transpose::channels_last;

/// An input and its weight.
pub(crate) type Tap = (usize, f64);

/// What each output along one axis takes from which inputs.
#[derive(Debug, Clone)]
pub(crate) struct Taps {
    inputs: usize,
    /// Where an output's taps start; one more at the end.
    starts: Vec<usize>,
    taps: Vec<Tap>,
}

impl Taps {
    /// `fill` appends the taps of an output.
    pub(crate) fn new(inputs: usize, outputs: usize, mut fill: impl FnMut(usize, &mut Vec<Tap>)) -> Self {
        let mut taps = Vec::with_capacity(2 * outputs);
        let mut starts = Vec::with_capacity(outputs + 1);
        starts.push(0);
        for output in 0..outputs {
            fill(output, &mut taps);
            starts.push(taps.len());
        }
        Self { inputs, starts, taps }
    }

    pub(crate) fn outputs(&self) -> usize {
        self.starts.len() - 1
    }

    /// The taps of an output.
    #[inline(always)]
    pub(crate) fn of(&self, output: usize) -> &[Tap] {
        &self.taps[self.starts[output]..self.starts[output + 1]]
    }

    /// The inputs that are used: the first, and one past the last.
    pub(crate) fn span(&self) -> Option<(usize, usize)> {
        let inputs = || self.taps.iter().map(|tap| tap.0);
        Some((inputs().min()?, inputs().max()? + 1))
    }

    /// The map of gradients: what was an input becomes an output.
    pub(crate) fn transposed(&self) -> Self {
        let mut users = vec![Vec::new(); self.inputs];
        for output in 0..self.outputs() {
            for &(input, weight) in self.of(output) {
                users[input].push((output, weight));
            }
        }
        Self::new(self.outputs(), self.inputs, |input, taps| taps.append(&mut users[input]))
    }

    /// `[outputs, inputs]`
    fn matrix(&self, dtype: DType, device: &Device) -> Result<Tensor> {
        let mut matrix = vec![0.0; self.outputs() * self.inputs];
        for output in 0..self.outputs() {
            for &(input, weight) in self.of(output) {
                matrix[output * self.inputs + input] += weight;
            }
        }
        Tensor::from_vec(matrix, (self.outputs(), self.inputs), &Device::Cpu)?
            .to_dtype(dtype)?
            .to_device(device)
    }
}

/// Applies `rows` and `columns` to a map `[B, C, H, W]`, with a gradient; as two matrix products where
/// there is no kernel.
pub(crate) fn apply(name: &str, xs: &Tensor, rows: Taps, columns: Taps) -> Result<Tensor> {
    let (batch, channels, _, _) = map_sizes(name, xs)?;
    if !matches!(xs.device(), Device::Cpu) {
        return apply_candle(xs, &rows, &columns);
    }
    let dtype = kernel_dtype(name, &[xs])?;
    let op = Separable { batch, channels, rows, columns };
    let ys = tape::apply(op, [&channels_last(&xs.to_dtype(dtype)?)?])?;
    from_nhwc(&ys)?.to_dtype(xs.dtype())
}

/// [`apply`] in candle's own operations.
pub(crate) fn apply_candle(xs: &Tensor, rows: &Taps, columns: &Taps) -> Result<Tensor> {
    let (dtype, device) = (xs.dtype(), xs.device());
    let mixed = xs.contiguous()?.broadcast_matmul(&columns.matrix(dtype, device)?.t()?)?;
    rows.matrix(dtype, device)?.broadcast_matmul(&mixed)
}

/// `[B, H, W, C]` → `[B, rows, columns, C]`
struct Separable {
    batch: usize,
    channels: usize,
    rows: Taps,
    columns: Taps,
}

impl Operation<1> for Separable {
    const NAME: &'static str = "separable-map";

    fn shape(&self) -> Shape {
        (self.batch, self.rows.outputs(), self.columns.outputs(), self.channels).into()
    }

    fn run<T: Float>(&self, isa: Isa, [xs]: [&[T]; 1]) -> Vec<T> {
        let row = self.columns.outputs() * self.channels;
        let rows = self.batch * self.rows.outputs();
        let taps =
            self.columns.taps.len() / self.columns.outputs() + self.rows.taps.len() / self.rows.outputs();
        let per_task = items_per_task(rows, row * taps);
        // SAFETY: each chunk is whole rows, all of which `Rows` writes.
        unsafe {
            filled_chunks(rows * row, row * per_task, |task, ys| {
                dispatch(isa, Rows { map: self, first: task * per_task, xs, ys });
            })
        }
    }

    fn gradients(&self, _: [&Tensor; 1], grad: &Tensor) -> Result<[Option<Tensor>; 1]> {
        let op = Self {
            batch: self.batch,
            channels: self.channels,
            rows: self.rows.transposed(),
            columns: self.columns.transposed(),
        };
        Ok([Some(contiguous_nhwc(grad)?.apply_op1_no_bwd(&Custom(op))?)])
    }
}

/// Some output rows of a separable map.
struct Rows<'a, T> {
    map: &'a Separable,
    first: usize,
    xs: &'a [T],
    /// Written whole.
    ys: &'a mut [MaybeUninit<T>],
}

impl<T: Float> Kernel for Rows<'_, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Separable { channels, rows, columns, .. } = self.map;
        let c = *channels;
        let width = columns.inputs * c;
        let mut mixed = vec![T::ZERO; width];
        let mut made = vec![T::ZERO; columns.outputs() * c];
        for (i, ys) in self.ys.chunks_exact_mut(columns.outputs() * c).enumerate() {
            let row = self.first + i;
            let (image, output) = (row / rows.outputs(), row % rows.outputs());
            let xs = &self.xs[image * rows.inputs * width..][..rows.inputs * width];
            // A row that is taken as it is need not be copied.
            let source = match *rows.of(output) {
                [(input, 1.0)] => &xs[input * width..][..width],
                ref taps => {
                    mix(&mut mixed, taps, |input| &xs[input * width..][..width]);
                    &mixed
                }
            };
            for (x, y) in made.chunks_exact_mut(c).enumerate() {
                mix(y, columns.of(x), |input| &source[input * c..][..c]);
            }
            for (y, &made) in ys.iter_mut().zip(&made) {
                y.write(made);
            }
        }
    }
}

/// ys = Σ weight · xs(input)
#[inline(always)]
pub(crate) fn mix<'a, T: Float>(ys: &mut [T], taps: &[Tap], xs: impl Fn(usize) -> &'a [T]) {
    match *taps {
        [] => ys.fill(T::ZERO),
        [(input, 1.0)] => ys.copy_from_slice(xs(input)),
        [(a, wa)] => {
            let wa = T::from_f64(wa);
            for (y, &a) in ys.iter_mut().zip(xs(a)) {
                *y = wa * a;
            }
        }
        [(a, wa), (b, wb), ref rest @ ..] => {
            let (wa, wb) = (T::from_f64(wa), T::from_f64(wb));
            for ((y, &a), &b) in ys.iter_mut().zip(xs(a)).zip(xs(b)) {
                *y = wa * a + wb * b;
            }
            for &(input, weight) in rest {
                let weight = T::from_f64(weight);
                for (y, &x) in ys.iter_mut().zip(xs(input)) {
                    *y += weight * x;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candles_operations_give_the_same() -> Result<()> {
        let xs = Tensor::arange(0f32, 120.0, &Device::Cpu)?.reshape((2, 4, 5, 3))?.sin()?;
        let rows = Taps::new(5, 3, |y, taps| taps.extend([(y, 0.25), (y + 2, 0.5), (1, -1.0)]));
        let columns = Taps::new(3, 4, |x, taps| taps.extend((0..x).map(|from| (from, from as f64))));
        let want = apply_candle(&xs, &rows, &columns)?;
        let difference = (apply("test", &xs, rows, columns)? - want)?.abs()?;
        assert!(difference.max_all()?.to_scalar::<f32>()? < 1e-6);
        Ok(())
    }
}
