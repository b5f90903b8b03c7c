//! PackDet: detection with one long head that all levels of a feature pyramid share, packed side by side into one plane.
//!
//! K. Ding, G. He, H. Gu, Z. Zhong, S. Xiang, C. Pan, "PackDet: Packed Long-Head Object Detector", ECCV 2020.
//!
//! Beside it the detectors that the paper compares it with, FCOS and RetinaNet, RetinaNet behind a packed head
//! (RetinaPack), and torchvision's flavour of the first two, whose weights are published.
//!
//! ```
//! use packdet::{Detector, FrameSize, Image, PackDet, Preset, ResizeRule, Resizing};
//!
//! # let weights = candle_nn::VarBuilder::zeros(candle_core::DType::F32, &candle_core::Device::Cpu);
//! // With weights: `PackDet::from_file(&packdet::weights::config_of(path, None)?, path, &options)`.
//! let small = Resizing { short: 64, long: 128, rule: ResizeRule::MaskrcnnBenchmark };
//! let model = PackDet::new(&Preset::Mnv2Tiny.into(), weights)?.with_resizing(small)?;
//!
//! let picture = Image::filled(FrameSize::new(90, 120), [90, 120, 150])?;
//! let found = model.detect(&[picture])?.remove(0);
//! for object in found.above(0.6) {
//!     println!("{:<12} {:.2} {}", object.label, object.score, object.bbox);
//! }
//! # assert_eq!(found.size, FrameSize::new(90, 120));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The net alone, [`PackDetNet`], takes and gives tensors.
//!
//! # Where the paper is
//!
//! | in the paper | here |
//! |---|---|
//! | PackOp, the plane and its layouts: Section 3.2, Figure 3 | [`plane::Layout`] |
//! | what each cell stands for | [`plane::Places`] |
//! | the long head, towers, cross-head group norm: Section 3.3 | [`PackDetNet`], [`HeadConfig`], [`Packing`] |
//! | decoding in the plane, suppression: the authors' code | [`boxes`] |
//! | test-time augmentation | [`Views`] |
//! | targets, losses, schedule: Section 4.1 | `training`, with the feature `train` |
//! | pictures: the authors' code, and torchvision's | [`PictureConfig`] |
//! | Tables 1 and 2, Figure 4, the supplement's Figures 1 to 3 | the command `zoo bench packdet`, `zoo run packdet --show-plane`, `zoo bench op packop` |

pub mod boxes;
mod check;
pub mod config;
mod error;
mod head;
mod model;
mod net;
pub mod plane;
mod raw;
#[cfg(feature = "train")]
pub mod training;
mod views;
pub mod weights;

pub use boxes::{BoxForm, PostProcess};
pub use check::parity;
pub use config::{
    BackboneConfig, BoxRule, Class, Config, Flavour, HeadConfig, LongHeadConfig, ModelConfig, Packing,
    PictureConfig, PointsConfig, Preset, ResizeRule, Resizing, Tower,
};
pub use error::{Error, Result};
pub use model::{PackDet, Padding};
pub use net::{PackDetNet, PartCosts};
pub use raw::{BoxUnits, RawMap, RawMaps};
pub use views::Views;
pub use weights::PackDetWeights;

pub use zoo_core::{Detections, Detector, FrameSize, Image};
pub use zoo_hub::{LoadOptions, Pretrained};
pub use zoo_kernels::keep_freed_memory;
pub use zoo_vision as vision;

/// Looks at maps on the way, by name.
pub type Probe<'a> = &'a mut dyn FnMut(&str, &candle_core::Tensor) -> candle_core::Result<()>;
