//! Operations on slices of f32 or f64, as candle calls them.

use candle_core::backend::BackendStorage;
use candle_core::op::BackpropOp;
use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, DType, Device, Layout, Result, Shape, Storage, Tensor, bail,
};

use crate::epilogue::Float;
use crate::isa::Isa;
use crate::memory::filled_chunks;
use crate::packed::from_nhwc;
use crate::tape::{Differentiable, apply};
use crate::threads::items_per_task;
use crate::transpose::channels_last;

/// Work on `N` contiguous operands that gives one result.
pub(crate) trait Operation<const N: usize>: Send + Sync + 'static {
    /// What error messages call it.
    const NAME: &'static str;

    /// The result's shape.
    fn shape(&self) -> Shape;

    /// The result's values.
    fn run<T: Float>(&self, isa: Isa, operands: [&[T]; N]) -> Vec<T>;

    /// What `grad`, the result's gradient, means for each operand.
    fn gradients(&self, operands: [&Tensor; N], grad: &Tensor) -> Result<[Option<Tensor>; N]> {
        let _ = (operands, grad);
        bail!("{}: there is no gradient", Self::NAME)
    }
}

/// An operation in candle's terms.
pub(crate) struct Custom<O>(pub(crate) O);

/// The values of an operand.
fn contiguous<'a, T>(name: &str, xs: &'a [T], layout: &Layout) -> Result<&'a [T]> {
    match layout.contiguous_offsets() {
        Some((from, to)) => Ok(&xs[from..to]),
        None => bail!("{name}: operand is not contiguous"),
    }
}

fn forward<const N: usize, O: Operation<N>>(
    op: &O,
    storages: [&CpuStorage; N],
    layouts: [&Layout; N],
) -> Result<(CpuStorage, Shape)> {
    /// The result for one float type, `None` where an operand has another.
    macro_rules! of_type {
        ($variant:ident, $T:ty) => {{
            let mut operands: [&[$T]; N] = [&[]; N];
            let mut fits = true;
            for ((operand, storage), layout) in operands.iter_mut().zip(storages).zip(layouts) {
                match storage {
                    CpuStorage::$variant(xs) => *operand = contiguous(O::NAME, xs, layout)?,
                    _ => fits = false,
                }
            }
            if fits {
                let ys = op.run(Isa::current()?, operands);
                return Ok((CpuStorage::$variant(ys), op.shape()));
            }
        }};
    }
    of_type!(F32, f32);
    of_type!(F64, f64);
    bail!("{}: no kernel for operands of {:?}", O::NAME, storages.map(BackendStorage::dtype))
}

impl<const N: usize, O: Operation<N>> Differentiable<N> for O {
    fn evaluate(&self, operands: [&Tensor; N]) -> Result<(CpuStorage, Shape)> {
        on_cpu(O::NAME, operands, |storages, layouts| forward(self, storages, layouts))
    }

    fn gradients(
        &self,
        operands: [&Tensor; N],
        _wanted: [bool; N],
        grad: &Tensor,
    ) -> Result<[Option<Tensor>; N]> {
        Operation::gradients(self, operands, grad)
    }
}

/// Calls `f` with the storages and layouts of `operands`.
///
/// # Errors
/// If one is not on the CPU, and those of `f`.
pub(crate) fn on_cpu<const N: usize, R>(
    name: &str,
    operands: [&Tensor; N],
    f: impl FnOnce([&CpuStorage; N], [&Layout; N]) -> Result<R>,
) -> Result<R> {
    let held = operands.map(Tensor::storage_and_layout);
    let none = CpuStorage::F32(vec![]);
    let mut storages = [&none; N];
    for (to, (storage, _)) in storages.iter_mut().zip(&held) {
        match &**storage {
            Storage::Cpu(storage) => *to = storage,
            other => bail!("{name}: no kernel on {:?}", other.device().location()),
        }
    }
    f(storages, held.each_ref().map(|(_, layout)| *layout))
}

/// The result of an operation, outside of the graph.
pub(crate) fn compute<const N: usize, O: Operation<N>>(op: &O, operands: [&Tensor; N]) -> Result<Tensor> {
    let (storage, shape) = op.evaluate(operands)?;
    Ok(Tensor::from_storage(Storage::Cpu(storage), shape, BackpropOp::none(), false))
}

impl<O: Operation<1>> CustomOp1 for Custom<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(&self, s1: &CpuStorage, l1: &Layout) -> Result<(CpuStorage, Shape)> {
        forward(&self.0, [s1], [l1])
    }

    fn bwd(&self, a: &Tensor, _res: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        let [to_a] = self.0.gradients([a], grad)?;
        Ok(to_a)
    }
}

impl<O: Operation<2>> CustomOp2 for Custom<O> {
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
        forward(&self.0, [s1, s2], [l1, l2])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        self.0.gradients([a, b], grad).map(Into::into)
    }
}

impl<O: Operation<3>> CustomOp3 for Custom<O> {
    fn name(&self) -> &'static str {
        O::NAME
    }

    fn cpu_fwd(
        &self,
        s1: &CpuStorage,
        l1: &Layout,
        s2: &CpuStorage,
        l2: &Layout,
        s3: &CpuStorage,
        l3: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward(&self.0, [s1, s2, s3], [l1, l2, l3])
    }

    fn bwd(
        &self,
        a: &Tensor,
        b: &Tensor,
        c: &Tensor,
        _res: &Tensor,
        grad: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        self.0.gradients([a, b, c], grad).map(Into::into)
    }
}

/// The type in which the kernels compute on `operands`: f64 for f64, f32 for f32 and shorter floats.
///
/// # Errors
/// If they are not on the CPU, or not of one float type.
pub(crate) fn kernel_dtype(name: &str, operands: &[&Tensor]) -> Result<DType> {
    let mut found = None;
    for xs in operands {
        if !matches!(xs.device(), Device::Cpu) || !xs.dtype().is_float() {
            bail!("{name}: no kernel for {:?} on {:?}", xs.dtype(), xs.device().location())
        }
        if found.is_some_and(|dtype| dtype != xs.dtype()) {
            let dtypes: Vec<_> = operands.iter().map(|xs| xs.dtype()).collect();
            bail!("{name}: expected operands of one type, got {dtypes:?}")
        }
        found = Some(xs.dtype());
    }
    Ok(if found == Some(DType::F64) { DType::F64 } else { DType::F32 })
}

/// The sizes of a map `[B, C, H, W]`.
///
/// # Errors
/// If it is not of rank 4, or one of them is 0.
pub(crate) fn map_sizes(name: &str, xs: &Tensor) -> Result<(usize, usize, usize, usize)> {
    match *xs.dims() {
        [b, c, h, w] if b * c * h * w > 0 => Ok((b, c, h, w)),
        _ => bail!("{name}: expected a map [B, C, H, W] without an empty dimension, got {:?}", xs.dims()),
    }
}

/// Any view of a tensor `[B, H, W, C]` as contiguous memory.
pub(crate) fn contiguous_nhwc(xs: &Tensor) -> Result<Tensor> {
    channels_last(&from_nhwc(xs)?)
}

/// The sum of two maps `[B, C, H, W]`, channels last in memory on the CPU, which is where other operations leave them:
/// candle adds such views value by value. Has gradients.
///
/// # Errors
/// If the shapes or types differ.
pub fn add_maps(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    map_sizes("sum", a)?;
    if a.dims() != b.dims() || a.dtype() != b.dtype() {
        bail!(
            "sum: expected two maps of one shape and type, got {:?} of {:?} and {:?} of {:?}",
            a.dims(),
            a.dtype(),
            b.dims(),
            b.dtype()
        )
    }
    if !has_kernel(a) {
        return a + b;
    }
    let (a, b) = (channels_last(a)?, channels_last(b)?);
    from_nhwc(&apply(Sum(a.shape().clone()), [&a, &b])?)
}

fn has_kernel(xs: &Tensor) -> bool {
    matches!(xs.device(), Device::Cpu) && matches!(xs.dtype(), DType::F32 | DType::F64)
}

/// a + b, outside of the graph.
pub(crate) fn sum(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if !has_kernel(a) || a.dtype() != b.dtype() || a.dims() != b.dims() {
        return a + b;
    }
    compute(&Sum(a.shape().clone()), [&a.contiguous()?, &b.contiguous()?])
}

struct Sum(Shape);

impl Operation<2> for Sum {
    const NAME: &'static str = "sum";

    fn shape(&self) -> Shape {
        self.0.clone()
    }

    fn run<T: Float>(&self, _: Isa, [a, b]: [&[T]; 2]) -> Vec<T> {
        let share = items_per_task(a.len(), 1);
        // SAFETY: every part is written from as many values.
        unsafe {
            filled_chunks(a.len(), share, |i, part| {
                let (a, b) = (&a[i * share..][..part.len()], &b[i * share..][..part.len()]);
                for ((to, &a), &b) in part.iter_mut().zip(a).zip(b) {
                    to.write(a + b);
                }
            })
        }
    }

    fn gradients(&self, _: [&Tensor; 2], grad: &Tensor) -> Result<[Option<Tensor>; 2]> {
        Ok([Some(grad.clone()), Some(grad.clone())])
    }
}
