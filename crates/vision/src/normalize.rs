//! From pixels to a net's input: normalisation, placing, and the way back for boxes.

use candle_core::{Device, Tensor};
use serde::{Deserialize, Serialize};
use zoo_core::{BBox, FrameSize, Image};

use crate::resize::{Region, Resize, Resizer};
use crate::{Error, Result};

/// How 0..=255 becomes what a net was trained on; computed in f32 in the order written here.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Normalization {
    /// x / 255.
    Unit,
    /// x · 0.0078431377 − 1, as TensorFlow's graphs compute x/127.5 − 1.
    Tf,
    /// (x / 255 − mean) / std, per channel in RGB.
    MeanStd {
        /// Subtracted from x / 255.
        mean: [f32; 3],
        /// Divided by.
        std: [f32; 3],
    },
    /// x − mean, and the channels in the order blue, green, red: Caffe's.
    Caffe {
        /// Subtracted from 0..=255; of blue, green and red.
        mean: [f32; 3],
    },
}

impl Normalization {
    /// torchvision's and timm's usual mean and standard deviation.
    pub const IMAGENET: Self = Self::MeanStd { mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
    /// From −1 to 1.
    pub const HALF: Self = Self::MeanStd { mean: [0.5; 3], std: [0.5; 3] };

    /// Normalises planes `[3, H, W]` of values 0..=255, red, green and blue, in place.
    pub fn apply(&self, planes: &mut [f32]) {
        let each = (planes.len() / 3).max(1);
        if let Self::Caffe { .. } = self {
            let mut parts = planes.chunks_exact_mut(each);
            if let (Some(red), _, Some(blue)) = (parts.next(), parts.next(), parts.next()) {
                red.swap_with_slice(blue);
            }
        }
        for (channel, plane) in planes.chunks_exact_mut(each).enumerate() {
            match self {
                Self::Unit => plane.iter_mut().for_each(|x| *x /= 255.0),
                Self::Tf => plane.iter_mut().for_each(|x| *x = *x * 0.007_843_138 - 1.0),
                Self::Caffe { mean } => {
                    if let Some(mean) = mean.get(channel) {
                        plane.iter_mut().for_each(|x| *x -= mean);
                    }
                }
                Self::MeanStd { mean, std } => {
                    if let (Some(mean), Some(std)) = (mean.get(channel), std.get(channel)) {
                        plane.iter_mut().for_each(|x| *x = (*x / 255.0 - mean) / std);
                    }
                }
            }
        }
    }

    /// A picture, as it is, as a tensor `[1, 3, H, W]` of f32.
    ///
    /// # Errors
    /// If the device refuses the tensor.
    pub fn tensor(&self, image: &Image, device: &Device) -> Result<Tensor> {
        self.tensor_of(planes(image), image.size(), device)
    }

    /// Planes `[3, H, W]` of values 0..=255 as a tensor `[1, 3, H, W]` of f32.
    ///
    /// # Errors
    /// If the number of values does not fit the size, or the device refuses the tensor.
    pub fn tensor_of(&self, mut planes: Vec<f32>, size: FrameSize, device: &Device) -> Result<Tensor> {
        self.apply(&mut planes);
        Ok(Tensor::from_vec(planes, (1, 3, size.height, size.width), device)?)
    }
}

/// A picture, as it is, as planes `[3, H, W]` of values 0..=255.
fn planes(image: &Image) -> Vec<f32> {
    let pixels = image.pixels().chunks_exact(3);
    let channel = |channel: usize| pixels.clone().filter_map(move |rgb| rgb.get(channel));
    (0..3).flat_map(channel).map(|&x| f32::from(x)).collect()
}

/// How a picture of any shape fills a net's input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Fit {
    /// Resized to the input's size; the shape is not kept.
    Stretch {
        /// The input's size.
        size: FrameSize,
    },
    /// Resized to fit inside, shape kept, centred, the rest filled.
    Letterbox {
        /// The input's size.
        size: FrameSize,
        /// Colour of the borders.
        fill: [u8; 3],
    },
    /// Not resized: the picture at the top left, the rest to the right and below it filled. It must fit inside.
    Pad {
        /// The input's size.
        size: FrameSize,
        /// Colour of the rest.
        fill: [u8; 3],
    },
    /// The shorter side resized to `shorter` (the longer by the same factor, rounded down), then a
    /// rectangle cut from the middle, as torchvision does it.
    CenterCrop {
        /// The shorter side after resizing.
        shorter: usize,
        /// What is cut from the middle.
        size: FrameSize,
    },
}

/// Everything between a picture and a net's input.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Preprocess {
    /// How the picture fills the input.
    pub fit: Fit,
    /// Whose resizing.
    pub resize: Resize,
    /// The values' range.
    pub normalization: Normalization,
}

impl Preprocess {
    /// torchvision's preset for ImageNet classifiers: shorter side 256, middle 224×224, Pillow's
    /// bilinear, ImageNet's mean and standard deviation.
    pub const IMAGENET: Self = Self {
        fit: Fit::CenterCrop { shorter: 256, size: FrameSize::new(224, 224) },
        resize: Resize::Pil,
        normalization: Normalization::IMAGENET,
    };

    /// The net's input `[1, 3, H, W]`, and the way back to the picture's own pixels.
    ///
    /// # Errors
    /// If a size is empty, a crop larger than what it is cut from, or a picture to be padded larger than the input.
    pub fn tensor(&self, image: &Image, device: &Device) -> Result<(Tensor, Mapping)> {
        let mapping = Mapping::new(image.size(), self.fit)?;
        let resizer = || Resizer::new(image.size(), mapping.resized, self.resize);
        let planes = match self.fit {
            Fit::Stretch { .. } => resizer()?.planes(image)?,
            Fit::CenterCrop { .. } => {
                let region = Region::window(mapping.top, mapping.left, mapping.input);
                resizer()?.region(image, &region)?
            }
            Fit::Letterbox { fill, .. } => bordered(&resizer()?.planes(image)?, &mapping, fill),
            Fit::Pad { fill, .. } => bordered(&planes(image), &mapping, fill),
        };
        Ok((self.normalization.tensor_of(planes, mapping.input, device)?, mapping))
    }
}

/// Resized planes in their place in the input, whose other pixels get one colour.
fn bordered(planes: &[f32], mapping: &Mapping, fill: [u8; 3]) -> Vec<f32> {
    let (inner, outer) = (mapping.resized, mapping.input);
    let mut filled = Vec::with_capacity(3 * outer.area());
    for (plane, fill) in planes.chunks_exact(inner.area().max(1)).zip(fill.map(f32::from)) {
        let start = filled.len();
        filled.resize(start + outer.area(), fill);
        let below = filled.chunks_exact_mut(outer.width).skip(start / outer.width + mapping.top);
        for (row, values) in below.zip(plane.chunks_exact(inner.width)) {
            if let Some(place) = row.get_mut(mapping.left..mapping.left + inner.width) {
                place.copy_from_slice(values);
            }
        }
    }
    filled
}

/// Where a picture's pixels lie in a net's input, and back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mapping {
    original: FrameSize,
    resized: FrameSize,
    input: FrameSize,
    /// For [`Fit::CenterCrop`] the part cut off before the input's first row and column; for
    /// [`Fit::Letterbox`] the border before the picture's, and 0 for the others.
    top: usize,
    left: usize,
    cut: bool,
}

impl Mapping {
    /// The mapping of pictures of one size.
    ///
    /// # Errors
    /// If a size is empty, a crop larger than what it is cut from, or a picture to be padded larger than the input.
    pub fn new(original: FrameSize, fit: Fit) -> Result<Self> {
        let (Fit::Stretch { size }
        | Fit::Letterbox { size, .. }
        | Fit::Pad { size, .. }
        | Fit::CenterCrop { size, .. }) = fit;
        for size in [original, size] {
            if size.area() == 0 {
                return Err(zoo_core::Error::EmptyImage(size).into());
            }
        }
        let whole = Self { original, resized: size, input: size, top: 0, left: 0, cut: false };
        match fit {
            Fit::Stretch { .. } => Ok(whole),
            Fit::Letterbox { .. } => {
                let scale = (size.height as f64 / original.height as f64)
                    .min(size.width as f64 / original.width as f64);
                let side =
                    |length: usize, most: usize| ((length as f64 * scale).round() as usize).clamp(1, most);
                let height = side(original.height, size.height);
                let width = side(original.width, size.width);
                let resized = FrameSize::new(height, width);
                Ok(Self { resized, top: (size.height - height) / 2, left: (size.width - width) / 2, ..whole })
            }
            Fit::Pad { .. } if original.height > size.height || original.width > size.width => {
                Err(Error::Pad { picture: original, size })
            }
            Fit::Pad { .. } => Ok(Self { resized: original, ..whole }),
            Fit::CenterCrop { shorter, .. } => {
                let (short, long) =
                    (original.height.min(original.width), original.height.max(original.width));
                let longer = shorter.saturating_mul(long) / short;
                let resized = if original.height <= original.width {
                    FrameSize::new(shorter, longer)
                } else {
                    FrameSize::new(longer, shorter)
                };
                let offset = |all: usize, part: usize| {
                    let spare = all.checked_sub(part)? as f64;
                    Some((spare / 2.0).round_ties_even() as usize)
                };
                match (offset(resized.height, size.height), offset(resized.width, size.width)) {
                    (Some(top), Some(left)) => Ok(Self { resized, top, left, cut: true, ..whole }),
                    _ => Err(Error::Crop { crop: size, shorter }),
                }
            }
        }
    }

    /// The net's input size.
    pub fn input(&self) -> FrameSize {
        self.input
    }

    /// The input's pixels that show the picture: the first row and column, and the size. The whole input but for
    /// [`Fit::Letterbox`] and [`Fit::Pad`].
    pub fn picture(&self) -> (usize, usize, FrameSize) {
        if self.cut { (0, 0, self.input) } else { (self.top, self.left, self.resized) }
    }

    /// A box in input pixels, in pixels of the original picture; not clipped.
    pub fn to_original(&self, bbox: BBox) -> BBox {
        let ((sx, ox), (sy, oy)) = self.axes();
        BBox::new((bbox.x0 - ox) / sx, (bbox.y0 - oy) / sy, (bbox.x1 - ox) / sx, (bbox.y1 - oy) / sy)
    }

    /// A box in pixels of the original picture, in input pixels; not clipped.
    pub fn to_input(&self, bbox: BBox) -> BBox {
        let ((sx, ox), (sy, oy)) = self.axes();
        BBox::new(bbox.x0 * sx + ox, bbox.y0 * sy + oy, bbox.x1 * sx + ox, bbox.y1 * sy + oy)
    }

    /// Scale and offset along x and along y: input = original · scale + offset.
    fn axes(&self) -> ((f32, f32), (f32, f32)) {
        let sign = if self.cut { -1.0 } else { 1.0 };
        let scale = |to: usize, from: usize| to as f32 / from as f32;
        (
            (scale(self.resized.width, self.original.width), sign * self.left as f32),
            (scale(self.resized.height, self.original.height), sign * self.top as f32),
        )
    }
}
