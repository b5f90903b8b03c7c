//! GSVNet's nets against the golden files, the paper's counts and each other.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a failed step is a failed test")]

mod accel;
mod counts;
mod golden;
mod keyframe;
mod pictures;
mod propagation;
mod stream;
mod support;
#[cfg(feature = "train")]
mod training;
