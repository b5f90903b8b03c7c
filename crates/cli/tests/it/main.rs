//! The binaries, run as a person runs them.
#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail the test that calls them")]

mod bad_input;
mod commands;
mod demo;
mod detection;
mod run;
mod segmentation;
mod support;
mod video;
