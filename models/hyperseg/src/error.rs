use zoo_core::FrameSize;

use crate::Version;

/// What can go wrong with a HyperSeg model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An image that the net cannot take.
    #[error(
        "images of {got} do not fit the net: both sides must be multiples of {unit}{why}; the nearest size is {nearest}: resize or pad to it"
    )]
    ImageSize {
        /// The size that was asked for.
        got: FrameSize,
        /// What both sides must be multiples of.
        unit: usize,
        /// Which part of the net asks for that.
        why: String,
        /// The valid size next to it.
        nearest: FrameSize,
    },
    /// A configuration that contradicts itself or what the code of its version can do.
    #[error("invalid configuration: {0}")]
    Config(String),
    /// Channels that cannot be divided.
    #[error("the signal's channels cannot be divided: {0}")]
    Division(String),
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
    /// A checkpoint's description that is not understood.
    #[error("the checkpoint's arch string {problem}{}", if arch.is_empty() { String::new() } else { format!(": {arch}") })]
    Arch {
        /// What is wrong with it.
        problem: String,
        /// The string, or its beginning.
        arch: String,
    },
    /// A checkpoint of another version than the net's.
    #[error(
        "the checkpoint was made by version {found} of the authors' code ({sign}), the configuration is of {expected}: {advice}"
    )]
    OtherVersion {
        /// The checkpoint's.
        found: Version,
        /// The tensor that says so.
        sign: String,
        /// The configuration's.
        expected: Version,
        /// What to do.
        advice: String,
    },
    /// A checkpoint that predicts another number of classes.
    #[error(
        "the checkpoint predicts {found} classes ({tensor} has so many values), the configuration {expected}: {advice}"
    )]
    Classes {
        /// The checkpoint's.
        found: usize,
        /// The tensor that says so.
        tensor: String,
        /// The configuration's.
        expected: usize,
        /// What to do.
        advice: String,
    },
    /// Tensors that contradict the configuration in another way.
    #[error("the checkpoint does not fit its configuration: {0}")]
    Checkpoint(String),
    /// A net and a list of classes that do not belong together.
    #[error(
        "{labels} classes are named, but the net predicts {classes}: take the preset or the config.json of the data set that it was trained on"
    )]
    Labels {
        /// Named classes.
        labels: usize,
        /// The net's.
        classes: usize,
    },
    /// Views of a picture that cannot be made.
    #[error("invalid views: {0}")]
    Views(String),
    /// Logits that no class can be read from.
    #[error(
        "the logits of a picture of {picture:#} are not all numbers: the weights hold NaN or infinite values, or values so large that they overflow"
    )]
    NotFinite {
        /// The picture's size.
        picture: FrameSize,
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
