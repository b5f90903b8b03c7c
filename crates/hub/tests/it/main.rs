//! One binary for all of the crate's integration tests.

mod convert;
mod fit;
mod network;
mod offline;
mod safetensors;
mod support;
