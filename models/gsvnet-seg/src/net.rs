//! The whole net on tensors: Section 3, Figure 2.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, ScoreNet, Tally};
use zoo_kernels::{Interpolation, resize_argmax, resize2d};
use zoo_layers::{Statistics, layer_span};

use crate::config::{Channels, Config, PropagationConfig, SMALLEST, Schedule, low_size};
use crate::flow::FlowNet;
use crate::keyframe::KeyframeNet;
use crate::propagation::{DelayKernels, Propagated, Propagation, warp_scores};
use crate::stream::{KeyReason, Next, StreamState};

/// All resizing outside the key frames' net: centres of corner pixels meet.
pub(crate) const RESIZE: Interpolation = Interpolation::BilinearCorners;

/// A net for key frames, and what carries its scores on from frame to frame.
#[derive(Debug, Clone)]
pub struct GsvNet<N = KeyframeNet> {
    keyframe: N,
    flow: FlowNet,
    propagation: Propagation,
    channels: Channels,
    schedule: Schedule,
}

/// A frame's scores and how they came about.
#[derive(Debug, Clone)]
pub struct Step {
    /// Logits, `[B, classes, h, w]`: an eighth of the frame.
    pub scores: Tensor,
    /// How.
    pub way: Way,
}

/// How a frame got its scores.
#[derive(Debug, Clone)]
pub enum Way {
    /// From the key frames' net.
    Key(KeyReason),
    /// From the frame before.
    Propagated {
        /// `[B, 2, h, w]`, in the flow net's units.
        flow: Tensor,
        /// S⁻, `[B, classes, h, w]`.
        warped: Tensor,
        /// The rest.
        steps: Propagated,
    },
}

impl Step {
    /// Whether the frame went through the key frames' net, and why.
    pub fn key(&self) -> Option<KeyReason> {
        match self.way {
            Way::Key(reason) => Some(reason),
            Way::Propagated { .. } => None,
        }
    }

    /// The scores of a frame of `size`, `[B, classes, H, W]`.
    ///
    /// # Errors
    /// If a side is 0.
    pub fn full_scores(&self, size: FrameSize) -> Result<Tensor> {
        resized(&self.scores, size)
    }

    /// The class of each pixel of a frame of `size`: the scores resized, and the largest of them. u8, `[B, H, W]`.
    ///
    /// # Errors
    /// If there are more than 256 classes.
    pub fn labels(&self, size: FrameSize) -> Result<Tensor> {
        let _span = layer_span("labels");
        resize_argmax(&self.scores, (size.height, size.width), RESIZE)
    }
}

pub(crate) fn resized(map: &Tensor, FrameSize { height, width }: FrameSize) -> Result<Tensor> {
    resize2d(map, (height, width), RESIZE)
}

impl GsvNet<KeyframeNet> {
    /// With a net for key frames of this crate. `vb` holds that one under `segnet` and what [`GsvNet::around`]'s does.
    ///
    /// # Errors
    /// As there.
    pub fn new(cfg: &Config, schedule: Schedule, vb: VarBuilder) -> Result<Self> {
        let keyframe = KeyframeNet::new(&cfg.keyframe, vb.pp("segnet"))?;
        Self::around(keyframe, &cfg.propagation, schedule, vb)
    }

    /// Folds norms and packs weights, of the key frames' net too. Inference only.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.keyframe.prepare()?;
        self.prepare_propagation()
    }
}

impl<N: ScoreNet> GsvNet<N> {
    /// Around any net that scores classes, with ideal delay kernels. `vb` holds the flow net under `ofnet` and the rest
    /// under `grm`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn around(keyframe: N, cfg: &PropagationConfig, schedule: Schedule, vb: VarBuilder) -> Result<Self> {
        Self::of_parts(keyframe, cfg, schedule, vb.pp("ofnet"), vb.pp("grm"))
    }

    /// [`GsvNet::around`] with the flow net's tensors and the rest's by themselves.
    pub(crate) fn of_parts(
        keyframe: N,
        cfg: &PropagationConfig,
        schedule: Schedule,
        flow: VarBuilder,
        rest: VarBuilder,
    ) -> Result<Self> {
        schedule.validate().map_err(candle_core::Error::wrap)?;
        Ok(Self {
            flow: FlowNet::new(cfg.flow, flow)?,
            propagation: Propagation::new(cfg, keyframe.classes(), rest)?,
            keyframe,
            channels: cfg.channels,
            schedule,
        })
    }

    /// Takes the delay kernels of `vb`, which holds what [`GsvNet::around`]'s does; leaves the ideal ones if it has
    /// none.
    ///
    /// # Errors
    /// If they have another shape.
    pub fn load_kernels(&mut self, vb: &VarBuilder) -> Result<()> {
        let size = self.propagation.kernels().size();
        let kernels = DelayKernels::stored(size, vb.pp("grm").pp("ideal_dk"))?;
        self.propagation.set_kernels(kernels)
    }

    /// Folds norms and packs weights of everything but the key frames' net. Inference only.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare_propagation(&mut self) -> Result<()> {
        self.flow.prepare()?;
        self.propagation.prepare()
    }

    /// What the norms of everything but the key frames' net normalise by.
    pub fn set_statistics(&mut self, flow: Statistics, propagation: Statistics) {
        self.flow.set_statistics(flow);
        self.propagation.set_statistics(propagation);
    }

    /// The net for key frames.
    pub fn keyframe(&self) -> &N {
        &self.keyframe
    }

    /// The same, to prepare it.
    pub fn keyframe_mut(&mut self) -> &mut N {
        &mut self.keyframe
    }

    /// The flow net.
    pub fn flow_net(&self) -> &FlowNet {
        &self.flow
    }

    /// What filters warped scores.
    pub fn propagation(&self) -> &Propagation {
        &self.propagation
    }

    /// Which way round the nets' inputs are.
    pub fn channels(&self) -> Channels {
        self.channels
    }

    /// When key frames come.
    pub fn schedule(&self) -> &Schedule {
        &self.schedule
    }

    /// The same with other key frames.
    ///
    /// # Errors
    /// If the schedule cannot be kept.
    pub fn with_schedule(self, schedule: Schedule) -> crate::Result<Self> {
        schedule.validate()?;
        Ok(Self { schedule, ..self })
    }

    /// A stream of frames of `size`.
    ///
    /// # Errors
    /// If the frames are smaller than 32×32, or the key frames' net does not take them at its scale.
    pub fn start(&self, size: FrameSize) -> crate::Result<StreamState> {
        start(&self.keyframe, &self.schedule, size)
    }

    /// The next frame of a stream: `[B, 3, H, W]`, RGB, normalised as the key frames' net was trained with. The state
    /// is as before the call if it fails.
    ///
    /// # Errors
    /// If the frame's size is not the stream's.
    pub fn push(&self, frame: &Tensor, state: &mut StreamState) -> Result<Step> {
        state.check(frame)?;
        let size = state.frame_size();
        self.step(resized(frame, low_size(size))?, || resized(frame, self.schedule.scale.of(size)), state)
    }

    /// What the key frames' net makes of a frame, at its scale and in its own resolution.
    ///
    /// # Errors
    /// If the net does not take the frame.
    pub fn key_logits(&self, frame: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = frame.dims4()?;
        self.logits(&resized(frame, self.schedule.scale.of(FrameSize::new(h, w)))?)
    }

    /// The key frames' net on what it is to see, `[B, 3, H, W]`, RGB.
    fn logits(&self, seen: &Tensor) -> Result<Tensor> {
        self.keyframe.scores(&self.channels.keyframe.of_rgb(seen)?)
    }

    /// [`GsvNet::push`] of a frame in two sizes: its eighth, and what a key frame's net is given, which is asked for
    /// if it is one.
    ///
    /// # Errors
    /// If a shape is not what the stream's frames have, or `key` fails.
    pub fn step(
        &self,
        low: Tensor,
        key: impl FnOnce() -> Result<Tensor>,
        state: &mut StreamState,
    ) -> Result<Step> {
        let expected = low_size(state.frame_size());
        let (_, _, h, w) = low.dims4()?;
        if FrameSize::new(h, w) != expected {
            bail!("gsvnet: expected an eighth of the frame, {expected}, got {h}×{w}")
        }
        let low = self.channels.propagation.of_rgb(&low)?;
        let step = match state.next(&self.schedule, &low)? {
            Next::Key(reason) => Step { scores: self.key_scores(&key()?, expected)?, way: Way::Key(reason) },
            Next::From(last) => self.propagate(&low, &last.low, &last.map)?,
        };
        state.advance(step.scores.clone(), low, step.key().is_some());
        Ok(step)
    }

    /// The key frames' net on `frame`, `[B, 3, H, W]`, RGB. Result: logits of size `low`, `[B, classes, h, w]`.
    ///
    /// # Errors
    /// If the net does not take the frame.
    pub fn key_scores(&self, frame: &Tensor, low: FrameSize) -> Result<Tensor> {
        resized(&self.logits(frame)?, low)
    }

    /// Scores of a frame from those of the one before it. `low` and `before` are eighths of the two frames,
    /// `[B, 3, h, w]`, in the order of channels that the parts were trained with; `scores`: `[B, classes, h, w]`.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn propagate(&self, low: &Tensor, before: &Tensor, scores: &Tensor) -> Result<Step> {
        propagate((&self.flow, &self.propagation), low, before, scores)
    }

    /// Parameters and operations of a key frame of size `frame`.
    pub fn key_cost(&self, frame: FrameSize, tally: &mut Tally) {
        self.keyframe.tally(self.schedule.scale.of(frame), tally);
    }

    /// Parameters and operations of a frame between key frames.
    pub fn propagation_cost(&self, frame: FrameSize, tally: &mut Tally) {
        self.flow.cost(low_size(frame), tally);
        self.propagation.cost(low_size(frame), tally);
    }
}

/// [`GsvNet::propagate`] by the nets given.
pub(crate) fn propagate(
    (flow, propagation): (&FlowNet, &Propagation),
    low: &Tensor,
    before: &Tensor,
    scores: &Tensor,
) -> Result<Step> {
    let flow = flow.forward(low, before)?;
    let warped = warp_scores(scores, &flow)?;
    let steps = propagation.forward(low, &warped)?;
    Ok(Step { scores: steps.scores.clone(), way: Way::Propagated { flow, warped, steps } })
}

/// A stream of frames of `size`, whose key frames are `net`'s.
pub(crate) fn start(net: &impl ScoreNet, schedule: &Schedule, size: FrameSize) -> crate::Result<StreamState> {
    let key = schedule.scale.of(size);
    let smallest = key.height.min(key.width);
    if size.height < SMALLEST.height || size.width < SMALLEST.width || smallest < SMALLEST.height {
        return Err(crate::Error::FrameSize { got: size, key, smallest: SMALLEST });
    }
    net.check_input(key).map_err(|source| crate::Error::KeyFrameSize { frame: size, key, source })?;
    Ok(StreamState::new(size))
}
