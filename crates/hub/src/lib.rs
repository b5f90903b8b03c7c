//! Finding, fetching, checking and opening weights.
//!
//! One path leads from a weight's specification to a net: a local file, else the bytes bundled with
//! the model crate, else the cache, else the Hugging Face Hub. Whatever is found is compared with the
//! size and hash of the specification, opened as safetensors, and held against the tensors that the
//! net asks for; what does not fit comes back as one report.
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use zoo_hub::{Checkpoint, LoadOptions};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let weight = Tensor::ones((2, 3), DType::F32, &Device::Cpu)?;
//! let bytes = zoo_hub::convert::to_safetensors([("head.weight", &weight)], &Default::default())?;
//! let checkpoint = Checkpoint::from_bytes("example", bytes)?;
//! let head = zoo_hub::load("Head", checkpoint, &LoadOptions::default(), |vb| {
//!     candle_nn::linear_no_bias(3, 2, vb.pp("head"))
//! })?;
//! # let _ = head;
//! # Ok(())
//! # }
//! ```
//!
//! | Step | Where |
//! |---|---|
//! | options, environment variables | [`LoadOptions`], [`Environment`] |
//! | find a file, or fetch it | [`resolve`], [`fetch`] |
//! | open it | [`Checkpoint`] |
//! | fit it to a net | [`load`], [`Pretrained`], [`FitReport`] |
//! | what is known of a converted one | [`Description`] |
//! | make one from PyTorch's `.pth` | [`convert`] |
//!
//! Feature `hub` brings the network; without it, a file that is neither local, bundled nor cached is an
//! error that names the feature.

mod cache;
mod checkpoint;
#[cfg(feature = "hub")]
mod client;
#[cfg(not(feature = "hub"))]
#[path = "client_absent.rs"]
mod client;
pub mod convert;
mod description;
mod error;
mod fetch;
mod fit;
mod mmap;
mod names;
mod options;
mod pretrained;
mod resolve;
mod verify;

pub use checkpoint::{Checkpoint, StoredType, TensorEntry};
pub use description::Description;
pub use error::{BoxError, Error, Result};
pub use fetch::{Fetched, FetchedFile, Record, RepoRevision, fetch};
pub use fit::{FitReport, Missing, WrongShape};
pub use options::{Environment, LoadOptions};
pub use pretrained::{Pretrained, check_fit, load};
pub use resolve::{Located, resolve};
pub use verify::{Digest, Mismatch, Place};
