//! PackDet: detection with one long head that all levels of a feature pyramid share, packed side by side into one plane.
//!
//! K. Ding, G. He, H. Gu, Z. Zhong, S. Xiang, C. Pan, "PackDet: Packed Long-Head Object Detector", ECCV 2020.
//!
//! Beside it the detectors that the paper compares it with, FCOS and RetinaNet, RetinaNet behind a packed head
//! (RetinaPack), and torchvision's flavour of the first two, whose weights are published.

pub mod boxes;
mod check;
pub mod config;
mod error;
mod head;
mod net;
mod pictures;
pub mod plane;
mod raw;
#[cfg(feature = "train")]
pub mod training;

pub use boxes::{BoxForm, PostProcess};
pub use check::parity;
pub use config::{
    BackboneConfig, BoxRule, Config, Flavour, HeadConfig, LongHeadConfig, Packing, PointsConfig, Preset,
    Tower,
};
pub use error::{Error, Result};
pub use net::{PackDetNet, PartCosts};
pub use pictures::{Class, ModelConfig, PictureConfig, ResizeRule, Resizing};
pub use raw::{BoxUnits, RawMap, RawMaps};

pub use zoo_core::FrameSize;

/// Looks at maps on the way, by name.
pub type Probe<'a> = &'a mut dyn FnMut(&str, &candle_core::Tensor) -> candle_core::Result<()>;
