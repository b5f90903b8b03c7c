//! Animated PNG. The `png` crate compresses each frame; the chunks around them are written here, since
//! its own animation writer wants to know the number of frames before the first.

use zoo_core::{FrameSize, Image};

use super::animation::changed_area;
use super::{AtomicFile, encode_png, encoding};
use crate::Result;

/// Signature and header chunk, which every PNG starts with and `acTL` has to follow.
const HEADER_BYTES: usize = 8 + 25;
const REPEAT_FOREVER: u32 = 0;
/// Delays are given in this many parts of a second.
const TICKS: u16 = 1000;

pub(super) struct Apng {
    file: AtomicFile,
    shown: Option<Image>,
    delay: u16,
    frames: u32,
    /// Numbers `fcTL` and `fdAT` chunks together.
    sequence: u32,
}

impl Apng {
    pub fn new(file: AtomicFile, rate: f64) -> Self {
        let delay = (f64::from(TICKS) / rate).round() as u16;
        Self { file, shown: None, delay, frames: 0, sequence: 0 }
    }

    pub fn push(&mut self, image: &Image) -> Result<()> {
        let part = match &self.shown {
            None => Some((0, 0, image.size())),
            Some(shown) => changed_area(image.size(), |y, x| shown.get(y, x) != image.get(y, x)),
        };
        let (top, left, size) = part.unwrap_or((0, 0, FrameSize::new(1, 1)));
        let png = encode_png(self.file.path(), &image.crop(top, left, size)?)?;
        if self.frames == 0 {
            self.file.write_all(png.get(..HEADER_BYTES).unwrap_or_default())?;
            self.file.write_all(&control_chunk(0))?;
        }
        self.write_frame_control(top, left, size)?;
        for data in chunks(&png).filter(|(name, _)| *name == b"IDAT").map(|(_, data)| data) {
            if self.frames == 0 {
                self.file.write_all(&chunk(b"IDAT", data))?;
            } else {
                let sequence = self.next_sequence();
                self.file.write_all(&chunk(b"fdAT", &[&sequence.to_be_bytes(), data].concat()))?;
            }
        }
        self.frames += 1;
        self.shown = Some(image.clone());
        Ok(())
    }

    pub fn finish(mut self) -> Result<AtomicFile> {
        self.file.write_all(&chunk(b"IEND", &[]))?;
        self.file.rewrite(HEADER_BYTES as u64, &control_chunk(self.frames))?;
        Ok(self.file)
    }

    fn write_frame_control(&mut self, top: usize, left: usize, size: FrameSize) -> Result<()> {
        let mut data = self.next_sequence().to_be_bytes().to_vec();
        for number in [size.width, size.height, left, top] {
            let number = u32::try_from(number).map_err(|error| encoding(self.file.path(), error))?;
            data.extend(number.to_be_bytes());
        }
        data.extend(self.delay.to_be_bytes());
        data.extend(TICKS.to_be_bytes());
        // Neither is undone before the next frame nor blended with the last.
        data.extend([0, 0]);
        self.file.write_all(&chunk(b"fcTL", &data))
    }

    fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence += 1;
        sequence
    }
}

fn control_chunk(frames: u32) -> Vec<u8> {
    chunk(b"acTL", &[frames.to_be_bytes(), REPEAT_FOREVER.to_be_bytes()].concat())
}

/// Length, name, data, and the checksum of the last two.
fn chunk(name: &[u8; 4], data: &[u8]) -> Vec<u8> {
    let body = [name.as_slice(), data].concat();
    let length = data.len() as u32;
    [&length.to_be_bytes(), body.as_slice(), &crc32fast::hash(&body).to_be_bytes()].concat()
}

/// The chunks of a PNG that was just encoded.
fn chunks(png: &[u8]) -> impl Iterator<Item = (&[u8; 4], &[u8])> {
    let mut rest = png.get(8..).unwrap_or_default();
    std::iter::from_fn(move || {
        let (length, after) = rest.split_first_chunk::<4>()?;
        let (name, after) = after.split_first_chunk::<4>()?;
        let (data, after) = after.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        rest = after.get(4..)?;
        Some((name, data))
    })
}
