//! Test helpers: a Hub on the loopback interface, malformed files, a writer of PyTorch checkpoints, the
//! comparison of tensors, and growing memory. For tests alone; what goes wrong here panics.
#![allow(
    clippy::expect_used,
    clippy::panic,
    reason = "a helper that cannot do its work fails the test that called it"
)]

mod close;
mod loopback;
mod malformed;
pub mod memory;
mod torch_writer;

pub use close::assert_close;
pub use loopback::{LoopbackHub, Reply, Request};
pub use malformed::{flips, safetensors, truncations};
pub use torch_writer::{Pickler, Py, TorchWriter};
