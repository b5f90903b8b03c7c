//! Building blocks and backbones that the zoo's models are written in.
//!
//! A spatial convolution here does not pad: it reads a [`Region`](zoo_kernels::Region), a rectangle
//! of some larger plane together with what surrounds it there. [`Surroundings`] decides what that
//! plane is: [`ZeroBorder`] makes it the input itself, which is ordinary zero padding, and a
//! stateful model makes it a memory.
//!
//! Every module has `new` (names below the `VarBuilder` are the checkpoint's), `forward`, `prepare`
//! (folds batch norm for inference) and `cost` (counts by walking what was built).

mod conv;
mod mobilenet_v2;
mod padding;
mod surroundings;

pub use conv::{ConvNormAct, ConvSpec, Linear, Pointwise};
pub use mobilenet_v2::{Classifier, MobileNetV2, MobileNetV2Config, Tap};
pub use padding::SamePadding;
pub use surroundings::{Surroundings, ZeroBorder};
