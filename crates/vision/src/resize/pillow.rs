//! Pillow's filters, which widen when shrinking, in 22-bit fixed point.
//!
//! Columns are always resized before rows, as up to Pillow 12. Pillow 13 swaps the two where rows
//! shrink and columns grow, which moves some values by one.

use super::{Pixels, Region};

/// 32 bits, less 8 for the samples and 2 to spare: Pillow's `PRECISION_BITS`.
const PRECISION_BITS: u32 = 32 - 8 - 2;
const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// What a source position weighs, by its distance.
#[derive(Debug, Clone, Copy)]
pub(super) enum Filter {
    /// Two positions.
    Triangle,
    /// Four positions, the outer ones below 0: Keys' cubic with a = −½.
    Cubic,
}

impl Filter {
    /// How far it reaches.
    fn support(self) -> f64 {
        match self {
            Self::Triangle => 1.0,
            Self::Cubic => 2.0,
        }
    }

    fn weight(self, distance: f64) -> f64 {
        const A: f64 = -0.5;
        let x = distance.abs();
        match self {
            Self::Triangle => (1.0 - x).max(0.0),
            Self::Cubic if x < 1.0 => ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0,
            Self::Cubic if x < 2.0 => (((x - 5.0) * x + 8.0) * x - 4.0) * A,
            Self::Cubic => 0.0,
        }
    }
}

/// Weights of each output position along one axis: `weights[spans[x]]` belong to the source positions
/// from `starts[x]` on.
#[derive(Debug, Clone)]
pub(super) struct Weights {
    starts: Vec<usize>,
    spans: Vec<std::ops::Range<usize>>,
    weights: Vec<i32>,
}

impl Weights {
    pub(super) fn new(filter: Filter, (from, to): (usize, usize)) -> Self {
        let scale = from as f64 / to as f64;
        let widened = scale.max(1.0);
        let support = filter.support() * widened;
        let mut taps = Self { starts: Vec::new(), spans: Vec::new(), weights: Vec::new() };
        for x in 0..to {
            let centre = (x as f64 + 0.5) * scale;
            let first = (centre - support + 0.5).max(0.0) as usize;
            let end = ((centre + support + 0.5) as usize).min(from);
            let weight = |i: usize| filter.weight((i as f64 - centre + 0.5) * (1.0 / widened));
            let sum: f64 = (first..end).map(weight).sum();
            let fixed = |i: usize| {
                let share = if sum == 0.0 { weight(i) } else { weight(i) / sum };
                (share * f64::from(1 << PRECISION_BITS)).round() as i32
            };
            let begin = taps.weights.len();
            taps.weights.extend((first..end).map(fixed));
            taps.starts.push(first);
            taps.spans.push(begin..taps.weights.len());
        }
        taps
    }

    /// The first source position of an output position, and the weights from there on.
    fn at(&self, x: usize) -> (usize, &[i32]) {
        (self.starts[x], &self.weights[self.spans[x].clone()])
    }
}

fn round(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Filters along rows into bytes, then down the columns.
pub(super) fn sample(
    source: Pixels<'_>,
    rows: &Weights,
    columns: &Weights,
    region: &Region,
    mut put: impl FnMut([f32; 3]),
) {
    let width = region.sampled().width;
    let spans = region.rows().map(|y| rows.at(y));
    let first = spans.clone().map(|(start, _)| start).min().unwrap_or(0);
    let end = spans.clone().map(|(start, weights)| start + weights.len()).max().unwrap_or(0);

    let mut narrowed: Vec<[u8; 3]> = Vec::with_capacity((end - first) * width);
    for y in first..end {
        for (start, weights) in region.columns().map(|x| columns.at(x)) {
            let mut sums = [HALF; 3];
            for (x, &weight) in (start..).zip(weights) {
                let pixel = source.at(y, x);
                for (sum, value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            narrowed.push(sums.map(round));
        }
    }

    for (start, weights) in spans {
        let rows_above = (start - first) * width;
        for x in 0..width {
            let mut sums = [HALF; 3];
            let column = narrowed[rows_above + x..].iter().step_by(width);
            for (pixel, &weight) in column.zip(weights) {
                for (sum, &value) in sums.iter_mut().zip(pixel) {
                    *sum += i32::from(value) * weight;
                }
            }
            put(sums.map(|sum| f32::from(round(sum))));
        }
    }
}
