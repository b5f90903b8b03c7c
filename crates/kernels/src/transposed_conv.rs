//! Transposed convolution by phases: outputs whose rows and columns leave the same rest when divided by
//! the stride come from the same taps, so each such phase is an ordinary convolution of the input.

use candle_core::{CpuStorage, Result, Storage, Tensor, bail};

use crate::epilogue::Activation;
use crate::operation::map_sizes;
use crate::packed::{ConvOptions, PackedConv, Phase, from_nhwc};
use crate::region::{Pads, Region};
use crate::threads::{items_per_task, share_chunks};
use crate::transpose::channels_last;

/// How a transposed convolution moves over its output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TransposedOptions {
    /// Step between the places where inputs are written.
    pub stride: usize,
    /// Rows and columns that are cut off on all sides.
    pub padding: usize,
    /// Rows below and columns to the right that are added; less than the stride.
    pub output_padding: usize,
}

/// A transposed convolution with its weights packed for the instruction set at hand.
#[derive(Debug, Clone)]
pub struct PackedTransposedConv {
    kernel: (usize, usize),
    options: TransposedOptions,
    inputs: usize,
    outputs: usize,
    /// One for each rest of a row and a column, row by row.
    phases: Vec<PackedConv>,
}

/// The outputs of one axis that leave `rest`, of `size` in all.
fn phase(kernel: usize, options: TransposedOptions, rest: usize, size: usize) -> Phase {
    Phase::new(rest, kernel, options.padding as isize, size, options.stride, 1)
}

impl PackedTransposedConv {
    /// `weight`: `[I, O, kh, kw]`; `bias`: `[O]`.
    ///
    /// # Errors
    /// If a shape does not fit, the weights are not f32 on the CPU, or `ZOO_ISA` is wrong.
    pub fn new(
        weight: &Tensor,
        bias: Option<&Tensor>,
        options: TransposedOptions,
        act: Activation,
    ) -> Result<Self> {
        let (inputs, outputs, height, width) = weight.dims4()?;
        let TransposedOptions { stride, output_padding, .. } = options;
        if height * width == 0 || output_padding >= stride {
            bail!(
                "transposed convolution: a weight of {:?} with {options:?}: stride must be at least 1, and output_padding less than that",
                weight.dims()
            )
        }
        let dense = ConvOptions { winograd: false, ..ConvOptions::default() };
        let taken = |weight: &Tensor, dim: usize, phase: &Phase| {
            let taps: Vec<u32> = phase.taps.iter().map(|&t| t as u32).collect();
            weight.index_select(&Tensor::new(taps, weight.device())?, dim)
        };
        let mut phases = Vec::with_capacity(stride * stride);
        for y in 0..stride {
            for x in 0..stride {
                let (rows, columns) = (phase(height, options, y, 0), phase(width, options, x, 0));
                let filter = if rows.taps.is_empty() || columns.taps.is_empty() {
                    // No tap falls here: nothing but the bias.
                    Tensor::zeros((outputs, inputs, 1, 1), weight.dtype(), weight.device())?
                } else {
                    taken(&taken(weight, 2, &rows)?, 3, &columns)?.transpose(0, 1)?.contiguous()?
                };
                phases.push(PackedConv::new(&filter, bias, dense, act)?);
            }
        }
        Ok(Self { kernel: (height, width), options, inputs, outputs, phases })
    }

    /// `[B, I, H, W]` → `[B, O, h, w]` with `h = (H − 1) · stride − 2 · padding + kh + output_padding`, channels
    /// last in memory. There is no gradient: training takes candle's `conv_transpose2d`.
    ///
    /// # Errors
    /// If a shape does not fit, or a tensor is not f32 on the CPU.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = map_sizes("transposed convolution", xs)?;
        if channels != self.inputs {
            bail!("transposed convolution: expected {} channels, got {channels}", self.inputs)
        }
        let TransposedOptions { stride, padding, output_padding } = self.options;
        let out = |size: usize, kernel: usize| {
            ((size - 1) * stride + kernel + output_padding).checked_sub(2 * padding).filter(|&n| n > 0)
        };
        let (Some(out_h), Some(out_w)) = (out(height, self.kernel.0), out(width, self.kernel.1)) else {
            bail!(
                "transposed convolution: a padding of {padding} leaves nothing of a map of {height}×{width}"
            )
        };
        // The region and padding of an axis so that a phase gives `outputs` values from its origin on.
        let cut = |size: usize, kernel: usize, rest: usize, outputs: usize| {
            let phase = phase(kernel, self.options, rest, outputs);
            let (before, from) = ((-phase.origin).max(0) as usize, phase.origin.max(0) as usize);
            let reach = (outputs + phase.taps.len().max(1) - 1).saturating_sub(before);
            let inside = reach.min(size.saturating_sub(from));
            (from, inside, before, reach - inside)
        };
        let map = from_nhwc(&channels_last(xs)?)?;
        let mut results = Vec::with_capacity(self.phases.len());
        for (i, conv) in self.phases.iter().enumerate() {
            let (y, x) = (i / stride, i % stride);
            let (rows, columns) = (outputs_of(out_h, y, stride), outputs_of(out_w, x, stride));
            if rows * columns == 0 {
                results.push(None);
                continue;
            }
            let (top, height, above, below) = cut(height, self.kernel.0, y, rows);
            let (left, width, before, after) = cut(width, self.kernel.1, x, columns);
            let region = Region { plane: map.clone(), top, left, height, width };
            let pads = Pads { top: above, bottom: below, left: before, right: after };
            results.push(Some(channels_last(&conv.forward(&region, pads, None)?)?));
        }
        from_nhwc(&interleave(&results, stride, (batch, out_h, out_w, self.outputs))?)
    }
}

/// How many of `outputs` leave `rest`.
fn outputs_of(outputs: usize, rest: usize, stride: usize) -> usize {
    outputs.saturating_sub(rest).div_ceil(stride)
}

/// Puts the phases' pixels, each `[B, h, w, C]`, where they belong.
fn interleave(
    phases: &[Option<Tensor>],
    stride: usize,
    shape: (usize, usize, usize, usize),
) -> Result<Tensor> {
    if let [Some(only)] = phases {
        return Ok(only.clone());
    }
    let (batch, out_h, out_w, channels) = shape;
    let guards: Vec<_> = phases.iter().map(|phase| phase.as_ref().map(Tensor::storage_and_layout)).collect();
    let mut values: Vec<&[f32]> = Vec::with_capacity(phases.len());
    for guard in &guards {
        values.push(match guard {
            None => &[],
            Some((storage, _)) => match &**storage {
                Storage::Cpu(CpuStorage::F32(values)) => values,
                _ => bail!("transposed convolution: expected phases in f32 on the CPU"),
            },
        });
    }
    let mut ys = vec![0f32; batch * out_h * out_w * channels];
    let rows_per_task = items_per_task(batch * out_h, out_w * channels);
    share_chunks(&mut ys, rows_per_task * out_w * channels, |task, ys| {
        for (i, ys) in ys.chunks_exact_mut(channels).enumerate() {
            let (row, x) = (task * rows_per_task + i / out_w, i % out_w);
            let (image, y) = (row / out_h, row % out_h);
            let (rows, columns) =
                (outputs_of(out_h, y % stride, stride), outputs_of(out_w, x % stride, stride));
            let pixel = (image * rows + y / stride) * columns + x / stride;
            let phase = values[y % stride * stride + x % stride];
            ys.copy_from_slice(&phase[pixel * channels..][..channels]);
        }
    });
    drop(guards);
    Tensor::from_vec(ys, shape, &candle_core::Device::Cpu)
}
