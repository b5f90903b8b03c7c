//! Where to look next: the attention network, the policies that choose by it or without it, and the
//! Q-learning that would train it (abstract, introduction; supplement, Section A).

pub(crate) mod motion;
pub(crate) mod network;
pub mod policy;
pub mod qlearning;
