//! Accuracy and speed measures. Plain arrays and the typed results of `zoo-core` go in, numbers come out;
//! no model type appears here.
//!
//! | module | measure |
//! |---|---|
//! | [`coco`] | COCO AP over IoU 0.50:0.95, AP50, AP75, by object size and by class; counted by the `hotcoco` crate, which reads COCO's files and VOC's, too |
//! | [`vid`] | ImageNet VID mAP at IoU 0.5, with ILSVRC's rule for small boxes as an option |
//! | [`agreement`] | how much of a reference run's boxes a cheaper run keeps |
//! | [`davis`] | region similarity J and boundary measure F of binary masks |
//! | [`segment`] | confusion matrix, IoU by class and mIoU by either rule, pixel and class accuracy |
//! | [`classify`] | top-k accuracy |
//! | [`latency`] | mean, deviation and percentiles of times, frames a second |
//!
//! A measure that has nothing to measure (no object of a class, no frame) is `None`, never 0.
//!
//! ```
//! use zoo_core::{BBox, Detection, Detections, FrameSize};
//! use zoo_metrics::{Object, vid};
//!
//! let cat = BBox::new(10.0, 10.0, 60.0, 60.0);
//! let truth = vec![vec![Object::new(17, cat)]];
//! let found =
//!     vec![Detections::new(FrameSize::new(100, 100), vec![Detection::new(17, "cat", 0.9, cat)])];
//! assert_eq!(vid::mean_average_precision(&truth, &found, vid::Overlap::Half)?.mean, Some(1.0));
//! # Ok::<(), zoo_metrics::Error>(())
//! ```

pub mod agreement;
mod average_precision;
pub mod classify;
pub mod coco;
pub mod davis;
mod error;
pub mod latency;
mod matching;
pub mod segment;
pub mod vid;

pub use average_precision::average_precision;
pub use error::{Error, Result};
pub use matching::Object;
