//! Memory of results: kept from one operation to the next, written by many threads at once.

use std::mem::MaybeUninit;

use crate::threads::share_chunks;

/// Keeps the memory that results have left ready for the next ones. For programs: call it once, at the
/// start.
///
/// Each operation's result is a buffer of its own, often of megabytes. By default the GNU C library
/// gives such buffers back to the system when they are freed, and a page fault for every 4 KiB of the
/// next one can take longer than the operation. With this call the process keeps what it has used, all
/// threads take from the same memory, and only buffers of more than 32 MiB are given back. It changes
/// settings of the whole process, hence no library does it for itself; environment variables
/// (`MALLOC_TRIM_THRESHOLD_`, `MALLOC_MMAP_THRESHOLD_`, `MALLOC_ARENA_MAX`) do the same. With another C
/// library or allocator it does nothing.
pub fn keep_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        /// The most that the C library takes for it.
        const LARGEST_KEPT: i32 = 32 << 20;
        for (setting, value) in [
            (libc::M_ARENA_MAX, 1),
            (libc::M_MMAP_THRESHOLD, LARGEST_KEPT),
            (libc::M_TRIM_THRESHOLD, i32::MAX),
        ] {
            // SAFETY: `mallopt` takes any setting and value, from any thread, and says no to what it does
            // not know.
            unsafe { libc::mallopt(setting, value) };
        }
    }
}

/// Gives memory that is free back to the system. For programs that call [`keep_freed_memory`]: call it when nets are
/// loaded and prepared, whose first copies leave holes that the maps of a pass may not fit into.
///
/// With another C library it does nothing.
pub fn release_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: `malloc_trim` touches free memory only, from any thread.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// An empty vector with room for `len` values, in huge pages where it is large and the system has them.
pub(crate) fn room<T>(len: usize) -> Vec<T> {
    let values = Vec::<T>::with_capacity(len);
    #[cfg(target_os = "linux")]
    {
        /// Of this size, a buffer has huge pages inside.
        const LARGE: usize = 4 << 20;
        const PAGE: usize = 4 << 10;
        let bytes = len * size_of::<T>();
        if bytes >= LARGE {
            let start = values.as_ptr().cast::<u8>();
            let skip = start.align_offset(PAGE);
            // SAFETY: the pages lie inside the vector's memory; the advice changes nothing that it holds,
            // and a system without huge pages says no.
            unsafe {
                let first = start.add(skip).cast_mut().cast();
                libc::madvise(first, (bytes - skip) / PAGE * PAGE, libc::MADV_HUGEPAGE);
            }
        }
    }
    values
}

/// A vector of `len` values that `fill` writes, through a pointer to the first.
///
/// # Safety
/// `fill` must write all of them.
pub(crate) unsafe fn filled<T>(len: usize, fill: impl FnOnce(Shared<T>)) -> Vec<T> {
    let mut values = room(len);
    fill(Shared(values.as_mut_ptr()));
    // SAFETY: the capacity is there, and the caller's promise is that all values are written.
    unsafe { values.set_len(len) };
    values
}

/// [`filled`] by chunks of `chunk` values, of which the last may be shorter, on all threads.
///
/// # Safety
/// `fill(i, values)` must write all of its values.
pub(crate) unsafe fn filled_chunks<T: Send>(
    len: usize,
    chunk: usize,
    fill: impl Fn(usize, &mut [MaybeUninit<T>]) + Sync,
) -> Vec<T> {
    // SAFETY: the chunks make up all values, of which there are `len`; the rest is the caller's promise.
    unsafe { filled(len, |out| share_chunks(out.unwritten(len), chunk, fill)) }
}

/// A pointer that tasks share; each writes its own part.
#[derive(Debug)]
pub(crate) struct Shared<T = f32>(pub(crate) *mut T);

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Shared<T> {}

// SAFETY: whoever dereferences it keeps the tasks' parts apart, and the values may go to other threads.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// The pointer, `offset` values on.
    ///
    /// # Safety
    /// Within the allocation.
    #[inline(always)]
    pub(crate) unsafe fn at(self, offset: usize) -> *mut T {
        // SAFETY: the caller's promise.
        unsafe { self.0.add(offset) }
    }

    /// The first `len` values, which need not be written yet.
    ///
    /// # Safety
    /// Within the allocation, and nobody else has a part of them as long as the slice lives.
    pub(crate) unsafe fn unwritten<'a>(self, len: usize) -> &'a mut [MaybeUninit<T>] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.0.cast(), len) }
    }
}

/// A pointer that tasks only read.
#[derive(Clone, Copy)]
pub(crate) struct SharedRead(pub(crate) *const f32);

// SAFETY: nobody writes through it.
unsafe impl Send for SharedRead {}
// SAFETY: as above.
unsafe impl Sync for SharedRead {}

impl SharedRead {
    /// The pointer.
    #[inline(always)]
    pub(crate) fn get(self) -> *const f32 {
        self.0
    }
}
