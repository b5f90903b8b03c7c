use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Rows and columns of an image or a video frame, in pixels.
///
/// Everywhere in the zoo a size is written rows first, as tensors have it and as `--size` takes it: `{}` prints
/// `480×640`, `{:#}` prints `480×640 (rows × columns)`, for pictures, whose sizes other programs write the other
/// way round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct FrameSize {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl FrameSize {
    /// `height` rows and `width` columns.
    pub const fn new(height: usize, width: usize) -> Self {
        Self { height, width }
    }

    /// Number of pixels, saturating.
    pub const fn area(self) -> usize {
        self.height.saturating_mul(self.width)
    }

    /// An error if the rectangle of `size` at (`top`, `left`) leaves a picture of this size.
    pub(crate) fn check_inside(self, top: usize, left: usize, size: Self) -> Result<()> {
        let inside =
            |from: usize, len: usize, all: usize| from.checked_add(len).is_some_and(|end| end <= all);
        if inside(top, size.height, self.height) && inside(left, size.width, self.width) {
            return Ok(());
        }
        Err(Error::OutsideImage { top, left, height: size.height, width: size.width, size: self })
    }
}

impl fmt::Display for FrameSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.height, self.width)?;
        if f.alternate() { f.write_str(" (rows × columns)") } else { Ok(()) }
    }
}

/// An 8-bit RGB picture, rows from the top, three bytes a pixel, no padding between rows.
#[derive(Clone, PartialEq, Eq)]
pub struct Image {
    size: FrameSize,
    pixels: Vec<u8>,
}

impl fmt::Debug for Image {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Image({})", self.size)
    }
}

impl Image {
    /// Takes `height · width · 3` bytes, row by row.
    ///
    /// # Errors
    /// If the size is empty or the buffer's length does not match it.
    pub fn new(size: FrameSize, pixels: Vec<u8>) -> Result<Self> {
        let expected = checked_bytes(size)?;
        if pixels.len() != expected {
            return Err(Error::PixelCount { size, expected, got: pixels.len() });
        }
        Ok(Self { size, pixels })
    }

    /// A picture of one colour.
    ///
    /// # Errors
    /// If the size is empty.
    pub fn filled(size: FrameSize, rgb: [u8; 3]) -> Result<Self> {
        let bytes = checked_bytes(size)?;
        Ok(Self { size, pixels: rgb.iter().copied().cycle().take(bytes).collect() })
    }

    /// Rows and columns.
    pub fn size(&self) -> FrameSize {
        self.size
    }

    /// Columns.
    pub fn width(&self) -> usize {
        self.size.width
    }

    /// Rows.
    pub fn height(&self) -> usize {
        self.size.height
    }

    /// All bytes, row by row, RGB.
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// All bytes, to draw on.
    pub fn pixels_mut(&mut self) -> &mut [u8] {
        &mut self.pixels
    }

    /// The bytes themselves.
    pub fn into_pixels(self) -> Vec<u8> {
        self.pixels
    }

    /// One row's bytes, if there is such a row.
    pub fn row(&self, y: usize) -> Option<&[u8]> {
        let stride = self.size.width * 3;
        self.pixels.chunks_exact(stride).nth(y)
    }

    /// One pixel, if it lies inside.
    pub fn get(&self, y: usize, x: usize) -> Option<[u8; 3]> {
        if x >= self.size.width {
            return None;
        }
        self.row(y)?.get(3 * x..3 * x + 3)?.try_into().ok()
    }

    /// Sets one pixel; a place outside the picture is left alone.
    pub fn put(&mut self, y: usize, x: usize, rgb: [u8; 3]) {
        if x < self.size.width && y < self.size.height {
            let at = 3 * (y * self.size.width + x);
            if let Some(pixel) = self.pixels.get_mut(at..at + 3) {
                pixel.copy_from_slice(&rgb);
            }
        }
    }

    /// A copy of the rectangle of `size` whose first pixel is (`top`, `left`).
    ///
    /// # Errors
    /// If the rectangle is empty or leaves the picture.
    pub fn crop(&self, top: usize, left: usize, size: FrameSize) -> Result<Self> {
        self.size.check_inside(top, left, size)?;
        let mut pixels = Vec::with_capacity(checked_bytes(size)?);
        for row in self.pixels.chunks_exact(self.size.width * 3).skip(top).take(size.height) {
            pixels.extend(row.iter().skip(3 * left).take(3 * size.width));
        }
        Self::new(size, pixels)
    }

    /// The picture mirrored left to right.
    pub fn flip_horizontal(&self) -> Self {
        let mut pixels = Vec::with_capacity(self.pixels.len());
        for row in self.pixels.chunks_exact(self.size.width * 3) {
            for pixel in row.chunks_exact(3).rev() {
                pixels.extend_from_slice(pixel);
            }
        }
        Self { size: self.size, pixels }
    }
}

fn checked_bytes(size: FrameSize) -> Result<usize> {
    if size.height == 0 || size.width == 0 {
        return Err(Error::EmptyImage(size));
    }
    size.height.checked_mul(size.width).and_then(|n| n.checked_mul(3)).ok_or(Error::PixelCount {
        size,
        expected: usize::MAX,
        got: 0,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ramp(height: usize, width: usize) -> Image {
        let pixels = (0..height * width * 3).map(|i| i as u8).collect();
        Image::new(FrameSize::new(height, width), pixels).unwrap()
    }

    #[test]
    fn sizes_are_written_rows_first() {
        let size = FrameSize::new(480, 640);
        assert_eq!(size.to_string(), "480×640");
        assert_eq!(format!("{size:#}"), "480×640 (rows × columns)");
    }

    #[test]
    fn a_buffer_of_the_wrong_length_is_refused_with_both_lengths() {
        let error = Image::new(FrameSize::new(2, 3), vec![0; 17]).unwrap_err();
        assert_eq!(error.to_string(), "an RGB image of 2×3 (rows × columns) needs 18 bytes, got 17");
        assert!(Image::new(FrameSize::new(0, 3), vec![]).is_err());
        assert!(Image::new(FrameSize::new(usize::MAX, 3), vec![]).is_err());
    }

    #[test]
    fn crop_takes_the_named_pixels_and_refuses_to_leave_the_picture() {
        let image = ramp(4, 5);
        let part = image.crop(1, 2, FrameSize::new(2, 3)).unwrap();
        assert_eq!(part.get(0, 0), image.get(1, 2));
        assert_eq!(part.get(1, 2), image.get(2, 4));
        assert!(image.crop(1, 3, FrameSize::new(2, 3)).is_err());
        assert!(image.crop(usize::MAX, 0, FrameSize::new(2, 1)).is_err());
    }

    #[test]
    fn flipping_twice_gives_the_picture_back() {
        let image = ramp(3, 4);
        assert_eq!(image.flip_horizontal().get(1, 0), image.get(1, 3));
        assert_eq!(image.flip_horizontal().flip_horizontal(), image);
    }

    #[test]
    fn pixels_outside_are_none_and_writes_there_change_nothing() {
        let mut image = ramp(2, 2);
        let before = image.clone();
        assert_eq!(image.get(0, 2), None);
        assert_eq!(image.get(2, 0), None);
        image.put(0, 2, [9; 3]);
        image.put(2, 0, [9; 3]);
        assert_eq!(image, before);
    }
}
