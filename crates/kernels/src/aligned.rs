//! Memory that begins on a cache line, so that no vector of it lies on two.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Values of a cache line.
pub(crate) const LINE: usize = 16;
/// Bytes of a huge page.
const HUGE_PAGE: usize = 2 << 20;
/// Bytes got from the system at a time for weights.
const CHUNK: usize = 4 * HUGE_PAGE;

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
        let mut values = Self::default();
        values.resize(len);
        values
    }

    /// Makes room for `len` values; new ones are zero.
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

/// Packed weights, which many passes read: those of all layers lie one after the other in huge pages.
/// A pass reads each weight of a net once, and would look up a page for every 4 KiB.
#[derive(Clone)]
pub(crate) struct Weights {
    /// Keeps the values.
    _chunk: Arc<Chunk>,
    values: NonNull<[f32]>,
}

// SAFETY: nobody writes values after they were made, and the chunk is freed with the last of them.
unsafe impl Send for Weights {}
// SAFETY: as above.
unsafe impl Sync for Weights {}

/// Memory from the system, a part of which each packed layer has.
struct Chunk {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a chunk is an address; its parts are written once, by whoever they were given to.
unsafe impl Send for Chunk {}
// SAFETY: as above.
unsafe impl Sync for Chunk {}

/// The chunk that has room left, and the bytes of it that are taken.
static CURRENT: Mutex<(Weak<Chunk>, usize)> = Mutex::new((Weak::new(), 0));

impl Chunk {
    /// Memory that nobody has written yet, in huge pages where the system has them.
    fn new(bytes: usize) -> Self {
        let bytes = bytes.next_multiple_of(HUGE_PAGE);
        let Ok(layout) = Layout::from_size_align(bytes, HUGE_PAGE) else {
            unreachable!("a layer's weights are copied from memory, which is smaller than all addresses")
        };
        // SAFETY: a chunk has at least one huge page.
        let start = unsafe { alloc(layout) };
        let Some(start) = NonNull::new(start) else { handle_alloc_error(layout) };
        #[cfg(target_os = "linux")]
        // SAFETY: the advice changes nothing that the memory holds.
        unsafe {
            libc::madvise(start.as_ptr().cast(), bytes, libc::MADV_HUGEPAGE);
        }
        Self { start, layout }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: it was allocated so, and nobody refers to it any more.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl Weights {
    /// `len` weights that `write` makes of zeros.
    pub(crate) fn written(len: usize, write: impl FnOnce(&mut [f32])) -> Self {
        let (chunk, from) = part_of_chunk(len.next_multiple_of(LINE) * size_of::<f32>());
        // SAFETY: the part lies inside the chunk, has room for the values, and belongs to them alone.
        let mut values = unsafe {
            let start = chunk.start.add(from).cast::<f32>();
            start.write_bytes(0, len);
            NonNull::slice_from_raw_parts(start, len)
        };
        // SAFETY: they are zeros now, and nobody else knows of them yet.
        write(unsafe { values.as_mut() });
        Self { _chunk: chunk, values }
    }
}

/// A part of so many bytes, whole lines, that nobody else has: a chunk, and where in it the part begins.
fn part_of_chunk(bytes: usize) -> (Arc<Chunk>, usize) {
    let mut current = CURRENT.lock().unwrap_or_else(PoisonError::into_inner);
    let with_room = current.0.upgrade().filter(|chunk| chunk.layout.size() - current.1 >= bytes);
    let chunk = with_room.unwrap_or_else(|| {
        let chunk = Arc::new(Chunk::new(bytes.max(CHUNK)));
        *current = (Arc::downgrade(&chunk), 0);
        chunk
    });
    let from = current.1;
    current.1 += bytes;
    (chunk, from)
}

impl From<&[f32]> for Weights {
    fn from(values: &[f32]) -> Self {
        Self::written(values.len(), |to| to.copy_from_slice(values))
    }
}

impl Deref for Weights {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // SAFETY: the values were written when the weights were made, and are kept by the chunk.
        unsafe { self.values.as_ref() }
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
