//! Tensor operations that candle lacks or does slowly.
//!
//! Plain Rust on slices at heart, candle custom operations around it. Every operation takes any
//! device and float type: where no kernel of ours fits (CUDA, f16, bf16), it is expressed in
//! candle's own operations, which are also what the kernels are tested against.
//!
//! | operation | backward | in place |
//! |---|---|---|
//! | [`PackedConv`], [`PackedDepthwise`] | (inference) | |
//! | [`depthwise_conv2d`] | input, weight and bias | |
//! | [`Region::bordered`] | input | |
//! | [`write_window`] | both (through a copy) | on the CPU, outside a graph |
//! | [`bias_act`] | through candle's operations | on the CPU, outside a graph |
//! | [`channels_last`] | input | |
//! | [`nms`] | (boxes, no tensors) | |
#![allow(
    unsafe_code,
    reason = "calls to functions compiled for instruction sets that were found at run time"
)]

mod depthwise;
mod epilogue;
mod isa;
mod nms;
mod packed;
mod pool;
mod region;
mod simd;
mod transpose;
mod vector_math;
mod window;

pub use depthwise::{depthwise_conv2d, depthwise_conv2d_candle};
pub use epilogue::{Activation, bias_act};
pub use isa::Isa;
pub use nms::nms;
pub use packed::{ConvOptions, PackedConv, PackedDepthwise};
pub use pool::on_pool;
pub use region::{Pads, Region};
pub use transpose::channels_last;
pub use window::{plane_for, write_window};
