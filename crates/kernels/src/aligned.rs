//! Memory that begins on a cache line, so that no vector of it lies on two.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::memory::room;

/// Values of a cache line.
pub(crate) const LINE: usize = 16;

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([f32; LINE]);

/// Values of an operation's own, on whole lines.
#[derive(Default)]
pub(crate) struct Aligned {
    lines: Vec<Line>,
    len: usize,
}

impl Aligned {
    /// `len` zeros.
    pub(crate) fn zeros(len: usize) -> Self {
        let mut values = Self { lines: room(len.div_ceil(LINE)), len: 0 };
        values.resize(len);
        values
    }

    /// Makes room for `len` values; new lines are zero.
    pub(crate) fn resize(&mut self, len: usize) {
        self.lines.resize(len.div_ceil(LINE), Line([0.0; LINE]));
        self.len = len;
    }
}

impl Deref for Aligned {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the lines are values one after the other, `len` of them at least.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }
}

impl DerefMut for Aligned {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as for `deref`.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// Packed weights, which passes read and share.
#[derive(Clone)]
pub(crate) struct Weights(Arc<Aligned>);

impl Weights {
    /// `len` weights that `write` makes of zeros.
    pub(crate) fn written(len: usize, write: impl FnOnce(&mut [f32])) -> Self {
        let mut values = Aligned::zeros(len);
        write(&mut values);
        Self(Arc::new(values))
    }
}

impl From<&[f32]> for Weights {
    fn from(values: &[f32]) -> Self {
        Self::written(values.len(), |to| to.copy_from_slice(values))
    }
}

impl Deref for Weights {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.0
    }
}

impl fmt::Debug for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} weights", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_on_a_line_and_keep_what_was_written() {
        let on_line = |values: &[f32]| values.as_ptr().cast::<u8>().align_offset(size_of::<Line>()) == 0;
        let mut scratch = Aligned::zeros(17);
        scratch[16] = 1.0;
        scratch.resize(40);
        assert!(on_line(&scratch) && scratch.len() == 40);
        assert_eq!((scratch[16], scratch[39]), (1.0, 0.0));

        let layers: Vec<Vec<f32>> =
            [0, 1, 15, 16, 17, 3 << 20, 5].iter().map(|&n| (0..n).map(|i| i as f32).collect()).collect();
        let kept: Vec<Weights> = layers.iter().map(|layer| layer.as_slice().into()).collect();
        let of_two = kept[4].clone();
        for (layer, kept) in layers.iter().zip(&kept) {
            assert!(on_line(kept) && **kept == **layer);
        }
        drop(kept);
        assert_eq!(*of_two, *layers[4]);
    }
}
