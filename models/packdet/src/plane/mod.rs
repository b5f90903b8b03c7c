//! PackOp: the maps of a pyramid side by side in one plane (Section 3.2 of the paper), and where a net's outputs lie.

mod layout;
mod places;

pub use layout::{Layout, Plane};
pub use places::{Cell, Grid, Locations, MapPlace, Places};

use zoo_core::FrameSize;

/// Levels of a pyramid, P3 … P7.
pub const LEVELS: usize = 5;
/// Input pixels to a cell of each.
pub const STRIDES: [usize; LEVELS] = [8, 16, 32, 64, 128];
/// What both sides of a net's input are multiples of: levels are enlarged by 2, not to a size.
pub const UNIT: usize = 32;
/// The smallest side of a net's input that a plane has room for.
pub const SMALLEST_PACKED: usize = 64;

/// The sizes of P3 … P7 for an input of `input`: halves, rounded up, of an eighth.
pub fn level_sizes(input: FrameSize) -> [FrameSize; LEVELS] {
    let mut size = FrameSize::new(input.height.div_ceil(STRIDES[0]), input.width.div_ceil(STRIDES[0]));
    std::array::from_fn(|level| {
        if level > 0 {
            size = FrameSize::new(size.height.div_ceil(2), size.width.div_ceil(2));
        }
        size
    })
}
