//! HyperSeg's nets against the golden files, the paper's counts and each other.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

mod arch;
mod convert;
mod counts;
mod golden;
mod nets;
mod pictures;
mod support;
mod training;
