//! DAVIS measures of binary masks: region similarity J and boundary measure F.
//!
//! J is the IoU of the two masks. F is the harmonic mean of precision and recall of the boundary
//! pixels, where a pixel counts as right if the other mask's boundary passes within a radius of
//! ceil(0.008 · diagonal) pixels. A sequence's scores are the means over its frames without the first
//! (given to the method, in the benchmark) and the last; a data set's are the means over sequences.

use serde::Serialize;
use zoo_core::FrameSize;

use crate::{Error, Result};

/// Share of the diagonal that a boundary may be off.
const BOUNDARY_TOLERANCE: f64 = 0.008;

/// Which pixels belong to the object, row by row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mask {
    size: FrameSize,
    pixels: Vec<bool>,
}

impl Mask {
    /// Takes `height · width` values, row by row.
    ///
    /// # Errors
    /// If the number of values is another.
    pub fn new(size: FrameSize, pixels: Vec<bool>) -> Result<Self> {
        if pixels.len() != size.area() {
            return Err(Error::Length { what: "pixels of a mask", expected: size.area(), got: pixels.len() });
        }
        Ok(Self { size, pixels })
    }

    /// Takes `height · width` labels; everything but 0 is the object.
    ///
    /// # Errors
    /// If the number of labels is another.
    pub fn from_labels(size: FrameSize, labels: &[u8]) -> Result<Self> {
        Self::new(size, labels.iter().map(|&label| label != 0).collect())
    }

    /// Rows and columns.
    pub fn size(&self) -> FrameSize {
        self.size
    }

    /// All values, row by row.
    pub fn pixels(&self) -> &[bool] {
        &self.pixels
    }

    /// Number of pixels of the object.
    pub fn count(&self) -> usize {
        self.pixels.iter().filter(|&&p| p).count()
    }

    /// The boundary: pixels that differ from their right, lower or lower-right neighbour, as far as
    /// there is one (so the lower right corner never belongs to it).
    pub fn boundary(&self) -> Self {
        let at = |y: usize, x: usize| {
            (x < self.size.width).then(|| self.pixels.get(y * self.size.width + x).copied()).flatten()
        };
        let pixels = self
            .places()
            .zip(&self.pixels)
            .map(|((y, x), &here)| {
                [at(y, x + 1), at(y + 1, x), at(y + 1, x + 1)]
                    .into_iter()
                    .flatten()
                    .any(|there| there != here)
            })
            .collect();
        Self { size: self.size, pixels }
    }

    /// Row and column of every pixel, in order.
    fn places(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        let width = self.size.width;
        (0..self.size.height).flat_map(move |y| (0..width).map(move |x| (y, x)))
    }
}

/// J and F of a frame, of a sequence, or of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Score {
    /// Region similarity.
    pub j: f64,
    /// Boundary measure.
    pub f: f64,
}

impl Score {
    /// J and F of one frame.
    ///
    /// # Errors
    /// If the masks differ in size.
    pub fn of_frame(predicted: &Mask, truth: &Mask) -> Result<Self> {
        Ok(Self { j: region_similarity(predicted, truth)?, f: boundary_measure(predicted, truth)? })
    }

    /// Mean over a sequence's frames; the first and the last are left out.
    ///
    /// # Errors
    /// If the masks do not pair up, differ in size, or are fewer than three.
    pub fn of_sequence(predicted: &[Mask], truth: &[Mask]) -> Result<Self> {
        if predicted.len() != truth.len() {
            return Err(Error::FrameCount { truth: truth.len(), found: predicted.len() });
        }
        let scored = truth.len().saturating_sub(2);
        let frames = predicted.iter().zip(truth).skip(1).take(scored);
        let scores = frames.map(|(p, t)| Self::of_frame(p, t)).collect::<Result<Vec<_>>>()?;
        Self::mean(&scores).ok_or(Error::ShortSequence { frames: truth.len() })
    }

    /// Mean of several scores, say of all sequences; `None` of none.
    pub fn mean(scores: &[Self]) -> Option<Self> {
        let n = scores.len() as f64;
        (!scores.is_empty()).then(|| Self {
            j: scores.iter().map(|s| s.j).sum::<f64>() / n,
            f: scores.iter().map(|s| s.f).sum::<f64>() / n,
        })
    }
}

/// J = |m∧g| / |m∨g|; 1 if both masks are empty.
///
/// # Errors
/// If the masks differ in size.
pub fn region_similarity(predicted: &Mask, truth: &Mask) -> Result<f64> {
    same_size(predicted, truth)?;
    let pairs = || predicted.pixels.iter().zip(&truth.pixels);
    let union = pairs().filter(|&(&p, &t)| p || t).count();
    let shared = pairs().filter(|&(&p, &t)| p && t).count();
    Ok(if union == 0 { 1.0 } else { shared as f64 / union as f64 })
}

/// F = 2PR / (P + R), 0 if both are 0. An empty boundary on one side only gives 0, on both sides 1.
///
/// # Errors
/// If the masks differ in size.
pub fn boundary_measure(predicted: &Mask, truth: &Mask) -> Result<f64> {
    same_size(predicted, truth)?;
    let radius = boundary_radius(truth.size);
    let (predicted, truth) = (predicted.boundary(), truth.boundary());
    let (precision, recall) = match (predicted.count(), truth.count()) {
        (0, 0) => (1.0, 1.0),
        (0, _) => (1.0, 0.0),
        (_, 0) => (0.0, 1.0),
        (p, t) => (
            Vicinity::new(&truth, radius).holds(&predicted) as f64 / p as f64,
            Vicinity::new(&predicted, radius).holds(&truth) as f64 / t as f64,
        ),
    };
    let sum = precision + recall;
    Ok(if sum == 0.0 { 0.0 } else { 2.0 * precision * recall / sum })
}

/// Pixels that a boundary may be off in a frame of this size: ceil(0.008 · √(H² + W²)).
pub fn boundary_radius(size: FrameSize) -> usize {
    (BOUNDARY_TOLERANCE * (size.height as f64).hypot(size.width as f64)).ceil() as usize
}

fn same_size(predicted: &Mask, truth: &Mask) -> Result<()> {
    if predicted.size == truth.size {
        Ok(())
    } else {
        Err(Error::MaskSize { predicted: predicted.size, truth: truth.size })
    }
}

/// The pixels within a disk's radius of a boundary. Nothing is dilated: running sums along the rows
/// tell for each row of the disk whether the boundary meets it, 2r + 1 look-ups a pixel that is asked for.
struct Vicinity {
    size: FrameSize,
    /// Boundary pixels left of each place of each row, `width + 1` a row.
    sums: Vec<u32>,
    /// Half width of the disk by distance from its middle row.
    half_widths: Vec<usize>,
}

impl Vicinity {
    fn new(boundary: &Mask, radius: usize) -> Self {
        let mut sums = Vec::with_capacity(boundary.size.height * (boundary.size.width + 1));
        for row in boundary.pixels.chunks_exact(boundary.size.width) {
            let mut sum = 0;
            sums.push(sum);
            sums.extend(row.iter().map(|&on| {
                sum += u32::from(on);
                sum
            }));
        }
        let half_widths = (0..=radius).map(|dy| (radius * radius - dy * dy).isqrt()).collect();
        Self { size: boundary.size, sums, half_widths }
    }

    fn contains(&self, (y, x): (usize, usize)) -> bool {
        let reach = self.half_widths.len().saturating_sub(1);
        (y.saturating_sub(reach)..(y + reach + 1).min(self.size.height)).any(|row| {
            let half = self.half_widths.get(row.abs_diff(y)).copied().unwrap_or_default();
            let start = row * (self.size.width + 1);
            let before = self.sums.get(start + x.saturating_sub(half));
            let within = self.sums.get(start + (x + half + 1).min(self.size.width));
            within > before
        })
    }

    /// How many of the other boundary's pixels lie inside.
    fn holds(&self, boundary: &Mask) -> usize {
        let on = boundary.places().zip(&boundary.pixels).filter(|&(_, &on)| on);
        on.filter(|&(place, _)| self.contains(place)).count()
    }
}
