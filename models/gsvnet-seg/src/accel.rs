//! The baselines that the paper compares with in Section 4, A-Lite and A-X39: S. Jain, X. Wang, J. Gonzalez, "Accel: A
//! Corrective Fusion Network for Efficient Semantic Segmentation on Video", CVPR 2019, with lighter parts.
//!
//! A reference net's features are moved along flow from frame to frame, and its head scores them where they come to lie;
//! an update branch scores each frame by itself; a 1×1 convolution joins the two.
//!
//! | | A-Lite | A-X39 |
//! |---|---|---|
//! | reference | BiSeNet on ResNet-18 | the same |
//! | flow | the paper's light net | FlowNet2's FlowNetS |
//! | update branch | the three layers of φ | BiSeNet on Xception39 |
//!
//! Nobody has published weights of these, nor code: they are built from the paper's description, and have been run on
//! random weights alone.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{FrameSize, ScoreNet, Tally};
use zoo_kernels::{concat_channels, resize_argmax};
use zoo_layers::{Pointwise, Statistics, layer_span, resize_like};

use crate::config::{Channels, Schedule, low_size};
use crate::flow::{FlowKind, FlowNet};
use crate::keyframe::{KeyframeConfig, KeyframeKind, KeyframeNet};
use crate::net::{RESIZE, resized, start};
use crate::propagation::{IntraNet, warp_scores};
use crate::stream::{KeyReason, Next, StreamState};

/// A net whose scores are what a head reads from a map.
pub trait FeatureNet: ScoreNet {
    /// The map that the head reads. `xs`: `[B, 3, H, W]`, RGB, normalised. Result: `[B, channels, h, w]`.
    ///
    /// # Errors
    /// If the input's shape does not fit the net.
    fn features(&self, xs: &Tensor) -> Result<Tensor>;

    /// The head: logits of such a map, `[B, classes, h, w]`.
    ///
    /// # Errors
    /// If the channels do not fit.
    fn classify(&self, features: &Tensor) -> Result<Tensor>;

    /// Counts the head's layers for images of `input`.
    fn tally_head(&self, input: FrameSize, tally: &mut Tally);
}

/// What scores a frame by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum UpdateKind {
    /// The three layers of φ, at an eighth of the frame.
    Intra,
    /// BiSeNet on Xception39, at the key frames' scale.
    BisenetX39,
}

/// What is built beside the reference net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccelConfig {
    /// The flow net.
    pub flow: FlowKind,
    /// The update branch.
    pub update: UpdateKind,
    /// Which way round the nets' inputs are.
    #[serde(default)]
    pub channels: Channels,
}

impl AccelConfig {
    /// A-Lite.
    pub fn lite() -> Self {
        Self { flow: FlowKind::Light, update: UpdateKind::Intra, channels: Channels::default() }
    }

    /// A-X39.
    pub fn x39() -> Self {
        Self { flow: FlowKind::FlownetS, update: UpdateKind::BisenetX39, channels: Channels::default() }
    }
}

/// The update branch.
#[derive(Debug, Clone)]
enum Update {
    Intra(Box<IntraNet>),
    Net(Box<KeyframeNet>),
}

/// Accel around a reference net.
#[derive(Debug, Clone)]
pub struct Accel<R> {
    reference: R,
    flow: FlowNet,
    update: Update,
    fusion: Pointwise,
    channels: Channels,
    schedule: Schedule,
}

/// A frame's scores and how they came about. All are `[B, ·, h, w]`.
#[derive(Debug, Clone)]
pub struct AccelStep {
    /// Logits of an eighth of the frame.
    pub scores: Tensor,
    /// The reference net's features: of the frame if it is a key frame, else moved to where they belong in it.
    pub features: Tensor,
    /// Why it is a key frame, if it is one.
    pub key: Option<KeyReason>,
}

impl AccelStep {
    /// The class of each pixel of a frame of `size`: u8, `[B, H, W]`.
    ///
    /// # Errors
    /// If there are more than 256 classes.
    pub fn labels(&self, size: FrameSize) -> Result<Tensor> {
        resize_argmax(&self.scores, (size.height, size.width), RESIZE)
    }
}

/// The weight that the fusion begins its training with, `[classes, 2 · classes, 1, 1]`: half of each branch's score. Its
/// bias begins at 0.
///
/// # Errors
/// If candle cannot make it.
pub fn mean_fusion(classes: usize, dtype: DType, device: &Device) -> Result<Tensor> {
    let half = (Tensor::eye(classes, dtype, device)? * 0.5)?;
    Tensor::cat(&[&half, &half], 1)?.reshape((classes, 2 * classes, 1, 1))
}

impl<R: FeatureNet> Accel<R> {
    /// `vb` holds the flow net under `ofnet`, the update branch under `update` and the fusion under `fusion`: names of
    /// ours, for there are no others.
    ///
    /// # Errors
    /// If the schedule cannot be kept, or a tensor is missing or has another shape.
    pub fn around(reference: R, cfg: &AccelConfig, schedule: Schedule, vb: VarBuilder) -> Result<Self> {
        schedule.validate().map_err(candle_core::Error::wrap)?;
        let (classes, update) = (reference.classes(), vb.pp("update"));
        Ok(Self {
            flow: FlowNet::new(cfg.flow, vb.pp("ofnet"))?,
            update: match cfg.update {
                UpdateKind::Intra => Update::Intra(Box::new(IntraNet::new(classes, update)?)),
                UpdateKind::BisenetX39 => {
                    let cfg = KeyframeConfig::new(KeyframeKind::BisenetX39, classes);
                    Update::Net(Box::new(KeyframeNet::new(&cfg, update)?))
                }
            },
            fusion: Pointwise::new(2 * classes, classes, vb.pp("fusion"))?,
            reference,
            channels: cfg.channels,
            schedule,
        })
    }

    /// Folds norms and packs weights of everything but the reference net. Inference only.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare_between(&mut self) -> Result<()> {
        self.flow.prepare()?;
        match &mut self.update {
            Update::Intra(net) => net.prepare()?,
            Update::Net(net) => net.prepare()?,
        }
        self.fusion.prepare()
    }

    /// What the norms of everything but the reference net normalise by.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.flow.set_statistics(statistics);
        match &mut self.update {
            Update::Intra(net) => net.set_statistics(statistics),
            Update::Net(net) => net.set_statistics(statistics),
        }
    }

    /// The reference net.
    pub fn reference(&self) -> &R {
        &self.reference
    }

    /// The same, to prepare it.
    pub fn reference_mut(&mut self) -> &mut R {
        &mut self.reference
    }

    /// When key frames come.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// A stream of frames of `size`.
    ///
    /// # Errors
    /// As [`GsvNet::start`](crate::GsvNet::start).
    pub fn start(&self, size: FrameSize) -> crate::Result<StreamState> {
        start(&self.reference, &self.schedule, size)
    }

    /// The next frame of a stream: `[B, 3, H, W]`, RGB, normalised as the nets were trained with. The state is as before
    /// the call if it fails.
    ///
    /// # Errors
    /// If the frame's size is not the stream's.
    pub fn push(&self, frame: &Tensor, state: &mut StreamState) -> Result<AccelStep> {
        state.check(frame)?;
        let size = state.frame_size();
        let eighth = low_size(size);
        let seen = || self.channels.keyframe.of_rgb(&resized(frame, self.schedule.scale.of(size))?);
        let low = self.channels.propagation.of_rgb(&resized(frame, eighth)?)?;
        let step = match state.next(&self.schedule, &low)? {
            Next::Key(reason) => {
                let features = self.reference.features(&seen()?)?;
                let scores = resized(&self.reference.classify(&features)?, eighth)?;
                AccelStep { scores, features, key: Some(reason) }
            }
            Next::From(last) => {
                let features = self.moved(&last.map, &self.flow.forward(&low, &last.low)?)?;
                let reference = resized(&self.reference.classify(&features)?, eighth)?;
                let update = match &self.update {
                    Update::Intra(net) => net.forward(&low)?,
                    Update::Net(net) => resized(&net.scores(&seen()?)?, eighth)?,
                };
                let _span = layer_span("fusion");
                let scores = self.fusion.forward(&concat_channels(&[&reference, &update])?)?;
                AccelStep { scores, features, key: None }
            }
        };
        state.advance(step.features.clone(), low, step.key.is_some());
        Ok(step)
    }

    /// Features along a flow of whatever size. As everywhere in the paper's code, the flow is resized and its values are
    /// not.
    fn moved(&self, features: &Tensor, flow: &Tensor) -> Result<Tensor> {
        warp_scores(features, &resize_like(flow, features, RESIZE)?)
    }

    /// Parameters and operations of a key frame of size `frame`.
    pub fn key_cost(&self, frame: FrameSize, tally: &mut Tally) {
        self.reference.tally(self.schedule.scale.of(frame), tally);
    }

    /// Parameters and operations of a frame between key frames, the reference's head among them.
    pub fn between_cost(&self, frame: FrameSize, tally: &mut Tally) {
        let (low, seen) = (low_size(frame), self.schedule.scale.of(frame));
        self.flow.cost(low, tally);
        self.reference.tally_head(seen, tally);
        match &self.update {
            Update::Intra(net) => net.cost(low, tally),
            Update::Net(net) => net.tally(seen, tally),
        }
        self.fusion.cost(low, tally);
    }
}
