//! The Patchwork Cell of Section 3.2 (Figures 1b and 9b): a memory of a convolution's own input.
//!
//! A cell writes the window into its memory of the full frame and lets the convolution read its
//! border from there, without padding; only outside the frame is the border zero. In this crate
//! the memories of all cells live in [`Memories`], a value that the caller holds, and
//! [`Memories::at`] opens them for one step.

use std::collections::BTreeMap;
use std::sync::Arc;

use candle_core::{Result, Tensor, bail};
use zoo_core::FrameSize;
use zoo_kernels::{Region, plane_for, write_window};
use zoo_layers::Surroundings;

use crate::Window;

/// What all cells of one stream remember, by cell name: `[B, C, H/s, W/s]` each.
///
/// A clone is cheap and independent: maps are shared until one of the two writes.
#[derive(Debug, Clone, Default)]
pub struct Memories {
    maps: BTreeMap<String, Arc<Tensor>>,
}

impl Memories {
    /// No memories: every cell starts from zeros.
    pub fn new() -> Self {
        Self::default()
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.maps.clear();
    }

    /// The memory of the cell called `name`. It is overwritten by the next step: copy it to keep it.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.maps.get(name).map(AsRef::as_ref)
    }

    /// Number of stored values over all cells.
    pub fn values(&self) -> usize {
        self.maps.values().map(|map| map.elem_count()).sum()
    }

    /// Opens the cells for one step that sees `window` of a frame of `frame`.
    pub fn at(&mut self, frame: FrameSize, window: Window) -> CellStep<'_> {
        CellStep { memories: self, frame, window }
    }

    /// Writes the window's map into the memory and returns the full map.
    fn write(&mut self, name: &str, xs: &Tensor, full: FrameSize, top: usize, left: usize) -> Result<Tensor> {
        let mut map = match self.maps.remove(name) {
            Some(map) => map,
            None => Arc::new(plane_for(xs, full.height, full.width)?),
        };
        // The write is in place, so a map that a clone of the stream holds too is copied first.
        if Arc::get_mut(&mut map).is_none() {
            map = Arc::new(map.copy()?);
        }
        let written = write_window(&map, xs, top, left);
        // Gradients stop at the step's end; the copy keeps a later write out of this step's graph.
        let map = match &written {
            Ok(written) if written.track_op() => Arc::new(written.detach().copy()?),
            _ => map,
        };
        self.maps.insert(name.to_owned(), map);
        written
    }
}

/// The cells during one step.
#[derive(Debug)]
pub struct CellStep<'a> {
    memories: &'a mut Memories,
    frame: FrameSize,
    window: Window,
}

impl Surroundings for CellStep<'_> {
    /// One cell: writes `xs`, the window at some stride, into the memory called `name`, and places
    /// it there.
    fn place(&mut self, name: &str, xs: &Tensor) -> Result<Region> {
        let (_, _, h, w) = xs.dims4()?;
        let Window { top, left, height, width } = self.window;
        let stride = height / h.max(1);
        let aligned =
            [top, left, self.frame.height, self.frame.width].iter().all(|v| v.is_multiple_of(stride));
        if stride == 0 || h * stride != height || w * stride != width || !aligned {
            bail!(
                "cell {name}: a map of {h}×{w} is not the window of {height}×{width} pixels at row {top}, column {left} of a frame of {} at any stride: windows must lie on multiples of the stride",
                self.frame
            )
        }
        let full = FrameSize::new(self.frame.height / stride, self.frame.width / stride);
        let (top, left) = (top / stride, left / stride);
        let plane = self.memories.write(name, xs, full, top, left)?;
        Region::new(&plane, top, left, h, w)
    }
}
