//! Seeded weights: a tensor's values follow from its name and shape alone, so that a golden file needs
//! to hold only the names. Every step is in `f32`, in the reference's order, and so bit-equal to it.
//!
//! Value `i` (row-major) comes from `u` in [0, 1): the top 24 bits of splitmix64's output for state
//! FNV-1a64(name) + (i + 1)·0x9E3779B97F4A7C15. Then by role, the first that fits:
//!
//! | name or shape | value |
//! |---|---|
//! | `…num_batches_tracked` | 0 |
//! | `…running_var` | 0.5 + u |
//! | `…running_mean`, `…bias` | (u − 0.5)·0.2 |
//! | fewer than 2 dims (norm scales) | 0.75 + 0.5·u |
//! | otherwise | (2u − 1)·√(6 / fan-in), fan-in = product of all dims but the first |
//!
//! An input is 2u − 1.

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use crate::{Error, Gain, Result};

const GOLDEN_RATIO: u64 = 0x9E37_79B9_7F4A_7C15;

/// Most values of a tensor, or of all weights of a net: far above what golden files use, far below what
/// exhausts memory.
pub(crate) const LIMIT: usize = 1 << 28;

/// The values of a weight.
///
/// # Errors
/// If the shape has more values than any real weight.
pub fn value(name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    let u = uniform(name, shape)?;
    let map: Box<dyn Fn(f32) -> f32> = if name.ends_with("num_batches_tracked") {
        Box::new(|_| 0.0)
    } else if name.ends_with("running_var") {
        Box::new(|u| 0.5 + u)
    } else if name.ends_with("running_mean") || name.ends_with("bias") {
        Box::new(|u| (u - 0.5) * 0.2)
    } else if let [_, rest @ ..] = shape
        && !rest.is_empty()
    {
        let fan_in: f64 = rest.iter().map(|&dim| dim as f64).product();
        let bound = (6.0 / fan_in).sqrt() as f32;
        Box::new(move |u| (2.0 * u - 1.0) * bound)
    } else {
        Box::new(|u| 0.75 + 0.5 * u)
    };
    Ok(u.map(map).collect())
}

/// [`value`], times the factors of the entries of `gain` that are about the tensor.
///
/// # Errors
/// As there.
pub fn value_with_gain(name: &str, shape: &[usize], gain: &[Gain]) -> Result<Vec<f32>> {
    let mut values = value(name, shape)?;
    for factor in gain.iter().filter_map(|gain| gain.factor(name, shape)) {
        values.iter_mut().for_each(|v| *v *= factor);
    }
    Ok(values)
}

/// Weights for any net that asks for them, each by [`value`] of its name: the golden files' own where `seed` is
/// `None`, others for every seed.
///
/// A tensor that is asked for without a shape is an error.
pub fn var_builder(seed: Option<u64>, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Seeded { seed, gain: Vec::new() }), dtype, device.clone())
}

/// The golden files' own weights for any net that asks for them, each by [`value_with_gain`] of its name.
///
/// A tensor that is asked for without a shape is an error.
pub fn var_builder_with_gain(gain: Vec<Gain>, dtype: DType, device: &Device) -> VarBuilder<'static> {
    VarBuilder::from_backend(Box::new(Seeded { seed: None, gain }), dtype, device.clone())
}

struct Seeded {
    seed: Option<u64>,
    gain: Vec<Gain>,
}

impl SimpleBackend for Seeded {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let values = match self.seed {
            Some(seed) => value(&format!("{seed}/{name}"), shape.dims()),
            None => value_with_gain(name, shape.dims(), &self.gain),
        };
        Tensor::from_vec(values.map_err(candle_core::Error::wrap)?, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        candle_core::bail!("{name}: a seeded tensor needs a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// The values of an input.
///
/// # Errors
/// If the shape has more values than any real input.
pub fn input(name: &str, shape: &[usize]) -> Result<Vec<f32>> {
    Ok(uniform(name, shape)?.map(|u| 2.0 * u - 1.0).collect())
}

/// Number of values of a shape.
pub(crate) fn count(name: &str, shape: &[usize]) -> Result<usize> {
    let n = shape.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).filter(|&n| n <= LIMIT);
    n.ok_or_else(|| Error::TooLarge { name: name.to_owned(), shape: shape.to_vec(), limit: LIMIT })
}

fn uniform(name: &str, shape: &[usize]) -> Result<impl Iterator<Item = f32> + use<>> {
    let n = count(name, shape)?;
    let start = fnv1a(name);
    Ok((1..=n as u64).map(move |i| {
        let z = start.wrapping_add(i.wrapping_mul(GOLDEN_RATIO));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let z = z ^ (z >> 31);
        // 24 bits: both the conversion and the division are exact.
        (z >> 40) as f32 / (1u32 << 24) as f32
    }))
}

fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01B3))
}
