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
