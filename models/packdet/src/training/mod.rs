//! Training: what each cell has to say, how far it is off, and the authors' recipe (Section 4.1 of the paper, and their code
//! where it goes beyond it).
//!
//! | head | targets | loss |
//! |---|---|---|
//! | PackDet, FCOS | [`PointLoss::targets`]: size ranges, centre sampling | [`PointLoss::of`]: focal, IoU or GIoU weighted by centerness, centerness |
//! | RetinaNet, RetinaPack | [`AnchorLoss::targets`]: overlap, low-quality matches | [`AnchorLoss::of`]: focal, smooth L1 |
//!
//! Objects are [`TrueBox`]es in pixels of the padded input. Images without any are fine. [`Recipe`] has rates, decay and
//! sizes, [`initial`] what weights begin with.

mod anchors;
pub(crate) mod flat;
mod points;
mod recipe;

use candle_core::{Result, Tensor};

pub use anchors::{AnchorLoss, AnchorTargets};
pub use points::{PointLoss, PointTargets};
pub use recipe::{Recipe, initial, is_trained};

/// An object of a training image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TrueBox {
    /// Index of the class, from 0 on.
    pub class: usize,
    /// (x0, y0, x1, y1) in pixels of the padded input.
    pub bbox: [f32; 4],
}

/// The parts of a loss, scalars.
#[derive(Debug, Clone)]
pub struct DetectionLoss {
    /// Of the classes.
    pub classes: Tensor,
    /// Of the boxes.
    pub boxes: Tensor,
    /// Of centerness, where there is any.
    pub centerness: Option<Tensor>,
}

impl DetectionLoss {
    /// Their sum.
    ///
    /// # Errors
    /// If candle cannot add them.
    pub fn total(&self) -> Result<Tensor> {
        let sum = (&self.classes + &self.boxes)?;
        match &self.centerness {
            Some(centerness) => sum + centerness,
            None => Ok(sum),
        }
    }
}
