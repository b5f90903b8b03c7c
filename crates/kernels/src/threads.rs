//! The thread pool that kernels and matrix products share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Threads that are being kept awake.
static AWAKE: AtomicUsize = AtomicUsize::new(0);

/// Runs `work`, a pass through a net, on the pool's own threads, all of which stay awake until it ends.
///
/// Each parallel operation that another thread starts hands its work over and sleeps until it is
/// done; on the pool, the thread that starts an operation takes part in it. A thread of the pool that
/// finds nothing to do for some microseconds sleeps, too, and waking it can take longer than one of a
/// net's hundred short operations. So the others look for work all the time until the pass is over:
/// a pass on n threads has n busy processors.
pub fn on_pool<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    /// Lets the threads sleep again, also after a panic.
    struct Over(Arc<AtomicBool>);
    impl Drop for Over {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    rayon::scope(|_| {
        let over = Over(Arc::default());
        // Another pass may keep threads awake already; what is missing is added.
        for _ in AWAKE.load(Ordering::Relaxed)..rayon::current_num_threads().saturating_sub(1) {
            AWAKE.fetch_add(1, Ordering::Relaxed);
            let over = over.0.clone();
            // Not in the scope: a pass need not wait for a thread that has found other work meanwhile.
            rayon::spawn(move || {
                while !over.load(Ordering::Acquire) {
                    if rayon::yield_now() != Some(rayon::Yield::Executed) {
                        // Whoever else wants the processor goes first.
                        std::thread::yield_now();
                    }
                }
                AWAKE.fetch_sub(1, Ordering::Relaxed);
            });
        }
        work()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_at_once_and_within_each_other_end_and_let_threads_sleep() {
        let passes = 8;
        let total: usize = std::thread::scope(|scope| {
            let running: Vec<_> = (0..passes)
                .map(|i| scope.spawn(move || (0..50).map(|_| on_pool(|| on_pool(|| i))).sum::<usize>()))
                .collect();
            running.into_iter().map(|pass| pass.join().unwrap_or(0)).sum()
        });
        assert_eq!(total, 50 * passes * (passes - 1) / 2);
        for _ in 0..10_000 {
            if AWAKE.load(Ordering::Relaxed) == 0 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("{} threads are still kept awake", AWAKE.load(Ordering::Relaxed));
    }
}
