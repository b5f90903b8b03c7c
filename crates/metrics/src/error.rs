use std::path::PathBuf;

use zoo_core::FrameSize;

/// What can go wrong with the inputs of a measure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Truth and results do not cover the same frames.
    #[error("{truth} frames of truth but {found} frames of results: pass one entry a frame, empty ones too")]
    FrameCount {
        /// Frames of truth.
        truth: usize,
        /// Frames of results.
        found: usize,
    },
    /// Two arrays that belong together differ in length.
    #[error("{what}: expected {expected} values, got {got}")]
    Length {
        /// Which array.
        what: &'static str,
        /// The length that the other arguments ask for.
        expected: usize,
        /// The length that was given.
        got: usize,
    },
    /// A score that cannot be ranked.
    #[error("score {index}{place} is not a number: leave such results out before measuring", place = place(*.frame))]
    NotANumber {
        /// The frame, where the scores belong to frames.
        frame: Option<usize>,
        /// Position among the scores (of the frame).
        index: usize,
    },
    /// A box with an infinite edge or one that is not a number.
    #[error("{what} {index} of frame {frame} has an edge that is not finite: {bbox}")]
    NotFinite {
        /// `box` or `truth`.
        what: &'static str,
        /// The frame.
        frame: usize,
        /// Position among the frame's boxes.
        index: usize,
        /// The box.
        bbox: zoo_core::BBox,
    },
    /// Results of two runs that refer to frames of different sizes.
    #[error(
        "the reference's boxes refer to frames of {reference}, the run's to {found:#}: bring both to the same pixels"
    )]
    FrameSize {
        /// Frame size of the reference.
        reference: FrameSize,
        /// Frame size of the run.
        found: FrameSize,
    },
    /// Two masks of different sizes.
    #[error("the predicted mask is {predicted}, the true one {truth:#}: resize the prediction first")]
    MaskSize {
        /// Size of the prediction.
        predicted: FrameSize,
        /// Size of the truth.
        truth: FrameSize,
    },
    /// A sequence that has no frame left once its first and last are left out.
    #[error(
        "a sequence of {frames} frames leaves nothing to measure: its first and last are not counted, so give at least 3"
    )]
    ShortSequence {
        /// Frames that were given.
        frames: usize,
    },
    /// A label that the measure has no class for.
    #[error("{what} {index} is class {class}, but there are {classes} classes (0 to {last})", last = .classes.saturating_sub(1))]
    UnknownClass {
        /// `true label`, `predicted pixel` or `true pixel`.
        what: &'static str,
        /// Position in the array.
        index: usize,
        /// The class found there.
        class: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A `k` that top-k accuracy is not defined for.
    #[error("top-{k} accuracy of {classes} classes: k must lie in 1..={classes}")]
    TopK {
        /// What was asked for.
        k: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A COCO file that cannot be read.
    #[error("reading the {what} from {path}: {source}", path = .path.display())]
    CocoFile {
        /// `ground truth` or `results`.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What hotcoco says.
        source: hotcoco::Error,
    },
    /// A folder of PASCAL VOC's annotations that cannot be read.
    #[error("reading PASCAL VOC's annotations in {path}: {source}", path = .path.display())]
    VocFolder {
        /// The folder.
        path: PathBuf,
        /// What hotcoco says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// hotcoco refuses the data.
    #[error("COCO evaluation: {0}")]
    Coco(#[from] hotcoco::Error),
}

fn place(frame: Option<usize>) -> String {
    frame.map(|f| format!(" of frame {f}")).unwrap_or_default()
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
