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
    /// Rows or columns (before, after) an axis of `size` for a filter of `kernel` at `stride`.
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
            (Tf, 1, 3, 2, (1, 1)),
            (Torch, 8, 5, 2, (2, 1)),
            (Tf, 8, 5, 2, (1, 2)),
        ] {
            assert_eq!(mode.axis(size, kernel, stride), expected, "{mode:?} {size} k{kernel} s{stride}");
        }
    }
}
