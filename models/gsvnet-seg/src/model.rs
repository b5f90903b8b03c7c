//! Frames in, class maps out: the net with everything before and after it.

use candle_core::{Device, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Image, ScoreNet, SegMap, Segmenter, Streaming};
use zoo_kernels::on_pool;
use zoo_layers::all_finite;
use zoo_vision::{Resize, Resizer};

use crate::config::{ModelConfig, PictureConfig, Schedule, low_size};
use crate::error::Context as _;
use crate::keyframe::KeyframeNet;
use crate::net::{GsvNet, Step, Way};
use crate::stream::{KeyReason, StreamState};
use crate::{Error, Result};

/// As everywhere outside the key frames' net.
const RESIZE: Resize = Resize::AlignedCorners;

/// GSVNet on video, through [`zoo_core::Streaming`]; as a [`zoo_core::Segmenter`], the key frames' net on single
/// pictures.
///
/// Labels have the frames' own size.
#[derive(Debug, Clone)]
pub struct GsvNetSeg<N = KeyframeNet> {
    net: GsvNet<N>,
    pictures: PictureConfig,
    device: Device,
}

/// A video that is being segmented. A clone goes on exactly like the original.
#[derive(Debug, Clone)]
pub struct Stream {
    state: StreamState,
    low: Resizer,
    key: Resizer,
}

impl Stream {
    /// The size of the stream's frames.
    pub fn frame_size(&self) -> FrameSize {
        self.state.frame_size()
    }

    /// Forgets everything but the size: the next frame is a key frame.
    pub fn reset(&mut self) {
        self.state.reset();
    }

    /// Frames since the last key frame; `None` before the first.
    pub fn since_key(&self) -> Option<usize> {
        self.state.since_key()
    }
}

/// A frame's classes, and how they came about.
#[derive(Debug, Clone)]
pub struct Segmented {
    /// The class of each pixel.
    pub map: SegMap,
    /// Scores, and for a frame between key frames everything on the way to them.
    pub step: Step,
}

impl Segmented {
    /// Whether the frame went through the key frames' net, and why.
    pub fn key(&self) -> Option<KeyReason> {
        self.step.key()
    }
}

impl GsvNetSeg {
    /// Builds the net from `vb`, on `vb`'s device, with ideal delay kernels and the default schedule.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a tensor is missing or has another shape.
    pub fn new(config: &ModelConfig, vb: VarBuilder) -> Result<Self> {
        let device = vb.device().clone();
        let net = GsvNet::new(&config.net, Schedule::default(), vb).context("building the net")?;
        Self::around(net, config.pictures.clone(), device)
    }

    /// Prepares the net for inference; the loaders do.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> candle_core::Result<()> {
        self.net.prepare()
    }
}

impl<N: ScoreNet> GsvNetSeg<N> {
    /// Frames for a net, on the device that it is on.
    ///
    /// # Errors
    /// If the labels are not as many as the net's classes, or the normalisation is none.
    pub fn around(net: GsvNet<N>, pictures: PictureConfig, device: Device) -> Result<Self> {
        pictures.validate(net.keyframe().classes())?;
        Ok(Self { net, pictures, device })
    }

    /// The net itself.
    pub fn net(&self) -> &GsvNet<N> {
        &self.net
    }

    /// The same, to prepare it.
    pub fn net_mut(&mut self) -> &mut GsvNet<N> {
        &mut self.net
    }

    /// How frames become the net's input, and its classes.
    pub fn pictures(&self) -> &PictureConfig {
        &self.pictures
    }

    /// The same with other key frames.
    ///
    /// # Errors
    /// If the schedule cannot be kept.
    pub fn with_schedule(self, schedule: Schedule) -> Result<Self> {
        Ok(Self { net: self.net.with_schedule(schedule)?, ..self })
    }

    fn tensor(&self, frame: &Image, resizer: &Resizer) -> Result<Tensor> {
        let planes = resizer.planes(frame)?;
        Ok(self.pictures.normalization.tensor_of(planes, resizer.to_size(), &self.device)?)
    }

    fn segmented(&self, step: Step, size: FrameSize) -> Result<Segmented> {
        if !all_finite(&step.scores).context("looking for scores that are no numbers")? {
            return Err(Error::NotFinite { frame: size });
        }
        let labels = on_pool(|| step.labels(size)?.flatten_all()?.to_vec1()).context("labels")?;
        let map = SegMap::new(size, labels, self.pictures.labels.clone()).map_err(zoo_vision::Error::from)?;
        Ok(Segmented { map, step })
    }
}

impl<N: ScoreNet + Sync> Streaming for GsvNetSeg<N> {
    type State = Stream;
    type Output = Segmented;
    type Error = Error;

    fn start(&self, size: FrameSize) -> Result<Stream> {
        let state = self.net.start(size)?;
        let resizer = |to| Resizer::new(size, to, RESIZE);
        let (low, key) = (resizer(low_size(size))?, resizer(self.net.schedule().scale.of(size))?);
        Ok(Stream { state, low, key })
    }

    fn step(&self, frame: &Image, stream: &mut Stream) -> Result<Segmented> {
        let size = stream.frame_size();
        if frame.size() != size {
            return Err(Error::OtherSize { got: frame.size(), expected: size });
        }
        let low = self.tensor(frame, &stream.low)?;
        // A step that fails later on leaves the stream as it was.
        let mut state = stream.state.clone();
        let key = || self.tensor(frame, &stream.key).map_err(candle_core::Error::wrap);
        let step = on_pool(|| self.net.step(low, key, &mut state)).context("scores")?;
        let segmented = self.segmented(step, size)?;
        stream.state = state;
        Ok(segmented)
    }
}

impl<N: ScoreNet + Sync> Segmenter for GsvNetSeg<N> {
    type Error = Error;

    fn segment(&self, images: &[Image]) -> Result<Vec<SegMap>> {
        images
            .iter()
            .map(|image| {
                let stream = self.start(image.size())?;
                let key = self.tensor(image, &stream.key)?;
                let low = low_size(image.size());
                let scores = on_pool(|| self.net.key_scores(&key, low)).context("scores")?;
                let step = Step { scores, way: Way::Key(KeyReason::First) };
                Ok(self.segmented(step, image.size())?.map)
            })
            .collect()
    }
}
