//! From a picture to the net's inputs: one, or several looks at it.

use candle_core::{Device, Tensor};
use zoo_core::{FrameSize, Image};
use zoo_layers::{MergeViews, Tiles};
use zoo_vision::{Fit, Preprocess, resize};

use crate::config::{PictureConfig, nearest_size};
use crate::{Error, Result};

/// Far beyond what helps; a larger one is a slip, which would take all memory.
const MAX_SCALE: f64 = 8.0;

/// How often, and how, a picture is looked at. By default once, as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct Views {
    /// Sizes of the input, as multiples of the usual one; the nearest size that the net takes. The first one's
    /// logits are what the others' are resized to.
    pub scales: Vec<f64>,
    /// Each size's mirror image, too; of both the larger logit counts.
    pub mirrored: bool,
    /// How the sizes' logits become one.
    pub merge: MergeViews,
    /// Instead of fitting the picture to the input: windows of the input's size over the picture at its own size
    /// (or multiples of it), neighbours sharing at least this part of their sides, from 0 to below 1. Where
    /// windows overlap, their logits are averaged.
    pub windows: Option<f64>,
}

impl Default for Views {
    fn default() -> Self {
        Self { scales: vec![1.0], mirrored: false, merge: MergeViews::RunningMean, windows: None }
    }
}

impl Views {
    /// Whether they can be made.
    ///
    /// # Errors
    /// If not: what is expected.
    pub fn validate(&self) -> Result<()> {
        let fault = |text: String| Err(Error::Views(text));
        if self.scales.is_empty() {
            return fault("no scale is given, expected at least one, such as 1".to_owned());
        }
        if let Some(scale) = self.scales.iter().find(|scale| !(**scale > 0.0 && **scale <= MAX_SCALE)) {
            return fault(format!(
                "the scale {scale} is out of range, expected above 0, at most {MAX_SCALE}"
            ));
        }
        match self.windows {
            Some(overlap) if !(0.0..1.0).contains(&overlap) => fault(format!(
                "windows that overlap by {overlap} of their sides never advance, expected 0 to below 1"
            )),
            _ => Ok(()),
        }
    }

    /// Windows of `size`, if there are to be any.
    pub(crate) fn tiles(&self, size: FrameSize) -> Option<Tiles> {
        let overlap = self.windows?;
        let shared = |side: usize| ((side as f64 * overlap).round() as usize).min(side.saturating_sub(1));
        Some(Tiles { size: (size.height, size.width), overlap: (shared(size.height), shared(size.width)) })
    }
}

/// The net's inputs for one picture.
#[derive(Debug, Clone)]
pub(crate) struct Look {
    /// One a scale, `[1, 3, H, W]`.
    pub inputs: Vec<Tensor>,
    /// Rows and columns of the first one that show the picture, from its first pixel on.
    pub shown: FrameSize,
    /// The picture's size.
    pub picture: FrameSize,
}

impl Look {
    /// `unit` divides the sides of all inputs that the net sees as a whole.
    pub fn new(
        image: &Image,
        pictures: &PictureConfig,
        views: &Views,
        unit: usize,
        device: &Device,
    ) -> Result<Self> {
        let mut shown = None;
        let mut inputs = Vec::with_capacity(views.scales.len());
        for &scale in &views.scales {
            let (input, size) = match views.windows {
                Some(_) => unfitted(image, &pictures.preprocess, scale, device)?,
                None => fitted(image, pictures, scale, unit, device)?,
            };
            shown.get_or_insert(size);
            inputs.push(input);
        }
        Ok(Self { inputs, shown: shown.unwrap_or(image.size()), picture: image.size() })
    }

    /// Whether the inputs of both can be one batch.
    pub fn is_like(&self, other: &Self) -> bool {
        let shapes = |look: &Self| look.inputs.iter().map(|xs| xs.dims().to_vec()).collect::<Vec<_>>();
        shapes(self) == shapes(other)
    }
}

/// The picture at a multiple of its own size.
fn unfitted(image: &Image, how: &Preprocess, scale: f64, device: &Device) -> Result<(Tensor, FrameSize)> {
    let size = scaled(image.size(), (scale, scale), None);
    let fit = Fit::Stretch { size };
    Ok((Preprocess { fit, ..*how }.tensor(image, device)?.0, size))
}

/// The picture fitted to a multiple of the input, and the part of that which shows it.
fn fitted(
    image: &Image,
    pictures: &PictureConfig,
    scale: f64,
    unit: usize,
    device: &Device,
) -> Result<(Tensor, FrameSize)> {
    let (how, usual, source) = (&pictures.preprocess, pictures.size()?, image.size());
    let size = match scale {
        1.0 => usual,
        _ => nearest_size(scaled(usual, (scale, scale), None), unit),
    };
    let Fit::Pad { fill, .. } = how.fit else {
        let fit = Fit::Stretch { size };
        return Ok((Preprocess { fit, ..*how }.tensor(image, device)?.0, size));
    };
    // What is larger than the usual input is shrunk to fit, in its shape; nothing is enlarged. Then comes what
    // the size differs from the usual one by.
    let part = |whole: usize, part: usize| whole as f64 / part.max(1) as f64;
    let shrunk = part(usual.height, source.height).min(part(usual.width, source.width)).min(1.0);
    let factors = (shrunk * part(size.height, usual.height), shrunk * part(size.width, usual.width));
    let shown = scaled(source, factors, Some(size));
    let fit = Fit::Pad { size, fill };
    let resized = (shown != source).then(|| resize(image, shown, how.resize)).transpose()?;
    let (input, _) = Preprocess { fit, ..*how }.tensor(resized.as_ref().unwrap_or(image), device)?;
    Ok((input, shown))
}

/// A size times a factor for each axis: at least 1×1, and at most `most`.
fn scaled(size: FrameSize, (rows, columns): (f64, f64), most: Option<FrameSize>) -> FrameSize {
    let side = |length: usize, factor: f64, most: Option<usize>| {
        let length = ((length as f64 * factor).round() as usize).max(1);
        most.map_or(length, |most| length.min(most))
    };
    FrameSize::new(
        side(size.height, rows, most.map(|most| most.height)),
        side(size.width, columns, most.map(|most| most.width)),
    )
}
