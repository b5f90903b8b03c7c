use candle_core::Tensor;
use serde::Serialize;

use crate::{Cost, Detections, FrameSize, Image, SegMap, Tally, WeightSpec};

/// One level of a backbone's feature pyramid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FeatureInfo {
    /// Channels of the map.
    pub channels: usize,
    /// Input pixels per feature cell along each side.
    pub reduction: usize,
    /// The layer that the map comes from, by its checkpoint name.
    pub name: String,
}

/// A net that turns an image into feature maps for a head to read.
pub trait Backbone {
    /// `xs`: `[B, 3, H, W]`, normalised. One map a level, finest first, as [`Backbone::info`] lists them.
    ///
    /// # Errors
    /// If the input's shape does not fit the net.
    fn features(&self, xs: &Tensor) -> candle_core::Result<Vec<Tensor>>;

    /// What [`Backbone::features`] returns, level by level.
    fn info(&self) -> &[FeatureInfo];
}

/// A net that scores each class at each pixel, in whatever resolution: what a video model asks of the net for its key
/// frames.
pub trait ScoreNet {
    /// Classes that it scores.
    fn classes(&self) -> usize;

    /// Whether the net takes images of this size.
    ///
    /// # Errors
    /// If not, with what it takes.
    fn check_input(&self, size: FrameSize) -> candle_core::Result<()>;

    /// `xs`: `[B, 3, H, W]`, RGB, normalised. Result: logits, `[B, classes, h, w]`.
    ///
    /// # Errors
    /// If the input's shape does not fit the net.
    fn scores(&self, xs: &Tensor) -> candle_core::Result<Tensor>;

    /// Counts the layers of a pass over an image of `input`.
    fn tally(&self, input: FrameSize, tally: &mut Tally);
}

/// Images in, boxes out.
pub trait Detector {
    /// The error of a run.
    type Error;

    /// Finds objects in each image. Images may differ in size; results keep the order and are in
    /// pixels of each original.
    ///
    /// # Errors
    /// If an image cannot be processed.
    fn detect(&self, images: &[Image]) -> Result<Vec<Detections>, Self::Error>;
}

/// Images in, a class per pixel out.
pub trait Segmenter {
    /// The error of a run.
    type Error;

    /// Labels each pixel of each image, at its original size.
    ///
    /// # Errors
    /// If an image cannot be processed.
    fn segment(&self, images: &[Image]) -> Result<Vec<SegMap>, Self::Error>;
}

/// A video model. What it remembers lives in the caller's `State`, so that one model serves many
/// streams, and a clone of the state replays identically.
pub trait Streaming {
    /// What a stream remembers between frames.
    type State: Clone;
    /// What one frame gives.
    type Output;
    /// The error of a step.
    type Error;

    /// A fresh stream for frames of `size`.
    ///
    /// # Errors
    /// If the model cannot take frames of this size.
    fn start(&self, size: FrameSize) -> Result<Self::State, Self::Error>;

    /// Processes the next frame of the stream.
    ///
    /// # Errors
    /// If the frame's size is not the stream's. The state is as before the call then.
    fn step(&self, frame: &Image, state: &mut Self::State) -> Result<Self::Output, Self::Error>;
}

/// What `zoo info` says of one preset of a model.
#[derive(Debug, Clone, Serialize)]
pub struct ModelInfo {
    /// `crate/preset`, as the command line takes it.
    pub name: String,
    /// One line on what it is.
    pub summary: String,
    /// What it does: `detection`, `segmentation`, `classification`.
    pub task: &'static str,
    /// Input size that the counts hold for.
    pub input: FrameSize,
    /// Counted by walking the built modules.
    pub cost: Cost,
    /// Weights that fit it, published or not.
    pub weights: Vec<WeightSpec>,
}
