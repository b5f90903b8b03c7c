//! Tests of the crate as a user sees it, in one binary.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod coco;
mod exactness;
mod flops;
mod golden;
mod qlearning;
mod shapes;
mod streams;
mod support;
