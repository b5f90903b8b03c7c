//! What a net says of an input before anything is decoded.

use std::sync::Arc;

use candle_core::Tensor;

use crate::plane::Places;

/// What the distances of heads without anchors are counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BoxUnits {
    /// Pixels of the input.
    #[default]
    Pixels,
    /// Strides of the cell's level, as relu boxes are in the losses.
    Strides,
}

/// The outputs of a net, one [`RawMap`] for each of [`Places::grids`].
///
/// | head | scores, channels | boxes, channels |
/// |---|---|---|
/// | PackDet, FCOS | a logit for each class | distances to the left, top, right and bottom edges in pixels of the input, from the cell's point |
/// | RetinaNet, RetinaPack | a logit for each anchor and class, all of an anchor's behind one another | codes `dx, dy, dw, dh` for each anchor |
#[derive(Debug, Clone)]
pub struct RawMaps {
    /// One where the levels are packed into a plane, else one for each map of the pyramid.
    pub maps: Vec<RawMap>,
    /// What the cells are about.
    pub places: Arc<Places>,
}

/// One map of outputs, channels last in memory after a net is prepared.
#[derive(Debug, Clone)]
pub struct RawMap {
    /// Logits, `[B, classes, h, w]` or `[B, anchors · classes, h, w]`.
    pub scores: Tensor,
    /// `[B, 4, h, w]` or `[B, anchors · 4, h, w]`.
    pub boxes: Tensor,
    /// Logits, `[B, 1, h, w]`, of heads without anchors.
    pub centerness: Option<Tensor>,
}
