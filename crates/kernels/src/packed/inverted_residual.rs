//! An inverted residual in one pass: expansion, depthwise convolution and projection by strips of
//! rows.
//!
//! The expanded map is six times the input, and in the early blocks of a net larger than any cache
//! near the processor. By strips it never leaves the cache: a few rows are expanded into a ring, the
//! depthwise convolution takes them from there, and its result goes straight into the projection.

use candle_core::{Result, Shape, Tensor, bail};
use rayon::prelude::*;

use super::conv::{PackedConv, Places};
use super::depthwise::{InputRows, PackedDepthwise};
use super::geometry::Geometry;
use super::{PackedOp, Shared, SharedRead, check_operand, filled, with_residual};
use crate::region::{Pads, Region};
use crate::simd::{Kernel, Simd, dispatch};
use crate::transpose::channels_last;

const NAME: &str = "inverted residual";
/// Bytes of expanded and filtered rows that a task holds at a time.
const STRIP_BYTES: usize = 384 << 10;
/// Pixels that keep the projection's tiles full.
const STRIP_PIXELS: usize = 48;

/// `project(depthwise(expand(region))) + residual`; without `expand`, the region is the expanded map.
///
/// Expansion and projection are 1×1. The expansion's border is zero, and so is the depthwise
/// convolution's: with `expand`, the region must be a whole plane. `residual` is shaped like the
/// result, `[B, O, h', w']`, channels last in memory.
///
/// # Errors
/// If the layers do not fit each other or the region, or a tensor is not f32 on the CPU.
pub fn inverted_residual(
    region: &Region,
    expand: Option<&PackedConv>,
    depthwise: &PackedDepthwise,
    project: &PackedConv,
    pads: Pads,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    let inputs = expand.map_or(depthwise.channels, |expand| expand.inputs);
    let fits = expand.is_none_or(|expand| expand.is_pointwise() && expand.outputs == depthwise.channels)
        && project.is_pointwise()
        && expand.is_none_or(|expand| expand.isa == project.isa)
        && depthwise.isa == project.isa
        && project.inputs == depthwise.channels;
    if !fits || expand.is_some() && !region.is_whole() {
        bail!(
            "{NAME}: a 1×1 expansion of a whole plane to {0} channels, a depthwise convolution of {0}, and a 1×1 projection of as many are needed, all packed for one instruction set",
            depthwise.channels
        )
    }
    let geometry = Geometry::new(NAME, region, depthwise.filter, pads, inputs)?;
    check_operand(NAME, &region.plane)?;
    let call = Call { expand, depthwise, project, geometry };
    with_residual(call, &channels_last(&region.plane)?, residual)
}

struct Call<'a> {
    expand: Option<&'a PackedConv>,
    depthwise: &'a PackedDepthwise,
    project: &'a PackedConv,
    geometry: Geometry,
}

impl PackedOp for Call<'_> {
    const NAME: &'static str = NAME;

    fn shape(&self) -> Shape {
        let g = &self.geometry;
        (g.batch, g.out_h, g.out_w, self.project.outputs).into()
    }

    fn run(&self, xs: &[f32], residual: Option<&[f32]>) -> Result<Vec<f32>> {
        let (g, outputs) = (&self.geometry, self.project.outputs);
        // Tasks are tall, for neighbours expand the rows between them twice.
        let rows = g.batch * g.out_h;
        let per_task = g.out_h.div_ceil((2 * rayon::current_num_threads()).div_ceil(g.batch)).max(1);
        let per_image = g.out_h.div_ceil(per_task);
        // SAFETY: the tasks write every row, each its own.
        Ok(unsafe {
            filled(rows * g.out_w * outputs, |out| {
                (0..g.batch * per_image).into_par_iter().with_max_len(1).for_each(|task| {
                    let first = task % per_image * per_task;
                    let strips = Strips {
                        call: self,
                        image: task / per_image,
                        rows: (first, (first + per_task).min(g.out_h)),
                        xs: SharedRead(xs.as_ptr()),
                        residual: residual.map(|r| SharedRead(r.as_ptr())),
                        out,
                    };
                    dispatch(self.project.isa, strips);
                });
            })
        })
    }
}

/// Some output rows of an image: what one task does.
struct Strips<'a> {
    call: &'a Call<'a>,
    image: usize,
    rows: (usize, usize),
    xs: SharedRead,
    residual: Option<SharedRead>,
    out: Shared,
}

impl Kernel for Strips<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Call { expand, depthwise, project, geometry: g } = self.call;
        let (stride, kernel) = (g.filter.stride, g.filter.height);
        let (wide, narrow) = (g.plane_w * depthwise.channels, g.out_w * depthwise.channels);
        // Output rows a strip: enough pixels for the projection, few enough for the cache.
        let enough = STRIP_PIXELS.div_ceil(g.out_w);
        let fitting = STRIP_BYTES / (4 * (stride * wide + narrow)).max(1);
        let per_strip = enough.max(fitting.min(4 * enough)).min(self.rows.1 - self.rows.0).max(1);
        let mut ring =
            Ring { rows: (per_strip - 1) * stride + kernel, row_values: wide, values: vec![], next: 0 };
        if expand.is_some() {
            ring.values.resize(ring.rows * wide, 0.0);
        }
        let mut filtered = vec![0.0; per_strip * narrow];
        let image_values = g.plane_h * g.plane_w * expand.map_or(depthwise.channels, |e| e.inputs);
        // SAFETY: the image lies inside the input.
        let image = unsafe { self.xs.get().add(self.image * image_values) };

        let mut y = self.rows.0;
        while y < self.rows.1 {
            let end = (y + per_strip).min(self.rows.1);
            if let Some(expand) = expand {
                let needed = (0..kernel).find_map(|ky| g.row(y, ky));
                let last = (0..kernel).rev().find_map(|ky| g.row(end - 1, ky));
                if let (Some(first), Some(last)) = (needed, last) {
                    // SAFETY: the rows lie inside the image; S is entered.
                    unsafe { ring.expand::<S>(expand, image, g.plane_w, first, last + 1) };
                }
            }
            for row in y..end {
                let rows: InputRows = std::array::from_fn(|ky| {
                    let input = g.row(row, ky).filter(|_| ky < kernel)?;
                    Some(match expand {
                        Some(_) => ring.row(input),
                        // SAFETY: the row lies inside the image.
                        None => unsafe { image.add(input * wide) },
                    })
                });
                // SAFETY: the rows are the plane's or the ring's; the result has its place in the
                // buffer; S is entered.
                unsafe { depthwise.row::<S>(g, &rows, filtered.as_mut_ptr().add((row - y) * narrow)) };
            }
            let count = (end - y) * g.out_w;
            // SAFETY: the pixels lie inside the buffer.
            let pointers: Vec<_> =
                (0..count).map(|i| unsafe { filtered.as_ptr().add(i * depthwise.channels) }).collect();
            let places = Places { pointers: &pointers, count, taps: 1, depth: None, value_step: 1 };
            let at = (self.image * g.out_h + y) * g.out_w * project.outputs;
            // SAFETY: the rows belong to this task; residual and output have the same shape; S is
            // entered.
            unsafe {
                let residual = self.residual.map_or(std::ptr::null(), |r| r.get().add(at));
                project.pixels::<S>(&project.panels, &places, self.out.at(at), residual);
            }
            y = end;
        }
    }
}

/// The latest expanded rows, row `i` at slot `i % rows`.
struct Ring {
    rows: usize,
    row_values: usize,
    values: Vec<f32>,
    /// The first row that has not been expanded yet.
    next: usize,
}

impl Ring {
    fn row(&self, row: usize) -> *const f32 {
        self.values[row % self.rows * self.row_values..].as_ptr()
    }

    /// Expands the rows of `first..end` that are not there yet.
    ///
    /// # Safety
    /// `image` is good for `end` rows of `width` pixels. Called inside [`Simd::enter`] of `S`.
    #[inline(always)]
    unsafe fn expand<S: Simd>(
        &mut self,
        conv: &PackedConv,
        image: *const f32,
        width: usize,
        first: usize,
        end: usize,
    ) {
        let mut row = first.max(self.next);
        self.next = self.next.max(end);
        while row < end {
            // Up to the ring's end, rows follow each other.
            let slot = row % self.rows;
            let run = (self.rows - slot).min(end - row);
            let count = run * width;
            // SAFETY: the pixels lie inside the image.
            let pointers: Vec<_> =
                (0..count).map(|i| unsafe { image.add((row * width + i) * conv.inputs) }).collect();
            let places = Places { pointers: &pointers, count, taps: 1, depth: None, value_step: 1 };
            let out = self.values[slot * self.row_values..][..run * self.row_values].as_mut_ptr();
            // SAFETY: the slots have room for the rows; S is entered.
            unsafe { conv.pixels::<S>(&conv.panels, &places, out, std::ptr::null()) };
            row += run;
        }
    }
}
