//! What follows a convolution: a bias per channel and an activation.

use candle_core::backend::BackendStorage;
use candle_core::{CpuStorage, Device, InplaceOp2, Layout, Result, Tensor, WithDType, bail};
use rayon::prelude::*;

/// Applied to every value after the bias.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Activation {
    /// y
    #[default]
    None,
    /// max(y, 0)
    Relu,
    /// min(max(y, 0), 6)
    Relu6,
    /// y where y ≥ 0, this times y elsewhere
    LeakyRelu(f32),
    /// y / (1 + e⁻ʸ)
    Silu,
    /// y · Φ(y), Φ through the error function
    Gelu,
}

impl Activation {
    /// The activation in candle's own operations, with a gradient.
    ///
    /// # Errors
    /// If candle refuses the tensor's type.
    pub fn apply(self, xs: &Tensor) -> Result<Tensor> {
        match self {
            Self::None => Ok(xs.clone()),
            Self::Relu => xs.relu(),
            Self::Relu6 => xs.clamp(0.0, 6.0),
            Self::LeakyRelu(slope) => xs.relu()? - (xs.neg()?.relu()? * f64::from(slope))?,
            Self::Silu => xs.silu(),
            Self::Gelu => xs.gelu_erf(),
        }
    }

    /// Whether it only cuts values off, at bounds of its own.
    pub(crate) fn is_clamp(self) -> bool {
        matches!(self, Self::None | Self::Relu | Self::Relu6)
    }

    /// Lowest and highest value that passes; everything does where it is no clamp.
    #[inline(always)]
    pub(crate) fn bounds<T: Float>(self) -> (T, T) {
        match self {
            Self::Relu => (T::ZERO, T::INFINITY),
            Self::Relu6 => (T::ZERO, T::SIX),
            _ => (T::NEG_INFINITY, T::INFINITY),
        }
    }
}

/// The float types that have kernels.
pub(crate) trait Float: WithDType + PartialOrd {
    const ZERO: Self;
    const SIX: Self;
    const INFINITY: Self;
    const NEG_INFINITY: Self;
}

impl Float for f32 {
    const ZERO: Self = 0.0;
    const SIX: Self = 6.0;
    const INFINITY: Self = f32::INFINITY;
    const NEG_INFINITY: Self = f32::NEG_INFINITY;
}

impl Float for f64 {
    const ZERO: Self = 0.0;
    const SIX: Self = 6.0;
    const INFINITY: Self = f64::INFINITY;
    const NEG_INFINITY: Self = f64::NEG_INFINITY;
}

/// Clamps to `lo..=hi`; a NaN stays a NaN.
#[inline(always)]
pub(crate) fn clamp<T: Float>(y: T, lo: T, hi: T) -> T {
    let y = if y < lo { lo } else { y };
    if y > hi { hi } else { y }
}

/// Adds `bias` (`[C]`) to every channel of `ys` (`[B, C, H, W]`) and applies `act`.
///
/// On the CPU, outside an autograd graph, `ys` is changed **in place** and returned: pass a tensor
/// that nobody else reads.
///
/// # Errors
/// If the shapes or types do not match.
pub fn bias_act(ys: Tensor, bias: &Tensor, act: Activation) -> Result<Tensor> {
    let (_, c, _, _) = ys.dims4()?;
    if bias.dims() != [c] {
        bail!("bias-act: expected a bias of [{c}] for {:?}, got {:?}", ys.dims(), bias.dims())
    }
    let on_cpu = matches!(ys.device(), Device::Cpu);
    let has_kernel = matches!(ys.dtype(), candle_core::DType::F32 | candle_core::DType::F64);
    if on_cpu && has_kernel && act.is_clamp() && ys.is_contiguous() && !ys.track_op() && !bias.track_op() {
        ys.inplace_op2(&bias.contiguous()?, &BiasAct(act))?;
        return Ok(ys);
    }
    act.apply(&ys.broadcast_add(&bias.reshape((1, c, 1, 1))?)?)
}

struct BiasAct(Activation);

impl BiasAct {
    fn run<T: Float>(&self, ys: &mut [T], ys_l: &Layout, bias: &[T], bias_l: &Layout) -> Result<()> {
        let (_, c, h, w) = ys_l.shape().dims4()?;
        let (Some((y0, y1)), Some((b0, b1))) = (ys_l.contiguous_offsets(), bias_l.contiguous_offsets())
        else {
            bail!("bias-act: operands are not contiguous")
        };
        let bias = &bias[b0..b1];
        let (lo, hi) = self.0.bounds::<T>();
        let planes = (1usize << 14).div_ceil((h * w).max(1));
        ys[y0..y1].par_chunks_mut((h * w).max(1)).enumerate().with_min_len(planes).for_each(|(i, plane)| {
            let b = bias[i % c];
            for y in plane {
                *y = clamp(*y + b, lo, hi);
            }
        });
        Ok(())
    }
}

impl InplaceOp2 for BiasAct {
    fn name(&self) -> &'static str {
        "bias-act"
    }

    fn cpu_fwd(&self, s1: &mut CpuStorage, l1: &Layout, s2: &CpuStorage, l2: &Layout) -> Result<()> {
        match (s1, s2) {
            (CpuStorage::F32(ys), CpuStorage::F32(bias)) => self.run(ys, l1, bias, l2),
            (CpuStorage::F64(ys), CpuStorage::F64(bias)) => self.run(ys, l1, bias, l2),
            (_, s2) => bail!("bias-act: expected two tensors of f32 or f64, got {:?}", s2.dtype()),
        }
    }
}
