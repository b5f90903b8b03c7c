//! Blocks against candle-nn's own layers, backbones against other projects' names, numbers and outputs.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod backbones;
mod biases;
mod blocks;
mod detection;
mod memory;
mod mobilenet_v2;
mod norm_act_conv;
mod pyramid;
mod support;
mod training;
mod transformer;
mod views;
mod winograd;
