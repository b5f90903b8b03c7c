//! Images in, answers out: the nets with everything before and after them.

use std::borrow::Cow;
use std::sync::Arc;

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use zoo_core::{Detections, FrameSize, Image, SegClass, SegMap, Streaming};
use zoo_kernels::on_pool;
use zoo_vision::draw::class_color;

use crate::anchors::{Anchor, anchors, level_sizes};
use crate::config::{DetectorConfig, Mode, SegmenterConfig};
use crate::detector::{DetectorNet, RawDetections};
use crate::error::Context as _;
use crate::net::IMAGE_CELL;
use crate::postprocess::{Candidates, to_detections};
use crate::segmenter::{RawMask, SegmenterNet};
use crate::stream::{Pass, Preparation, Step, Stream};
use crate::{Error, Result, WindowedNet};

/// Logits of the mask's class at the threshold sigmoid = 0.5.
const MASK_THRESHOLD: f32 = 0.0;
/// What the segmenter tells apart.
static MASK_CLASSES: [SegClass; 2] =
    [SegClass::new("background", 0, [0; 3]), SegClass::new("object", 1, class_color(1))];

/// The Patchwork detector: net, preparation and decoding.
///
/// Single images through [`zoo_core::Detector`], video through [`Streaming`] with the
/// [`Mode`] that [`PatchworkDet::with_mode`] sets or [`PatchworkDet::start_with`] is given.
#[derive(Debug, Clone)]
pub struct PatchworkDet {
    net: DetectorNet,
    config: DetectorConfig,
    /// Of the configuration's frame, in the order of the predictions.
    anchors: Arc<[Anchor]>,
    device: Device,
    mode: Mode,
}

impl PatchworkDet {
    /// Builds the net from `vb`, on `vb`'s device.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a tensor is missing or has another shape.
    pub fn new(config: &DetectorConfig, vb: VarBuilder) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            device: vb.device().clone(),
            net: DetectorNet::new(config, vb).context("detector")?,
            anchors: frame_anchors(config),
            config: config.clone(),
            mode: Mode::SingleFrame,
        })
    }

    /// How streams spend their computation, for [`Streaming::start`].
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The size that frames are resized to, instead of the configuration's: any, but multiples of
    /// 32·M for windows.
    ///
    /// # Errors
    /// If the configuration is not valid with it.
    pub fn with_frame(mut self, frame: FrameSize) -> Result<Self> {
        self.config.frame = frame;
        self.config.validate()?;
        self.anchors = frame_anchors(&self.config);
        Ok(self)
    }

    /// Folds batch norm for inference; the loaders do.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> candle_core::Result<()> {
        self.net.prepare()
    }

    /// The net itself.
    pub fn net(&self) -> &DetectorNet {
        &self.net
    }

    /// What it was built from.
    pub fn config(&self) -> &DetectorConfig {
        &self.config
    }

    /// A stream in a given mode.
    ///
    /// # Errors
    /// If the mode does not suit the model or the frame.
    pub fn start_with(&self, source: FrameSize, mode: &Mode) -> Result<Stream<Detections>> {
        let DetectorConfig { resize, normalization, frame, .. } = self.config;
        Stream::new(&self.net, mode, source, frame, resize, normalization)
    }

    /// The single-frame result of the stream's image memory, the latest pixels of every window
    /// pasted together: what one cell at the input would see (supplement, Figure 11a), at the cost
    /// of a whole frame. `None` before the first windowed step.
    ///
    /// # Errors
    /// If the stream is one of another frame size, or the net cannot be run.
    pub fn composite(&self, stream: &Stream<Detections>) -> Result<Option<Detections>> {
        stream.check_frame(self.config.frame)?;
        let Some(image) = stream.memories().and_then(|m| m.get(IMAGE_CELL)) else { return Ok(None) };
        let raw = self.net.single_frame(image).context("composite image")?;
        self.decode(Pass { raw, mirrored: None }, stream.source_size()).map(Some)
    }

    fn decode(&self, pass: Pass<RawDetections>, source: FrameSize) -> Result<Detections> {
        let read = |raw: &RawDetections| {
            Candidates::decode(raw, 0, &self.anchors, &self.config.post).context("decoding")
        };
        let mut candidates = read(&pass.raw)?;
        if let Some(mirrored) = &pass.mirrored {
            candidates.extend_mirrored(read(mirrored)?);
        }
        let found = candidates.suppress(&self.config.post);
        Ok(to_detections(&found, source, &self.config.labels.labels()))
    }
}

impl zoo_core::Detector for PatchworkDet {
    type Error = Error;

    /// Single-frame detection of each image.
    fn detect(&self, images: &[Image]) -> Result<Vec<Detections>> {
        let DetectorConfig { resize, normalization, frame, .. } = self.config;
        images
            .iter()
            .map(|image| {
                let preparation = Preparation::new(image.size(), frame, resize, normalization)?;
                let raw = on_pool(|| {
                    let xs = preparation.frame(image, &self.device)?;
                    self.net.single_frame(&xs).context("single frame")
                })?;
                self.decode(Pass { raw, mirrored: None }, image.size())
            })
            .collect()
    }
}

impl Streaming for PatchworkDet {
    type State = Stream<Detections>;
    type Output = Step<Detections>;
    type Error = Error;

    fn start(&self, size: FrameSize) -> Result<Self::State> {
        self.start_with(size, &self.mode)
    }

    fn step(&self, frame: &Image, state: &mut Self::State) -> Result<Self::Output> {
        state.check_frame(self.config.frame)?;
        state.advance(
            &self.net,
            &self.device,
            frame,
            |pass, source| self.decode(pass, source),
            |source| Detections::new(source, vec![]),
        )
    }
}

fn frame_anchors(config: &DetectorConfig) -> Arc<[Anchor]> {
    let levels = level_sizes(config.frame);
    anchors(&levels, config.frame, &config.anchors, config.backbone.padding).into()
}

/// The Patchwork segmenter: one object against the background.
#[derive(Debug, Clone)]
pub struct PatchworkSeg {
    net: SegmenterNet,
    config: SegmenterConfig,
    device: Device,
    mode: Mode,
}

impl PatchworkSeg {
    /// Builds the net from `vb`, on `vb`'s device.
    ///
    /// # Errors
    /// If the configuration contradicts itself, or a tensor is missing or has another shape.
    pub fn new(config: &SegmenterConfig, vb: VarBuilder) -> Result<Self> {
        config.validate()?;
        Ok(Self {
            device: vb.device().clone(),
            net: SegmenterNet::new(config, vb).context("segmenter")?,
            config: config.clone(),
            mode: Mode::SingleFrame,
        })
    }

    /// How streams spend their computation, for [`Streaming::start`].
    pub fn with_mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// The size that frames are resized to, instead of the configuration's: multiples of 32, of
    /// 32·M for windows.
    ///
    /// # Errors
    /// If the configuration is not valid with it.
    pub fn with_frame(mut self, frame: FrameSize) -> Result<Self> {
        self.config.frame = frame;
        self.config.validate()?;
        Ok(self)
    }

    /// Folds batch norm for inference; the loaders do.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> candle_core::Result<()> {
        self.net.prepare()
    }

    /// The net itself.
    pub fn net(&self) -> &SegmenterNet {
        &self.net
    }

    /// What it was built from.
    pub fn config(&self) -> &SegmenterConfig {
        &self.config
    }

    /// A stream in a given mode.
    ///
    /// # Errors
    /// If the mode does not suit the model or the frame.
    pub fn start_with(&self, source: FrameSize, mode: &Mode) -> Result<Stream<SegMap>> {
        let SegmenterConfig { resize, normalization, frame, .. } = self.config;
        Stream::new(&self.net, mode, source, frame, resize, normalization)
    }

    fn decode(&self, pass: Pass<RawMask>, source: FrameSize) -> Result<SegMap> {
        mask(&pass, source).context("mask")
    }
}

impl zoo_core::Segmenter for PatchworkSeg {
    type Error = Error;

    /// Single-frame segmentation of each image.
    fn segment(&self, images: &[Image]) -> Result<Vec<SegMap>> {
        let SegmenterConfig { resize, normalization, frame, .. } = self.config;
        images
            .iter()
            .map(|image| {
                let preparation = Preparation::new(image.size(), frame, resize, normalization)?;
                let raw = on_pool(|| {
                    let xs = preparation.frame(image, &self.device)?;
                    self.net.single_frame(&xs).context("single frame")
                })?;
                self.decode(Pass { raw, mirrored: None }, image.size())
            })
            .collect()
    }
}

impl Streaming for PatchworkSeg {
    type State = Stream<SegMap>;
    type Output = Step<SegMap>;
    type Error = Error;

    fn start(&self, size: FrameSize) -> Result<Self::State> {
        self.start_with(size, &self.mode)
    }

    fn step(&self, frame: &Image, state: &mut Self::State) -> Result<Self::Output> {
        state.check_frame(self.config.frame)?;
        state.advance(
            &self.net,
            &self.device,
            frame,
            |pass, source| self.decode(pass, source),
            |source| two_class_map(source, vec![0; source.area()]),
        )
    }
}

fn two_class_map(size: FrameSize, classes: Vec<u8>) -> SegMap {
    SegMap { size, classes, legend: Cow::Borrowed(&MASK_CLASSES) }
}

/// The object's mask at the source's size: logits (their mean over both views) resized bilinearly,
/// half-pixel centres; never-seen cells are background.
fn mask(pass: &Pass<RawMask>, source: FrameSize) -> candle_core::Result<SegMap> {
    let FrameSize { height, width } = source;
    let logits = match &pass.mirrored {
        Some(mirrored) => ((&pass.raw.logits + mirrored.logits.flip(&[3])?)? / 2.0)?,
        None => pass.raw.logits.clone(),
    };
    let object = logits.narrow(1, 0, 1)?.to_dtype(DType::F32)?.contiguous()?;
    let scores = object.upsample_bilinear2d(height, width, false)?.flatten_all()?.to_vec1::<f32>()?;
    let seen = pass.raw.seen.to_dtype(DType::F32)?.contiguous()?;
    let seen = seen.upsample_nearest2d(height, width)?.flatten_all()?.to_vec1::<f32>()?;
    let classes = scores
        .iter()
        .zip(&seen)
        .map(|(&score, &seen)| u8::from(seen > 0.0 && score >= MASK_THRESHOLD))
        .collect();
    Ok(two_class_map(source, classes))
}
