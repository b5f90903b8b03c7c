//! What the nets are held against: golden files, and the paper's table of costs.

pub mod parity;
pub mod tables;
