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
//! | [`MobileNetV2`] | depth 1.0, any other | torchvision, tonylins |
//! | [`ResNet`] | 18, 34, 50, 101, ResNeXt-50 32×4d, ResNeXt-101 64×4d, with deformable stages | torchvision, timm, maskrcnn-benchmark |
//! | [`EfficientNet`] | B0 … B3, Lite0 … Lite2 | torchvision, timm, EfficientNet-PyTorch |
//!
//! Each is a [`Backbone`](zoo_core::Backbone), which gives feature maps, and a [`Trunk`], which a
//! [`Classifier`] puts a head on. An [`Fpn`] makes a pyramid of a backbone's maps, a [`RetinaNetHead`](detection::RetinaNetHead) scores of a pyramid's.
//!
//! Transformers are made of [`SelfAttention`], [`Mlp`] and [`LayerNorm`]; a [`TransformerBlock`] has all
//! three by timm's names, and [`Windows`] cut a map into short sequences. Pools and resizing are functions
//! of [`zoo_kernels`].
//!
//! [`detection`] is what detectors have between their maps and boxes: anchors, box codes, overlaps and who is responsible
//! for which object.
//!
//! Around any net whose scores are a map: [`pyramid_scores`] looks at an image in several sizes and mirrored,
//! [`Tiles`] piece by piece. [`all_finite`] tells whether they are numbers.

mod attention;
mod classifier;
mod conv;
mod conv_spec;
mod deformable;
pub mod detection;
mod drop_connect;
mod efficientnet;
mod finite;
mod fpn;
mod group_norm;
mod inverted_residual;
mod layer_norm;
mod linear;
mod mlp;
mod mobilenet_v2;
mod norm;
mod norm_act_conv;
mod padding;
mod pointwise;
mod residual;
mod resize;
mod resnet;
mod separable;
mod span;
mod squeeze_excite;
mod surroundings;
mod tiles;
mod transformer;
mod transposed_conv;
mod views;
mod windows;

pub use attention::SelfAttention;
pub use classifier::{Architecture, Classifier, Trunk};
pub use conv::ConvNormAct;
pub use conv_spec::ConvSpec;
pub use deformable::DeformableConv;
pub use drop_connect::drop_connect;
pub use efficientnet::{EfficientNet, EfficientNetConfig, EfficientNetNames};
pub use finite::all_finite;
pub use fpn::{ExtraLevels, Fpn, FpnConfig, FpnNames};
pub use group_norm::GroupNorm;
pub use inverted_residual::{InvertedResidual, See};
pub use layer_norm::LayerNorm;
pub use linear::Linear;
pub use mlp::Mlp;
pub use mobilenet_v2::{MobileNetV2, MobileNetV2Config, MobileNetV2Names, Tap};
pub use norm::{BatchNorm, ChannelAffine, Statistics};
pub use norm_act_conv::NormActConv;
pub use padding::{Padding, SamePadding};
pub use pointwise::Pointwise;
pub use residual::{ResNetBlock, Residual, ResidualSpec};
pub use resize::resize_like;
pub use resnet::{ResNet, ResNetConfig};
pub use separable::SeparableConv;
pub use span::{LAYER_SPANS, layer_span};
pub use squeeze_excite::SqueezeExcite;
pub use surroundings::{Surroundings, ZeroBorder};
pub use tiles::Tiles;
pub use transformer::{TransformerBlock, TransformerConfig};
pub use transposed_conv::TransposedConv;
pub use views::{MergeViews, pyramid_scores};
pub use windows::Windows;
