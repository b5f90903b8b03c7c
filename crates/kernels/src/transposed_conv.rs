//! Transposed convolution by phases: outputs whose rows and columns leave the same rest when divided by
//! the stride come from the same taps, so each such phase is an ordinary convolution of the input.

use candle_core::{Result, Shape, Tensor, bail};

use crate::epilogue::Activation;
use crate::memory::{Shared, filled};
use crate::operation::map_sizes;
use crate::packed::{
    ConvOptions, Packed, PackedConv, PackedOp, Panel, Phase, Places, TASK_MACS, TASKS_PER_THREAD,
    check_operand, from_nhwc,
};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{share_with, tasks_for};
use crate::transpose::channels_last;

const NAME: &str = "transposed convolution";
/// Pixels of a phase that are computed together, where the weights stay in the cache beside them.
const PIXELS: usize = 96;
/// Bytes of input and output that are gone over at a time, where they do not.
const CHUNK_BYTES: usize = 1 << 20;

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
    phases: Vec<PhaseConv>,
    /// What a tap beside the map reads.
    zeros: Vec<f32>,
}

/// The convolution that gives the outputs of one phase.
#[derive(Debug, Clone)]
struct PhaseConv {
    /// Its outputs' first row and column.
    first: (usize, usize),
    rows: Phase,
    columns: Phase,
    conv: PackedConv,
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
        let TransposedOptions { stride, padding, output_padding } = options;
        if weight.elem_count() == 0 || output_padding >= stride {
            bail!(
                "{NAME}: a weight of {:?} with {options:?}: stride must be at least 1, and output_padding less than that",
                weight.dims()
            )
        }
        let dense = ConvOptions { winograd: false, ..ConvOptions::default() };
        let taken = |weight: &Tensor, dim: usize, phase: &Phase| {
            let taps: Vec<u32> = phase.taps.iter().map(|&t| t as u32).collect();
            weight.index_select(&Tensor::new(taps, weight.device())?, dim)
        };
        let phase = |kernel: usize, rest: usize| Phase::new(rest, kernel, padding as isize, 0, stride, 1);
        let mut phases = Vec::with_capacity(stride * stride);
        for first in (0..stride).flat_map(|y| (0..stride).map(move |x| (y, x))) {
            let (rows, columns) = (phase(height, first.0), phase(width, first.1));
            let filter = if rows.taps.is_empty() || columns.taps.is_empty() {
                // No tap falls here: nothing but the bias.
                Tensor::zeros((outputs, inputs, 1, 1), weight.dtype(), weight.device())?
            } else {
                taken(&taken(weight, 2, &rows)?, 3, &columns)?.transpose(0, 1)?.contiguous()?
            };
            let conv = PackedConv::new(&filter, bias, dense, act)?;
            phases.push(PhaseConv { first, rows, columns, conv });
        }
        Ok(Self { kernel: (height, width), options, inputs, outputs, phases, zeros: vec![0.0; inputs] })
    }

    /// `[B, I, H, W]` → `[B, O, h, w]` with `h = (H − 1) · stride − 2 · padding + kh + output_padding`, channels
    /// last in memory. There is no gradient: training takes candle's `conv_transpose2d`.
    ///
    /// # Errors
    /// If a shape does not fit, or a tensor is not f32 on the CPU.
    pub fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (batch, channels, height, width) = map_sizes(NAME, xs)?;
        if channels != self.inputs {
            bail!("{NAME}: expected {} channels, got {channels}", self.inputs)
        }
        let TransposedOptions { stride, padding, output_padding } = self.options;
        let out = |size: usize, kernel: usize| {
            ((size - 1) * stride + kernel + output_padding).checked_sub(2 * padding).filter(|&n| n > 0)
        };
        let (Some(out_h), Some(out_w)) = (out(height, self.kernel.0), out(width, self.kernel.1)) else {
            bail!("{NAME}: a padding of {padding} leaves nothing of a map of {height}×{width}")
        };
        check_operand(NAME, xs)?;
        let call = Call { layer: self, batch, height, width, out_h, out_w };
        from_nhwc(&channels_last(xs)?.apply_op1_no_bwd(&Packed(call))?)
    }
}

/// One call, on `[B, H, W, I]`.
struct Call<'a> {
    layer: &'a PackedTransposedConv,
    batch: usize,
    height: usize,
    width: usize,
    out_h: usize,
    out_w: usize,
}

impl PackedOp for Call<'_> {
    const NAME: &'static str = NAME;

    fn shape(&self) -> Shape {
        (self.batch, self.out_h, self.out_w, self.layer.outputs).into()
    }

    fn run(&self, xs: &[f32], _: Option<&[f32]>) -> Result<Vec<f32>> {
        let PackedTransposedConv { options, inputs, outputs, phases, .. } = self.layer;
        let (rows, columns) = (self.batch * self.rows(), self.out_w.div_ceil(options.stride));
        let values = self.batch * self.out_h * self.out_w * outputs;
        let weights: usize = phases.iter().map(|phase| phase.conv.weights()).sum();
        let tasks = tasks_for(rows * columns * weights, TASK_MACS, TASKS_PER_THREAD);
        // What is larger comes from memory once: a task has all rows of some panels, or some rows of all panels.
        let panels = phases.first().map_or(1, |phase| phase.conv.panels.len()).max(1);
        let per_share = if weights > xs.len() + values { panels.div_ceil(tasks.min(panels)) } else { panels };
        let shares = panels.div_ceil(per_share);
        let per_task = rows.div_ceil((tasks / shares).max(1)).max(1);
        let pixels = match phases.iter().all(|phase| phase.conv.stays_in_cache()) {
            true => PIXELS,
            false => CHUNK_BYTES / (4 * (inputs + outputs)),
        };
        let at_a_time = pixels.div_ceil(columns).max(1);
        // SAFETY: the phases make up all outputs, and each task writes panels of rows of its own.
        Ok(unsafe {
            filled(values, |out| {
                share_with(rows.div_ceil(per_task) * shares, Scratch::default, |scratch, task| {
                    let (from, share) = (task / shares * per_task, task % shares * per_share);
                    let end = rows.min(from + per_task);
                    for first in (from..end).step_by(at_a_time) {
                        let rows = (first, end.min(first + at_a_time));
                        for phase in phases {
                            let all = &phase.conv.panels;
                            let panels = &all[share..all.len().min(share + per_share)];
                            let part = Part { call: self, phase, panels, xs, rows, out, scratch };
                            dispatch(phase.conv.isa, part);
                        }
                    }
                });
            })
        })
    }
}

impl Call<'_> {
    /// Rows of an image's phases; the last may be missing in some.
    fn rows(&self) -> usize {
        self.out_h.div_ceil(self.layer.options.stride)
    }
}

/// What a thread keeps from phase to phase.
#[derive(Default)]
struct Scratch {
    /// The images and rows of a part.
    rows: Vec<(usize, usize)>,
    /// What each tap of each pixel reads, `[tap][pixel]`.
    places: Vec<*const f32>,
    /// The phase's outputs, which lie apart in the result.
    ys: Vec<f32>,
}

/// Some rows of one phase, and some panels of them.
struct Part<'a> {
    call: &'a Call<'a>,
    phase: &'a PhaseConv,
    panels: &'a [Panel],
    xs: &'a [f32],
    /// First row of the batch's phases, and their end.
    rows: (usize, usize),
    out: Shared,
    scratch: &'a mut Scratch,
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Self { call, phase: PhaseConv { first, rows: down, columns: right, conv }, panels, xs, .. } =
            self;
        let Scratch { rows, places, ys } = self.scratch;
        let PackedTransposedConv { inputs, outputs, zeros, options, .. } = call.layer;
        let (stride, per_image) = (options.stride, call.rows());
        rows.clear();
        rows.extend((self.rows.0..self.rows.1).map(|row| (row / per_image, row % per_image)));
        rows.retain(|&(_, row)| row * stride + first.0 < call.out_h);
        let columns = call.out_w.saturating_sub(first.1).div_ceil(stride);
        let count = rows.len() * columns;
        let inside = |origin: isize, at: usize, size: usize| {
            origin.checked_add_unsigned(at).and_then(|at| usize::try_from(at).ok()).filter(|&at| at < size)
        };
        let taps = (down.taps.len() * right.taps.len()).max(1);
        places.clear();
        places.resize(taps * count, zeros.as_ptr());
        for (i, &(image, row)) in rows.iter().enumerate() {
            for ky in 0..down.taps.len() {
                let Some(y) = inside(down.origin, row + ky, call.height) else { continue };
                for kx in 0..right.taps.len() {
                    let tap = ky * right.taps.len() + kx;
                    let places = &mut places[tap * count + i * columns..][..columns];
                    for (column, place) in places.iter_mut().enumerate() {
                        if let Some(x) = inside(right.origin, column + kx, call.width) {
                            let pixel = (image * call.height + y) * call.width + x;
                            *place = xs[pixel * inputs..][..*inputs].as_ptr();
                        }
                    }
                }
            }
        }
        ys.resize(count * outputs, 0.0);
        let from = Places { pointers: places, count, taps, depth: None };
        // SAFETY: each place has `inputs` values, and `ys` has room for all pixels. S is entered.
        unsafe { conv.pixels::<S>(panels, &from, ys.as_mut_ptr(), std::ptr::null()) };
        let (Some(first_panel), Some(last_panel)) = (panels.first(), panels.last()) else { return };
        let channels = first_panel.output..last_panel.output + last_panel.channels;
        let mut ys = ys.chunks_exact(*outputs);
        for &(image, row) in rows.iter() {
            let start = (image * call.out_h + row * stride + first.0) * call.out_w + first.1;
            for (column, ys) in ys.by_ref().take(columns).enumerate() {
                let ys = &ys[channels.clone()];
                // SAFETY: channels of a pixel of the result, which no other task writes.
                unsafe {
                    let to = self.out.at((start + column * stride) * outputs + channels.start);
                    ys.as_ptr().copy_to_nonoverlapping(to, ys.len());
                }
            }
        }
    }
}
