use std::path::Path;

use zoo_core::{FrameSize, Image};

use super::apng::Apng;
use super::gif_frames::Gif;
use super::{AtomicFile, encoding};
use crate::{Error, Result};

/// An animated GIF or PNG, written frame by frame, that repeats for ever.
///
/// GIF is for pages and chats: 256 colours a frame. PNG keeps every colour and is several times as
/// large. Both store only the part of a frame that changed.
///
/// ```no_run
/// use zoo_vision::{Source, write::Animation};
///
/// let mut animation = Animation::create("clip.gif", 12.5)?;
/// for frame in Source::parse("frames/")?.frames()? {
///     animation.push(&frame?.image)?;
/// }
/// animation.finish()?;
/// # Ok::<(), zoo_vision::Error>(())
/// ```
pub struct Animation {
    encoder: Encoder,
    size: Option<FrameSize>,
}

enum Encoder {
    Gif(Gif),
    Apng(Apng),
}

impl Animation {
    /// Starts a file that ends in `.gif`, `.png` or `.apng`, to be shown at `rate` frames a second
    /// (0.1 to 50; browsers slow down what is faster).
    ///
    /// # Errors
    /// If the name has another ending or the file cannot be created.
    pub fn create(path: impl AsRef<Path>, rate: f64) -> Result<Self> {
        let path = path.as_ref();
        let ending = path.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        let rate = rate.clamp(0.1, 50.0);
        let encoder = match ending.as_deref() {
            Some("gif") => Encoder::Gif(Gif::new(AtomicFile::create(path)?, rate)),
            Some("png" | "apng") => Encoder::Apng(Apng::new(AtomicFile::create(path)?, rate)),
            _ => return Err(Error::OutputName { path: path.to_owned(), expected: ".gif, .png or .apng" }),
        };
        Ok(Self { encoder, size: None })
    }

    /// Appends a frame.
    ///
    /// # Errors
    /// If its size is not the first frame's, or writing fails.
    pub fn push(&mut self, image: &Image) -> Result<()> {
        let expected = *self.size.get_or_insert(image.size());
        if image.size() != expected {
            return Err(Error::SizeMismatch {
                what: "this animation",
                expected,
                got: image.size(),
                hint: "resize all frames to the first one's size",
            });
        }
        match &mut self.encoder {
            Encoder::Gif(gif) => gif.push(image),
            Encoder::Apng(apng) => apng.push(image),
        }
    }

    /// Completes the file.
    ///
    /// # Errors
    /// If there is no frame, or writing fails.
    pub fn finish(self) -> Result<()> {
        let file = match self.encoder {
            Encoder::Gif(gif) => gif.finish()?,
            Encoder::Apng(apng) => apng.finish()?,
        };
        if self.size.is_none() {
            return Err(encoding(file.path(), "an animation needs at least one frame, got none"));
        }
        file.finish()
    }
}

/// The smallest rectangle that holds all pixels for which `changed` says so: (top, left, size).
pub(super) fn changed_area(
    size: FrameSize,
    changed: impl Fn(usize, usize) -> bool,
) -> Option<(usize, usize, FrameSize)> {
    let row_changed = |&y: &usize| (0..size.width).any(|x| changed(y, x));
    let top = (0..size.height).find(row_changed)?;
    let bottom = (top..size.height).rev().find(row_changed)?;
    let column_changed = |&x: &usize| (top..=bottom).any(|y| changed(y, x));
    let left = (0..size.width).find(column_changed)?;
    let right = (left..size.width).rev().find(column_changed)?;
    Some((top, left, FrameSize::new(bottom - top + 1, right - left + 1)))
}
