use zoo_core::FrameSize;

/// What can go wrong with a GSVNet model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Frames that nothing is left of.
    #[error(
        "frames of {got}, of which a key frame's net would see {key}, are too small: both must be at least {smallest}: use larger frames or a larger key-frame scale"
    )]
    FrameSize {
        /// The frames' size.
        got: FrameSize,
        /// A key frame's, as its net sees it.
        key: FrameSize,
        /// What works.
        smallest: FrameSize,
    },
    /// Frames that the key frames' net does not take.
    #[error("frames of {frame} become key frames of {key}, which their net does not take: {source}")]
    KeyFrameSize {
        /// The frames' size.
        frame: FrameSize,
        /// A key frame's.
        key: FrameSize,
        /// What the net says.
        source: candle_core::Error,
    },
    /// A frame of another size than the stream's.
    #[error("a frame of {got} in a stream of {expected}: start another stream, or resize the frame")]
    OtherSize {
        /// The frame's size.
        got: FrameSize,
        /// The stream's.
        expected: FrameSize,
    },
    /// A configuration that contradicts itself.
    #[error("invalid configuration: {0}")]
    Config(String),
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
    /// Scores that no class can be read from.
    #[error(
        "the scores of a frame of {frame:#} are not all numbers: the weights hold NaN or infinite values, or values so large that they overflow"
    )]
    NotFinite {
        /// The frame's size.
        frame: FrameSize,
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
