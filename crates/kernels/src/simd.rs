//! Vectors of f32 as the kernels see them: one trait, one implementation an instruction set.

use crate::isa::Isa;

/// Work that is written once over [`Simd`] and compiled for each instruction set.
///
/// `run` and everything below it that touches vectors must be `#[inline(always)]`: only so does it
/// become part of the one function that is compiled for the set.
pub(crate) trait Kernel {
    /// What it returns.
    type Output;

    /// The work.
    fn run<S: Simd>(self) -> Self::Output;
}

/// Runs `kernel` with `isa`.
pub(crate) fn dispatch<K: Kernel>(isa: Isa, kernel: K) -> K::Output {
    assert!(isa.is_available(), "instruction sets are checked where they are chosen");
    match isa {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: the processor has the instruction set, as just checked.
        Isa::Avx512 => unsafe { Avx512::enter(kernel) },
        #[cfg(target_arch = "x86_64")]
        // SAFETY: as above.
        Isa::Avx2 => unsafe { Avx2::enter(kernel) },
        // SAFETY: needs nothing.
        _ => unsafe { Portable::enter(kernel) },
    }
}

/// The shape of a tile of a matrix product: (vectors of columns, most rows), widest first.
pub(crate) type TileShapes = &'static [(usize, usize)];

/// An instruction set.
///
/// # Safety
/// Its functions may be called only inside [`Simd::enter`] of the same set.
pub(crate) trait Simd: Copy + Send + Sync + 'static {
    /// f32 values a vector.
    const LANES: usize;
    /// Tiles that keep all their sums in registers.
    const TILES: TileShapes;
    /// A vector.
    type V: Copy;

    /// Compiles `kernel` for this set and runs it.
    ///
    /// # Safety
    /// The processor must have the set.
    unsafe fn enter<K: Kernel>(kernel: K) -> K::Output;

    /// All lanes `x`.
    unsafe fn splat(x: f32) -> Self::V;
    /// `LANES` values from `p`, which need no alignment.
    unsafe fn load(p: *const f32) -> Self::V;
    /// The first `n` values from `p`, zeros in the other lanes. `n` ≤ `LANES`.
    unsafe fn load_first(p: *const f32, n: usize) -> Self::V;
    /// The first `n` lanes of `a`, the others of `b`. `n` ≤ `LANES`.
    unsafe fn first_or(a: Self::V, b: Self::V, n: usize) -> Self::V;
    /// Asks for the cache line of `p`, which may lie anywhere.
    unsafe fn prefetch(p: *const f32);
    /// The same, into the second cache.
    unsafe fn prefetch_second(p: *const f32);
    /// All lanes to `p`.
    unsafe fn store(p: *mut f32, v: Self::V);
    /// The first `n` lanes to `p`. `n` ≤ `LANES`.
    unsafe fn store_first(p: *mut f32, v: Self::V, n: usize);

    /// a + b
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    /// a − b
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    /// a · b
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    /// a / b
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// 1 / a to a unit in the last place or two, for a from 2⁻¹²⁵ to 2¹²⁵.
    #[inline(always)]
    unsafe fn reciprocal(a: Self::V) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { Self::div(Self::splat(1.0), a) }
    }
    /// a · b + c, rounded once where the set can.
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// The larger; `b` where one of the two is NaN.
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V;
    /// The smaller; `b` where one of the two is NaN.
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V;
    /// The nearest whole number, ties to even.
    unsafe fn round(a: Self::V) -> Self::V;
    /// a · 2ⁿ for whole n in −125..=128 and a from ½ to 2; infinity where that is too large.
    unsafe fn scale_exp2(a: Self::V, n: Self::V) -> Self::V;
    /// `a`, but zero where x < limit.
    unsafe fn zero_below(a: Self::V, x: Self::V, limit: Self::V) -> Self::V;
    /// `x` with the sign of `sign`, for x ≥ 0.
    unsafe fn copysign(x: Self::V, sign: Self::V) -> Self::V;
    /// The sum of all lanes.
    unsafe fn sum(a: Self::V) -> f32;
    /// The largest lane, where none is NaN.
    unsafe fn largest(a: Self::V) -> f32;

    /// |a|
    #[inline(always)]
    unsafe fn abs(a: Self::V) -> Self::V {
        // SAFETY: the caller's promise.
        unsafe { Self::max(Self::sub(Self::splat(0.0), a), a) }
    }
}

/// Writes `scale` times the four columns of four rows, `step` values apart: with what every x86-64
/// has, since compilers move the values one by one.
///
/// # Safety
/// Four values can be read from each row, and written at each column.
#[inline(always)]
pub(crate) unsafe fn transpose4(rows: [*const f32; 4], scale: f32, to: *mut f32, step: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE belongs to the target; the rest is the caller's promise.
    unsafe {
        use std::arch::x86_64::{_MM_TRANSPOSE4_PS, _mm_loadu_ps, _mm_mul_ps, _mm_set1_ps, _mm_storeu_ps};
        let scale = _mm_set1_ps(scale);
        let [mut a, mut b, mut c, mut d] = rows.map(|row| _mm_mul_ps(_mm_loadu_ps(row), scale));
        _MM_TRANSPOSE4_PS(&mut a, &mut b, &mut c, &mut d);
        for (i, column) in [a, b, c, d].into_iter().enumerate() {
            _mm_storeu_ps(to.add(i * step), column);
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    for i in 0..4 {
        // SAFETY: the caller's promise.
        unsafe { to.add(i * step).cast::<[f32; 4]>().write_unaligned(rows.map(|row| *row.add(i) * scale)) };
    }
}

/// Lanes of the widest set.
pub(crate) const MAX_LANES: usize = 16;

/// What the compiler makes of plain code: four lanes.
#[derive(Clone, Copy)]
pub(crate) struct Portable;

#[inline(always)]
fn lanes(f: impl FnMut(usize) -> f32) -> [f32; 4] {
    std::array::from_fn(f)
}

impl Simd for Portable {
    const LANES: usize = 4;
    const TILES: TileShapes = &[(2, 4), (1, 6)];
    type V = [f32; 4];

    #[inline(never)]
    unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Self>()
    }
    #[inline(always)]
    unsafe fn splat(x: f32) -> Self::V {
        [x; 4]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> Self::V {
        // SAFETY: the caller's promise that four values can be read.
        unsafe { p.cast::<[f32; 4]>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const f32) {}
    #[inline(always)]
    unsafe fn prefetch_second(_: *const f32) {}
    #[inline(always)]
    unsafe fn load_first(p: *const f32, n: usize) -> Self::V {
        // SAFETY: the caller's promise that n values can be read.
        lanes(|i| if i < n { unsafe { *p.add(i) } } else { 0.0 })
    }
    #[inline(always)]
    unsafe fn first_or(a: Self::V, b: Self::V, n: usize) -> Self::V {
        lanes(|i| if i < n { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: Self::V) {
        // SAFETY: the caller's promise that four values can be written.
        unsafe { p.cast::<[f32; 4]>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn store_first(p: *mut f32, v: Self::V, n: usize) {
        for (i, x) in v.into_iter().enumerate().take(n) {
            // SAFETY: the caller's promise that n values can be written.
            unsafe { *p.add(i) = x }
        }
    }
    #[inline(always)]
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] + b[i])
    }
    #[inline(always)]
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] - b[i])
    }
    #[inline(always)]
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i])
    }
    #[inline(always)]
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| a[i] / b[i])
    }
    #[inline(always)]
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
        lanes(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
        lanes(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn round(a: Self::V) -> Self::V {
        // Adding and taking away 1.5 · 2²³ rounds to a whole number; larger values are whole already.
        const MAGIC: f32 = 12_582_912.0;
        lanes(|i| if a[i].abs() < 4_194_304.0 { (a[i] + MAGIC) - MAGIC } else { a[i] })
    }
    #[inline(always)]
    unsafe fn scale_exp2(a: Self::V, n: Self::V) -> Self::V {
        // One doubling apart: 2¹²⁸ is no f32.
        lanes(|i| (a[i] + a[i]) * f32::from_bits((((n[i] as i32) + 126) << 23) as u32))
    }
    #[inline(always)]
    unsafe fn zero_below(a: Self::V, x: Self::V, limit: Self::V) -> Self::V {
        lanes(|i| if x[i] < limit[i] { 0.0 } else { a[i] })
    }
    #[inline(always)]
    unsafe fn copysign(x: Self::V, sign: Self::V) -> Self::V {
        lanes(|i| x[i].copysign(sign[i]))
    }
    #[inline(always)]
    unsafe fn sum(a: Self::V) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    unsafe fn largest(a: Self::V) -> f32 {
        a[0].max(a[2]).max(a[1].max(a[3]))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
    // Every function below only forwards to an intrinsic; the trait's contract is the intrinsic's:
    // the instruction set is there, and the pointers are good for the lanes that are touched.
    #![allow(clippy::undocumented_unsafe_blocks, reason = "the trait's contract, said once above")]

    use std::arch::x86_64::*;

    use super::{Kernel, Simd, TileShapes};

    /// AVX2 and FMA.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx2;

    /// A mask of the first n of 8 lanes lies at `8 - n`.
    static FIRST: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

    #[inline(always)]
    unsafe fn first_of_8(n: usize) -> __m256i {
        unsafe { _mm256_loadu_si256(FIRST.as_ptr().add(8 - n).cast()) }
    }

    // A kernel stays a function of its own, with registers of its own.
    #[inline(never)]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn enter_avx2<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx2>()
    }

    impl Simd for Avx2 {
        const LANES: usize = 8;
        const TILES: TileShapes = &[(3, 4), (2, 6), (1, 12)];
        type V = __m256;

        #[inline(always)]
        unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
            unsafe { enter_avx2(kernel) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm256_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn prefetch_second(p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            unsafe { _mm256_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, n: usize) -> Self::V {
            unsafe { _mm256_maskload_ps(p, first_of_8(n)) }
        }
        #[inline(always)]
        unsafe fn first_or(a: Self::V, b: Self::V, n: usize) -> Self::V {
            unsafe { _mm256_blendv_ps(b, a, _mm256_castsi256_ps(first_of_8(n))) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            unsafe { _mm256_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn store_first(p: *mut f32, v: Self::V, n: usize) {
            unsafe { _mm256_maskstore_ps(p, first_of_8(n), v) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm256_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm256_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn round(a: Self::V) -> Self::V {
            unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        unsafe fn scale_exp2(a: Self::V, n: Self::V) -> Self::V {
            unsafe {
                // One doubling apart: 2¹²⁸ is no f32.
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(126));
                let scale = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased));
                _mm256_mul_ps(_mm256_add_ps(a, a), scale)
            }
        }
        #[inline(always)]
        unsafe fn zero_below(a: Self::V, x: Self::V, limit: Self::V) -> Self::V {
            unsafe { _mm256_andnot_ps(_mm256_cmp_ps::<_CMP_LT_OQ>(x, limit), a) }
        }
        #[inline(always)]
        unsafe fn copysign(x: Self::V, sign: Self::V) -> Self::V {
            unsafe { _mm256_or_ps(x, _mm256_and_ps(sign, _mm256_set1_ps(-0.0))) }
        }
        #[inline(always)]
        unsafe fn sum(a: Self::V) -> f32 {
            unsafe {
                let a = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let a = _mm_add_ps(a, _mm_movehl_ps(a, a));
                _mm_cvtss_f32(_mm_add_ss(a, _mm_movehdup_ps(a)))
            }
        }
        #[inline(always)]
        unsafe fn largest(a: Self::V) -> f32 {
            unsafe {
                let a = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
                let a = _mm_max_ps(a, _mm_movehl_ps(a, a));
                _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)))
            }
        }
    }

    /// AVX-512F.
    #[derive(Clone, Copy)]
    pub(crate) struct Avx512;

    #[inline(always)]
    fn first_of_16(n: usize) -> __mmask16 {
        ((1u32 << n) - 1) as __mmask16
    }

    #[inline(never)]
    #[target_feature(enable = "avx512f,avx2,fma")]
    unsafe fn enter_avx512<K: Kernel>(kernel: K) -> K::Output {
        kernel.run::<Avx512>()
    }

    impl Simd for Avx512 {
        const LANES: usize = 16;
        const TILES: TileShapes = &[(4, 6), (3, 8), (2, 12), (1, 14)];
        type V = __m512;

        #[inline(always)]
        unsafe fn enter<K: Kernel>(kernel: K) -> K::Output {
            unsafe { enter_avx512(kernel) }
        }
        #[inline(always)]
        unsafe fn splat(x: f32) -> Self::V {
            unsafe { _mm512_set1_ps(x) }
        }
        #[inline(always)]
        unsafe fn prefetch(p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn prefetch_second(p: *const f32) {
            unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
        }
        #[inline(always)]
        unsafe fn load(p: *const f32) -> Self::V {
            unsafe { _mm512_loadu_ps(p) }
        }
        #[inline(always)]
        unsafe fn load_first(p: *const f32, n: usize) -> Self::V {
            unsafe { _mm512_maskz_loadu_ps(first_of_16(n), p) }
        }
        #[inline(always)]
        unsafe fn first_or(a: Self::V, b: Self::V, n: usize) -> Self::V {
            unsafe { _mm512_mask_mov_ps(b, first_of_16(n), a) }
        }
        #[inline(always)]
        unsafe fn store(p: *mut f32, v: Self::V) {
            unsafe { _mm512_storeu_ps(p, v) }
        }
        #[inline(always)]
        unsafe fn store_first(p: *mut f32, v: Self::V, n: usize) {
            unsafe { _mm512_mask_storeu_ps(p, first_of_16(n), v) }
        }
        #[inline(always)]
        unsafe fn add(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_add_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn sub(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_sub_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn mul(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_mul_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn div(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_div_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn reciprocal(a: Self::V) -> Self::V {
            // Fourteen bits from a table, and one step of Newton's method: divisions take ten times as long.
            unsafe {
                let y = _mm512_rcp14_ps(a);
                _mm512_fmadd_ps(y, _mm512_fnmadd_ps(a, y, _mm512_set1_ps(1.0)), y)
            }
        }
        #[inline(always)]
        unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V {
            unsafe { _mm512_fmadd_ps(a, b, c) }
        }
        #[inline(always)]
        unsafe fn max(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_max_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn min(a: Self::V, b: Self::V) -> Self::V {
            unsafe { _mm512_min_ps(a, b) }
        }
        #[inline(always)]
        unsafe fn round(a: Self::V) -> Self::V {
            unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(a) }
        }
        #[inline(always)]
        unsafe fn scale_exp2(a: Self::V, n: Self::V) -> Self::V {
            unsafe { _mm512_scalef_ps(a, n) }
        }
        #[inline(always)]
        unsafe fn zero_below(a: Self::V, x: Self::V, limit: Self::V) -> Self::V {
            unsafe { _mm512_maskz_mov_ps(_mm512_cmp_ps_mask::<_CMP_NLT_UQ>(x, limit), a) }
        }
        #[inline(always)]
        unsafe fn copysign(x: Self::V, sign: Self::V) -> Self::V {
            unsafe {
                let bit = _mm512_and_si512(_mm512_castps_si512(sign), _mm512_set1_epi32(i32::MIN));
                _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(x), bit))
            }
        }
        #[inline(always)]
        unsafe fn sum(a: Self::V) -> f32 {
            unsafe { _mm512_reduce_add_ps(a) }
        }
        #[inline(always)]
        unsafe fn largest(a: Self::V) -> f32 {
            unsafe { _mm512_reduce_max_ps(a) }
        }
    }
}
