//! HyperSeg: semantic segmentation by a decoder whose weights a net makes, for each image and for each
//! patch of it.
//!
//! Y. Nirkin, L. Wolf, T. Hassner, "HyperSeg: Patch-wise Hypernetwork for Real-time Semantic
//! Segmentation", CVPR 2021. The authors' code, in PyTorch, is public (CC0); this is written from the
//! paper's supplement and from what that code computes.
//!
//! ```
//! use hyperseg::{FrameSize, HyperSeg, Image, Preset, Segmenter};
//!
//! # let weights = candle_nn::VarBuilder::zeros(candle_core::DType::F32, &candle_core::Device::Cpu);
//! // With weights: `HyperSeg::from_file(&hyperseg::weights::config_of(path, None)?, path, &options)`.
//! let model = HyperSeg::new(&Preset::CamvidS.into(), weights)?.with_size(FrameSize::new(64, 128))?;
//!
//! let picture = Image::filled(FrameSize::new(90, 120), [90, 120, 150])?;
//! let map = model.segment(&[picture])?.remove(0);
//! assert_eq!((map.size, map.classes.len()), (FrameSize::new(90, 120), 90 * 120));
//! assert_eq!(map.legend[3].name, "Road");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The net alone, [`HyperSegNet`], takes and gives tensors.
//!
//! # Where the paper is
//!
//! "S" is the supplement.
//!
//! | in the paper | here |
//! |---|---|
//! | backbone b and the factors r_i: Section 3.1, S Table S1 | [`net::backbone`] |
//! | context head h: Section 3.2 | [`net::context_head`] |
//! | weight mapping w and its groups g_w: Section 3.1 | [`net::weight_map`] |
//! | division of the signal's channels: S Section A, Algorithm 1 | [`config::divide_channels`] |
//! | channels of all levels: S Table S1 | [`config::Layout`] |
//! | dynamic patch-wise convolution, meta block (S Equations 1 to 3), levels: Section 3.2 | [`net::decoder`] |
//! | grids and positions: S Table S2 | [`Config::signal_grid`], [`Config::positions`] |
//! | groups, parameters and GFLOPs: S Table S3 | [`tables`] |
//! | test-time pyramid and mirror images: the authors' code | [`Views`] |
//! | drop connect and dropout: the authors' backbone | [`HyperSegNet::set_drop_rates`] |
//! | batch norm folded, into weight mappings too: S Section E | [`HyperSegNet::prepare`] |

mod check;
pub mod checkpoint;
pub mod config;
mod error;
mod model;
pub mod net;
mod views;
pub mod weights;

pub use check::{parity, tables};
pub use config::{BackboneName, Config, DropRates, ModelConfig, PictureConfig, Preset, Version};
pub use error::{Error, Result};
pub use model::HyperSeg;
pub use net::{DeadHead, HyperSegNet, PartCosts, Probe};
pub use views::Views;
pub use weights::HyperSegWeights;

pub use zoo_core::{FrameSize, Image, SegMap, Segmenter};
pub use zoo_hub::{LoadOptions, Pretrained};
pub use zoo_kernels::keep_freed_memory;
pub use zoo_layers::MergeViews;
pub use zoo_vision as vision;
