//! An inverted residual in one pass: expansion, depthwise convolution and projection by strips of
//! rows.
//!
//! The expanded map is six times the input, and in the early blocks of a net larger than any cache
//! near the processor. By strips it never leaves the cache: a few rows are expanded into a ring, the
//! depthwise convolution takes them from there, and its result goes straight into the projection.
//!
//! Squeeze-and-excitation stands in the way of the last step, for a gate depends on the whole map.
//! There the strips end with the filtered rows and their sums; then come the gates; then a few pixels
//! at a time are multiplied by them and projected.

use candle_core::{Result, Shape, Tensor, bail};

use super::conv::PackedConv;
use super::depthwise::{InputRows, PackedDepthwise};
use super::geometry::Geometry;
use super::{PackedOp, check_operand, with_residual};
use crate::aligned::Aligned;
use crate::memory::{Shared, SharedRead, filled};
use crate::region::{Pads, Region};
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{share, tasks_for, threads};
use crate::transpose::channels_last;
use crate::vector_math::sigmoid;

const NAME: &str = "inverted residual";
/// Bytes of expanded and filtered rows that a task holds at a time.
const STRIP_BYTES: usize = 384 << 10;
/// Pixels that keep the projection's tiles full.
const STRIP_PIXELS: usize = 48;
/// Multiply–adds of the projection that are worth a task of their own.
const TASK_MACS: usize = 1 << 18;

/// The layers of an inverted residual, packed for one instruction set.
#[derive(Debug, Clone, Copy)]
pub struct PackedBlock<'a> {
    /// 1×1, to the depthwise convolution's channels; without it, the region is the expanded map.
    pub expand: Option<&'a PackedConv>,
    /// One filter a channel.
    pub depthwise: &'a PackedDepthwise,
    /// Squeeze-and-excitation: 1×1 convolutions, the first from the means of the depthwise convolution's
    /// channels, the last to what their gates are the sigmoid of.
    pub squeeze_excite: Option<[&'a PackedConv; 2]>,
    /// 1×1, from the depthwise convolution's channels.
    pub project: &'a PackedConv,
}

impl PackedBlock<'_> {
    fn check(&self) -> Result<()> {
        let Self { expand, depthwise, squeeze_excite, project } = self;
        let fit = |conv: &PackedConv, inputs: usize, outputs: usize| {
            conv.is_pointwise()
                && conv.isa == depthwise.isa
                && (conv.inputs, conv.outputs) == (inputs, outputs)
        };
        let channels = depthwise.channels;
        if !expand.is_none_or(|expand| fit(expand, expand.inputs, channels))
            || !squeeze_excite.is_none_or(|[first, last]| {
                fit(first, channels, first.outputs) && fit(last, first.outputs, channels)
            })
            || !fit(project, channels, project.outputs)
        {
            bail!(
                "{NAME}: a 1×1 expansion to {channels} channels, a depthwise convolution of {channels}, gates for {channels} and a 1×1 projection of as many are needed, all packed for one instruction set"
            )
        }
        Ok(())
    }
}

/// `project(gates · depthwise(expand(region))) + residual`; a block without squeeze-and-excitation has
/// no gates.
///
/// The expansion's border is zero, and so is the depthwise convolution's: with an expansion, the region
/// must be a whole plane. `residual` is shaped like the result, `[B, O, h', w']`, channels last in memory.
///
/// # Errors
/// If the layers do not fit each other or the region, or a tensor is not f32 on the CPU.
pub fn inverted_residual(
    region: &Region,
    block: PackedBlock,
    pads: Pads,
    residual: Option<&Tensor>,
) -> Result<Tensor> {
    block.check()?;
    if block.expand.is_some() && !region.is_whole() {
        bail!(
            "{NAME}: only a whole plane can be expanded on the way: expand the plane first, or pass no expansion"
        )
    }
    let inputs = block.expand.map_or(block.depthwise.channels, |expand| expand.inputs);
    let geometry = Geometry::new(NAME, region, block.depthwise.filter, pads, inputs)?;
    check_operand(NAME, &region.plane)?;
    with_residual(Call { block, geometry }, &channels_last(&region.plane)?, residual)
}

struct Call<'a> {
    block: PackedBlock<'a>,
    geometry: Geometry,
}

impl PackedOp for Call<'_> {
    const NAME: &'static str = NAME;

    fn shape(&self) -> Shape {
        let g = &self.geometry;
        (g.batch, g.out_h, g.out_w, self.block.project.outputs).into()
    }

    fn run(&self, xs: &[f32], residual: Option<&[f32]>) -> Result<Vec<f32>> {
        let (g, block) = (&self.geometry, &self.block);
        let residual = residual.map(|r| SharedRead(r.as_ptr()));
        let len = g.pixels() * block.project.outputs;
        let Some(layers) = block.squeeze_excite else {
            // SAFETY: the strips write every row, each its own.
            return Ok(unsafe { filled(len, |out| self.by_strips(xs, |_| Then::Project { residual, out })) });
        };

        let channels = block.depthwise.channels;
        let mut sums = vec![0.0; self.tasks().0 * g.batch * channels];
        let each_sums = Shared(sums.as_mut_ptr());
        // SAFETY: the strips write every row, each its own, and each task adds to sums of its own.
        let mut map = unsafe {
            filled(g.pixels() * channels, |map| {
                self.by_strips(xs, |task| Then::Keep { map, sums: each_sums.at(task * channels) });
            })
        };
        let gates = dispatch(block.project.isa, Gates { call: self, sums: &sums, layers });
        let map = Shared(map.as_mut_ptr());
        let weights = block.project.inputs * block.project.outputs;
        let tasks = tasks_for(g.pixels() * weights, TASK_MACS, 2);
        let chunk = g.pixels().div_ceil(tasks).max(1);
        // SAFETY: the tasks write every pixel, each its own.
        Ok(unsafe {
            filled(len, |out| {
                share(g.pixels().div_ceil(chunk), |task| {
                    let pixels = (task * chunk, ((task + 1) * chunk).min(g.pixels()));
                    dispatch(
                        block.project.isa,
                        Gated { call: self, map, gates: &gates, residual, out, pixels },
                    );
                });
            })
        })
    }
}

impl Call<'_> {
    /// Tasks an image, and output rows a task. They are tall, for neighbours expand the rows between
    /// them twice.
    fn tasks(&self) -> (usize, usize) {
        let g = &self.geometry;
        let rows = g.out_h.div_ceil((2 * threads()).div_ceil(g.batch)).max(1);
        (g.out_h.div_ceil(rows), rows)
    }

    /// Filters all rows, and does with each task's what `then` says for it.
    fn by_strips(&self, xs: &[f32], then: impl Fn(usize) -> Then + Sync) {
        let g = &self.geometry;
        let (tasks, rows) = self.tasks();
        let xs = SharedRead(xs.as_ptr());
        share(g.batch * tasks, |task| {
            let first = task % tasks * rows;
            let rows = (first, (first + rows).min(g.out_h));
            dispatch(
                self.block.project.isa,
                Strips { call: self, image: task / tasks, rows, xs, then: then(task) },
            );
        });
    }
}

/// What becomes of filtered rows.
#[derive(Clone, Copy)]
enum Then {
    /// They are projected into their pixels of `out`.
    Project { residual: Option<SharedRead>, out: Shared },
    /// They go to their place in a map, and each channel's sum to `sums`.
    Keep { map: Shared, sums: *mut f32 },
}

/// Some output rows of an image: what one task does.
struct Strips<'a> {
    call: &'a Call<'a>,
    image: usize,
    rows: (usize, usize),
    xs: SharedRead,
    then: Then,
}

impl Kernel for Strips<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Call { block: PackedBlock { expand, depthwise, project, .. }, geometry: g } = self.call;
        let (stride, kernel) = (g.filter.stride, g.filter.height);
        let (wide, narrow) = (g.plane_w * depthwise.channels, g.out_w * depthwise.channels);
        // Output rows a strip: enough pixels for the projection, few enough for the cache.
        let enough = STRIP_PIXELS.div_ceil(g.out_w);
        let fitting = STRIP_BYTES / (4 * (stride * wide + narrow)).max(1);
        let per_strip = enough.max(fitting.min(4 * enough)).min(self.rows.1 - self.rows.0).max(1);
        let mut ring = Ring {
            rows: (per_strip - 1) * stride + kernel,
            row_values: wide,
            values: Aligned::default(),
            next: 0,
        };
        if expand.is_some() {
            ring.values.resize(ring.rows * wide);
        }
        let mut buffer = match self.then {
            Then::Project { .. } => Aligned::zeros(per_strip * narrow),
            Then::Keep { .. } => Aligned::default(),
        };
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
            // Pixels of the outputs before the strip, and of the strip.
            let (before, count) = ((self.image * g.out_h + y) * g.out_w, (end - y) * g.out_w);
            let filtered = match self.then {
                Then::Project { .. } => buffer.as_mut_ptr(),
                // SAFETY: the rows lie inside the map.
                Then::Keep { map, .. } => unsafe { map.at(before * depthwise.channels) },
            };
            for row in y..end {
                let rows: InputRows = std::array::from_fn(|ky| {
                    let input = g.row(row, ky).filter(|_| ky < kernel)?;
                    Some(match expand {
                        Some(_) => ring.row(input),
                        // SAFETY: the row lies inside the image.
                        None => unsafe { image.add(input * wide) },
                    })
                });
                // SAFETY: the rows are the plane's or the ring's; the result has its place; S is entered.
                unsafe { depthwise.row::<S>(g, &rows, filtered.add((row - y) * narrow)) };
            }
            // SAFETY: the rows belong to this task, and so do the sums; residual and output have the
            // same shape; S is entered.
            unsafe {
                match self.then {
                    Then::Project { residual, out } => {
                        let at = before * project.outputs;
                        let residual = residual.map_or(std::ptr::null(), |r| r.get().add(at));
                        project.rows::<S>(filtered, count, out.at(at), residual);
                    }
                    Then::Keep { sums, .. } => {
                        for pixel in 0..count {
                            add::<S>(sums, filtered.add(pixel * depthwise.channels), depthwise.channels);
                        }
                    }
                }
            }
            y = end;
        }
    }
}

/// `to[i] += from[i]`
///
/// # Safety
/// Both are good for `count` values, which nobody else writes. Called inside [`Simd::enter`] of `S`.
#[inline(always)]
unsafe fn add<S: Simd>(to: *mut f32, from: *const f32, count: usize) {
    for i in (0..count).step_by(S::LANES) {
        let lanes = S::LANES.min(count - i);
        // SAFETY: the caller's promise.
        unsafe {
            let sum = S::add(S::load_first(to.add(i), lanes), S::load_first(from.add(i), lanes));
            S::store_first(to.add(i), sum, lanes);
        }
    }
}

/// The gates of each image, `[B, C]`, from each task's sums.
struct Gates<'a> {
    call: &'a Call<'a>,
    sums: &'a [f32],
    layers: [&'a PackedConv; 2],
}

impl Kernel for Gates<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn run<S: Simd>(self) -> Vec<f32> {
        let Self { call, sums, layers } = self;
        let (g, channels) = (&call.geometry, call.block.depthwise.channels);
        let per_image = sums.len() / g.batch;
        let scale = 1.0 / (g.out_h * g.out_w) as f32;
        let mut means = vec![0.0; g.batch * channels];
        // SAFETY: all pointers are to whole rows of what was just allocated; S is entered.
        unsafe {
            for (means, sums) in means.chunks_exact_mut(channels).zip(sums.chunks_exact(per_image)) {
                for sums in sums.chunks_exact(channels) {
                    add::<S>(means.as_mut_ptr(), sums.as_ptr(), channels);
                }
                means.iter_mut().for_each(|mean| *mean *= scale);
            }
            let mut gates = layers.into_iter().fold(means, |xs, layer| {
                let mut ys = vec![0.0; g.batch * layer.outputs];
                layer.rows::<S>(xs.as_ptr(), g.batch, ys.as_mut_ptr(), std::ptr::null());
                ys
            });
            for gates in gates.chunks_mut(S::LANES) {
                let gate = sigmoid::<S>(S::load_first(gates.as_ptr(), gates.len()));
                S::store_first(gates.as_mut_ptr(), gate, gates.len());
            }
            gates
        }
    }
}

/// The projection of some pixels of the filtered map, which are multiplied by their gates first.
struct Gated<'a> {
    call: &'a Call<'a>,
    map: Shared,
    gates: &'a [f32],
    residual: Option<SharedRead>,
    out: Shared,
    pixels: (usize, usize),
}

impl Kernel for Gated<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (g, project) = (&self.call.geometry, self.call.block.project);
        let channels = project.inputs;
        // Large weights are read once for all of the task's pixels.
        let step = if project.stays_in_cache() { STRIP_PIXELS } else { self.pixels.1 - self.pixels.0 };
        for first in (self.pixels.0..self.pixels.1).step_by(step.max(1)) {
            let count = step.min(self.pixels.1 - first);
            // SAFETY: the pixels belong to this task, in the map as in the output, whose shape the
            // residual has; each image has its gates; S is entered.
            unsafe {
                let xs = self.map.at(first * channels);
                for i in 0..count {
                    let image = (first + i) / (g.out_h * g.out_w);
                    let (xs, gates) = (xs.add(i * channels), self.gates.as_ptr().add(image * channels));
                    for c in (0..channels).step_by(S::LANES) {
                        let lanes = S::LANES.min(channels - c);
                        let x = S::mul(S::load_first(xs.add(c), lanes), S::load_first(gates.add(c), lanes));
                        S::store_first(xs.add(c), x, lanes);
                    }
                }
                let at = first * project.outputs;
                let residual = self.residual.map_or(std::ptr::null(), |r| r.get().add(at));
                project.rows::<S>(xs, count, self.out.at(at), residual);
            }
        }
    }
}

/// The latest expanded rows, row `i` at slot `i % rows`.
struct Ring {
    rows: usize,
    row_values: usize,
    values: Aligned,
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
            let out = self.values[slot * self.row_values..][..run * self.row_values].as_mut_ptr();
            // SAFETY: the pixels lie inside the image; the slots have room for the rows; S is entered.
            unsafe {
                conv.rows::<S>(image.add(row * width * conv.inputs), run * width, out, std::ptr::null())
            };
            row += run;
        }
    }
}
