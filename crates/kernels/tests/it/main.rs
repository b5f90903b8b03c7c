//! Every operation against a naive reference, on odd sizes, strides, borders, views and batches, and
//! on every instruction set that this machine has.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod batch_norm;
mod concat;
mod deform;
mod group_norm;
mod label_map;
mod lateral;
mod pack_maps;
mod packed;
mod patchwise;
mod planes;
mod pooling;
mod reference;
mod resize;
mod roi_align;
mod sample;
mod support;
mod transformer;
mod transposed;
mod varying;
