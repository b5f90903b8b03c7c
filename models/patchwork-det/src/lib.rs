//! Patchwork: stateful windowed object detection and segmentation in video.

pub mod anchors;
mod attention;
mod cell;
pub mod config;
pub mod detector;
mod error;
pub mod flops;
pub mod loss;
mod model;
pub mod parity;
pub mod policy;
pub mod postprocess;
pub mod qlearning;
pub mod segmenter;
pub mod stream;
mod window;

pub use attention::Attention;
pub use cell::{CellStep, Memories};
pub use config::{DetectorConfig, Mode, Preset, SegmenterConfig, Start};
pub use detector::DetectorNet;
pub use error::{Error, Result};
pub use model::{PatchworkDet, PatchworkSeg};
pub use policy::PolicyKind;
pub use segmenter::SegmenterNet;
pub use stream::{Step, StepTime, Stream};
pub use window::{Grid, MAX_STRIDE, Window};
