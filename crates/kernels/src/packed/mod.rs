//! Convolutions whose weights have been packed for one instruction set, on channels-last memory.
//!
//! A tensor here is `[B, C, H, W]` by its shape, as everywhere, but in memory the channels of a pixel lie together:
//! the strides say so, and every other operation of candle still works on it. What comes in with
//! another layout is moved once.

mod conv;
mod depthwise;
mod geometry;
mod gradient;
mod inverted_residual;
mod lateral;
mod linear;
pub(crate) mod tile;
mod winograd;
mod winograd_switch;

pub use conv::{ConvOptions, PackedConv};
pub(crate) use conv::{Panel, Places, TASK_MACS, TASKS_PER_THREAD};
pub(crate) use depthwise::MAX_KERNEL;
pub use depthwise::PackedDepthwise;
pub(crate) use geometry::{Filter, Geometry, Phase};
pub use gradient::conv2d;
pub use inverted_residual::{PackedBlock, inverted_residual};
pub use lateral::{LateralNorm, lateral};
pub use linear::PackedLinear;
pub use winograd_switch::without_winograd;

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, DType, Device, Layout, Result, Shape, Storage, Tensor, bail,
};

use crate::tape;
use crate::transpose::channels_last;

/// The view `[B, C, H, W]` of a tensor `[B, H, W, C]`.
pub(crate) fn from_nhwc(xs: &Tensor) -> Result<Tensor> {
    let view = xs.permute((0, 3, 1, 2))?;
    tape::turn(xs, &view);
    Ok(view)
}

/// A packed operation on one or two maps in f32, channels last; it has no gradient of its own.
pub(crate) trait PackedOp {
    /// What error messages call it.
    const NAME: &'static str;

    /// The result's shape.
    fn shape(&self) -> Shape;

    /// The result's values; of two operands the first is `xs`.
    fn run(&self, xs: &[f32], other: Option<&[f32]>) -> Result<Vec<f32>>;
}

/// A packed operation in candle's terms.
pub(crate) struct Packed<O>(pub(crate) O);

impl<O: PackedOp> CustomOp1 for Packed<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let ys = self.0.run(values(O::NAME, storage, layout)?, None)?;
        Ok((CpuStorage::F32(ys), self.0.shape()))
    }
}

impl<O: PackedOp> CustomOp2 for Packed<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let ys = self.0.run(values(O::NAME, s1, l1)?, Some(values(O::NAME, s2, l2)?))?;
        Ok((CpuStorage::F32(ys), self.0.shape()))
    }
}

/// Runs an operation whose result is a map, on `xs` as it lies and on a residual of the result's shape.
fn with_residual<O: PackedOp>(op: O, xs: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    let Some(residual) = residual else {
        return from_nhwc(&xs.apply_op1_no_bwd(&Packed(op))?);
    };
    let (b, h, w, c) = op.shape().dims4()?;
    let expected = [b, c, h, w];
    if residual.dims() != expected {
        bail!("{}: expected a residual of {expected:?}, got {:?}", O::NAME, residual.dims())
    }
    check_operand(O::NAME, residual)?;
    from_nhwc(&xs.apply_op2_no_bwd(&channels_last(residual)?, &Packed(op))?)
}

/// The values of an operand that is contiguous and f32.
pub(crate) fn values<'a>(name: &str, storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    match (storage, layout.contiguous_offsets()) {
        (CpuStorage::F32(values), Some((from, to))) => Ok(&values[from..to]),
        (_, None) => bail!("{name}: operand is not contiguous"),
        (_, Some(_)) => bail!("{name}: expected f32"),
    }
}

/// Packed operations run on the CPU in f32.
pub(crate) fn check_operand(name: &str, xs: &Tensor) -> Result<()> {
    if !matches!(xs.device(), Device::Cpu) || xs.dtype() != DType::F32 {
        bail!(
            "{name}: packed weights take f32 tensors on the CPU, got {:?} on {:?}: without packing (nets: without `prepare()`) others can be used",
            xs.dtype(),
            xs.device().location()
        )
    }
    Ok(())
}

/// Calls `f` with the values of a weight tensor, in order; only those that lie in another order are copied for it.
fn with_weight_values<R>(name: &str, weight: &Tensor, f: impl FnOnce(&[f32]) -> R) -> Result<R> {
    check_operand(name, weight)?;
    let weight = weight.contiguous()?;
    let (storage, layout) = weight.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(f(values(name, storage, layout)?)),
        _ => bail!("{name}: expected weights on the CPU"),
    }
}

/// The values of a small weight tensor, in order.
fn weight_values(name: &str, weight: &Tensor) -> Result<Vec<f32>> {
    with_weight_values(name, weight, <[f32]>::to_vec)
}
