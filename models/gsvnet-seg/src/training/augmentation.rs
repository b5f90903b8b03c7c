use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_kernels::{Interpolation, resize2d};

use crate::net::resized;

/// How samples are varied: scaled, cropped and mirrored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augmentation {
    /// Rows and columns times one of these, each as likely as the others.
    pub scales: Vec<f64>,
    /// Then down to a multiple of this.
    pub unit: usize,
    /// What is cut out, wherever it fits.
    pub crop: FrameSize,
    /// How many of the samples are mirrored, left to right.
    pub mirrored: f64,
}

impl Default for Augmentation {
    /// The authors' code's for Cityscapes. It lists a scale of 2 besides, and never takes it.
    fn default() -> Self {
        Self { scales: vec![0.75, 1.0, 1.5, 1.75], unit: 32, crop: FrameSize::new(768, 1536), mirrored: 0.4 }
    }
}

impl Augmentation {
    /// One way to see a sample of frames of size `frame`. `uniform` gives numbers of [0, 1), one after the other for the
    /// scale, the crop's first row and column, and the mirror.
    ///
    /// # Errors
    /// If there is no scale, or the scaled frame is smaller than the crop.
    pub fn view(&self, frame: FrameSize, mut uniform: impl FnMut() -> f64) -> Result<View> {
        let mut below = |count: usize| ((uniform() * count as f64) as usize).min(count.saturating_sub(1));
        let Some(scale) = self.scales.get(below(self.scales.len())) else {
            bail!("augmentation: expected at least one scale, got none")
        };
        let unit = self.unit.max(1);
        let side = |pixels: usize| (pixels as f64 * scale) as usize / unit * unit;
        let (scaled, crop) = (FrameSize::new(side(frame.height), side(frame.width)), self.crop);
        let (Some(rows), Some(columns)) =
            (scaled.height.checked_sub(crop.height), scaled.width.checked_sub(crop.width))
        else {
            bail!(
                "augmentation: expected frames of at least the crop's {crop}, got {frame}, {scaled} at scale {scale}"
            )
        };
        let (top, left) = (below(rows + 1), below(columns + 1));
        Ok(View { scaled, top, left, crop, is_mirrored: uniform() < self.mirrored })
    }
}

/// A way to see a sample: the same for each of its frames, and for the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct View {
    /// What frames are resized to.
    pub scaled: FrameSize,
    /// The crop's first row.
    pub top: usize,
    /// Its first column.
    pub left: usize,
    /// Its size.
    pub crop: FrameSize,
    /// Whether it is then mirrored, left to right.
    pub is_mirrored: bool,
}

impl View {
    /// A frame, `[B, C, H, W]`, resized between its pixels.
    ///
    /// # Errors
    /// If it is no map, or the crop lies outside.
    pub fn frame(&self, frame: &Tensor) -> Result<Tensor> {
        self.cut(&resized(frame, self.scaled)?)
    }

    /// Labels, `[B, H, W]`, by the nearest pixel.
    ///
    /// # Errors
    /// As [`View::frame`].
    pub fn labels(&self, labels: &Tensor) -> Result<Tensor> {
        let map = labels.to_dtype(candle_core::DType::F32)?.unsqueeze(1)?;
        let map = resize2d(&map, (self.scaled.height, self.scaled.width), Interpolation::Nearest)?;
        self.cut(&map)?.squeeze(1)?.to_dtype(labels.dtype())
    }

    fn cut(&self, map: &Tensor) -> Result<Tensor> {
        let cut = map.narrow(2, self.top, self.crop.height)?.narrow(3, self.left, self.crop.width)?;
        let cut = cut.contiguous()?;
        if self.is_mirrored { cut.flip(&[3]) } else { Ok(cut) }
    }
}
