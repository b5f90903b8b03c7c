//! What policy `motion` chooses by: how far the next frame is from what the cells last saw, window by
//! window. The policy is ours; the paper learns its choice (see [`crate::qlearning`]).

use zoo_core::FrameSize;

use crate::{Grid, Window};

/// Every so many pixels of every so many rows are compared. Windows lie on multiples of 32, so all of
/// them begin on a sample.
pub(crate) const SAMPLING: usize = 4;

/// The samples of what the stem's cell holds.
#[derive(Debug, Clone)]
pub(crate) struct MotionMap {
    size: FrameSize,
    seen: Vec<f32>,
}

impl MotionMap {
    pub(crate) fn new(frame: FrameSize) -> Self {
        let size = FrameSize::new(frame.height.div_ceil(SAMPLING), frame.width.div_ceil(SAMPLING));
        Self { size, seen: vec![0.0; 3 * size.area()] }
    }

    /// Sum of |now − seen| over each window of the grid. `now`: the next frame's samples, plane by plane.
    pub(crate) fn differences(&self, now: &[f32], grid: Grid) -> Vec<f32> {
        let (m, n) = (grid.m(), grid.n());
        let FrameSize { height, width } = self.size;
        let mut cells = vec![0f64; m * m];
        // Rows of all three planes, one after the other.
        for (i, (now, seen)) in now.chunks_exact(width).zip(self.seen.chunks_exact(width)).enumerate() {
            let row = i % height * m / height;
            for (x, (a, b)) in now.iter().zip(seen).enumerate() {
                if let Some(cell) = cells.get_mut(row * m + x * m / width) {
                    *cell += f64::from((a - b).abs());
                }
            }
        }
        (0..grid.actions())
            .map(|action| {
                let (row, column) = grid.cell(action);
                let cell = |i: usize| cells.get((row + i / n) * m + column + i % n).copied().unwrap_or(0.0);
                (0..n * n).map(cell).sum::<f64>() as f32
            })
            .collect()
    }

    /// Takes over `window` of what is shown now.
    pub(crate) fn update(&mut self, now: &[f32], window: Window) {
        let columns = window.left / SAMPLING..(window.left + window.width) / SAMPLING;
        let rows = window.top / SAMPLING..(window.top + window.height) / SAMPLING;
        let width = self.size.width;
        for (i, (seen, now)) in self.seen.chunks_exact_mut(width).zip(now.chunks_exact(width)).enumerate() {
            if rows.contains(&(i % self.size.height))
                && let (Some(seen), Some(now)) = (seen.get_mut(columns.clone()), now.get(columns.clone()))
            {
                seen.copy_from_slice(now);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_summed_over_windows_and_vanish_where_the_frame_was_seen() {
        let frame = FrameSize::new(64, 128);
        let grid = Grid::new(2, 1).unwrap();
        let mut map = MotionMap::new(frame);
        // 16 rows and 32 columns of samples in each of three planes, 8×16 of them in each window.
        let at = |plane: usize, row: usize, column: usize| (plane * 16 + row) * 32 + column;
        let mut now = vec![0.0; 3 * 16 * 32];
        (now[at(0, 0, 0)], now[at(2, 7, 15)], now[at(1, 7, 16)], now[at(1, 8, 0)]) = (1.0, -2.0, 0.5, 4.0);
        assert_eq!(map.differences(&now, grid), [3.0, 0.5, 4.0, 0.0]);

        map.update(&now, grid.window(2, frame).unwrap());
        assert_eq!(map.differences(&now, grid), [3.0, 0.5, 0.0, 0.0]);
        // What was seen there and is gone is news again.
        assert_eq!(map.differences(&vec![0.0; now.len()], grid), [0.0, 0.0, 4.0, 0.0]);
    }

    #[test]
    fn overlapping_windows_share_their_cells() {
        let frame = FrameSize::new(96, 96);
        let grid = Grid::new(3, 2).unwrap();
        let mut now = vec![0.0; 3 * 24 * 24];
        // The cell in the middle belongs to all four windows, the last one only to the last.
        (now[12 * 24 + 12], now[23 * 24 + 23]) = (1.0, 2.0);
        assert_eq!(MotionMap::new(frame).differences(&now, grid), [1.0, 1.0, 1.0, 3.0]);
    }
}
