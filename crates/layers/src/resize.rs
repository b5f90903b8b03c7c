use candle_core::{Result, Tensor};
use zoo_kernels::{Interpolation, resize2d};

/// `xs`, `[B, C, H, W]`, at the height and width of the map `like`.
///
/// # Errors
/// If one of them is not a map, or is empty.
pub fn resize_like(xs: &Tensor, like: &Tensor, interpolation: Interpolation) -> Result<Tensor> {
    let (_, _, height, width) = like.dims4()?;
    resize2d(xs, (height, width), interpolation)
}
