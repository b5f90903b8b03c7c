//! Losses against their authors' code and against finite differences.
#![allow(clippy::unwrap_used, reason = "a failed step is a failed test")]

mod golden;
mod losses;
