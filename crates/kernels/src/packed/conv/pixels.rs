//! What a task does: some pixels, some panels.

use super::padded_rows::PaddedRows;
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
    /// The input once more, where it has few channels.
    pub(super) rows: Option<&'a PaddedRows>,
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

    /// Pointers to what the rows of the filter read for each pixel, `[row][pixel]`.
    #[inline(always)]
    fn row_places(&self, rows: &PaddedRows) -> Vec<*const f32> {
        let (g, c) = (&self.geometry, self.conv.inputs);
        let count = self.pixels.1;
        let mut places = vec![rows.values.as_ptr(); g.filter.height * count];
        self.each_pixel(|i, image, y, x| {
            for ky in 0..g.filter.height {
                let row = image * rows.height + y * g.filter.stride + ky;
                let at = (row * rows.width + x * g.filter.stride) * c;
                places[ky * count + i] = rows.values[at..][..g.filter.width * c].as_ptr();
            }
        });
        places
    }
}

impl Kernel for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        let (first, count) = self.pixels;
        let conv = self.conv;
        let Filter { height, width, .. } = conv.filter;
        let pointers = self.rows.map_or_else(|| self.places(), |rows| self.row_places(rows));
        let (taps, depth) = match self.rows {
            Some(_) => (height, Some(width * conv.inputs)),
            None => (conv.filter.taps(), None),
        };
        let places = Places { pointers: &pointers, count, taps, depth };
        let at = first * conv.outputs;
        // SAFETY: the pixels lie inside all operands, and no other part has both these pixels and
        // these panels; `run` is called by `S::enter`.
        unsafe {
            let residual = self.residual.map_or(std::ptr::null(), |r| r.get().add(at));
            match &conv.few_outputs {
                Some(few) => few.pixels::<S>(conv, &places, self.out.at(at), residual),
                None => conv.pixels::<S>(self.panels, &places, self.out.at(at), residual),
            }
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
}

impl PackedConv {
    /// Whether each output sees just one pixel, in order: a 1×1 filter of stride 1 over all channels.
    pub(crate) fn is_pointwise(&self) -> bool {
        let Filter { height, width, stride, .. } = self.filter;
        (height, width, stride) == (1, 1, 1) && self.panels.iter().all(|panel| panel.depth == self.inputs)
    }

    /// How many weights there are, the panels' padding included.
    pub(crate) fn weights(&self) -> usize {
        self.weights.len()
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
            let places = Places { pointers: &pointers, count, taps: 1, depth: None };
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
                        tile.offset += at(piece);
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
        let depth = places.depth.unwrap_or(panel.depth);
        // SAFETY: the caller's promise.
        unsafe {
            Tile {
                rows: places.pointers.as_ptr().add(from),
                row_step: places.count,
                offset: panel.input,
                value_step: 1,
                taps: places.taps,
                depth,
                weights: self.weights.as_ptr().add(panel.weights),
                weight_step: depth * panel.vectors * S::LANES,
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
