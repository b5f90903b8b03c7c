//! The most multiply–adds that the processor does in f32: independent chains in registers, no memory.
#![allow(
    unsafe_code,
    reason = "calls to functions compiled for an instruction set that was found at run time"
)]

use std::hint::black_box;
use std::time::Instant;

use candle_core::Result;
use zoo_kernels::Isa;

/// Multiply–adds of one call: a few milliseconds, so that a thread's first ones do not count.
const STEPS: usize = 1 << 20;
const CALLS: usize = 20;

/// GFLOP/s of `threads` threads together, with the instruction set that the kernels use.
///
/// # Errors
/// If `ZOO_ISA` is wrong.
pub fn gflops(threads: usize) -> Result<f64> {
    let isa = Isa::current()?;
    let of_a_thread = move || {
        let best = (0..CALLS).map(|_| {
            let start = Instant::now();
            let chains = black_box(run(isa));
            (2 * STEPS * chains) as f64 / start.elapsed().as_secs_f64() / 1e9
        });
        best.fold(0.0, f64::max)
    };
    Ok(std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(of_a_thread)).collect();
        running.into_iter().filter_map(|thread| thread.join().ok()).sum()
    }))
}

/// Runs [`STEPS`] multiply–adds in each of some chains, and returns how many chains.
fn run(isa: Isa) -> usize {
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: `Isa::current` gave what this processor has.
        Isa::Avx512 => unsafe { avx512() },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { avx2() },
        _ => portable(),
    }
}

/// 24 registers of sums leave room for two operands.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f")]
fn avx512() -> usize {
    use std::arch::x86_64::{_mm512_fmadd_ps, _mm512_set1_ps};
    let (a, b) = (_mm512_set1_ps(black_box(0.5)), _mm512_set1_ps(black_box(1.0)));
    let mut sums = [b; 24];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm512_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums).len() * 16
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
fn avx2() -> usize {
    use std::arch::x86_64::{_mm256_fmadd_ps, _mm256_set1_ps};
    let (a, b) = (_mm256_set1_ps(black_box(0.5)), _mm256_set1_ps(black_box(1.0)));
    let mut sums = [b; 12];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = _mm256_fmadd_ps(*sum, a, b);
        }
    }
    black_box(sums).len() * 8
}

/// A multiplication and an addition, in whatever vectors the compiler takes.
fn portable() -> usize {
    let (a, b) = (black_box(0.5), black_box(1.0));
    let mut sums = [b; 40];
    for _ in 0..STEPS {
        for sum in &mut sums {
            *sum = *sum * a + b;
        }
    }
    black_box(sums).len()
}
