use std::fmt;

use candle_core::Device;
use serde::{Serialize, Serializer};

/// Rounding of a stored mean or deviation, as a share of the tensor's largest value: the reference sums
/// them in `f32`, which over all our golden files costs at most 1.5e-7.
pub const STATS_ROUNDING: f64 = 1e-6;

/// On anything but a CPU, every tolerance but [`Tolerance::Exact`] is this many times wider: sums run in
/// an order that depends on the device, and multiply–adds are fused.
pub const ACCELERATOR_FACTOR: f64 = 10.0;

/// How far an output may be from its reference. All differences are taken relative to the stored
/// tensor's largest absolute value, its *absmax*, so a tensor of zeros must come out as zeros unless the
/// level has an absolute part.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Tolerance {
    /// Equal values, on every device: indices, masks, copies.
    Exact,
    /// One op: max |Δ| ≤ 1e-5 of absmax.
    Close,
    /// A few ops in a row: max |Δ| ≤ 1e-4 of absmax + 1e-5.
    Approx,
    /// A whole net, by its paper's specification.
    Golden {
        /// max |Δ| as a share of absmax.
        max_rel_absmax: f64,
        /// mean |Δ| as a share of absmax.
        mean_rel_absmax: f64,
    },
}

/// What a tolerance comes to on a device.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bounds {
    /// Largest difference, as a share of absmax.
    pub max_rel: f64,
    /// On top of that, absolute.
    pub max_abs: f64,
    /// Mean difference, as a share of absmax, where it is bounded apart from the largest.
    pub mean_rel: Option<f64>,
}

impl Tolerance {
    /// How many times wider tolerances are on this device.
    pub fn factor(device: &Device) -> f64 {
        if device.is_cpu() { 1.0 } else { ACCELERATOR_FACTOR }
    }

    pub(crate) fn bounds(self, factor: f64) -> Bounds {
        let (max_rel, max_abs, mean_rel) = match self {
            Self::Exact => (0.0, 0.0, None),
            Self::Close => (1e-5, 0.0, None),
            Self::Approx => (1e-4, 1e-5, None),
            Self::Golden { max_rel_absmax, mean_rel_absmax } => (max_rel_absmax, 0.0, Some(mean_rel_absmax)),
        };
        Bounds {
            max_rel: max_rel * factor,
            max_abs: max_abs * factor,
            mean_rel: mean_rel.map(|m| m * factor),
        }
    }
}

impl fmt::Display for Tolerance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact => f.pad("exact"),
            Self::Close => f.pad("close 1e-5"),
            Self::Approx => f.pad("approx 1e-4"),
            Self::Golden { max_rel_absmax, mean_rel_absmax } => {
                f.pad(&format!("golden {max_rel_absmax:e}, mean {mean_rel_absmax:e}"))
            }
        }
    }
}

impl Serialize for Tolerance {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accelerators_widen_every_level_but_exact() {
        let net = Tolerance::Golden { max_rel_absmax: 1e-3, mean_rel_absmax: 1e-4 };
        for (tolerance, max_rel, max_abs, mean_rel) in [
            (Tolerance::Exact, 0.0, 0.0, None),
            (Tolerance::Close, 1e-4, 0.0, None),
            (Tolerance::Approx, 1e-3, 1e-4, None),
            (net, 1e-2, 0.0, Some(1e-3)),
        ] {
            let wide = tolerance.bounds(ACCELERATOR_FACTOR);
            let near = |a: f64, b: f64| (a - b).abs() < 1e-12;
            assert!(near(wide.max_rel, max_rel) && near(wide.max_abs, max_abs), "{tolerance}: {wide:?}");
            assert_eq!(wide.mean_rel.is_some(), mean_rel.is_some(), "{tolerance}");
            assert!(wide.mean_rel.zip(mean_rel).is_none_or(|(a, b)| near(a, b)), "{tolerance}: {wide:?}");
        }
        assert_eq!(Tolerance::factor(&Device::Cpu), 1.0);
    }
}
