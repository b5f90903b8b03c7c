//! Resizing as other frameworks do it, bit for bit where they compute in integers.
//!
//! Models see the difference: the same photograph resized by two conventions moves scores by several
//! per cent. Pick the one that the weights were trained with.
//!
//! | | source coordinate of output pixel x | neighbours | arithmetic |
//! |---|---|---|---|
//! | [`Resize::Pil`] | (x + ½)·s | all within max(s, 1) of it, triangle weights | weights in 22-bit fixed point; columns first, rounded to u8, then rows |
//! | [`Resize::PilBicubic`] | (x + ½)·s | all within 2·max(s, 1) of it, cubic weights | as above |
//! | [`Resize::HalfPixel`] | (x + ½)·s − ½, at least 0 | 2 × 2 | f32 |
//! | [`Resize::AlignedCorners`] | x·(from − 1)/(to − 1) | 2 × 2 | f32 |
//! | [`Resize::TensorFlow1`] | x·s | 2 × 2 | f32 |
//! | [`Resize::OpenCv`] | (x + ½)·s − ½ | 2 × 2 | weights in 11-bit fixed point, rounded to u8 |
//! | [`Resize::Nearest`] | (x + ½)·s | the pixel that contains it | none |
//!
//! with s = input size / output size.

mod bilinear;
mod fixed_point;
mod pillow;

use zoo_core::{FrameSize, Image};

use crate::{Error, Result};
use bilinear::Lerp;
use fixed_point::FixedLerp;
use pillow::{Filter, Weights};

/// Whose resizing to reproduce.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Resize {
    /// Pillow's `BILINEAR` (up to version 12), which is also torchvision's on pictures: antialiased
    /// when shrinking.
    Pil,
    /// Pillow's `BICUBIC`, likewise: sharper, and may step over the values it lies between.
    PilBicubic,
    /// torch's `interpolate(mode="bilinear", align_corners=False)`, TensorFlow 2's without antialias.
    HalfPixel,
    /// torch's `interpolate(mode="bilinear", align_corners=True)`: the centres of corner pixels meet.
    AlignedCorners,
    /// TensorFlow 1's `resize_bilinear` (`half_pixel_centers=False`), the object detection API's.
    TensorFlow1,
    /// OpenCV's `INTER_LINEAR` on 8-bit pictures.
    OpenCv,
    /// Pillow's `NEAREST`, for class maps. (torch's and OpenCV's leave out the half.)
    Nearest,
}

/// A rectangle of the resized picture, or a grid of samples in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Region {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows spanned.
    pub height: usize,
    /// Columns spanned.
    pub width: usize,
    /// 1 for every pixel, 4 for every fourth pixel of every fourth row.
    pub step: usize,
}

impl Region {
    /// A whole picture.
    pub const fn all(size: FrameSize) -> Self {
        Self::window(0, 0, size)
    }

    /// Every pixel of a rectangle.
    pub const fn window(top: usize, left: usize, size: FrameSize) -> Self {
        Self { top, left, height: size.height, width: size.width, step: 1 }
    }

    /// The same rectangle, each `step`th pixel of each `step`th row, from its first pixel on.
    pub const fn every(self, step: usize) -> Self {
        Self { step, ..self }
    }

    /// Rows and columns that are computed; empty if `step` is 0.
    pub fn sampled(&self) -> FrameSize {
        match self.step {
            0 => FrameSize::new(0, 0),
            step => FrameSize::new(self.height.div_ceil(step), self.width.div_ceil(step)),
        }
    }

    fn rows(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        (self.top..self.top + self.height).step_by(self.step)
    }

    fn columns(&self) -> impl Iterator<Item = usize> + Clone + use<> {
        (self.left..self.left + self.width).step_by(self.step)
    }
}

/// Resizes pictures of one size to another, all or part of them: what is computed for a region is
/// bit-equal to resizing everything and cropping.
///
/// ```
/// use zoo_core::{FrameSize, Image};
/// use zoo_vision::{Region, Resize, Resizer};
///
/// let photo = Image::filled(FrameSize::new(480, 640), [20, 40, 60])?;
/// let resizer = Resizer::new(photo.size(), FrameSize::new(300, 300), Resize::HalfPixel)?;
/// let window = Region::window(100, 0, FrameSize::new(32, 32));
/// let planes = resizer.region(&photo, &window)?; // [3, 32, 32], values 0..=255
/// assert_eq!(planes[0], 20.0);
/// # Ok::<(), zoo_vision::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Resizer {
    from: FrameSize,
    to: FrameSize,
    taps: Taps,
}

/// Source positions and weights along (rows, columns).
#[derive(Debug, Clone)]
enum Taps {
    Pillow(Weights, Weights),
    Lerp(Vec<Lerp>, Vec<Lerp>),
    FixedLerp(Vec<FixedLerp>, Vec<FixedLerp>),
    Nearest(Vec<usize>, Vec<usize>),
}

impl Resizer {
    /// Prepares the weights.
    ///
    /// # Errors
    /// If a size is empty.
    pub fn new(from: FrameSize, to: FrameSize, convention: Resize) -> Result<Self> {
        for size in [from, to] {
            if size.area() == 0 {
                return Err(zoo_core::Error::EmptyImage(size).into());
            }
        }
        let (rows, columns) = ((from.height, to.height), (from.width, to.width));
        let pillow = |filter| Taps::Pillow(Weights::new(filter, rows), Weights::new(filter, columns));
        let taps = match convention {
            Resize::Pil => pillow(Filter::Triangle),
            Resize::PilBicubic => pillow(Filter::Cubic),
            Resize::HalfPixel => Taps::Lerp(bilinear::half_pixel(rows), bilinear::half_pixel(columns)),
            Resize::AlignedCorners => {
                Taps::Lerp(bilinear::aligned_corners(rows), bilinear::aligned_corners(columns))
            }
            Resize::TensorFlow1 => Taps::Lerp(bilinear::tensorflow1(rows), bilinear::tensorflow1(columns)),
            Resize::OpenCv => Taps::FixedLerp(fixed_point::rows(rows), fixed_point::columns(columns)),
            Resize::Nearest => Taps::Nearest(nearest(rows), nearest(columns)),
        };
        Ok(Self { from, to, taps })
    }

    /// The size of the pictures that it takes.
    pub fn from_size(&self) -> FrameSize {
        self.from
    }

    /// The size of the pictures that it makes.
    pub fn to_size(&self) -> FrameSize {
        self.to
    }

    /// The resized picture as planes `[3, H, W]`, values 0..=255, whole numbers but for
    /// [`Resize::HalfPixel`], [`Resize::AlignedCorners`] and [`Resize::TensorFlow1`].
    ///
    /// # Errors
    /// If the image's size is not [`Resizer::from_size`].
    pub fn planes(&self, image: &Image) -> Result<Vec<f32>> {
        self.region(image, &Region::all(self.to))
    }

    /// A part of [`Resizer::planes`]: `[3, H, W]` with H and W those of [`Region::sampled`].
    ///
    /// # Errors
    /// If the image's size is not [`Resizer::from_size`], or the region is empty or leaves the result.
    pub fn region(&self, image: &Image, region: &Region) -> Result<Vec<f32>> {
        self.check(image, region)?;
        let count = region.sampled().area();
        let mut planes = vec![0f32; 3 * count];
        let (red, rest) = planes.split_at_mut(count);
        let (green, blue) = rest.split_at_mut(count);
        let mut places = red.iter_mut().zip(green).zip(blue);
        self.sample(image, region, |rgb| {
            if let Some(((r, g), b)) = places.next() {
                [*r, *g, *b] = rgb;
            }
        });
        Ok(planes)
    }

    /// The resized picture, rounded to nearest where the convention does not round by itself.
    ///
    /// # Errors
    /// If the image's size is not [`Resizer::from_size`].
    pub fn image(&self, image: &Image) -> Result<Image> {
        let region = Region::all(self.to);
        self.check(image, &region)?;
        let mut pixels = Vec::with_capacity(3 * self.to.area());
        self.sample(image, &region, |rgb| pixels.extend(rgb.map(|value| value.round() as u8)));
        Ok(Image::new(self.to, pixels)?)
    }

    fn check(&self, image: &Image, region: &Region) -> Result<()> {
        if image.size() != self.from {
            return Err(Error::SizeMismatch {
                what: "this resizer",
                expected: self.from,
                got: image.size(),
                hint: "make another with Resizer::new",
            });
        }
        let Region { top, left, height, width, step } = *region;
        let inside = |from: usize, len: usize, all: usize| {
            len > 0 && from.checked_add(len).is_some_and(|end| end <= all)
        };
        if step == 0 || !inside(top, height, self.to.height) || !inside(left, width, self.to.width) {
            return Err(Error::Region { top, left, height, width, step, size: self.to });
        }
        Ok(())
    }

    /// Computes the region's pixels, row by row.
    fn sample(&self, image: &Image, region: &Region, put: impl FnMut([f32; 3])) {
        let source = Pixels { bytes: image.pixels(), width: self.from.width };
        match &self.taps {
            Taps::Pillow(rows, columns) => pillow::sample(source, rows, columns, region, put),
            Taps::Lerp(rows, columns) => bilinear::sample(source, rows, columns, region, put),
            Taps::FixedLerp(rows, columns) => fixed_point::sample(source, rows, columns, region, put),
            Taps::Nearest(rows, columns) => {
                let pixels = region.rows().flat_map(|y| region.columns().map(move |x| (rows[y], columns[x])));
                pixels.map(|(y, x)| source.at(y, x).map(f32::from)).for_each(put);
            }
        }
    }
}

/// Resizes a whole picture.
///
/// # Errors
/// If `size` is empty.
pub fn resize(image: &Image, size: FrameSize, convention: Resize) -> Result<Image> {
    Resizer::new(image.size(), size, convention)?.image(image)
}

/// The bytes of an image whose size has been checked against the taps.
#[derive(Clone, Copy)]
struct Pixels<'a> {
    bytes: &'a [u8],
    width: usize,
}

impl Pixels<'_> {
    #[inline]
    fn at(self, y: usize, x: usize) -> [u8; 3] {
        let start = 3 * (y * self.width + x);
        [self.bytes[start], self.bytes[start + 1], self.bytes[start + 2]]
    }
}

/// floor((x + ½)·s), with Pillow's running sum in f64, which decides where the exact value is whole.
fn nearest((from, to): (usize, usize)) -> Vec<usize> {
    let scale = from as f64 / to as f64;
    let centres = std::iter::successors(Some(scale * 0.5), |centre| Some(centre + scale));
    centres.take(to).map(|centre| (centre as usize).min(from.saturating_sub(1))).collect()
}
