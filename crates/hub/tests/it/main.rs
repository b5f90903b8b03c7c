//! One binary for all of the crate's integration tests.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test that calls them")]

mod convert;
mod fit;
mod network;
mod offline;
mod safetensors;
mod support;
