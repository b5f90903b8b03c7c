//! Which pixels each patch reads.

use candle_core::{Result, Tensor, bail};

use super::{NAME, POSITIONS, PatchwiseLevel, position};
use crate::operation::map_sizes;
use crate::patchwise::{reflect, whole};
use crate::resize::among_centres;

/// A row or a column of a patch and its surroundings.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    /// Of the map.
    pub(super) at: usize,
    pub(super) position: f32,
    /// The two of the coarser map that it lies between, and how far on the way.
    pub(super) low: usize,
    pub(super) high: usize,
    pub(super) part: f32,
}

/// What each patch reads.
pub(super) struct PatchGrid {
    pub(super) batch: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    pub(super) positions: usize,
    /// Channels of the map.
    pub(super) map: usize,
    /// Channels, rows and columns of the coarser map; no channels where there is none.
    pub(super) coarser: [usize; 3],
    /// Patches.
    pub(super) rows: usize,
    pub(super) columns: usize,
    /// Pixels of a patch.
    pub(super) patch_h: usize,
    pub(super) patch_w: usize,
    /// Of all rows of patches one after the other, and of all columns of patches.
    pub(super) row_lines: Vec<Line>,
    pub(super) column_lines: Vec<Line>,
    /// Around a patch.
    pub(super) halo: usize,
}

impl PatchGrid {
    pub(super) fn new(
        map: &Tensor,
        coarser: Option<&Tensor>,
        weights: &Tensor,
        level: PatchwiseLevel,
    ) -> Result<Self> {
        let (batch, channels, height, width) = map_sizes(NAME, map)?;
        let (b, params, rows, columns) = map_sizes(NAME, weights)?;
        let below = match coarser {
            Some(coarser) => {
                let (images, channels, h, w) = map_sizes(NAME, coarser)?;
                if images != batch {
                    bail!("{NAME}: a map of {batch} images, a coarser one of {images}")
                }
                [channels, h, w]
            }
            None => [0, 1, 1],
        };
        let positions = if level.positions { POSITIONS } else { 0 };
        let halo = level.halo();
        let lines = |size: usize, patches: usize, below: usize| {
            let patch = whole(size, patches)?;
            let line = |at: usize| {
                let at = reflect(at, halo, size)?;
                let place = among_centres(at, below, size).clamp(0.0, (below - 1) as f64);
                let low = place as usize;
                let (high, part) = ((low + 1).min(below - 1), place.fract() as f32);
                Some(Line { at, position: position(at, size), low, high, part })
            };
            let all = (0..patches).flat_map(|p| (0..patch + 2 * halo).map(move |i| p * patch + i));
            Some((all.map(line).collect::<Option<Vec<_>>>()?, patch))
        };
        let (Some((row_lines, patch_h)), Some((column_lines, patch_w))) =
            (lines(height, rows, below[1]), lines(width, columns, below[2]))
        else {
            bail!(
                "{NAME}: {rows}×{columns} patches do not fit a map of {height}×{width}: the grid must divide it, and it must have more than {halo} rows and columns"
            )
        };
        let grid = Self {
            batch,
            height,
            width,
            positions,
            map: channels,
            coarser: below,
            rows,
            columns,
            patch_h,
            patch_w,
            row_lines,
            column_lines,
            halo,
        };
        let expected = level.params(grid.inputs())?;
        if (b, params) != (batch, expected) {
            bail!("{NAME}: expected weights of [{batch}, {expected}, fh, fw], got {:?}", weights.dims())
        }
        Ok(grid)
    }

    /// Channels of the input.
    pub(super) fn inputs(&self) -> usize {
        self.positions + self.map + self.coarser[0]
    }

    /// Rows and columns of a patch with its surroundings.
    pub(super) fn outer(&self) -> (usize, usize) {
        (self.patch_h + 2 * self.halo, self.patch_w + 2 * self.halo)
    }
}
