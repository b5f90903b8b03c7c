//! GSVNet: semantic segmentation of video. A net labels key frames; between them its scores are moved along light
//! optical flow and filtered by kernels that a small net chooses for each pixel.
//!
//! S. Lee, S. Chen, W. Peng, "GSVNet: Guided Spatially-Varying Convolution for Fast Semantic Segmentation on
//! Video", ICME 2021.
//!
//! The authors' code has no licence of its own, and the SwiftNet inside it is under the GPL-3.0: it was not read; golden
//! files hold what it computes.
//!
//! ```
//! use gsvnet_seg::{FrameSize, GsvNetSeg, Image, Preset, Schedule, Streaming};
//!
//! # let weights = candle_nn::VarBuilder::zeros(candle_core::DType::F32, &candle_core::Device::Cpu);
//! // With weights: `GsvNetSeg::from_file(&gsvnet_seg::weights::config_of(path, None)?, path, &options)`.
//! let model = GsvNetSeg::new(&Preset::CamvidSwiftnetR18.into(), weights)?.with_schedule(Schedule::every(2))?;
//!
//! let mut stream = model.start(FrameSize::new(64, 96))?;
//! for (i, shade) in [60, 70].into_iter().enumerate() {
//!     let frame = Image::filled(FrameSize::new(64, 96), [shade, 90, 150])?;
//!     let segmented = model.step(&frame, &mut stream)?;
//!     assert_eq!(segmented.key().is_some(), i == 0);
//!     assert_eq!(segmented.map.classes.len(), 64 * 96);
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where the paper is
//!
//! | in the paper | here |
//! |---|---|
//! | key frames, Section 3.1: SwiftNet and BiSeNet | [`keyframe`] |
//! | optical flow O, Figure A8 | [`flow`] |
//! | temporal warp, Equation 1 | [`warp_scores`] |
//! | ideal delay kernels K, Section 3.2 | [`DelayKernels`] |
//! | intra-frame net φ | [`IntraNet`] |
//! | edges E and the guiding net G | [`edge_map`], [`GuidingNet`] |
//! | guided dynamic filtering, Equation 2 | [`Propagation::filter`] |
//! | key frames every l frames | [`Schedule`], [`StreamState`] |
//! | the baselines A-Lite and A-X39, Section 4 | [`accel`] |
//! | training | `training`, with the feature `train` |
//! | parameters and operations, Table 2 | [`tables`], [`operations`] |

pub mod accel;
mod check;
pub mod config;
mod error;
pub mod flow;
pub mod keyframe;
mod model;
mod net;
mod propagation;
mod stream;
#[cfg(feature = "train")]
pub mod training;
pub mod weights;

pub use accel::{Accel, AccelConfig, AccelStep, FeatureNet};
pub use check::{operations, parity, tables};
pub use config::{
    ChannelOrder, Channels, Config, KeyframeScale, ModelConfig, PictureConfig, Preset, PropagationConfig,
    Schedule,
};
pub use error::{Error, Result};
pub use flow::{FlowKind, FlowNet};
pub use keyframe::{Joins, KeyframeConfig, KeyframeKind, KeyframeNet};
pub use model::{GsvNetSeg, Segmented, Stream};
pub use net::{GsvNet, Step, Way};
pub use propagation::{
    DelayKernels, EdgeMode, GuidingNet, IntraNet, KernelSize, Propagated, Propagation, edge_map, warp_scores,
};
pub use stream::{KeyReason, StreamState};
pub use weights::GsvWeights;

pub use zoo_core::{FrameSize, Image, ScoreNet, SegMap, Segmenter, Streaming};
pub use zoo_hub::{LoadOptions, Pretrained};
pub use zoo_kernels::keep_freed_memory;
pub use zoo_vision as vision;

/// Looks at maps on the way, by name.
pub type Probe<'a> = &'a mut dyn FnMut(&str, &candle_core::Tensor) -> candle_core::Result<()>;
