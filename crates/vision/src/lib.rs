//! Images and video in and out: decoding with limits, resizing, drawing, writing.
//!
//! ```no_run
//! use zoo_core::{BBox, Detection, Detections};
//! use zoo_vision::draw::{self, Style};
//! use zoo_vision::write;
//!
//! let mut image = zoo_vision::read("street.jpg")?;
//! let car = Detection::new(3, "car", 0.93, BBox::new(40.0, 90.0, 210.0, 180.0));
//! let found = Detections::new(image.size(), vec![car]);
//! draw::detections(&mut image, &found, &Style::default());
//! write::image("street-boxes.png", &image)?;
//! # Ok::<(), zoo_vision::Error>(())
//! ```
//!
//! | | |
//! |---|---|
//! | [`read`], [`decode`] | one picture from a file or from bytes, within [`Limits`] |
//! | [`Source`], [`Frames`] | pictures of a folder or pattern, frames of a clip, standard input |
//! | [`LabelledSet`] | pictures with true classes: CamVid, Cityscapes, PASCAL VOC |
//! | [`Resizer`], [`resize()`] | one exact function a convention, whole or part |
//! | [`Preprocess`], [`Normalization`] | pictures to tensors, and boxes back to the picture's pixels |
//! | [`draw`] | boxes, masks, windows, legends, captions, montages |
//! | [`write`](mod@write) | pictures, animations, masks, JSON lines, COCO results, CSV |
//!
//! Feature `ffmpeg` reads any video that an installed `ffmpeg` reads, through a pipe.

mod animation;
mod decode;
pub mod draw;
mod error;
#[cfg(feature = "ffmpeg")]
mod ffmpeg;
mod labelled;
mod natural;
mod normalize;
mod resize;
mod source;
pub mod write;
mod y4m;

pub use decode::{Limits, decode, read, read_with};
pub use error::{Error, Result};
pub use labelled::{Labelled, LabelledSet, Layout, Pair};
pub use normalize::{Fit, Mapping, Normalization, Preprocess};
pub use resize::{Region, Resize, Resizer, resize};
pub use source::{Frame, Frames, Source};
pub use y4m::FrameRate;
pub use zoo_core::Image;
