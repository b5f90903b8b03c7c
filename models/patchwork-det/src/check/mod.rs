//! What the nets are held against: the paper's tables, golden files, and the same detector in plain candle.

pub mod flops;
pub mod parity;
pub mod reference;
pub mod tables;
