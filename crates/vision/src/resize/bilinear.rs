//! Two neighbours along each axis, in f32, with the formulas of torch and TensorFlow.

use super::{Pixels, Region};

/// Two source positions and how far the sample lies from the first to the second.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lerp {
    low: usize,
    high: usize,
    fraction: f32,
    form: Form,
}

/// f32 rounding depends on how the sum is written down, and each framework writes it differently.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// (1−t)·a + t·b
    Weights,
    /// a + (b−a)·t
    Difference,
}

impl Lerp {
    #[inline]
    fn mix(self, a: f32, b: f32) -> f32 {
        match self.form {
            Form::Weights => (1.0 - self.fraction) * a + self.fraction * b,
            Form::Difference => a + (b - a) * self.fraction,
        }
    }
}

/// torch: source = max(0, (x + ½)·from/to − ½).
pub(super) fn half_pixel((from, to): (usize, usize)) -> Vec<Lerp> {
    // torch rounds the scale to f32 and the coordinate once (a fused multiply-add), as f64 does here.
    let scale = f64::from(from as f32 / to as f32);
    let lerp = |x: usize| {
        let source = ((scale * (x as f64 + 0.5) - 0.5) as f32).max(0.0);
        let low = (source as usize).min(from.saturating_sub(1));
        let fraction = (source - low as f32).clamp(0.0, 1.0);
        Lerp { low, high: (low + 1).min(from.saturating_sub(1)), fraction, form: Form::Weights }
    };
    (0..to).map(lerp).collect()
}

/// torch with `align_corners`: source = x·(from − 1)/(to − 1).
pub(super) fn aligned_corners((from, to): (usize, usize)) -> Vec<Lerp> {
    let last = from.saturating_sub(1);
    let scale = if to > 1 { last as f32 / (to - 1) as f32 } else { 0.0 };
    let lerp = |x: usize| {
        let source = scale * x as f32;
        let low = (source as usize).min(last);
        let fraction = (source - low as f32).clamp(0.0, 1.0);
        Lerp { low, high: (low + 1).min(last), fraction, form: Form::Weights }
    };
    (0..to).map(lerp).collect()
}

/// TensorFlow 1: source = x·from/to, no shift by half a pixel.
pub(super) fn tensorflow1((from, to): (usize, usize)) -> Vec<Lerp> {
    let scale = from as f32 / to as f32;
    let lerp = |x: usize| {
        let source = x as f32 * scale;
        let low = (source as usize).min(from.saturating_sub(1));
        let fraction = source - low as f32;
        Lerp { low, high: (low + 1).min(from.saturating_sub(1)), fraction, form: Form::Difference }
    };
    (0..to).map(lerp).collect()
}

/// Mixes along the row first, then across the two rows, as both frameworks do.
pub(super) fn sample(
    source: Pixels<'_>,
    rows: &[Lerp],
    columns: &[Lerp],
    region: &Region,
    mut put: impl FnMut([f32; 3]),
) {
    for row in region.rows().map(|y| rows[y]) {
        for column in region.columns().map(|x| columns[x]) {
            let at = |y, x| source.at(y, x).map(f32::from);
            let (top_left, top_right) = (at(row.low, column.low), at(row.low, column.high));
            let (low_left, low_right) = (at(row.high, column.low), at(row.high, column.high));
            put(std::array::from_fn(|c| {
                let top = column.mix(top_left[c], top_right[c]);
                let bottom = column.mix(low_left[c], low_right[c]);
                row.mix(top, bottom)
            }));
        }
    }
}
