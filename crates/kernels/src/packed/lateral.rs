//! A lateral connection in one pass: a finer map's 1×1 projection plus a coarser map, resized.
//!
//! Written down one after the other, the finer map behind its norm and the resized map are as large as the result or
//! nearly so, and each goes to memory and back. Here a few pixels of both are made at a time, right before the
//! convolution reads them.

use candle_core::{Device, Result, Tensor, bail};

use super::conv::PackedConv;
use super::{check_operand, from_nhwc, values, weight_values};
use crate::aligned::Aligned;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{Shared, filled};
use crate::operation::{map_sizes, on_cpu};
use crate::resize::Interpolation;
use crate::simd::{Kernel, Simd, dispatch};
use crate::taps::{Taps, mix};
use crate::threads::{items_per_task, share};
use crate::transpose::channels_last;
use crate::vector_math::activate;

const NAME: &str = "lateral";
/// Pixels that go through small weights at a time: whole tiles, in the nearest caches.
const PIXELS: usize = 48;

/// What a lateral convolution's input goes through first: `act(x · scale + shift)`.
#[derive(Debug, Clone, Copy)]
pub struct LateralNorm<'a> {
    /// `[C]`
    pub scale: &'a Tensor,
    /// `[C]`
    pub shift: &'a Tensor,
    /// Applied last.
    pub act: Activation,
}

/// `conv(norm(fine)) + coarse`, the coarser map resized to the finer one's size, then the convolution's activation.
///
/// `fine`: `[B, C, H, W]`; `conv`: 1×1, from C to O channels; `coarse`: `[B, O, h, w]`. Result: `[B, O, H, W]`,
/// channels last in memory. There is no gradient.
///
/// # Errors
/// If a shape does not fit, the convolution is not a 1×1 over all channels, or a tensor is not f32 on the CPU.
pub fn lateral(
    fine: &Tensor,
    norm: Option<LateralNorm>,
    conv: &PackedConv,
    coarse: &Tensor,
    interpolation: Interpolation,
) -> Result<Tensor> {
    let (batch, channels, height, width) = map_sizes(NAME, fine)?;
    let (images, outputs, coarse_h, coarse_w) = map_sizes(NAME, coarse)?;
    if !conv.is_pointwise() || conv.inputs != channels {
        bail!(
            "{NAME}: expected a 1×1 convolution over {channels} channels, got one over {} or of another kind",
            conv.inputs
        )
    }
    if (images, outputs) != (batch, conv.outputs) {
        bail!("{NAME}: expected a coarser map of [{batch}, {}, h, w], got {:?}", conv.outputs, coarse.dims())
    }
    check_operand(NAME, fine)?;
    check_operand(NAME, coarse)?;
    let norm = norm.map(|LateralNorm { scale, shift, act }| {
        for vector in [scale, shift] {
            if vector.dims() != [channels] {
                bail!("{NAME}: expected a scale and a shift of [{channels}], got {:?}", vector.dims())
            }
        }
        Ok(Norm { scale: weight_values(NAME, scale)?, shift: weight_values(NAME, shift)?, act })
    });
    let norm = norm.transpose()?;
    let (fine, coarse) = (channels_last(fine)?, channels_last(coarse)?);
    let ys = on_cpu(NAME, [&fine, &coarse], |[s1, s2], [l1, l2]| {
        let call = Call {
            conv,
            norm,
            fine: values(NAME, s1, l1)?,
            coarse: values(NAME, s2, l2)?,
            rows: interpolation.taps(coarse_h, height),
            columns: interpolation.taps(coarse_w, width),
            coarse_size: (coarse_h, coarse_w),
        };
        Ok(call.run(batch * height))
    })?;
    from_nhwc(&Tensor::from_vec(ys, (batch, height, width, outputs), &Device::Cpu)?)
}

struct Norm {
    scale: Vec<f32>,
    shift: Vec<f32>,
    act: Activation,
}

struct Call<'a> {
    conv: &'a PackedConv,
    norm: Option<Norm>,
    /// `[B, H, W, C]`
    fine: &'a [f32],
    /// `[B, h, w, O]`
    coarse: &'a [f32],
    rows: Taps,
    columns: Taps,
    coarse_size: (usize, usize),
}

impl Call<'_> {
    /// All rows of the batch.
    fn run(&self, rows: usize) -> Vec<f32> {
        let (width, conv) = (self.columns.outputs(), self.conv);
        let per_task = items_per_task(rows, width * conv.inputs * conv.outputs);
        let isa: Isa = conv.isa;
        // SAFETY: the tasks write every pixel of every row, each its own.
        unsafe {
            filled(rows * width * conv.outputs, |out| {
                share(rows.div_ceil(per_task), |task| {
                    let rows = (task * per_task, ((task + 1) * per_task).min(rows));
                    dispatch(isa, Part { call: self, rows, out });
                });
            })
        }
    }
}

/// Some rows of the batch: what one task does.
struct Part<'a> {
    call: &'a Call<'a>,
    rows: (usize, usize),
    out: Shared,
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Call { conv, norm, fine, coarse, rows, columns, coarse_size: (coarse_h, coarse_w) } = self.call;
        let (c, o) = (conv.inputs, conv.outputs);
        let (height, width) = (rows.outputs(), columns.outputs());
        let coarse_row = coarse_w * o;
        // Large weights are read once for all of a row's pixels.
        let step = if conv.stays_in_cache() { PIXELS.min(width) } else { width };
        let mut mixed = vec![0.0; coarse_row];
        let mut addend = Aligned::zeros(step * o);
        let mut entered = Aligned::zeros(if norm.is_some() { step * c } else { 0 });
        for row in self.rows.0..self.rows.1 {
            let image = &coarse[row / height * coarse_h * coarse_row..][..coarse_h * coarse_row];
            // A row that is taken as it is need not be copied.
            let source = match *rows.of(row % height) {
                [(input, 1.0)] => &image[input * coarse_row..][..coarse_row],
                ref taps => {
                    mix(&mut mixed, taps, |input| &image[input * coarse_row..][..coarse_row]);
                    &mixed
                }
            };
            for first in (0..width).step_by(step) {
                let count = step.min(width - first);
                for (x, addend) in addend.chunks_exact_mut(o).take(count).enumerate() {
                    mix(addend, columns.of(first + x), |input| &source[input * o..][..o]);
                }
                let at = row * width + first;
                let pixels = &fine[at * c..][..count * c];
                let xs = match norm {
                    Some(norm) => {
                        // SAFETY: there is room for as many pixels; `run` is called by `S::enter`.
                        unsafe { norm.of_pixels::<S>(pixels, &mut entered) };
                        entered.as_ptr()
                    }
                    None => pixels.as_ptr(),
                };
                // SAFETY: `xs` and the addend hold `count` pixels, and those of the output are this task's own.
                unsafe { conv.rows::<S>(xs, count, self.out.at(at * o), addend.as_ptr()) };
            }
        }
    }
}

impl Norm {
    /// Writes what becomes of whole pixels to the front of `ys`.
    ///
    /// # Safety
    /// Inside [`Simd::enter`] of `S`; `ys` is at least as long as `xs`.
    #[inline(always)]
    unsafe fn of_pixels<S: Simd>(&self, xs: &[f32], ys: &mut [f32]) {
        let c = self.scale.len();
        for (xs, ys) in xs.chunks_exact(c).zip(ys.chunks_exact_mut(c)) {
            for from in (0..c).step_by(S::LANES) {
                let lanes = S::LANES.min(c - from);
                // SAFETY: all four hold `c` values; the caller's promise.
                unsafe {
                    let vector = |values: &[f32]| S::load_first(values.as_ptr().add(from), lanes);
                    let y = S::fma(vector(xs), vector(&self.scale), vector(&self.shift));
                    S::store_first(ys.as_mut_ptr().add(from), activate::<S>(y, self.act), lanes);
                }
            }
        }
    }
}
