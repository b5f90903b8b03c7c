//! Activations, and the types that have kernels.

use candle_core::{Result, Tensor, WithDType};

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
