use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_kernels::Pads;

/// How a convolution that keeps `ceil(size / stride)` outputs splits its border between the two sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SamePadding {
    /// PyTorch's `padding = k / 2`: for k = 3, stride 2 and an even size, one before and none after.
    #[default]
    Torch,
    /// TensorFlow's `SAME`: the smaller half before; for k = 3, stride 2 and an even size, none
    /// before and one after.
    Tf,
}

impl SamePadding {
    /// Rows or columns (before, after) an axis of `size` for a filter of `kernel` at `stride`. A
    /// dilated filter counts with the gaps between its taps.
    pub fn axis(self, size: usize, kernel: usize, stride: usize) -> (usize, usize) {
        let reach = size.div_ceil(stride).saturating_sub(1) * stride + kernel;
        let total = reach.saturating_sub(size);
        let before = match self {
            Self::Torch => kernel / 2,
            Self::Tf => total / 2,
        };
        (before, total.saturating_sub(before))
    }

    /// The amounts on all four sides of an input of `size`.
    pub fn pads(self, size: FrameSize, kernel: usize, stride: usize) -> Pads {
        Padding::Same(self).pads(size, kernel, stride)
    }
}

/// The border of a convolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// Follows the input's size, so that `ceil(size / stride)` outputs come out.
    Same(SamePadding),
    /// The same amounts for inputs of any size.
    Fixed {
        /// Rows above and columns to the left.
        before: usize,
        /// Rows below and columns to the right.
        after: usize,
    },
}

impl Default for Padding {
    fn default() -> Self {
        Self::Same(SamePadding::default())
    }
}

impl From<SamePadding> for Padding {
    fn from(padding: SamePadding) -> Self {
        Self::Same(padding)
    }
}

impl Padding {
    /// Rows or columns (before, after) an axis: see [`SamePadding::axis`].
    pub fn axis(self, size: usize, kernel: usize, stride: usize) -> (usize, usize) {
        match self {
            Self::Same(padding) => padding.axis(size, kernel, stride),
            Self::Fixed { before, after } => (before, after),
        }
    }

    /// The amounts on all four sides of an input of `size`.
    pub fn pads(self, size: FrameSize, kernel: usize, stride: usize) -> Pads {
        let (top, bottom) = self.axis(size.height, kernel, stride);
        let (left, right) = self.axis(size.width, kernel, stride);
        Pads { top, bottom, left, right }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_conventions_on_known_axes() {
        use SamePadding::{Tf, Torch};
        for (mode, size, kernel, stride, expected) in [
            (Torch, 8, 3, 1, (1, 1)),
            (Torch, 8, 3, 2, (1, 0)),
            (Torch, 7, 3, 2, (1, 1)),
            (Tf, 8, 3, 1, (1, 1)),
            (Tf, 8, 3, 2, (0, 1)),
            (Tf, 7, 3, 2, (1, 1)),
            (Tf, 300, 3, 2, (0, 1)),
            (Tf, 75, 3, 2, (1, 1)),
            (Torch, 5, 1, 1, (0, 0)),
            (Torch, 6, 1, 2, (0, 0)),
            (Tf, 1, 3, 2, (1, 1)),
            (Torch, 8, 5, 2, (2, 1)),
            (Tf, 8, 5, 2, (1, 2)),
            (Torch, 224, 7, 2, (3, 2)),
        ] {
            assert_eq!(mode.axis(size, kernel, stride), expected, "{mode:?} {size} k{kernel} s{stride}");
        }
    }

    #[test]
    fn fixed_amounts_do_not_follow_the_size() {
        let padding = Padding::Fixed { before: 1, after: 2 };
        for size in [1, 14, 15] {
            assert_eq!(padding.axis(size, 5, 2), (1, 2), "{size}");
        }
        let pads = padding.pads(FrameSize::new(9, 4), 5, 2);
        assert_eq!(pads, Pads { top: 1, bottom: 2, left: 1, right: 2 });
    }
}
