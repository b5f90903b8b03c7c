//! Where a convolution's outputs read: sizes, borders and strides of one call.

use candle_core::{Result, bail};

use crate::region::{Pads, Region};

/// Filter size and how it moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) height: usize,
    pub(crate) width: usize,
    pub(crate) stride: usize,
    pub(crate) dilation: usize,
}

impl Filter {
    pub(crate) fn taps(&self) -> usize {
        self.height * self.width
    }
}

/// One convolution of a region, channels last.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Geometry {
    pub(crate) batch: usize,
    pub(crate) plane_h: usize,
    pub(crate) plane_w: usize,
    pub(crate) out_h: usize,
    pub(crate) out_w: usize,
    pub(crate) filter: Filter,
    /// The plane's row and column under the first output's first tap; negative in the border.
    pub(crate) origin: (isize, isize),
}

impl Geometry {
    /// `name` and `channels` are what error messages and checks are about.
    pub(crate) fn new(
        name: &str,
        region: &Region,
        filter: Filter,
        pads: Pads,
        channels: usize,
    ) -> Result<Self> {
        let (batch, c, plane_h, plane_w) = region.plane.dims4()?;
        if c != channels {
            bail!("{name}: expected {channels} channels, got {c}")
        }
        let Filter { height, width, stride, dilation } = filter;
        let out = |n: usize, before: usize, after: usize, taps: usize| {
            let reach = taps.checked_sub(1)?.checked_mul(dilation)?.checked_add(1)?;
            Some(n.checked_add(before)?.checked_add(after)?.checked_sub(reach)? / stride + 1)
        };
        let (Some(out_h), Some(out_w)) = (
            out(region.height, pads.top, pads.bottom, height),
            out(region.width, pads.left, pads.right, width),
        ) else {
            bail!(
                "{name}: a {height}×{width} filter of dilation {dilation} does not fit a padded input of {}×{}",
                region.height + pads.top + pads.bottom,
                region.width + pads.left + pads.right
            )
        };
        let origin = (region.top as isize - pads.top as isize, region.left as isize - pads.left as isize);
        Ok(Self { batch, plane_h, plane_w, out_h, out_w, filter, origin })
    }

    /// Output pixels of the whole batch.
    pub(crate) fn pixels(&self) -> usize {
        self.batch * self.out_h * self.out_w
    }

    /// The plane's row that row `ky` of the filter reads for output row `y`.
    #[inline(always)]
    pub(crate) fn row(&self, y: usize, ky: usize) -> Option<usize> {
        inside(self.origin.0, y * self.filter.stride + ky * self.filter.dilation, self.plane_h)
    }

    /// The plane's column that column `kx` of the filter reads for output column `x`.
    #[inline(always)]
    pub(crate) fn column(&self, x: usize, kx: usize) -> Option<usize> {
        inside(self.origin.1, x * self.filter.stride + kx * self.filter.dilation, self.plane_w)
    }

    /// Whether every output reads just the pixel of its own index.
    pub(crate) fn is_pointwise(&self) -> bool {
        let Filter { height, width, stride, .. } = self.filter;
        (height, width, stride, self.origin) == (1, 1, 1, (0, 0))
            && (self.out_h, self.out_w) == (self.plane_h, self.plane_w)
    }
}

#[inline(always)]
fn inside(origin: isize, step: usize, size: usize) -> Option<usize> {
    let at = origin + step as isize;
    (at >= 0 && (at as usize) < size).then_some(at as usize)
}

/// The rows (or columns) that a strided convolution reads with the same taps: those that leave one
/// remainder by the stride. Backwards, from the convolution's results to its input, each such phase is an
/// ordinary convolution.
#[derive(Debug, Clone)]
pub(crate) struct Phase {
    /// Taps of the filter, in the order in which the results' rows meet them.
    pub(crate) taps: Vec<usize>,
    /// Row of the results under the first tap of the phase's first row.
    pub(crate) origin: isize,
    /// Rows of the phase.
    pub(crate) len: usize,
}

impl Phase {
    /// Row `stride · u + remainder` of `size` meets, through tap k, row
    /// `(stride · u + remainder + pad − k · dilation) / stride` of the results.
    pub(crate) fn new(
        remainder: usize,
        kernel: usize,
        pad: isize,
        size: usize,
        stride: usize,
        dilation: usize,
    ) -> Self {
        let shifted = remainder as isize + pad;
        let meets = |k: usize| (shifted - (k * dilation) as isize).rem_euclid(stride as isize) == 0;
        let taps: Vec<usize> = (0..kernel).rev().filter(|&k| meets(k)).collect();
        let origin =
            taps.first().map_or(0, |&k| (shifted - (k * dilation) as isize).div_euclid(stride as isize));
        Self { taps, origin, len: size.saturating_sub(remainder).div_ceil(stride) }
    }
}
