//! Resizing of maps.

use candle_core::{Result, Tensor, bail};

use crate::operation::map_sizes;
use crate::taps::{self, Taps};

/// How a resized map's pixels come from the map's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interpolation {
    /// The pixel at `floor(i · from / to)`.
    Nearest,
    /// Between the four nearest pixels; the pixels are areas, whose outer edges meet
    /// (`align_corners = false`). Not smoothed before it shrinks.
    Bilinear,
    /// Between the four nearest pixels; the centres of the corner pixels meet (`align_corners = true`).
    BilinearCorners,
    /// From the sixteen nearest pixels, by Keys's cubics with a = −¾; the pixels are
    /// areas, beyond the border the last one goes on. Not smoothed before it shrinks; may step over the values that
    /// it lies between.
    Bicubic,
}

/// The free parameter of the cubics, as in PyTorch: R. Keys, "Cubic convolution interpolation for digital image
/// processing", 1981, calls it a.
const CUBIC: f64 = -0.75;

/// The cubics' weight of a pixel at `distance`, less than 2.
fn cubic(distance: f64) -> f64 {
    let d = distance.abs();
    if d <= 1.0 {
        ((CUBIC + 2.0) * d - (CUBIC + 3.0)) * d * d + 1.0
    } else {
        (((d - 5.0) * d + 8.0) * d - 4.0) * CUBIC
    }
}

impl Interpolation {
    /// Whether a resized value may lie outside of those that it is made of.
    pub(crate) fn steps_over(self) -> bool {
        self == Self::Bicubic
    }

    pub(crate) fn taps(self, inputs: usize, outputs: usize) -> Taps {
        let last = inputs - 1;
        Taps::new(inputs, outputs, |output, taps| {
            let position = match self {
                Self::Nearest => {
                    // In f32, as PyTorch does: where the exact quotient is whole, rounding decides.
                    let scale = inputs as f32 / outputs as f32;
                    taps.push((((output as f32 * scale) as usize).min(last), 1.0));
                    return;
                }
                Self::Bilinear => among_centres(output, inputs, outputs).clamp(0.0, last as f64),
                Self::Bicubic => {
                    let position = among_centres(output, inputs, outputs);
                    let below = position.floor();
                    for tap in -1..=2 {
                        let pixel = below + f64::from(tap);
                        let inside = pixel.clamp(0.0, last as f64) as usize;
                        taps.push((inside, cubic(position - pixel)));
                    }
                    return;
                }
                Self::BilinearCorners if outputs == 1 => 0.0,
                Self::BilinearCorners => (output * last) as f64 / (outputs - 1) as f64,
            };
            let (low, part) = (position as usize, position.fract());
            taps.push((low, 1.0 - part));
            if part > 0.0 {
                taps.push((low + 1, part));
            }
        })
    }
}

/// Where the centre of an output lies among the centres of the inputs; it may lie beyond the outermost.
pub(crate) fn among_centres(output: usize, inputs: usize, outputs: usize) -> f64 {
    (output as f64 + 0.5) * (inputs as f64 / outputs as f64) - 0.5
}

/// `xs`, `[B, C, H, W]`, at another size, `[B, C, height, width]`, by PyTorch's rules. Has a gradient.
///
/// # Errors
/// If a size is 0 or `xs` is not a map.
pub fn resize2d(
    xs: &Tensor,
    (height, width): (usize, usize),
    interpolation: Interpolation,
) -> Result<Tensor> {
    let (_, _, h, w) = map_sizes("resize", xs)?;
    if height * width == 0 {
        bail!("resize: expected a size of at least 1×1, got {height}×{width}")
    }
    if (h, w) == (height, width) {
        return Ok(xs.clone());
    }
    taps::apply("resize", xs, interpolation.taps(h, height), interpolation.taps(w, width))
}
