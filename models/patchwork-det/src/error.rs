use zoo_core::FrameSize;

use crate::MAX_STRIDE;

/// What can go wrong with a Patchwork model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Windows need frames that all strides divide.
    #[error(
        "frames of {got} cannot be cut into {m}×{m} cells at every stride: both sides must be multiples of {MAX_STRIDE}·{m} = {unit}, the nearest size is {nearest}"
    )]
    FrameSize {
        /// The size that was asked for.
        got: FrameSize,
        /// Cells a side.
        m: usize,
        /// 32·m, what both sides must be multiples of.
        unit: usize,
        /// The valid size next to it.
        nearest: FrameSize,
    },
    /// A grid that has no windows.
    #[error("a grid of M={m} cells a side has no windows of N={n} cells: expected 1 ≤ N ≤ M ≤ 1024")]
    Grid {
        /// Cells a side.
        m: usize,
        /// Cells a window side.
        n: usize,
    },
    /// An action that the grid does not have.
    #[error("window {action} does not exist: M={m}, N={n} has windows 0 to {last}")]
    Action {
        /// The action that was asked for.
        action: usize,
        /// Cells a side.
        m: usize,
        /// Cells a window side.
        n: usize,
        /// The highest valid action.
        last: usize,
    },
    /// A frame of another size than the stream was started with.
    #[error(
        "the stream was started for frames of {expected}, got one of {got}: resize it, or start a new stream"
    )]
    FrameChanged {
        /// The stream's frame size.
        expected: FrameSize,
        /// This frame's size.
        got: FrameSize,
    },
    /// A stream that a model with another frame size started.
    #[error(
        "the stream was started by a model that resizes frames to {expected}, this one resizes them to {got}: step it with the model that started it, or start a new stream"
    )]
    OtherModel {
        /// The stream's resized frames.
        expected: FrameSize,
        /// This model's.
        got: FrameSize,
    },
    /// A policy that needs something which the model or grid does not have.
    #[error("policy {policy} {needs}")]
    Policy {
        /// The policy's name.
        policy: &'static str,
        /// What it needs, and what to do.
        needs: String,
    },
    /// A name that is none of the known ones.
    #[error("unknown {what} '{got}': expected one of {expected}")]
    Unknown {
        /// What was being named.
        what: &'static str,
        /// The name.
        got: String,
        /// The names that exist.
        expected: String,
    },
    /// A configuration that contradicts itself.
    #[error("invalid configuration: {0}")]
    Config(String),
    /// A tensor operation failed.
    #[error("{context}: {source}")]
    Candle {
        /// What was being computed.
        context: &'static str,
        /// candle's error.
        source: candle_core::Error,
    },
    /// An image could not be prepared.
    #[error(transparent)]
    Vision(#[from] zoo_vision::Error),
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Names what was being computed when candle failed.
pub(crate) trait Context<T> {
    fn context(self, context: &'static str) -> Result<T>;
}

impl<T> Context<T> for candle_core::Result<T> {
    fn context(self, context: &'static str) -> Result<T> {
        self.map_err(|source| Error::Candle { context, source })
    }
}
