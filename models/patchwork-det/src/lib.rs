//! Patchwork: stateful windowed object detection and segmentation in video.
//!
//! Y. Chai, "Patchwork: A Patch-wise Attention Network for Efficient Object Detection and
//! Segmentation in Video Streams", ICCV 2019 ([arXiv 1904.01784](https://arxiv.org/abs/1904.01784)).
//! No code of the author's is public. This is written from the paper's abstract, introduction and
//! supplement; sections of the main text are named where the supplement refers to them.
//!
//! Of each frame the net sees one window. Each of its spatial convolutions remembers its own input
//! for the whole frame and reads the window's border from there, so a quarter of the work a frame
//! still gives predictions for all of it.
//!
//! ```
//! use patchwork_det::{DetectorConfig, FrameSize, Image, Mode, PatchworkDet, PolicyKind, Streaming};
//!
//! # let weights = candle_nn::VarBuilder::zeros(candle_core::DType::F32, &candle_core::Device::Cpu);
//! // With weights: `PatchworkDet::from_pretrained(DetectorWeights::default(), &LoadOptions::default())`.
//! let model = PatchworkDet::new(&DetectorConfig::coco(), weights)?
//!     .with_frame(FrameSize::new(128, 128))?
//!     .with_mode(Mode::windows(4, 2, PolicyKind::Motion)?);
//!
//! // What the stream remembers is a value of yours: one model serves many streams.
//! let mut stream = model.start(FrameSize::new(240, 320))?;
//! let frame = Image::filled(FrameSize::new(240, 320), [90, 120, 150])?;
//! let first = model.step(&frame, &mut stream)?;
//! assert_eq!(first.action, None, "the first frame is seen whole");
//! let second = model.step(&frame, &mut stream)?;
//! assert_eq!(second.window.map(|w| (w.height, w.width)), Some((64, 64)));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Where the paper is
//!
//! "S" is the supplement. Sizes are given there, or follow from its FLOP tables, or are our choice: the
//! model card says which is which.
//!
//! | in the paper | here |
//! |---|---|
//! | Patchwork Cell: Section 3.2, Figures 1b and 9b | [`CellStep`] writes a window into [`Memories`] and gives the convolution a [`Region`](zoo_kernels::Region) of them, as the net's [`Surroundings`](zoo_layers::Surroundings) |
//! | SAME padding at the frame's edge, VALID inside: S, Section A | [`zoo_layers::SamePadding`], [`zoo_kernels::Region`] |
//! | windows and their grid (M, N): S, Table 3 | [`Grid`], [`Window`] |
//! | stateful MobileNetV2: S, Section A, Table 3, Figure 9 | [`zoo_layers::MobileNetV2`] over [`CellStep`] |
//! | detector, restored map, pyramid: Section 4.1, S, Section A, Figure 10 | [`detector`] |
//! | SSD anchors, box code, matching, loss (its reference 25) | [`anchors`], [`postprocess`], [`loss`] |
//! | segmenter: Section 4.2, S, Section A | [`segmenter`] |
//! | attention network: S, Section A | [`Attention`] |
//! | Q-learning of the choice of windows: abstract, introduction | [`policy`], [`qlearning`] |
//! | one cell at the input against a chain of cells: S, Section B, Figure 11 | [`PatchworkDet::composite`], [`Memories`] |
//! | baselines, depth, resolution, flip: S, Section C, Tables 4 and 5 | [`Mode`], [`Preset`], [`stream`] |
//! | Tables 4 and 5 of S, Section C, beside ours; their FLOPs | [`tables`], [`flops`] |
//! | no part of it: the single-frame detector in plain candle, which ours is held against | [`mod@reference`] |
//! | pitfall, not in the paper: with TensorFlow's padding, anchors' centres move with the frame's size | [`anchors`] |

mod attention;
mod check;
pub mod config;
mod error;
mod model;
mod net;
mod ssd;
pub mod stream;
pub mod weights;

pub use attention::{policy, qlearning};
pub use check::{flops, parity, reference, tables};
pub use net::{detector, segmenter};
pub use ssd::{anchors, loss, postprocess};

pub use attention::network::Attention;
pub use attention::policy::PolicyKind;
pub use config::{DetectorConfig, Mode, Preset, SegmenterConfig, Start};
pub use error::{Error, Result};
pub use model::{PatchworkDet, PatchworkSeg};
pub use net::cell::{CellStep, Memories};
pub use net::detector::DetectorNet;
pub use net::segmenter::SegmenterNet;
pub use net::window::{Grid, MAX_STRIDE, Window};
pub use net::{Probe, WindowedNet};
pub use stream::{Step, StepTime, Stream};
pub use weights::{DetectorWeights, SegmenterWeights};

pub use zoo_core::{Detections, Detector, FrameSize, Image, SegMap, Segmenter, Streaming};
pub use zoo_hub::{LoadOptions, Pretrained};
pub use zoo_kernels::keep_freed_memory;
pub use zoo_vision as vision;
