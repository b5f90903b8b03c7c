//! Work on one pixel's channels after another.

use crate::isa::Isa;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::{items_per_task, share_chunks};

/// Calls `pixel(i, values)` for each pixel of a map `[…, channels]`, shared out over threads. `cost` is a pixel's
/// operations.
pub(crate) fn each_pixel<T: Send>(
    isa: Isa,
    map: &mut [T],
    channels: usize,
    cost: usize,
    pixel: impl Fn(usize, &mut [T]) + Sync,
) {
    let per_task = items_per_task(map.len() / channels.max(1), cost);
    share_chunks(map, per_task * channels, |task, map| {
        dispatch(isa, Pixels { first: task * per_task, channels, map, pixel: &pixel });
    });
}

/// Some pixels.
struct Pixels<'a, T, F> {
    first: usize,
    channels: usize,
    map: &'a mut [T],
    pixel: &'a F,
}

impl<T, F: Fn(usize, &mut [T])> Kernel for Pixels<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self) {
        for (i, values) in self.map.chunks_exact_mut(self.channels).enumerate() {
            (self.pixel)(self.first + i, values);
        }
    }
}
