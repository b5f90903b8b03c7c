//! From a picture to the net's input: resizing and normalisation, of a window alone where a window
//! is all that is seen.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use zoo_core::{FrameSize, Image};
use zoo_vision::{Normalization, Region, Resize, Resizer};

use crate::attention::motion::SAMPLING;
use crate::{Result, Window};

/// Resizing and normalisation of frames of one size.
#[derive(Debug, Clone)]
pub(crate) struct Preparation {
    resizer: Arc<Resizer>,
    normalization: Normalization,
}

impl Preparation {
    pub(crate) fn new(
        source: FrameSize,
        frame: FrameSize,
        resize: Resize,
        normalization: Normalization,
    ) -> Result<Self> {
        Ok(Self { resizer: Arc::new(Resizer::new(source, frame, resize)?), normalization })
    }

    /// `window` of the resized frame as `[1, 3, h, w]`; nothing else of it is computed.
    pub(crate) fn window(&self, frame: &Image, window: Window, device: &Device) -> Result<Tensor> {
        let region = Region::window(window.top, window.left, window.size());
        let planes = self.resizer.region(frame, &region)?;
        Ok(self.normalization.tensor_of(planes, window.size(), device)?)
    }

    /// The whole resized frame.
    pub(crate) fn frame(&self, frame: &Image, device: &Device) -> Result<Tensor> {
        self.window(frame, Window::full(self.resizer.to_size()), device)
    }

    /// Every [`SAMPLING`]th pixel of every [`SAMPLING`]th row of the resized frame, normalised: three
    /// planes, one after the other.
    pub(crate) fn samples(&self, frame: &Image) -> Result<Vec<f32>> {
        let region = Region::all(self.resizer.to_size()).every(SAMPLING);
        let mut planes = self.resizer.region(frame, &region)?;
        self.normalization.apply(&mut planes);
        Ok(planes)
    }
}
