//! Tensor operations that candle lacks or does slowly.
//!
//! Plain Rust on slices at heart, candle custom operations around it. Every operation takes any
//! device and float type: where no kernel of ours fits (CUDA, f16, bf16), it is expressed in
//! candle's own operations, which are also what the kernels are tested against. Sampling, RoIAlign,
//! the patch-wise and deformable convolutions and everything packed (f32 on the CPU) have no such form, and
//! say so elsewhere.
//!
//! ```
//! use candle_core::{Device, Tensor};
//! use zoo_kernels::{Activation, ConvOptions, PackedConv, Pads, Region, on_pool};
//!
//! let weight = Tensor::randn(0f32, 0.1, (64, 64, 3, 3), &Device::Cpu)?;
//! let conv = PackedConv::new(&weight, None, ConvOptions::default(), Activation::Relu)?;
//!
//! let xs = Tensor::randn(0f32, 1.0, (1, 64, 56, 56), &Device::Cpu)?;
//! let ys = on_pool(|| conv.forward(&Region::whole(&xs)?, Pads::all(1), None))?;
//! assert_eq!(ys.dims(), [1, 64, 56, 56]);
//! # Ok::<(), candle_core::Error>(())
//! ```
//!
//! Threads are those of rayon's global pool, which candle uses as well: one a processor, or as many as
//! `RAYON_NUM_THREADS` says or the program asks of `rayon::ThreadPoolBuilder` at its start.
//!
//! | operation | backward | in place |
//! |---|---|---|
//! | [`PackedConv`], [`PackedDepthwise`], [`PackedLinear`], [`inverted_residual`], [`lateral`] | (inference) | |
//! | [`attention`] | all operands, through candle's matrix products | |
//! | [`layer_norm`], [`channel_norm`] | input, weight and bias | |
//! | [`softmax`] | input and bias | |
//! | [`cross_entropy`] | input | |
//! | [`activate`] | through candle's operations | on the CPU in f32, outside a graph |
//! | [`activated`] | input | |
//! | [`conv2d`] | input and weight | |
//! | [`depthwise_conv2d`] | input and weight | |
//! | [`group_norm`], [`group_norm_jointly`] | input, weight, bias and addend | |
//! | [`batch_norm`], [`channel_affine`] | input, scale, shift and residual | |
//! | [`gate`], [`gate_add`] | input, gates and addend | |
//! | [`Region::bordered`] | input | |
//! | [`write_window`] | both (through a copy) | on the CPU, outside a graph |
//! | [`channels_last`] | input | |
//! | [`concat_channels`], [`pack_maps`] | all maps | |
//! | [`max_pool2d`], [`avg_pool2d`], [`adaptive_avg_pool2d`], [`global_avg_pool2d`] | input | |
//! | [`resize2d`] | input | |
//! | [`resize_argmax`] | (labels) | |
//! | [`grid_sample`], [`warp`] | input and positions | |
//! | [`deform_conv2d`] | input, offset, mask, weight and bias | |
//! | [`varying_conv2d`] | input, weights and the other map | |
//! | [`channel_shares`] | input | |
//! | [`PackedDeformConv`], [`PackedTransposedConv`] | (inference) | |
//! | [`roi_align`] | input | |
//! | [`patchwise_conv2d`], [`patches_with_halo`] | input, weights and bias | |
//! | [`patchwise_level`] | through the operations that it is made of | |
//! | [`nms`], [`Nms`] | (boxes, no tensors) | |
//!
//! # Where to look
//!
//! | | file |
//! |---|---|
//! | the innermost loop of every dense product | `packed/tile.rs` |
//! | which instruction set runs | `isa.rs`, `simd.rs` |
//! | where Winograd's filtering is worth it, and who may forbid it | `packed/{winograd,winograd_switch}.rs` |
//! | convolutions on packed weights | `packed/{conv/,winograd,depthwise,inverted_residual,lateral,linear}.rs` |
//! | how work is shared out over threads | `threads.rs` |
//! | convolutions with gradients | `packed/gradient.rs`, `depthwise.rs` |
//! | operations that take any float type, with gradients | built on `operation.rs` |
//! | how gradients get from one of them to the next | `tape.rs` |
#![allow(
    unsafe_code,
    reason = "calls to functions compiled for instruction sets that were found at run time"
)]

mod activation;
mod aligned;
mod attention;
mod batch_norm;
mod bilinear;
mod channel_rows;
mod concat;
mod cross_entropy;
mod deform;
mod depthwise;
mod epilogue;
mod fma_peak;
mod gate;
mod group_norm;
mod isa;
mod label_map;
mod memory;
mod nms;
mod norm;
mod operation;
mod pack_maps;
mod packed;
mod patchwise;
mod pixels;
mod pooling;
mod region;
mod resize;
mod roi_align;
mod rows;
mod sample;
mod shares;
mod simd;
mod softmax;
mod tape;
mod taps;
mod threads;
mod transpose;
mod transposed_conv;
mod varying_conv;
mod vector_math;
mod window;

pub use activation::{activate, activated};
pub use attention::attention;
pub use batch_norm::{Moments, batch_norm, channel_affine};
pub use concat::concat_channels;
pub use cross_entropy::cross_entropy;
pub use deform::{PackedDeformConv, deform_conv2d};
pub use depthwise::{depthwise_conv2d, depthwise_conv2d_candle};
pub use epilogue::Activation;
pub use fma_peak::fma_peak;
pub use gate::{gate, gate_add};
pub use group_norm::{GroupNormOptions, group_norm, group_norm_jointly};
pub use isa::Isa;
pub use label_map::resize_argmax;
pub use memory::{keep_freed_memory, release_freed_memory};
pub use nms::{Nms, nms};
pub use norm::{channel_norm, layer_norm};
pub use operation::add_maps;
pub use pack_maps::{MapBox, pack_maps};
pub use packed::{
    ConvOptions, LateralNorm, PackedBlock, PackedConv, PackedDepthwise, PackedLinear, conv2d,
    inverted_residual, lateral, without_winograd,
};
pub use patchwise::{
    Halo, LevelConvs, LevelStage, Patchwise, PatchwiseLevel, WeightOrder, patches_with_halo,
    patchwise_conv2d, patchwise_level, position_map,
};
pub use pooling::{Pool, adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d, max_pool2d};
pub use region::{Pads, Region};
pub use resize::{Interpolation, resize2d};
pub use roi_align::{RoiAlign, roi_align};
pub use sample::{Outside, grid_sample, warp};
pub use shares::channel_shares;
pub use softmax::softmax;
pub use threads::on_pool;
pub use transpose::channels_last;
pub use transposed_conv::{PackedTransposedConv, TransposedOptions};
pub use varying_conv::{Candidate, varying_conv2d};
pub use window::{plane_for, write_window};
