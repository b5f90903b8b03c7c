//! PackDet against the golden files, and against itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod boxes;
mod golden;
#[cfg(feature = "train")]
mod training;
