use zoo_core::FrameSize;

/// What can go wrong with a PackDet model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An input that the pyramid or the plane cannot take.
    #[error(
        "an input of {got} does not fit: both sides must be multiples of {unit} and at least {smallest}: pad it to {nearest}"
    )]
    InputSize {
        /// The size that was asked for.
        got: FrameSize,
        /// What both sides must be multiples of.
        unit: usize,
        /// The smallest side.
        smallest: usize,
        /// The next size that works.
        nearest: FrameSize,
    },
    /// Maps that a layout has no room for.
    #[error("layout {layout} has no room for maps of {sizes}: {why}")]
    Layout {
        /// The layout's name.
        layout: &'static str,
        /// The levels' sizes, finest first.
        sizes: String,
        /// What does not fit.
        why: String,
    },
    /// A configuration that contradicts itself.
    #[error("invalid configuration: {0}")]
    Config(String),
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
    /// A tensor operation failed.
    #[error("{context}: {source}")]
    Candle {
        /// What was being computed.
        context: &'static str,
        /// candle's error.
        source: candle_core::Error,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
