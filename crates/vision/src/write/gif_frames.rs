//! GIF frames with a palette of their own, and holes where the frame before shows through.

use zoo_core::{FrameSize, Image};

use super::animation::changed_area;
use super::{AtomicFile, encoding};
use crate::Result;

/// A pixel stays as it was shown while no channel is off by more: half of what 256 colours cost
/// anyway, and most of what noise does to a resting scene.
const TOLERANCE: u8 = 6;
/// NeuQuant's sampling: 1 is slowest and best, 30 fastest.
const SAMPLING: i32 = 3;
const PIXEL_FREE: [u8; 4] = [0; 4];

pub(super) struct Gif {
    file: AtomicFile,
    encoder: Option<gif::Encoder<Vec<u8>>>,
    /// What a viewer shows after the frames so far.
    shown: Option<Image>,
    rate: f64,
    frames: usize,
}

impl Gif {
    pub fn new(file: AtomicFile, rate: f64) -> Self {
        Self { file, encoder: None, shown: None, rate, frames: 0 }
    }

    pub fn push(&mut self, image: &Image) -> Result<()> {
        let size = image.size();
        let path = self.file.path().to_owned();
        let failed = |error: gif::EncodingError| encoding(&path, error);
        let side = |length: usize| {
            u16::try_from(length).map_err(|_| {
                encoding(&path, format!("a GIF has at most 65535 pixels a side, got {size:#}; write a PNG"))
            })
        };
        let (width, height) = (side(size.width)?, side(size.height)?);
        let mut encoder = match self.encoder.take() {
            Some(encoder) => encoder,
            None => {
                let mut encoder = gif::Encoder::new(Vec::new(), width, height, &[]).map_err(failed)?;
                encoder.set_repeat(gif::Repeat::Infinite).map_err(failed)?;
                encoder
            }
        };

        let whole = (0, 0, size);
        let differs = |y, x| {
            let before = self.shown.as_ref().and_then(|shown| shown.get(y, x));
            let pairs = before.zip(image.get(y, x));
            pairs.is_none_or(|(a, b)| a.iter().zip(b).any(|(a, b)| a.abs_diff(b) > TOLERANCE))
        };
        let (top, left, part) = match self.shown {
            None => whole,
            Some(_) => changed_area(size, differs).unwrap_or((0, 0, FrameSize::new(1, 1))),
        };
        let mut rgba = Vec::with_capacity(4 * part.area());
        for y in top..top + part.height {
            for x in left..left + part.width {
                match image.get(y, x).filter(|_| differs(y, x)) {
                    Some([r, g, b]) => rgba.extend([r, g, b, 255]),
                    None => rgba.extend(PIXEL_FREE),
                }
            }
        }
        let mut frame =
            gif::Frame::from_rgba_speed(side(part.width)?, side(part.height)?, &mut rgba, SAMPLING);
        (frame.top, frame.left) = (side(top)?, side(left)?);
        frame.dispose = gif::DisposalMethod::Keep;
        frame.delay = self.delay();
        self.remember(image, &frame)?;
        encoder.write_frame(&frame).map_err(failed)?;

        self.frames += 1;
        self.file.write_all(encoder.get_ref())?;
        encoder.get_mut().clear();
        self.encoder = Some(encoder);
        Ok(())
    }

    pub fn finish(mut self) -> Result<AtomicFile> {
        if let Some(encoder) = self.encoder {
            let rest = encoder.into_inner().map_err(|error| encoding(self.file.path(), error))?;
            self.file.write_all(&rest)?;
        }
        Ok(self.file)
    }

    /// Hundredths of a second, rounded so that many frames together take the right time.
    fn delay(&self) -> u16 {
        let due = |frame: usize| (frame as f64 * 100.0 / self.rate).round();
        (due(self.frames + 1) - due(self.frames)) as u16
    }

    fn remember(&mut self, image: &Image, frame: &gif::Frame<'_>) -> Result<()> {
        let mut shown = match self.shown.take() {
            Some(shown) => shown,
            None => Image::filled(image.size(), [0; 3])?,
        };
        let palette = frame.palette.as_deref().unwrap_or_default();
        let width = usize::from(frame.width).max(1);
        for (i, &index) in frame.buffer.iter().enumerate() {
            let start = 3 * usize::from(index);
            let colour = palette.get(start..start + 3).and_then(|rgb| <[u8; 3]>::try_from(rgb).ok());
            if let Some(rgb) = colour.filter(|_| frame.transparent != Some(index)) {
                shown.put(usize::from(frame.top) + i / width, usize::from(frame.left) + i % width, rgb);
            }
        }
        self.shown = Some(shown);
        Ok(())
    }
}
