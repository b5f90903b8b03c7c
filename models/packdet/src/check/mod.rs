//! What the nets are held against: golden files.

pub mod parity;
