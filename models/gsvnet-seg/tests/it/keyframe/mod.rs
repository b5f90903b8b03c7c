//! The nets for key frames.

mod counts;
mod nets;
mod support;
mod training;
