//! Writing a window into a full-frame tensor.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, bail};
use rayon::prelude::*;

/// Writes `xs` (`[B, C, h, w]`) into `plane` (`[B, C, H, W]`) with its corner at (`top`, `left`) and
/// returns the plane that holds the result.
///
/// On the CPU, outside an autograd graph, `plane` is written **in place**: the cost is the window's,
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
    let on_cpu = matches!(plane.device(), Device::Cpu);
    if on_cpu && plane.is_contiguous() && !plane.track_op() && !xs.track_op() {
        plane.inplace_op2(&xs.contiguous()?, &WriteWindow { top, left })?;
        return Ok(plane.clone());
    }
    plane.slice_assign(&[0..b, 0..c, top..top + h, left..left + w], xs)
}

struct WriteWindow {
    top: usize,
    left: usize,
}

impl WriteWindow {
    fn copy<T: Copy + Send + Sync>(
        &self,
        plane: &mut [T],
        plane_l: &Layout,
        xs: &[T],
        xs_l: &Layout,
    ) -> Result<()> {
        let (_, _, ph, pw) = plane_l.shape().dims4()?;
        let (_, _, h, w) = xs_l.shape().dims4()?;
        let (Some((p0, p1)), Some((x0, x1))) = (plane_l.contiguous_offsets(), xs_l.contiguous_offsets())
        else {
            bail!("write-window: operands are not contiguous")
        };
        let planes = plane[p0..p1].par_chunks_exact_mut(ph * pw).zip(xs[x0..x1].par_chunks_exact(h * w));
        planes.with_min_len((1usize << 14).div_ceil(h * w)).for_each(|(plane, xs)| {
            for (row, src) in plane.chunks_exact_mut(pw).skip(self.top).zip(xs.chunks_exact(w)) {
                row[self.left..self.left + w].copy_from_slice(src);
            }
        });
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
