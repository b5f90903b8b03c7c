//! OpenCV's `INTER_LINEAR` for 8-bit pictures: half-pixel centres, weights in units of 1/2048.

use super::{Pixels, Region};

/// Two source positions and their weights, which add up to 2048.
#[derive(Debug, Clone, Copy)]
pub(super) struct FixedLerp {
    low: usize,
    high: usize,
    weights: [i32; 2],
}

const UNIT: f32 = 2048.0;

impl FixedLerp {
    fn new(low: usize, high: usize, fraction: f32) -> Self {
        let fixed = |weight: f32| (weight * UNIT).round_ties_even() as i32;
        Self { low, high, weights: [fixed(1.0 - fraction), fixed(fraction)] }
    }
}

/// Where an output pixel's centre falls: the source pixel before it, possibly −1, and the rest.
fn split(x: usize, (from, to): (usize, usize)) -> (isize, f32) {
    // OpenCV goes through the inverse scale in f64, and rounds the coordinate to f32.
    let scale = 1.0 / (to as f64 / from as f64);
    let source = ((x as f64 + 0.5) * scale - 0.5) as f32;
    let low = source.floor();
    (low as isize, source - low)
}

/// Columns beyond the border take the border pixel alone.
pub(super) fn columns(axis: (usize, usize)) -> Vec<FixedLerp> {
    let last = axis.0.saturating_sub(1);
    let lerp = |x: usize| match split(x, axis) {
        (..0, _) => FixedLerp::new(0, 0, 0.0),
        (low, _) if low as usize >= last => FixedLerp::new(last, last, 0.0),
        (low, fraction) => FixedLerp::new(low as usize, low as usize + 1, fraction),
    };
    (0..axis.1).map(lerp).collect()
}

/// Rows beyond the border repeat the border row but keep both weights, whose products are cut off one
/// by one.
pub(super) fn rows(axis: (usize, usize)) -> Vec<FixedLerp> {
    let last = axis.0.saturating_sub(1);
    let inside = |row: isize| usize::try_from(row).unwrap_or(0).min(last);
    let lerp = |y: usize| {
        let (low, fraction) = split(y, axis);
        FixedLerp::new(inside(low), inside(low + 1), fraction)
    };
    (0..axis.1).map(lerp).collect()
}

pub(super) fn sample(
    source: Pixels<'_>,
    rows: &[FixedLerp],
    columns: &[FixedLerp],
    region: &Region,
    mut put: impl FnMut([f32; 3]),
) {
    for row in region.rows().map(|y| rows[y]) {
        for column in region.columns().map(|x| columns[x]) {
            let along = |y: usize| -> [i32; 3] {
                let (left, right) = (source.at(y, column.low), source.at(y, column.high));
                std::array::from_fn(|c| {
                    i32::from(left[c]) * column.weights[0] + i32::from(right[c]) * column.weights[1]
                })
            };
            let (top, bottom) = (along(row.low), along(row.high));
            put(std::array::from_fn(|c| {
                let [upper, lower] = row.weights;
                let sum = ((upper * (top[c] >> 4)) >> 16) + ((lower * (bottom[c] >> 4)) >> 16);
                ((sum + 2) >> 2).clamp(0, 255) as f32
            }));
        }
    }
}
