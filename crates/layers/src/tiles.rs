//! Large images piece by piece.

use candle_core::{Result, Tensor, bail};
use zoo_kernels::{Interpolation, plane_for, resize2d, write_window};

/// Tiles of one size that cover an image, each overlapping the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    /// Rows and columns of a tile.
    pub size: (usize, usize),
    /// Rows and columns that neighbours share at least; less than a tile.
    pub overlap: (usize, usize),
}

impl Tiles {
    /// Where tiles begin along an axis of `length`: evenly, but for the last one, which ends where the axis does.
    ///
    /// # Errors
    /// If tiles are empty or overlap entirely.
    fn starts(length: usize, tile: usize, overlap: usize) -> Result<Vec<usize>> {
        if tile <= overlap {
            bail!("tiles: expected tiles larger than their overlap, got {tile} pixels that share {overlap}")
        }
        let last = length.saturating_sub(tile);
        let count = last.div_ceil(tile - overlap) + 1;
        Ok((0..count).map(|i| (i * (tile - overlap)).min(last)).collect())
    }

    /// First rows and first columns of the tiles that cover `height` × `width` pixels.
    ///
    /// # Errors
    /// If tiles are empty or overlap entirely.
    pub fn places(&self, height: usize, width: usize) -> Result<(Vec<usize>, Vec<usize>)> {
        let rows = Self::starts(height, self.size.0, self.overlap.0)?;
        Ok((rows, Self::starts(width, self.size.1, self.overlap.1)?))
    }

    /// Scores `[B, C, H, W]` of an image `[B, 3, H, W]`, from `net` on one tile after the other: at each pixel the mean
    /// of the tiles that show it. Scores of another size than the tile are brought to it (half-pixel bilinear). An
    /// image smaller than a tile is filled up with zeros at its right and lower edge, the mean colour of a normalised
    /// image, and the scores are cut again.
    ///
    /// # Errors
    /// If tiles are empty or overlap entirely, `xs` is not a map, `net` fails, or gives tiles of different channels.
    pub fn scores(&self, xs: &Tensor, net: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let (_, _, height, width) = xs.dims4()?;
        let (rows, columns) = self.places(height, width)?;
        let fill = |length: usize, tile: usize| tile.saturating_sub(length);
        let filled = xs.pad_with_zeros(2, 0, fill(height, self.size.0))?.pad_with_zeros(
            3,
            0,
            fill(width, self.size.1),
        )?;
        let (_, _, all_rows, all_columns) = filled.dims4()?;
        let mut sums: Option<Tensor> = None;
        for &top in &rows {
            for &left in &columns {
                let of_tile = |xs: &Tensor| xs.narrow(2, top, self.size.0)?.narrow(3, left, self.size.1);
                let scores = net(&of_tile(&filled)?.contiguous()?)?;
                let scores = resize2d(&scores, self.size, Interpolation::Bilinear)?;
                let before = match sums {
                    Some(before) => before,
                    None => plane_for(&scores, all_rows, all_columns)?,
                };
                sums = Some(write_window(&before, &(of_tile(&before)? + scores)?, top, left)?);
            }
        }
        let Some(sums) = sums else { bail!("tiles: no tile covers {height}×{width} pixels") };
        let mean = sums.broadcast_div(&self.counts(&rows, &columns, (all_rows, all_columns), &sums)?)?;
        mean.narrow(2, 0, height)?.narrow(3, 0, width)?.contiguous()
    }

    /// How many tiles show each pixel, `[1, 1, H, W]`.
    fn counts(
        &self,
        rows: &[usize],
        columns: &[usize],
        (height, width): (usize, usize),
        like: &Tensor,
    ) -> Result<Tensor> {
        let along = |starts: &[usize], tile: usize, length: usize| -> Vec<f32> {
            let shown = |i: usize| starts.iter().filter(|&&start| (start..start + tile).contains(&i)).count();
            (0..length).map(|i| shown(i) as f32).collect()
        };
        let tensor = |counts: Vec<f32>, shape: (usize, usize, usize, usize)| {
            Tensor::from_vec(counts, shape, like.device())?.to_dtype(like.dtype())
        };
        let rows = tensor(along(rows, self.size.0, height), (1, 1, height, 1))?;
        rows.broadcast_mul(&tensor(along(columns, self.size.1, width), (1, 1, 1, width))?)
    }
}
