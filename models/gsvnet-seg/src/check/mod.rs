//! What the nets are held against: golden files, and the paper's counts.

mod operations;
pub mod parity;

pub use operations::operations;
