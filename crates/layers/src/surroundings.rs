use candle_core::{Result, Tensor};
use zoo_kernels::Region;

/// Where spatial convolutions find what lies around their input.
pub trait Surroundings {
    /// Places the input `xs` (`[B, C, h, w]`) of the convolution called `name`: the returned region
    /// holds `xs` and knows its surroundings.
    ///
    /// # Errors
    /// If `xs` does not fit where it belongs.
    fn place(&mut self, name: &str, xs: &Tensor) -> Result<Region>;

    /// Whether nothing is remembered and everything around an input is zero: then a layer need not
    /// hold its input as a whole.
    fn is_zero_border(&self) -> bool {
        false
    }
}

/// The input is all there is: zeros around it, as in any padded convolution.
#[derive(Debug, Clone, Copy, Default)]
pub struct ZeroBorder;

impl Surroundings for ZeroBorder {
    fn place(&mut self, _name: &str, xs: &Tensor) -> Result<Region> {
        Region::whole(xs)
    }

    fn is_zero_border(&self) -> bool {
        true
    }
}
