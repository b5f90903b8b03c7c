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
    /// A net and a list of classes that do not belong together.
    #[error(
        "{labels} classes are named, but the net scores {classes}: take the preset or the config.json of the data set that it was trained on"
    )]
    Labels {
        /// Named classes.
        labels: usize,
        /// The net's.
        classes: usize,
    },
    /// Maps that no box can be read from.
    #[error(
        "the {what} of a picture of {image:#} are not all numbers: the weights hold NaN or infinite values, or values so large that they overflow"
    )]
    NotFinite {
        /// Which maps.
        what: &'static str,
        /// The picture's size, as the net saw it.
        image: FrameSize,
    },
    /// Weights, or the description beside them, could not be read.
    #[error(transparent)]
    Hub(#[from] zoo_hub::Error),
    /// A picture could not be prepared.
    #[error(transparent)]
    Vision(#[from] zoo_vision::Error),
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

/// Names what was being computed when candle failed.
pub(crate) trait Context<T> {
    fn context(self, context: &'static str) -> Result<T>;
}

impl<T> Context<T> for candle_core::Result<T> {
    fn context(self, context: &'static str) -> Result<T> {
        self.map_err(|source| Error::Candle { context, source })
    }
}
