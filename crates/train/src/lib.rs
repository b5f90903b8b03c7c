//! What training needs and inference does not.
//!
//! | | |
//! |---|---|
//! | [`CrossEntropy`], [`pixel_cross_entropy`] | classes of pixels, with an ignored label and weights of classes |
//! | [`BootstrappedCrossEntropy`] | the same over each image's hardest pixels |
//! | [`distillation`] | a student's scores towards a teacher's |
//! | [`SigmoidFocal`], [`binary_cross_entropy`] | classes of a detector, most places showing none; shares |
//! | [`IouLoss`], [`smooth_l1`], [`centerness`] | boxes |
//! | [`Schedule`] | learning rates: polynomial, cosine, steps, each with a warm-up |
//! | [`Sgd`] | gradient descent with momentum, Nesterov's too, and weight decay; rates by variable |
//!
//! Losses of pixels take scores as a net gives them, `[B, C, H, W]`, bring them to the labels' size first where they have
//! another (`zoo_kernels::resize2d`), and have gradients.
//!
//! ```
//! use candle_core::{Device, Tensor, Var};
//! use zoo_train::{CrossEntropy, Decay, Schedule};
//!
//! let scores = Var::zeros((1, 12, 4, 6), candle_core::DType::F32, &Device::Cpu)?;
//! let labels = Tensor::full(3u8, (1, 4, 6), &Device::Cpu)?;
//! let loss = CrossEntropy::default().loss(&scores, &labels)?;
//! let gradients = loss.backward()?;
//! assert!(gradients.get(&scores).is_some());
//!
//! let schedule = Schedule::new(Decay::Poly { total: 1000, power: 0.9 }).with_warmup(100);
//! assert_eq!(schedule.factor(100), 1.0);
//! assert!(schedule.factor(0) < 0.01 && schedule.factor(999) < 0.01);
//! # Ok::<(), candle_core::Error>(())
//! ```

mod bootstrapped;
mod boxes;
mod cross_entropy;
mod distillation;
mod focal;
mod schedule;
mod sgd;

pub use bootstrapped::BootstrappedCrossEntropy;
pub use boxes::{IouLoss, centerness, smooth_l1};
pub use cross_entropy::{CrossEntropy, IGNORED, pixel_cross_entropy};
pub use distillation::distillation;
pub use focal::{SigmoidFocal, binary_cross_entropy, nothing};
pub use schedule::{Decay, Schedule};
pub use sgd::{Sgd, SgdConfig};
