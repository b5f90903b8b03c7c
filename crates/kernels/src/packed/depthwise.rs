//! Depthwise convolution with packed weights: one filter a channel, channels last.
//!
//! A strip of neighbouring outputs shares most of what it reads, so a strip's sums are kept in
//! registers while its input columns pass by, each loaded once for all the outputs that it meets.

use candle_core::{Result, Shape, Tensor, bail};

use super::geometry::{Filter, Geometry};
use super::{PackedOp, check_operand, weight_values, with_residual};
use crate::aligned::Weights;
use crate::epilogue::Activation;
use crate::isa::Isa;
use crate::memory::{Shared, SharedRead, filled};
use crate::region::{Pads, Region};
use crate::simd::{Kernel, MAX_LANES, Simd, dispatch};
use crate::threads::{share, tasks_for};
use crate::transpose::channels_last;
use crate::vector_math::{activate, activate_all};

/// Multiply–adds that are worth a task of their own.
const TASK_MACS: usize = 1 << 16;
/// Columns of the widest filter and strip: 7 + (8 − 1) · 2.
const MAX_COLUMNS: usize = 21;
/// The largest filter with a kernel of its own.
pub(crate) const MAX_KERNEL: usize = 7;

/// A depthwise convolution with its weights packed.
#[derive(Debug, Clone)]
pub struct PackedDepthwise {
    pub(crate) isa: Isa,
    pub(crate) filter: Filter,
    pub(crate) channels: usize,
    act: Activation,
    /// `[tap][channel]`, channels padded to whole vectors.
    weights: Weights,
    /// Padded likewise.
    bias: Weights,
    /// What a tap in the border reads.
    zeros: Weights,
}

impl PackedDepthwise {
    /// `weight`: `[C, 1, k, k]` with k = 1…7; `bias`: `[C]`.
    ///
    /// # Errors
    /// If a shape does not fit, the weights are not f32 on the CPU, or `ZOO_ISA` is wrong.
    pub fn new(weight: &Tensor, bias: Option<&Tensor>, stride: usize, act: Activation) -> Result<Self> {
        let (channels, one, height, width) = weight.dims4()?;
        if one != 1 || height != width || height == 0 || height > MAX_KERNEL || stride == 0 {
            bail!(
                "depthwise: expected a weight of [{channels}, 1, k, k] with k = 1…{MAX_KERNEL} and a stride of at least 1, got {:?} and {stride}",
                weight.dims()
            )
        }
        if let Some(bias) = bias
            && bias.dims() != [channels]
        {
            bail!("depthwise: expected a bias of [{channels}], got {:?}", bias.dims())
        }
        let (taps, padded) = (height * width, channels.next_multiple_of(MAX_LANES));
        let values = weight_values("depthwise", weight)?;
        let mut weights = vec![0.0; taps * padded];
        for (channel, filter) in values.chunks_exact(taps).enumerate() {
            for (tap, &w) in filter.iter().enumerate() {
                weights[tap * padded + channel] = w;
            }
        }
        let mut bias = match bias {
            Some(bias) => weight_values("depthwise", bias)?,
            None => vec![],
        };
        bias.resize(padded, 0.0);
        Ok(Self {
            isa: Isa::current()?,
            filter: Filter { height, width, stride, dilation: 1 },
            channels,
            act,
            weights: weights.as_slice().into(),
            bias: bias.as_slice().into(),
            zeros: vec![0.0; padded].as_slice().into(),
        })
    }

    /// Convolves each channel of a region with its own filter; its border is read from the region's
    /// plane and is zero outside it.
    ///
    /// Result: `[B, C, h', w']` with `h' = (height + top + bottom − k) / stride + 1`, channels last in
    /// memory. There is no gradient: training takes
    /// [`depthwise_conv2d`](crate::depthwise_conv2d).
    ///
    /// # Errors
    /// If a shape does not fit, or a tensor is not f32 on the CPU.
    pub fn forward(&self, region: &Region, pads: Pads) -> Result<Tensor> {
        let geometry = Geometry::new("depthwise", region, self.filter, pads, self.channels)?;
        check_operand("depthwise", &region.plane)?;
        with_residual(Call { conv: self, geometry }, &channels_last(&region.plane)?, None)
    }
}

impl PackedDepthwise {
    /// The convolution of `[B, H, W, C]`, as the geometry says.
    pub(crate) fn run(&self, geometry: Geometry, xs: &[f32]) -> Result<Vec<f32>> {
        Call { conv: self, geometry }.run(xs, None)
    }
}

struct Call<'a> {
    conv: &'a PackedDepthwise,
    geometry: Geometry,
}

impl PackedOp for Call<'_> {
    const NAME: &'static str = "depthwise";

    fn shape(&self) -> Shape {
        let g = &self.geometry;
        (g.batch, g.out_h, g.out_w, self.conv.channels).into()
    }

    fn run(&self, xs: &[f32], _: Option<&[f32]>) -> Result<Vec<f32>> {
        let Self { conv, geometry: g } = self;
        let rows = g.batch * g.out_h;
        let row_macs = g.out_w * conv.weights.len();
        let tasks = tasks_for(rows * row_macs, TASK_MACS, 4).min(rows);
        // SAFETY: the tasks write every row, each its own.
        Ok(unsafe {
            filled(rows * g.out_w * conv.channels, |out| {
                let part = |task: usize| Rows {
                    conv,
                    geometry: *g,
                    xs: SharedRead(xs.as_ptr()),
                    out,
                    rows: (task * rows / tasks, (task + 1) * rows / tasks),
                };
                share(tasks, |task| dispatch(conv.isa, part(task)));
            })
        })
    }
}

/// Some output rows of the batch: what one task does.
struct Rows<'a> {
    conv: &'a PackedDepthwise,
    geometry: Geometry,
    xs: SharedRead,
    out: Shared,
    rows: (usize, usize),
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (g, conv) = (&self.geometry, self.conv);
        let row_values = g.plane_w * conv.channels;
        for row in self.rows.0..self.rows.1 {
            let (image, y) = (row / g.out_h, row % g.out_h);
            let rows = std::array::from_fn(|ky| {
                let input = g.row(y, ky).filter(|_| ky < g.filter.height)?;
                // SAFETY: the row lies inside the plane.
                Some(unsafe { self.xs.get().add((image * g.plane_h + input) * row_values) })
            });
            // SAFETY: the rows are the plane's, and the output row belongs to this task; `run` is
            // called by `S::enter`.
            unsafe { conv.row::<S>(g, &rows, self.out.at(row * g.out_w * conv.channels)) };
        }
    }
}

/// The input rows under an output row; `None` in the border.
pub(crate) type InputRows = [Option<*const f32>; MAX_KERNEL];

impl PackedDepthwise {
    /// One output row.
    ///
    /// # Safety
    /// Each of the filter's rows is `None` or good for `g.plane_w` pixels, and `out` for `g.out_w`;
    /// nobody else touches `out`. Called inside [`Simd::enter`] of `S`.
    #[inline(always)]
    pub(crate) unsafe fn row<S: Simd>(&self, g: &Geometry, rows: &InputRows, out: *mut f32) {
        // The longest strip that leaves registers for the filter's row.
        let longest = if S::LANES == MAX_LANES { 8 } else { 4 };
        let strip = [longest, 4, 2, 1].into_iter().find(|&n| n <= longest && n <= g.out_w).unwrap_or(1);
        let mut x = 0;
        while x < g.out_w {
            // The last strip starts early enough to be whole; what it repeats comes out the same.
            // SAFETY: the strip lies inside the row.
            unsafe { self.strip::<S>(g, rows, x.min(g.out_w - strip), strip, out) };
            x += strip;
        }
    }

    /// `strip` outputs from column `x` on.
    ///
    /// # Safety
    /// As [`PackedDepthwise::row`], and the strip lies inside the row.
    #[inline(always)]
    unsafe fn strip<S: Simd>(&self, g: &Geometry, rows: &InputRows, x: usize, strip: usize, out: *mut f32) {
        let (kernel, stride) = (g.filter.height, g.filter.stride);
        let columns = (strip - 1) * stride + kernel;
        let mut places = [self.zeros.as_ptr(); MAX_KERNEL * MAX_COLUMNS];
        if columns > MAX_COLUMNS {
            // SAFETY: one output is a strip too, and its columns are the filter's.
            return (x..x + strip).for_each(|x| unsafe { self.strip::<S>(g, rows, x, 1, out) });
        }
        for (ky, row) in rows.iter().enumerate().take(kernel) {
            let Some(row) = row else { continue };
            for column in 0..columns {
                if let Some(input) = g.column(x, column) {
                    // SAFETY: the column lies inside the row.
                    places[ky * columns + column] = unsafe { row.add(input * self.channels) };
                }
            }
        }
        // SAFETY: the caller's promise.
        let out = unsafe { out.add(x * self.channels) };
        let run = Strip { conv: self, places: &places, out };
        macro_rules! kernels {
            ($($k:literal $s:literal: $($t:literal)+;)+) => {
                match (kernel, stride, strip) {
                    $($(
                        // SAFETY: S is entered already; the places are the strip's.
                        ($k, $s, $t) => unsafe { S::enter(Fixed::<$k, $s, $t>(run)) },
                    )+)+
                    // SAFETY: as above.
                    _ => unsafe { S::enter(Any { strip: run, kernel, stride, columns, outputs: strip }) },
                }
            };
        }
        kernels! {
            3 1: 8 4 2 1;
            3 2: 8 4 2 1;
            5 1: 8 4 2 1;
            5 2: 8 4 2 1;
            7 1: 8 4 2 1;
        }
    }
}

/// Neighbouring outputs of one row.
struct Strip<'a> {
    conv: &'a PackedDepthwise,
    /// Where each row and column under the strip begins.
    places: &'a [*const f32],
    out: *mut f32,
}

/// Repeats an expression for each column of the widest strip, its number being a constant. Loops of so
/// many turns stay loops, and then a strip's sums lie in memory.
macro_rules! each_column {
    ($column:ident => $then:expr) => {
        repeat!($column => $then; 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20)
    };
}

/// The same for each output of the longest strip.
macro_rules! each_output {
    ($output:ident => $then:expr) => {
        repeat!($output => $then; 0 1 2 3 4 5 6 7)
    };
}

macro_rules! repeat {
    ($number:ident => $then:expr; $($n:literal)+) => {
        $({
            #[allow(non_upper_case_globals, reason = "stands for a loop's variable")]
            const $number: usize = $n;
            $then
        })+
    };
}

/// A strip of `T` outputs through a filter of `K`×`K` at stride `D`.
struct Fixed<'a, const K: usize, const D: usize, const T: usize>(Strip<'a>);

impl<const K: usize, const D: usize, const T: usize> Kernel for Fixed<'_, K, D, T> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Strip { conv, places, out } = self.0;
        let channels = conv.channels;
        let padded = conv.bias.len();
        let columns = (T - 1) * D + K;
        let (low, high) = conv.act.bounds::<f32>();
        // SAFETY: S is entered.
        let (low, high) = unsafe { (S::splat(low), S::splat(high)) };
        let mut channel = 0;
        while channel < channels {
            let lanes = S::LANES.min(channels - channel);
            // SAFETY: weights and bias are padded to whole vectors; places and outputs hold
            // `channels` values each, of which only `lanes` are touched; S is entered.
            unsafe {
                let mut sums = [S::load(conv.bias.as_ptr().add(channel)); T];
                for ky in 0..K {
                    let w: [S::V; K] = std::array::from_fn(|kx| {
                        S::load(conv.weights.as_ptr().add((ky * K + kx) * padded + channel))
                    });
                    each_column!(column => if column < columns {
                        let place = places[ky * columns + column].add(channel);
                        let x = if lanes == S::LANES { S::load(place) } else { S::load_first(place, lanes) };
                        each_output!(t => if t < T && (t * D..t * D + K).contains(&column) {
                            sums[t] = S::fma(x, w[column - t * D], sums[t]);
                        });
                    });
                }
                // As in a tile: clamps in registers, the other activations in a loop over what was
                // stored, for code in which the sums' places are not constants keeps them in memory.
                for (t, sum) in sums.into_iter().enumerate() {
                    let y = S::min(high, S::max(low, sum));
                    S::store_first(out.add(t * channels + channel), y, lanes);
                }
            }
            channel += S::LANES;
        }
        if !conv.act.is_clamp() {
            // SAFETY: the strip's outputs follow each other, and belong to it.
            unsafe { activate_all::<S>(out, T * channels, conv.act) };
        }
    }
}

/// A strip through any other filter and stride, one output at a time.
struct Any<'a> {
    strip: Strip<'a>,
    kernel: usize,
    stride: usize,
    columns: usize,
    outputs: usize,
}

impl Kernel for Any<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let Strip { conv, places, out } = self.strip;
        let (channels, padded) = (conv.channels, conv.bias.len());
        for t in 0..self.outputs {
            let mut channel = 0;
            while channel < channels {
                let lanes = S::LANES.min(channels - channel);
                // SAFETY: as in `Fixed`.
                unsafe {
                    let mut sum = S::load(conv.bias.as_ptr().add(channel));
                    for tap in 0..self.kernel * self.kernel {
                        let (ky, kx) = (tap / self.kernel, tap % self.kernel);
                        let place = places[ky * self.columns + t * self.stride + kx].add(channel);
                        let w = S::load(conv.weights.as_ptr().add(tap * padded + channel));
                        sum = S::fma(S::load_first(place, lanes), w, sum);
                    }
                    let y = activate::<S>(sum, conv.act);
                    S::store_first(out.add(t * channels + channel), y, lanes);
                }
                channel += S::LANES;
            }
        }
    }
}
