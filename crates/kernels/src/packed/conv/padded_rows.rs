//! Inputs of few channels: with the border around it, channels last, all that a row of a filter reads lies one after
//! the other, so that a pixel has a place for each row of the filter instead of one for each tap.

use std::mem::MaybeUninit;

use crate::memory::filled_chunks;
use crate::packed::geometry::Geometry;

/// Rows that a task copies.
const ROWS: usize = 16;

/// What a convolution of dilation 1 reads, its border included: `[image][row][column][channel]`.
pub(super) struct PaddedRows {
    pub(super) values: Vec<f32>,
    /// Rows of an image, and pixels of a row.
    pub(super) height: usize,
    pub(super) width: usize,
}

impl PaddedRows {
    /// Copies `xs`, which lies as whole planes if it is `planar`, else channels last.
    pub(super) fn copy(g: &Geometry, channels: usize, planar: bool, xs: &[f32]) -> Self {
        let reach = |outputs: usize, taps: usize| (outputs - 1) * g.filter.stride + taps;
        let (height, width) = (reach(g.out_h, g.filter.height), reach(g.out_w, g.filter.width));
        let len = width * channels;
        // The columns of a row that lie in the plane.
        let left = g.origin.1.min(0).unsigned_abs().min(width);
        let first = g.origin.1.max(0).unsigned_abs();
        let inside = g.plane_w.saturating_sub(first).min(width - left);
        let copy_row = |i: usize, to: &mut [MaybeUninit<f32>]| {
            let (image, y) = (i / height, i % height);
            let row = g.origin.0.checked_add_unsigned(y).and_then(|row| usize::try_from(row).ok());
            let Some(row) = row.filter(|&row| row < g.plane_h) else {
                to.fill(MaybeUninit::new(0.0));
                return;
            };
            let (before, rest) = to.split_at_mut(left * channels);
            let (middle, after) = rest.split_at_mut(inside * channels);
            before.fill(MaybeUninit::new(0.0));
            after.fill(MaybeUninit::new(0.0));
            if planar {
                for channel in 0..channels {
                    let from = ((image * channels + channel) * g.plane_h + row) * g.plane_w + first;
                    let to = middle.iter_mut().skip(channel).step_by(channels);
                    for (to, x) in to.zip(&xs[from..from + inside]) {
                        to.write(*x);
                    }
                }
            } else {
                let from = ((image * g.plane_h + row) * g.plane_w + first) * channels;
                for (to, x) in middle.iter_mut().zip(&xs[from..from + inside * channels]) {
                    to.write(*x);
                }
            }
        };
        // SAFETY: each row is written whole: before, inside and after the plane.
        let values = unsafe {
            filled_chunks(g.batch * height * len, ROWS * len, |chunk, to| {
                for (i, row) in to.chunks_exact_mut(len).enumerate() {
                    copy_row(chunk * ROWS + i, row);
                }
            })
        };
        Self { values, height, width }
    }
}
