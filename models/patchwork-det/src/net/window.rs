//! The window grid: M×M cells a frame, windows of N×N cells.
//!
//! The supplement's Table 3 gives windows of 96² pixels at M=4, N=1 and of 192² at M=2, N=1 and M=4, N=2.
//! So the frame is 384², a window N/M of its side; that windows begin at cells is inferred.

use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;

use crate::{Error, Result};

/// The coarsest stride of the backbone.
pub const MAX_STRIDE: usize = 32;

/// Cells a side at most: windows of one cell of a frame of 32,768 pixels a side.
const MAX_CELLS: usize = 1024;

/// A rectangle of the frame, in pixels of the frame that the net sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Window {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl Window {
    /// The whole frame.
    pub fn full(frame: FrameSize) -> Self {
        Self { top: 0, left: 0, height: frame.height, width: frame.width }
    }

    /// Rows and columns.
    pub fn size(&self) -> FrameSize {
        FrameSize::new(self.height, self.width)
    }

    /// The window that covers the same content in the mirrored frame.
    pub fn mirrored(&self, frame: FrameSize) -> Self {
        Self { left: frame.width.saturating_sub(self.left + self.width), ..*self }
    }
}

/// M×M cells a frame, windows of N×N cells whose corners lie on the cells' corners.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "RawGrid", into = "RawGrid")]
pub struct Grid {
    m: usize,
    n: usize,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawGrid {
    m: usize,
    n: usize,
}

impl TryFrom<RawGrid> for Grid {
    type Error = Error;
    fn try_from(raw: RawGrid) -> Result<Self> {
        Self::new(raw.m, raw.n)
    }
}

impl From<Grid> for RawGrid {
    fn from(grid: Grid) -> Self {
        Self { m: grid.m, n: grid.n }
    }
}

impl Grid {
    /// M cells a side, windows of N cells a side.
    ///
    /// # Errors
    /// Unless 1 ≤ N ≤ M ≤ 1024.
    pub fn new(m: usize, n: usize) -> Result<Self> {
        if n == 0 || n > m || m > MAX_CELLS {
            return Err(Error::Grid { m, n });
        }
        Ok(Self { m, n })
    }

    /// Cells a side.
    pub fn m(&self) -> usize {
        self.m
    }

    /// Cells a window side.
    pub fn n(&self) -> usize {
        self.n
    }

    /// Window positions along one side: M − N + 1.
    pub fn positions(&self) -> usize {
        self.m - self.n + 1
    }

    /// Number of actions |A| = (M − N + 1)².
    pub fn actions(&self) -> usize {
        self.positions() * self.positions()
    }

    /// Row and column of an action's first cell, in cells.
    pub fn cell(&self, action: usize) -> (usize, usize) {
        (action / self.positions(), action % self.positions())
    }

    /// The window of an action, row-major from the top left.
    ///
    /// # Errors
    /// If the action does not exist, or the frame cannot be cut into the grid's cells.
    pub fn window(&self, action: usize, frame: FrameSize) -> Result<Window> {
        self.check_frame(frame)?;
        if action >= self.actions() {
            return Err(Error::Action { action, m: self.m, n: self.n, last: self.actions() - 1 });
        }
        let (row, column) = self.cell(action);
        let (height, width) = (frame.height / self.m, frame.width / self.m);
        Ok(Window { top: row * height, left: column * width, height: self.n * height, width: self.n * width })
    }

    /// Whether every window lies on whole feature cells at all strides up to 32.
    ///
    /// # Errors
    /// If not, with the nearest size that does.
    pub fn check_frame(&self, frame: FrameSize) -> Result<()> {
        let unit = MAX_STRIDE * self.m;
        let fits = |n: usize| n > 0 && n.is_multiple_of(unit);
        if fits(frame.height) && fits(frame.width) {
            return Ok(());
        }
        let nearest = |n: usize| (n.saturating_add(unit / 2) / unit).max(1) * unit;
        Err(Error::FrameSize {
            got: frame,
            m: self.m,
            unit,
            nearest: FrameSize::new(nearest(frame.height), nearest(frame.width)),
        })
    }

    /// The actions that tile the frame, row-major, where N divides M.
    pub fn tiles(&self) -> Option<Vec<usize>> {
        self.m.is_multiple_of(self.n).then(|| {
            let starts = || (0..self.m).step_by(self.n);
            starts().flat_map(|row| starts().map(move |column| row * self.positions() + column)).collect()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_grids() {
        let frame = FrameSize::new(384, 384);
        struct Case(usize, usize, usize, usize, &'static [usize]);
        for Case(m, n, actions, side, tiles) in [
            Case(4, 1, 16, 96, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]),
            Case(2, 1, 4, 192, &[0, 1, 2, 3]),
            Case(4, 2, 9, 192, &[0, 2, 6, 8]),
            Case(2, 2, 1, 384, &[0]),
        ] {
            let grid = Grid::new(m, n).unwrap();
            assert_eq!(grid.actions(), actions, "M={m} N={n}");
            assert_eq!(grid.tiles().unwrap(), tiles, "M={m} N={n}");
            let last = grid.window(actions - 1, frame).unwrap();
            assert_eq!((last.height, last.width), (side, side), "M={m} N={n}");
            assert_eq!((last.top, last.left), (384 - side, 384 - side), "M={m} N={n}");
            // Every window is an exact sub-grid at the coarsest stride.
            for action in 0..actions {
                let w = grid.window(action, frame).unwrap();
                for edge in [w.top, w.left, w.height, w.width] {
                    assert_eq!(edge % MAX_STRIDE, 0, "M={m} N={n} action {action}");
                }
            }
        }
        assert_eq!(Grid::new(5, 2).unwrap().tiles(), None);
    }

    #[test]
    fn mirrored_windows_take_column_m_minus_n_minus_c() {
        let grid = Grid::new(4, 2).unwrap();
        let frame = FrameSize::new(128, 256);
        let window = grid.window(0, frame).unwrap();
        assert_eq!(window.mirrored(frame), grid.window(2, frame).unwrap());
        assert_eq!(window.mirrored(frame).mirrored(frame), window);
    }

    #[test]
    fn faults_name_what_would_be_valid() {
        let grid = Grid::new(4, 2).unwrap();
        let error = |height, width| grid.check_frame(FrameSize::new(height, width)).unwrap_err().to_string();
        assert!(error(300, 640).contains("the nearest size is 256×640"), "{}", error(300, 640));
        assert!(error(0, 128).contains("multiples of 32·4 = 128"));
        assert!(error(usize::MAX, 128).contains("nearest size"));
        let action = grid.window(9, FrameSize::new(128, 128)).unwrap_err().to_string();
        assert_eq!(action, "window 9 does not exist: M=4, N=2 has windows 0 to 8");
        assert!(Grid::new(2, 3).unwrap_err().to_string().contains("expected 1 ≤ N ≤ M ≤ 1024"));
        assert!(Grid::new(0, 0).is_err());
        assert!(Grid::new(usize::MAX, 1).is_err());
        assert!(serde_json::from_str::<Grid>(r#"{"m": 2, "n": 3}"#).is_err());
    }
}
