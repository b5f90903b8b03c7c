//! A rectangle of a larger plane, as the input of a convolution.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, CustomOp1, Device, Layout, Result, Shape, Tensor, WithDType, bail};

/// Rows and columns that a convolution reads around its input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pads {
    /// Rows above.
    pub top: usize,
    /// Rows below.
    pub bottom: usize,
    /// Columns to the left.
    pub left: usize,
    /// Columns to the right.
    pub right: usize,
}

impl Pads {
    /// The same amount on all four sides.
    pub const fn all(n: usize) -> Self {
        Self { top: n, bottom: n, left: n, right: n }
    }
}

/// The rectangle of `plane` (`[B, C, H, W]`) that a convolution treats as its input. What the
/// convolution reads around the rectangle comes from the plane too, and is zero only outside it.
#[derive(Debug, Clone)]
pub struct Region {
    /// The whole plane, `[B, C, H, W]`.
    pub plane: Tensor,
    /// First row of the rectangle.
    pub top: usize,
    /// First column of the rectangle.
    pub left: usize,
    /// Rows of the rectangle.
    pub height: usize,
    /// Columns of the rectangle.
    pub width: usize,
}

impl Region {
    /// All of `plane`: everything around it is zero, as in an ordinary padded convolution.
    ///
    /// # Errors
    /// If `plane` is not of rank 4.
    pub fn whole(plane: &Tensor) -> Result<Self> {
        let (_, _, height, width) = plane.dims4()?;
        Ok(Self { plane: plane.clone(), top: 0, left: 0, height, width })
    }

    /// The rectangle `height × width` at (`top`, `left`) of `plane`.
    ///
    /// # Errors
    /// If `plane` is not of rank 4, or the rectangle is empty or leaves it.
    pub fn new(plane: &Tensor, top: usize, left: usize, height: usize, width: usize) -> Result<Self> {
        let (_, _, h, w) = plane.dims4()?;
        let fits = |from: usize, len: usize, all: usize| {
            len > 0 && from.checked_add(len).is_some_and(|end| end <= all)
        };
        if !fits(top, height, h) || !fits(left, width, w) {
            bail!(
                "region of {height} rows and {width} columns at row {top}, column {left} does not lie in a plane of {h}×{w}"
            )
        }
        Ok(Self { plane: plane.clone(), top, left, height, width })
    }

    /// Whether the rectangle is the whole plane.
    pub fn is_whole(&self) -> bool {
        self.top == 0 && self.left == 0 && self.plane.dims().ends_with(&[self.height, self.width])
    }

    /// The rectangle with its surroundings, `[B, C, top + height + bottom, left + width + right]`,
    /// contiguous: what a convolution without padding reads.
    ///
    /// # Errors
    /// If candle cannot make the copy.
    pub fn bordered(&self, pads: Pads) -> Result<Tensor> {
        if self.is_whole() && pads == Pads::default() {
            return self.plane.contiguous();
        }
        if matches!(self.plane.device(), Device::Cpu) && !self.plane.track_op() {
            let op = Border { top: self.top, left: self.left, height: self.height, width: self.width, pads };
            return self.plane.contiguous()?.apply_op1_no_bwd(&op);
        }
        self.plane
            .pad_with_zeros(2, pads.top, pads.bottom)?
            .pad_with_zeros(3, pads.left, pads.right)?
            .narrow(2, self.top, self.height + pads.top + pads.bottom)?
            .narrow(3, self.left, self.width + pads.left + pads.right)?
            .contiguous()
    }
}

/// Copies a rectangle of each plane together with its surroundings, zeros outside the plane.
struct Border {
    top: usize,
    left: usize,
    height: usize,
    width: usize,
    pads: Pads,
}

impl Border {
    fn copy<T: WithDType>(&self, xs: &[T], planes: usize, h: usize, w: usize) -> Vec<T> {
        let Self { top, left, height, width, pads } = *self;
        let (rows, columns) = (height + pads.top + pads.bottom, width + pads.left + pads.right);
        let mut ys = vec![T::zero(); planes * rows * columns];
        // The columns of a row that lie inside the plane, in the copy and in the plane.
        let skip = pads.left.saturating_sub(left);
        let from = left.saturating_sub(pads.left);
        let len = (left + width + pads.right).min(w).saturating_sub(from);
        for (plane, out) in xs.chunks_exact(h * w).zip(ys.chunks_exact_mut(rows * columns)) {
            for (row, out) in out.chunks_exact_mut(columns).enumerate() {
                let Some(y) = (top + row).checked_sub(pads.top).filter(|&y| y < h) else { continue };
                out[skip..skip + len].copy_from_slice(&plane[y * w + from..y * w + from + len]);
            }
        }
        ys
    }
}

impl CustomOp1 for Border {
    fn name(&self) -> &'static str {
        "bordered-region"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (b, c, h, w) = layout.shape().dims4()?;
        let Some((from, to)) = layout.contiguous_offsets() else {
            bail!("bordered-region: plane is not contiguous")
        };
        let ys = match storage {
            CpuStorage::F32(xs) => CpuStorage::F32(self.copy(&xs[from..to], b * c, h, w)),
            CpuStorage::F64(xs) => CpuStorage::F64(self.copy(&xs[from..to], b * c, h, w)),
            CpuStorage::F16(xs) => CpuStorage::F16(self.copy(&xs[from..to], b * c, h, w)),
            CpuStorage::BF16(xs) => CpuStorage::BF16(self.copy(&xs[from..to], b * c, h, w)),
            _ => bail!("bordered-region: expected a float tensor, got {:?}", storage.dtype()),
        };
        let shape = (
            b,
            c,
            self.height + self.pads.top + self.pads.bottom,
            self.width + self.pads.left + self.pads.right,
        );
        Ok((ys, shape.into()))
    }
}
