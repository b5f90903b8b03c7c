//! The thread pool that kernels and matrix products share.

/// Runs `work` on the pool's own threads.
///
/// Each parallel operation that another thread starts hands its work over and sleeps until it is
/// done. For a net of a hundred short operations that costs milliseconds a pass; on the pool, the
/// thread that starts an operation takes part in it.
pub fn on_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    rayon::scope(|_| work())
}
