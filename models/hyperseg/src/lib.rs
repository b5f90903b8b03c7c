//! HyperSeg: semantic segmentation by a decoder whose weights a net makes, for each image and for each
//! patch of it.
//!
//! Y. Nirkin, L. Wolf, T. Hassner, "HyperSeg: Patch-wise Hypernetwork for Real-time Semantic
//! Segmentation", CVPR 2021. The authors' code, in PyTorch, is public (CC0); this is written from the
//! paper's supplement and from what that code computes.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use hyperseg::{HyperSegNet, Preset};
//!
//! # let weights = candle_nn::VarBuilder::zeros(DType::F32, &Device::Cpu);
//! // With weights: `HyperSegNet::from_file(&config, path, &LoadOptions::default())`, which prepares it, too.
//! let mut net = HyperSegNet::new(&Preset::CamvidS.config(), weights)?;
//! net.prepare()?;
//!
//! let images = Tensor::zeros((1, 3, 64, 96), DType::F32, &Device::Cpu)?;
//! let logits = net.forward(&images)?;
//! assert_eq!(logits.dims(), [1, 12, 64, 96]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
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
//! | batch norm folded, into weight mappings too: S Section E | [`HyperSegNet::prepare`] |

mod check;
pub mod checkpoint;
pub mod config;
mod error;
pub mod net;
pub mod weights;

pub use check::{parity, tables};
pub use config::{BackboneName, Config, Preset, Version};
pub use error::{Error, Result};
pub use net::{DeadHead, HyperSegNet, PartCosts, Probe};
pub use weights::HyperSegWeights;

pub use zoo_core::FrameSize;
pub use zoo_hub::{LoadOptions, Pretrained};
pub use zoo_kernels::keep_freed_memory;
