//! The most multiply–adds that the processor does: what the kernels' speed is a share of.

use std::hint::black_box;
use std::time::Instant;

use candle_core::Result;

use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};

/// Multiply–adds of one call in each chain: a few milliseconds, so that a thread's first ones do not count.
const STEPS: usize = 1 << 20;
const CALLS: usize = 20;
/// Independent chains: enough for the latency of both units, few enough for 16 registers.
const CHAINS: usize = 12;

/// GFLOP/s in f32 of `threads` threads together, with the instruction set that the kernels use:
/// independent chains of multiply–adds in registers, no memory. Takes a tenth of a second.
///
/// # Errors
/// If `ZOO_ISA` is wrong.
pub fn fma_peak(threads: usize) -> Result<f64> {
    let isa = Isa::current()?;
    let of_a_thread = move || {
        let best = (0..CALLS).map(|_| {
            let start = Instant::now();
            let lanes = dispatch(isa, Chains);
            (2 * STEPS * CHAINS * lanes) as f64 / start.elapsed().as_secs_f64() / 1e9
        });
        best.fold(0.0, f64::max)
    };
    Ok(std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(of_a_thread)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).sum()
    }))
}

struct Chains;

impl Kernel for Chains {
    type Output = usize;

    /// Lanes of a chain.
    #[inline(always)]
    fn run<S: Simd>(self) -> usize {
        let (a, b) = (black_box(0.5), black_box(1.0));
        // SAFETY: `run` is called by `S::enter`.
        let total = unsafe {
            let (a, b) = (S::splat(a), S::splat(b));
            let mut sums = [b; CHAINS];
            for _ in 0..STEPS {
                for sum in &mut sums {
                    *sum = S::fma(*sum, a, b);
                }
            }
            sums.into_iter().fold(S::splat(0.0), |total, sum| S::add(total, sum))
        };
        // SAFETY: as above.
        black_box(unsafe { S::sum(total) });
        S::LANES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_a_rate() -> Result<()> {
        for isa in Isa::available() {
            let peak = isa.scoped(|| fma_peak(1))??;
            assert!(peak.is_finite() && peak > 0.1, "{isa}: {peak} GFLOP/s");
        }
        Ok(())
    }
}
