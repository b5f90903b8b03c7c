use crate::FrameSize;

/// What can go wrong with images, sizes and labels.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pixel buffer does not hold `height · width` RGB triples.
    #[error("an RGB image of {size:#} needs {expected} bytes, got {got}")]
    PixelCount {
        /// The size that was asked for.
        size: FrameSize,
        /// Bytes that such an image has.
        expected: usize,
        /// Bytes that were given.
        got: usize,
    },
    /// A class map that does not hold one class a pixel.
    #[error("a class map of {size:#} needs {expected} classes, one a pixel, got {got}")]
    ClassCount {
        /// The size that was asked for.
        size: FrameSize,
        /// Pixels that such a map has.
        expected: usize,
        /// Classes that were given.
        got: usize,
    },
    /// A width or height of zero.
    #[error("an image needs at least one row and one column, got {0:#}")]
    EmptyImage(FrameSize),
    /// A rectangle that leaves the image.
    #[error(
        "rectangle of {height} rows and {width} columns at row {top}, column {left} leaves the image of {size:#}"
    )]
    OutsideImage {
        /// First row.
        top: usize,
        /// First column.
        left: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
        /// The image's size.
        size: FrameSize,
    },
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
