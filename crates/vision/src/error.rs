use std::path::PathBuf;

use zoo_core::FrameSize;

use crate::Layout;

/// What can go wrong between a file and an [`Image`](zoo_core::Image), in either direction.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or stream could not be read.
    #[error("cannot read {name}: {source}; check the path and its permissions")]
    Read {
        /// The file, as it was asked for.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// A folder where one picture was expected.
    #[error("{name} is a folder, expected a picture; name a file in it, or read all with Source::parse")]
    Folder {
        /// The folder.
        name: String,
    },
    /// Zero bytes.
    #[error("{name} is empty (0 bytes), expected a picture or a video; copy or download it again")]
    Empty {
        /// The file.
        name: String,
    },
    /// The first bytes belong to no known format.
    #[error("{name} is not a picture: expected PNG, JPEG, WebP, BMP, GIF, PNM or TIFF, got {got}")]
    UnknownFormat {
        /// The file.
        name: String,
        /// What the first bytes look like.
        got: String,
    },
    /// A picture of a known format that its decoder refuses.
    #[error(
        "cannot decode {name} as {format}: {source}; it is damaged, cut short or of a rare kind: \
         copy it again, or save it anew as {format}"
    )]
    Decode {
        /// The file.
        name: String,
        /// The format, from its first bytes.
        format: &'static str,
        /// What the decoder said.
        source: image::ImageError,
    },
    /// A picture with more pixels, or a longer side, than allowed.
    #[error(
        "{name} has {size:#} pixels, expected at most {max_pixels} in all and {max_side} a side; \
         raise the Limits if the file can be trusted"
    )]
    TooLarge {
        /// The file.
        name: String,
        /// What its header says.
        size: FrameSize,
        /// [`Limits::max_pixels`](crate::Limits::max_pixels).
        max_pixels: usize,
        /// [`Limits::max_side`](crate::Limits::max_side).
        max_side: usize,
    },
    /// More memory than allowed.
    #[error(
        "{name} needs more than {max_bytes} bytes of memory ({needed}); \
         raise Limits::max_bytes if the file can be trusted"
    )]
    TooMuchMemory {
        /// The file.
        name: String,
        /// What needs it.
        needed: String,
        /// [`Limits::max_bytes`](crate::Limits::max_bytes).
        max_bytes: u64,
    },
    /// A pattern that is no glob.
    #[error("{pattern} is not a valid pattern: {source}; write [*] for a literal star")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// Where it is wrong.
        source: glob::PatternError,
    },
    /// A folder or pattern without a single picture.
    #[error("no pictures in {name}: expected files that end in {expected}")]
    NoPictures {
        /// The folder or pattern.
        name: String,
        /// Endings that would have done.
        expected: String,
    },
    /// A folder that holds no segmentation data set that is known.
    #[error(
        "{name} holds no labelled pictures that can be told: expected the folders `gtFine` (Cityscapes), \
         `SegmentationClass` (PASCAL VOC), `test_labels` (CamVid) or `testannot` (CamVid of the SegNet tutorial) in it"
    )]
    NotLabelled {
        /// The folder.
        name: String,
    },
    /// Pictures without labels, or labels without pictures.
    #[error(
        "{alone} of {all} files have no partner in {pictures} and {labels}, the first is {first}; \
         every picture needs its label file and the other way round: copy the data set anew"
    )]
    Unpaired {
        /// The folder of the pictures.
        pictures: String,
        /// The folder of the labels.
        labels: String,
        /// Files without a partner.
        alone: usize,
        /// Pictures and lonely labels.
        all: usize,
        /// One of them.
        first: String,
    },
    /// A list of pictures, some of which are not there.
    #[error("{list} names {missing} files that are not there, the first is {first}; copy the data set anew")]
    Listed {
        /// The list.
        list: String,
        /// How many are not there.
        missing: usize,
        /// The first of them.
        first: String,
    },
    /// A label file that cannot be understood.
    #[error("cannot read labels from {name}: {reason}")]
    Labels {
        /// The file.
        name: String,
        /// What was expected, what was there.
        reason: String,
    },
    /// A label file with a number that its data set does not use.
    #[error(
        "{name} holds {value} at row {row}, column {column}, which is no label of {data_set} ({classes} classes); \
         is this another data set, or a picture of the labels instead of the labels?"
    )]
    LabelValue {
        /// The file.
        name: String,
        /// The number.
        value: u8,
        /// Where it is.
        row: usize,
        /// Where it is.
        column: usize,
        /// The data set.
        data_set: &'static str,
        /// Classes that it has.
        classes: usize,
    },
    /// Labels of another size than their picture.
    #[error("labels {labels} are {got:#}, their picture {image} is {expected}; take both from one release")]
    LabelSize {
        /// The label file.
        labels: String,
        /// Its size.
        got: FrameSize,
        /// The picture.
        image: String,
        /// Its size.
        expected: FrameSize,
    },
    /// A damaged or unusual Y4M stream.
    #[error("{name} is not a Y4M video that can be read: {reason}")]
    Y4m {
        /// The file.
        name: String,
        /// What was expected, what was there and what to do.
        reason: String,
    },
    /// A video format that only ffmpeg reads, in a build without it.
    #[error(
        "{name} is a video that only ffmpeg reads, and this build has no ffmpeg support: \
         build with `--features ffmpeg`, or convert it first (`ffmpeg -i {name} clip.y4m`)"
    )]
    FfmpegFeature {
        /// The file.
        name: String,
    },
    /// The `ffmpeg` program could not be started.
    #[error("cannot start ffmpeg to read {name}: {source}; install it and see that it is on the PATH")]
    FfmpegStart {
        /// The file.
        name: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// `ffmpeg` gave up.
    #[error("ffmpeg cannot read {name} ({status}): {message}")]
    Ffmpeg {
        /// The file.
        name: String,
        /// How the program ended.
        status: std::process::ExitStatus,
        /// The last line that it wrote on standard error.
        message: String,
    },
    /// An image that does not have the size that a resizer, a mask or an animation was made for.
    #[error("{what} is for images of {expected}, got one of {got:#}; {hint}")]
    SizeMismatch {
        /// What was being done.
        what: &'static str,
        /// The size it was made for.
        expected: FrameSize,
        /// The size of the image.
        got: FrameSize,
        /// What to do.
        hint: &'static str,
    },
    /// A region that leaves the resized picture, or an empty one.
    #[error(
        "region of {height} rows and {width} columns at row {top}, column {left} (every {step}.) \
         does not lie in the resized picture of {size:#}"
    )]
    Region {
        /// First row.
        top: usize,
        /// First column.
        left: usize,
        /// Rows spanned.
        height: usize,
        /// Columns spanned.
        width: usize,
        /// Distance of sampled rows and columns.
        step: usize,
        /// The resized picture.
        size: FrameSize,
    },
    /// A crop that is larger than what it is cut from.
    #[error("cannot cut {crop} out of a picture whose shorter side was resized to {shorter}; crop less")]
    Crop {
        /// The crop's size.
        crop: FrameSize,
        /// The shorter side after resizing.
        shorter: usize,
    },
    /// A picture that is larger than what it is to be padded to.
    #[error("cannot pad a picture of {picture:#} to {size}: it is larger; resize or cut it first")]
    Pad {
        /// The picture's size.
        picture: FrameSize,
        /// The input's size.
        size: FrameSize,
    },
    /// A model of one data set on pictures of another.
    #[error(
        "the data is {layout}, {expected}, but the model labels {got}: take weights of that data set, or other data"
    )]
    OtherClasses {
        /// The data set's layout.
        layout: Layout,
        /// Its classes.
        expected: String,
        /// The model's.
        got: String,
    },
    /// A file could not be written.
    #[error("cannot write {}: {source}; check that its folder exists, is writable and has room", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A picture or animation could not be encoded.
    #[error("cannot encode {}: {reason}", path.display())]
    Encode {
        /// The file.
        path: PathBuf,
        /// What the encoder said.
        reason: String,
    },
    /// An output name that says no known format.
    #[error("{} says no format to write: expected it to end in {expected}", path.display())]
    OutputName {
        /// The file.
        path: PathBuf,
        /// Endings that are known.
        expected: &'static str,
    },
    /// A record that has no JSON form.
    #[error("cannot write a record of {}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What serde said.
        source: serde_json::Error,
    },
    /// An image that cannot be made.
    #[error(transparent)]
    Image(#[from] zoo_core::Error),
    /// A tensor that cannot be made.
    #[error("cannot turn the picture into a tensor: {0}")]
    Tensor(#[from] candle_core::Error),
}

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;
