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
}

impl Interpolation {
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
                Self::Bilinear => {
                    ((output as f64 + 0.5) * (inputs as f64 / outputs as f64) - 0.5).clamp(0.0, last as f64)
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
