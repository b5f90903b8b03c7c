//! Losses against finite differences, descent against its definition. (Against HyperSeg's authors' code: `zoo parity` with its golden file.)
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod detection;
mod losses;
mod sgd;
mod support;
