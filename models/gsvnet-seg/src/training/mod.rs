//! Training of what carries scores on from a key frame; the key frames' net stays as it is. Section 3.3, and the
//! authors' code where it goes beyond it.
//!
//! A sample is the frames t−i … t with the labels of t alone. The first is a key frame, seen at full size, and i frames
//! are propagated; the loss is about the last. [`STEPS`] says which i come in an epoch.
//!
//! | | here | paper |
//! |---|---|---|
//! | what is learned from | [`propagate`]: the last [`LEARNED_STEPS`] frames | not said |
//! | loss | [`PropagationLoss`]: cross entropy by class, and the key frames' net's scores of frame t | cross entropy |
//! | filters at the beginning | [`initialise`] | not said |
//! | descent | [`optimiser`]: Nesterov's, each part at its rate of [`Rates`], [`DECAY`] | one rate, [`PAPER_RATE`] |
//! | frames | [`Augmentation`]: scaled, cropped, mirrored, all of a sample alike | scaling is not mentioned |
//! | steps i | 1 to 4 | 1 to 5 |
//!
//! ```
//! use candle_core::{DType, Device, Tensor};
//! use candle_nn::{VarBuilder, VarMap};
//! use gsvnet_seg::training::{DECAY, PropagationLoss, Rates, initialise, optimiser};
//! use gsvnet_seg::{GsvNet, PropagationConfig, Schedule};
//! # use gsvnet_seg::{FrameSize, ScoreNet};
//! # struct Keyframe;
//! # impl ScoreNet for Keyframe {
//! #     fn classes(&self) -> usize { 3 }
//! #     fn check_input(&self, _: FrameSize) -> candle_core::Result<()> { Ok(()) }
//! #     fn scores(&self, xs: &Tensor) -> candle_core::Result<Tensor> { Ok(xs.clone()) }
//! #     fn tally(&self, _: FrameSize, _: &mut zoo_core::Tally) {}
//! # }
//! # let keyframe = Keyframe;
//!
//! let vars = VarMap::new();
//! let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
//! let net = GsvNet::around(keyframe, &PropagationConfig::default(), Schedule::default(), vb)?;
//! initialise(&vars)?;
//! let mut sgd = optimiser(&vars, &Rates::default())?;
//! let loss = PropagationLoss::new([1.0, 2.0, 4.0]);
//! for step in 0..2 {
//!     let frames = [(); 3].map(|()| Tensor::randn(0f32, 1.0, (2, 3, 64, 96), &Device::Cpu).unwrap());
//!     let labels = Tensor::ones((2, 64, 96), DType::U8, &Device::Cpu)?;
//!     let loss = loss.of_sample(&net, &frames, &labels)?;
//!     sgd.step(&loss.backward()?, DECAY.factor(step))?;
//! }
//! # Ok::<(), candle_core::Error>(())
//! ```

mod augmentation;
mod loss;
mod propagation;
mod recipe;

pub use augmentation::{Augmentation, View};
pub use loss::{CAMVID_WEIGHTS, CITYSCAPES_WEIGHTS, PropagationLoss};
pub use propagation::{LEARNED_STEPS, propagate};
pub use recipe::{
    BATCH, DECAY, EPOCHS, PAPER_RATE, Part, Rates, SGD, STATISTICS, STEPS, initialise, optimiser,
};
