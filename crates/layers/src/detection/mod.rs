//! What detectors that share a pyramid have in common behind it: RetinaNet's head, anchors, box codes, overlaps, and who
//! is responsible for which object.
//!
//! Boxes are (x0, y0, x1, y1). Two conventions of sides are about: exact ones, x1 − x0, and those of the older
//! Caffe2-based code, where corners are pixels that belong to the box, x1 − x0 + 1. Functions that differ by it take
//! `plus_one`.

mod anchors;
mod box_coder;
mod matching;
mod overlap;
mod points;
mod retinanet;

pub use anchors::{detectron_anchors, torchvision_anchors};
pub use box_coder::BoxCoder;
pub use matching::{AnchorMatch, AnchorMatcher};
pub use overlap::{box_area, box_iou};
pub use points::{AssignedPoint, Point, PointAssigner};
pub use retinanet::{RetinaNetHead, RetinaNetHeadConfig, RetinaNetNames};
