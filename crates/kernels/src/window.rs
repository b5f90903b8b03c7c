//! Writing a window into a full-frame tensor.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, bail};

use crate::threads::{items_per_task, share_chunks};
use crate::transpose::channels_last;

/// Writes `xs` (`[B, C, h, w]`) into `plane` (`[B, C, H, W]`) with its corner at (`top`, `left`) and
/// returns the plane that holds the result.
///
/// On the CPU, outside an autograd graph, `plane` (in either order of memory) is written **in place**: the cost is the window's,
/// not the frame's, and every tensor that shares `plane`'s storage sees the change. Otherwise the
/// result is a new tensor with gradients to both.
///
/// # Errors
/// If ranks, batch, channels or types differ, or the window is empty or leaves the plane.
pub fn write_window(plane: &Tensor, xs: &Tensor, top: usize, left: usize) -> Result<Tensor> {
    let (b, c, h, w) = xs.dims4()?;
    let (pb, pc, ph, pw) = plane.dims4()?;
    let inside =
        |from: usize, len: usize, all: usize| len > 0 && from.checked_add(len).is_some_and(|end| end <= all);
    if (b, c) != (pb, pc) || !inside(top, h, ph) || !inside(left, w, pw) || plane.dtype() != xs.dtype() {
        bail!(
            "write-window: {:?} {:?} at row {top}, column {left} does not fit a plane {:?} {:?}",
            xs.dims(),
            xs.dtype(),
            plane.dims(),
            plane.dtype()
        )
    }
    if matches!(plane.device(), Device::Cpu) && !plane.track_op() && !xs.track_op() {
        // Either order of memory is rows of values: of one channel's, or of all channels'.
        if plane.is_contiguous() {
            plane.inplace_op2(&xs.contiguous()?, &WriteWindow { top, left, of_channels: false })?;
            return Ok(plane.clone());
        }
        let last = plane.permute((0, 2, 3, 1))?;
        if last.is_contiguous() {
            last.inplace_op2(&channels_last(xs)?, &WriteWindow { top, left, of_channels: true })?;
            return Ok(plane.clone());
        }
    }
    plane.slice_assign(&[0..b, 0..c, top..top + h, left..left + w], xs)
}

/// Zeros, `[B, C, height, width]` for an `xs` of `[B, C, h, w]`, in `xs`'s order of memory.
///
/// # Errors
/// If `xs` is not of rank 4.
pub fn plane_for(xs: &Tensor, height: usize, width: usize) -> Result<Tensor> {
    let (b, c, _, _) = xs.dims4()?;
    if xs.is_contiguous() {
        return Tensor::zeros((b, c, height, width), xs.dtype(), xs.device());
    }
    Tensor::zeros((b, height, width, c), xs.dtype(), xs.device())?.permute((0, 3, 1, 2))
}

struct WriteWindow {
    top: usize,
    left: usize,
    /// The operands are `[B, H, W, C]`, not `[B, C, H, W]`.
    of_channels: bool,
}

impl WriteWindow {
    fn copy<T: Copy + Send + Sync>(
        &self,
        plane: &mut [T],
        plane_l: &Layout,
        xs: &[T],
        xs_l: &Layout,
    ) -> Result<()> {
        let (ph, pw, h, w, per_pixel) = if self.of_channels {
            let (_, ph, pw, c) = plane_l.shape().dims4()?;
            let (_, h, w, _) = xs_l.shape().dims4()?;
            (ph, pw * c, h, w * c, c)
        } else {
            let (_, _, ph, pw) = plane_l.shape().dims4()?;
            let (_, _, h, w) = xs_l.shape().dims4()?;
            (ph, pw, h, w, 1)
        };
        let left = self.left * per_pixel;
        let (Some((p0, p1)), Some((x0, x1))) = (plane_l.contiguous_offsets(), xs_l.contiguous_offsets())
        else {
            bail!("write-window: operands are not contiguous")
        };
        let per_task = items_per_task(h, 2 * w);
        for (plane, xs) in plane[p0..p1].chunks_exact_mut(ph * pw).zip(xs[x0..x1].chunks_exact(h * w)) {
            share_chunks(&mut plane[self.top * pw..][..h * pw], per_task * pw, |task, rows| {
                let xs = xs.chunks_exact(w).skip(task * per_task);
                for (row, xs) in rows.chunks_exact_mut(pw).zip(xs) {
                    row[left..left + w].copy_from_slice(xs);
                }
            });
        }
        Ok(())
    }
}

impl InplaceOp2 for WriteWindow {
    fn name(&self) -> &'static str {
        "write-window"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        match (s1, s2) {
            (CpuStorage::F32(plane), CpuStorage::F32(xs)) => self.copy(plane, l1, xs, l2),
            (CpuStorage::F64(plane), CpuStorage::F64(xs)) => self.copy(plane, l1, xs, l2),
            (CpuStorage::F16(plane), CpuStorage::F16(xs)) => self.copy(plane, l1, xs, l2),
            (CpuStorage::BF16(plane), CpuStorage::BF16(xs)) => self.copy(plane, l1, xs, l2),
            (_, s2) => bail!("write-window: expected two float tensors of one type, got {:?}", s2.dtype()),
        }
    }
}
