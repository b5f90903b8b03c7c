//! Traits, images, typed results and weight specifications that every crate of the zoo shares.
//!
//! Nothing here decodes a file, opens a socket or parses a command line: a model crate that wants
//! to take pixels and give boxes needs only this crate and candle.
//!
//! ```
//! use zoo_core::{BBox, Detection, Detections, FrameSize};
//!
//! let found = Detections::new(
//!     FrameSize::new(480, 640),
//!     vec![Detection::new(1, "person", 0.93, BBox::new(10.0, 20.0, 110.0, 320.0))],
//! );
//! for d in found.above(0.5) {
//!     println!("{:<12} {:.2} {}", d.label, d.score, d.bbox);
//! }
//! ```

mod cost;
mod error;
mod image;
pub mod labels;
mod model;
mod result;
mod weights;

pub use cost::{Cost, LayerCost, Tally};
pub use error::{Error, Result};
pub use image::{FrameSize, Image};
pub use labels::{Labels, SegClass, SegLabels};
pub use model::{Backbone, Detector, FeatureInfo, ModelInfo, ScoreNet, Segmenter, Streaming};
pub use result::{BBox, ClassShare, Classification, Detection, Detections, SegMap};
pub use weights::{HubFile, Metric, Status, WeightSpec, Weights};
