//! Building blocks and backbones that the zoo's models are written in.
//!
//! A spatial convolution here does not pad: it reads a [`Region`](zoo_kernels::Region), a rectangle
//! of some larger plane together with what surrounds it there. [`Surroundings`] decides what that
//! plane is: [`ZeroBorder`] makes it the input itself, which is ordinary zero padding, and a
//! stateful model makes it a memory.
//!
//! Every module has `new` (names below the `VarBuilder` are the checkpoint's), `forward`, `prepare`
//! (folds batch norm and packs the weights for inference) and `cost` (counts by walking what was
//! built).
//!
//! | backbone | presets | checkpoints |
//! |---|---|---|
//! | [`MobileNetV2`] | depth 1.0, any other | torchvision |
//! | [`ResNet`] | 18, 34, 50, 101, ResNeXt-50 32×4d, ResNeXt-101 64×4d | torchvision, timm, maskrcnn-benchmark |
//! | [`EfficientNet`] | B0 … B3, Lite0 … Lite2 | torchvision, timm, EfficientNet-PyTorch |
//!
//! Each is a [`Backbone`](zoo_core::Backbone), which gives feature maps, and a [`Trunk`], which a
//! [`Classifier`] puts a head on.

mod classifier;
mod conv;
mod efficientnet;
mod inverted_residual;
mod linear;
mod mobilenet_v2;
mod norm;
mod padding;
mod pointwise;
mod resnet;
mod span;
mod squeeze_excite;
mod surroundings;

pub use classifier::{Architecture, Classifier, Trunk};
pub use conv::{ConvNormAct, ConvSpec};
pub use efficientnet::{EfficientNet, EfficientNetConfig, EfficientNetNames};
pub use inverted_residual::{InvertedResidual, See};
pub use linear::Linear;
pub use mobilenet_v2::{MobileNetV2, MobileNetV2Config, Tap};
pub use padding::{Padding, SamePadding};
pub use pointwise::Pointwise;
pub use resnet::{ResNet, ResNetBlock, ResNetConfig};
pub use span::LAYER_SPANS;
pub use squeeze_excite::SqueezeExcite;
pub use surroundings::{Surroundings, ZeroBorder};
