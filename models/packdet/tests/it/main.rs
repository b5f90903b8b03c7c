//! PackDet against the golden files, the counts of the authors' code and itself.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod boxes;
mod counts;
mod golden;
mod names;
mod nets;
mod pictures;
mod places;
mod support;
#[cfg(feature = "train")]
mod training;
