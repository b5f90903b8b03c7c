//! What a task does: some pixels, some panels.

use super::{PackedConv, Panel, WHOLE_TILES};
use crate::memory::{Shared, SharedRead};
use crate::packed::geometry::{Filter, Geometry};
use crate::packed::tile::{NextWeights, Piece, Tile, compute_pixels};
use crate::simd::{Kernel, Simd};

/// Weights of at most so many bytes stay in the second cache beside a task's pixels.
const RESIDENT_WEIGHTS: usize = 256 << 10;
/// Values of the weights that many pixels go through at a time.
const PIECE_VALUES: usize = 8 << 10;
/// Pixels that go through all panels of small weights at a time.
const PIXELS_AT_A_TIME: usize = 2 * WHOLE_TILES;

/// What one task does: some pixels, some panels.
pub(super) struct Part<'a> {
    pub(super) conv: &'a PackedConv,
    pub(super) geometry: Geometry,
    pub(super) xs: SharedRead,
    pub(super) residual: Option<SharedRead>,
    pub(super) out: Shared,
    /// First pixel of the batch's outputs, and how many.
    pub(super) pixels: (usize, usize),
    pub(super) panels: &'a [Panel],
    pub(super) gather: Option<Gather>,
}

impl Part<'_> {
    /// Calls `f(index within the part, image, row, column)` for each pixel.
    #[inline(always)]
    fn each_pixel(&self, mut f: impl FnMut(usize, usize, usize, usize)) {
        let g = &self.geometry;
        let (first, count) = self.pixels;
        let (mut x, mut y, mut image) =
            (first % g.out_w, first / g.out_w % g.out_h, first / (g.out_w * g.out_h));
        for i in 0..count {
            f(i, image, y, x);
            x += 1;
            if x == g.out_w {
                (x, y) = (0, y + 1);
                if y == g.out_h {
                    (y, image) = (0, image + 1);
                }
            }
        }
    }

    /// Pointers to the places that each pixel reads, `[tap][pixel]`.
    #[inline(always)]
    fn places(&self) -> Vec<*const f32> {
        let (g, c) = (&self.geometry, self.conv.inputs);
        let (first, count) = self.pixels;
        let xs = self.xs.get();
        if g.is_pointwise() {
            // SAFETY: pixels of the output are pixels of the input here.
            return (first..first + count).map(|p| unsafe { xs.add(p * c) }).collect();
        }
        let zeros = self.conv.zeros.as_ptr();
        let mut places = vec![zeros; g.filter.taps() * count];
        self.each_pixel(|i, image, y, x| {
            for ky in 0..g.filter.height {
                let Some(row) = g.row(y, ky) else { continue };
                for kx in 0..g.filter.width {
                    if let Some(column) = g.column(x, kx) {
                        let pixel = (image * g.plane_h + row) * g.plane_w + column;
                        // SAFETY: row and column lie inside the plane.
                        places[(ky * g.filter.width + kx) * count + i] = unsafe { xs.add(pixel * c) };
                    }
                }
            }
        });
        places
    }

    /// What each tap reads in each channel, `[tap][channel][pixel]`.
    #[inline(always)]
    fn gathered(&self, gather: Gather) -> Vec<f32> {
        let g = &self.geometry;
        let Gather { channels, channel_step, pixel_step } = gather;
        let (first, count) = self.pixels;
        let mut copied = vec![0.0; g.filter.taps() * channels * count];
        let step = g.filter.stride * pixel_step;
        // Row by row of the output, of which the first and the last may be cut.
        let mut done = 0;
        while done < count {
            let (x, y) = ((first + done) % g.out_w, (first + done) / g.out_w % g.out_h);
            let image = (first + done) / (g.out_w * g.out_h);
            let len = (g.out_w - x).min(count - done);
            for ky in 0..g.filter.height {
                let Some(row) = g.row(y, ky) else { continue };
                for kx in 0..g.filter.width {
                    // The outputs whose tap lies inside the plane.
                    let Some(skip) = (0..len).find(|i| g.column(x + i, kx).is_some()) else { continue };
                    let Some(column) = g.column(x + skip, kx) else { continue };
                    let inside = (g.plane_w - column).div_ceil(g.filter.stride).min(len - skip);
                    let from =
                        image * channels * g.plane_h * g.plane_w + (row * g.plane_w + column) * pixel_step;
                    for channel in 0..channels {
                        let to = ((ky * g.filter.width + kx) * channels + channel) * count + done + skip;
                        // SAFETY: image, row, channel and the columns lie inside the input.
                        unsafe {
                            let from = self.xs.get().add(from + channel * channel_step);
                            every_nth(from, step, &mut copied[to..to + inside]);
                        }
                    }
                }
            }
            done += len;
        }
        copied
    }
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (first, count) = self.pixels;
        let conv = self.conv;
        let copied = self.gather.map(|gather| self.gathered(gather));
        let pointers = match &copied {
            // SAFETY: the copy begins with a value of each pixel.
            Some(copied) => (0..count).map(|i| unsafe { copied.as_ptr().add(i) }).collect(),
            None => self.places(),
        };
        let taps = conv.filter.taps();
        let places = match &copied {
            Some(_) => Places {
                pointers: &pointers,
                count,
                taps: 1,
                depth: Some(taps * conv.inputs),
                value_step: count,
            },
            None => Places { pointers: &pointers, count, taps, depth: None, value_step: 1 },
        };
        let at = first * conv.outputs;
        // SAFETY: the pixels lie inside all operands, and no other part has both these pixels and
        // these panels; `run` is called by `S::enter`.
        unsafe {
            let residual = self.residual.map_or(std::ptr::null(), |r| r.get().add(at));
            conv.pixels::<S>(self.panels, &places, self.out.at(at), residual);
        }
    }
}

/// How the values of an input of few channels lie: as whole planes, or channels last.
#[derive(Clone, Copy)]
pub(super) struct Gather {
    channels: usize,
    channel_step: usize,
    pixel_step: usize,
}

impl Gather {
    pub(super) fn new(g: &Geometry, channels: usize, planar: bool) -> Self {
        let (channel_step, pixel_step) = if planar { (g.plane_h * g.plane_w, 1) } else { (1, channels) };
        Self { channels, channel_step, pixel_step }
    }
}

/// Copies every `step`th value from `from` on: the usual steps are loops of their own, which compilers
/// make vectors of.
///
/// # Safety
/// `from` is good for all that is copied.
#[inline(always)]
unsafe fn every_nth(from: *const f32, step: usize, to: &mut [f32]) {
    /// # Safety
    /// As [`every_nth`].
    #[inline(always)]
    unsafe fn copy(from: *const f32, step: usize, to: &mut [f32]) {
        for (i, to) in to.iter_mut().enumerate() {
            // SAFETY: the caller's promise.
            *to = unsafe { *from.add(i * step) };
        }
    }
    // SAFETY: the caller's promise.
    unsafe {
        match step {
            1 => copy(from, 1, to),
            2 => copy(from, 2, to),
            _ => copy(from, step, to),
        }
    }
}

/// Where some pixels read their inputs.
pub(crate) struct Places<'a> {
    /// A pointer for each tap of each pixel, `[tap][pixel]`.
    pub(crate) pointers: &'a [*const f32],
    /// Pixels.
    pub(crate) count: usize,
    pub(crate) taps: usize,
    /// Values at each place, where that is not what the panel says.
    pub(crate) depth: Option<usize>,
    /// Between two values of a place.
    pub(crate) value_step: usize,
}

impl PackedConv {
    /// Whether each output sees just one pixel, in order: a 1×1 filter of stride 1 over all channels.
    pub(crate) fn is_pointwise(&self) -> bool {
        let Filter { height, width, stride, .. } = self.filter;
        (height, width, stride) == (1, 1, 1) && self.panels.iter().all(|panel| panel.depth == self.inputs)
    }

    /// Whether all weights stay in the second cache.
    pub(crate) fn stays_in_cache(&self) -> bool {
        self.weights.len() * 4 <= RESIDENT_WEIGHTS
    }

    /// Computes `count` pixels of a 1×1 convolution, whose inputs lie one after the other from `xs` on.
    ///
    /// # Safety
    /// As [`PackedConv::pixels`], and `xs` is good for all pixels.
    #[inline(always)]
    pub(crate) unsafe fn rows<S: Simd>(
        &self,
        xs: *const f32,
        count: usize,
        out: *mut f32,
        residual: *const f32,
    ) {
        // SAFETY: the caller's promise.
        unsafe {
            let pointers: Vec<_> = (0..count).map(|i| xs.add(i * self.inputs)).collect();
            let places = Places { pointers: &pointers, count, taps: 1, depth: None, value_step: 1 };
            self.pixels::<S>(&self.panels, &places, out, residual);
        }
    }

    /// Computes some panels of some pixels: the first pixel's first channel goes to `out`, the other
    /// pixels follow.
    ///
    /// # Safety
    /// The places are good for what they say, `out` and `residual` (unless null) for all channels of
    /// all pixels, and nobody else touches those panels of `out`. Called inside [`Simd::enter`] of
    /// `S`, which is the set that the weights were packed for.
    #[inline(always)]
    pub(crate) unsafe fn pixels<S: Simd>(
        &self,
        panels: &[Panel],
        places: &Places,
        out: *mut f32,
        residual: *const f32,
    ) {
        if self.stays_in_cache() || places.depth.is_some() {
            // A few pixels at a time go through all panels, which stay in the cache.
            for from in (0..places.count).step_by(PIXELS_AT_A_TIME) {
                let count = PIXELS_AT_A_TIME.min(places.count - from);
                for panel in panels {
                    // SAFETY: pixels and panel lie inside what the caller promised.
                    unsafe {
                        let tile = self.tile::<S>(panel, places, from, out, residual);
                        compute_pixels::<S>(tile, panel.vectors, count);
                    }
                }
            }
            return;
        }
        // All pixels go through the weights piece by piece, each of which is read once.
        for panel in panels {
            let columns = panel.vectors * S::LANES;
            let pieces = panel.depth.div_ceil(PIECE_VALUES / columns);
            for tap in 0..places.taps {
                for piece in 0..pieces {
                    let at = |piece| piece * panel.depth / pieces;
                    let depth = at(piece + 1) - at(piece);
                    // SAFETY: pixels, panel and piece lie inside what the caller promised.
                    unsafe {
                        let mut tile = self.tile::<S>(panel, places, 0, out, residual);
                        tile.rows = tile.rows.add(tap * tile.row_step);
                        tile.taps = 1;
                        tile.offset += at(piece) * tile.value_step;
                        tile.depth = depth;
                        tile.weights = tile.weights.add(tap * tile.weight_step + at(piece) * columns);
                        tile.piece = Piece {
                            first: (tap, piece) == (0, 0),
                            last: (tap + 1, piece + 1) == (places.taps, pieces),
                            // Pieces, taps and panels follow each other.
                            next: Some(NextWeights {
                                from: tile.weights.wrapping_add(depth * columns),
                                values: depth * columns,
                            }),
                        };
                        compute_pixels::<S>(tile, panel.vectors, places.count);
                    }
                }
            }
        }
    }

    /// The tile of a panel from pixel `from` on.
    ///
    /// # Safety
    /// As [`PackedConv::pixels`].
    #[inline(always)]
    unsafe fn tile<S: Simd>(
        &self,
        panel: &Panel,
        places: &Places,
        from: usize,
        out: *mut f32,
        residual: *const f32,
    ) -> Tile {
        let at = from * self.outputs + panel.output;
        // SAFETY: the caller's promise.
        unsafe {
            Tile {
                rows: places.pointers.as_ptr().add(from),
                row_step: places.count,
                offset: panel.input,
                value_step: places.value_step,
                taps: places.taps,
                depth: places.depth.unwrap_or(panel.depth),
                weights: self.weights.as_ptr().add(panel.weights),
                weight_step: panel.depth * panel.vectors * S::LANES,
                bias: self.bias.as_ptr().add(panel.bias),
                out: out.add(at),
                residual: if residual.is_null() { residual } else { residual.add(at) },
                stride: self.outputs,
                last: panel.channels - (panel.vectors - 1) * S::LANES,
                act: self.act,
                piece: Piece::WHOLE,
            }
        }
    }
}
