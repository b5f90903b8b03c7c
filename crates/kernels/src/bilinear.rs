//! Reading a map between its pixels.

use crate::epilogue::Float;
use crate::threads::{share_chunks, threads};

/// Runs `work(image, first pixel, values)` for bands of rows of `[B, height, width, channels]`, one for
/// each thread in each image. What is read at places of its own is scattered back in this way: each
/// task goes over all places and serves those in its band, so that no two tasks write to one pixel, and
/// the order of additions is always the same.
pub(crate) fn share_bands<T: Send>(
    map: &mut [T],
    (height, width, channels): (usize, usize, usize),
    work: impl Fn(usize, usize, &mut [T]) + Sync,
) {
    let pixels = height.div_ceil(threads()) * width;
    for (image, map) in map.chunks_exact_mut(height * width * channels).enumerate() {
        share_chunks(map, pixels * channels, |band, values| work(image, band * pixels, values));
    }
}

/// The four pixels around a position of a map, and how much of each a bilinear sample takes. What
/// lies outside the map counts zero.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Corners {
    /// Pixels of the map, row by row; 0 where outside.
    pixels: [usize; 4],
    inside: [bool; 4],
    /// How far the position lies below and right of the first corner.
    part: (f64, f64),
}

impl Corners {
    /// Top left, top right, bottom left, bottom right around row `y` and column `x` of `height` ×
    /// `width` pixels; `None` where no corner lies in the map, as for a NaN.
    #[inline(always)]
    pub(crate) fn new(y: f64, x: f64, height: usize, width: usize) -> Option<Self> {
        if !(y > -1.0 && y < height as f64 && x > -1.0 && x < width as f64) {
            return None;
        }
        let (top, left) = (y.floor(), x.floor());
        // One more than the row and the column, so that −1 is a number too.
        let (row, column) = ((top + 1.0) as usize, (left + 1.0) as usize);
        let place = |down: usize, right: usize| {
            let inside = (1..=height).contains(&(row + down)) && (1..=width).contains(&(column + right));
            (if inside { (row + down - 1) * width + column + right - 1 } else { 0 }, inside)
        };
        let places = [place(0, 0), place(0, 1), place(1, 0), place(1, 1)];
        Some(Self { pixels: places.map(|p| p.0), inside: places.map(|p| p.1), part: (y - top, x - left) })
    }

    #[inline(always)]
    fn weights(&self) -> [f64; 4] {
        let (y, x) = self.part;
        [(1.0 - y) * (1.0 - x), (1.0 - y) * x, y * (1.0 - x), y * x]
    }

    /// The pixels inside the map with their weights, and how the weights change with row and column.
    #[inline(always)]
    pub(crate) fn each(&self, mut f: impl FnMut(usize, f64, (f64, f64))) {
        let ((y, x), weights) = (self.part, self.weights());
        let slopes = [(x - 1.0, y - 1.0), (-x, 1.0 - y), (1.0 - x, -y), (x, y)];
        for corner in 0..4 {
            if self.inside[corner] {
                f(self.pixels[corner], weights[corner], slopes[corner]);
            }
        }
    }

    /// ys = scale · the sample of `xs`, pixels of `ys.len()` values at `stride` from each other.
    #[inline(always)]
    pub(crate) fn sample<T: Float>(&self, xs: &[T], stride: usize, scale: T, ys: &mut [T]) {
        let c = ys.len();
        if self.inside == [true; 4] {
            let [wa, wb, wc, wd] = self.weights().map(|weight| scale * T::from_f64(weight));
            let [pa, pb, pc, pd] = self.pixels.map(|pixel| &xs[pixel * stride..][..c]);
            for (i, y) in ys.iter_mut().enumerate() {
                *y = (wa * pa[i] + wb * pb[i]) + (wc * pc[i] + wd * pd[i]);
            }
            return;
        }
        ys.fill(T::ZERO);
        self.each(|pixel, weight, _| {
            let weight = scale * T::from_f64(weight);
            for (y, &x) in ys.iter_mut().zip(&xs[pixel * stride..][..c]) {
                *y += weight * x;
            }
        });
    }

    /// The gradients of a sample of scale 1, whose own is `grad`: for its row, its column, and the scale.
    #[inline(always)]
    pub(crate) fn slopes<T: Float>(&self, xs: &[T], stride: usize, grad: &[T]) -> (T, T, T) {
        let (mut to_y, mut to_x, mut sample) = (T::ZERO, T::ZERO, T::ZERO);
        self.each(|pixel, weight, (down, right)| {
            let along = dot(grad, &xs[pixel * stride..][..grad.len()]);
            to_y += T::from_f64(down) * along;
            to_x += T::from_f64(right) * along;
            sample += T::from_f64(weight) * along;
        });
        (to_y, to_x, sample)
    }
}

/// Σ a · b, in sixteen sums that a vector can hold.
#[inline(always)]
pub(crate) fn dot<T: Float>(a: &[T], b: &[T]) -> T {
    const SUMS: usize = 16;
    let mut sums = [T::ZERO; SUMS];
    let (a, b) = (a.chunks_exact(SUMS), b.chunks_exact(SUMS));
    let mut rest = T::ZERO;
    for (&a, &b) in a.remainder().iter().zip(b.remainder()) {
        rest += a * b;
    }
    for (a, b) in a.zip(b) {
        for (sum, (&a, &b)) in sums.iter_mut().zip(a.iter().zip(b)) {
            *sum += a * b;
        }
    }
    sums.into_iter().fold(rest, |sum, part| sum + part)
}
