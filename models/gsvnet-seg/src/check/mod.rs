//! What the nets are held against: golden files, and the paper's counts.

mod operations;
pub mod parity;
pub mod tables;

pub use operations::operations;
