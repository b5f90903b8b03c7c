//! The paper's baselines beside it in `zoo bench gsvnet-seg`: Accel around BiSeNet.

use std::time::Instant;

use anyhow::Result;
use candle_core::{Device, Tensor};
use gsvnet_seg::keyframe::BiSeNet;
use gsvnet_seg::{
    Accel, AccelConfig, FrameSize, Image, KeyframeConfig, KeyframeKind, PictureConfig, Preset, Schedule,
    StreamState,
};
use serde::Serialize;
use zoo_kernels::on_pool;
use zoo_metrics::latency::{Distribution, Timings};

use super::usage;
use crate::models::random_weights;

/// Section 4 of the paper: a light flow net and three layers for the update, or FlowNetS and a second BiSeNet.
const BASELINES: [Named; 2] = [("A-Lite", AccelConfig::lite), ("A-X39", AccelConfig::x39)];

/// A name, and what it is built of.
type Named = (&'static str, fn() -> AccelConfig);

/// A baseline that is timed.
pub struct Baseline {
    name: &'static str,
    net: Accel<BiSeNet>,
    pictures: PictureConfig,
    state: StreamState,
    key: Timings,
    between: Timings,
}

/// What was measured of one: frame in, labels of all its pixels out.
#[derive(Serialize)]
pub struct BaselineTimes {
    pub name: &'static str,
    pub key_ms: Distribution,
    pub between_ms: Distribution,
    /// Median over its own key frame's.
    pub share: f64,
}

impl Baseline {
    /// All of them, with random weights, for frames of `frame` and a preset's classes.
    pub fn all(preset: Preset, frame: FrameSize, warm_up: usize, device: &Device) -> Result<Vec<Self>> {
        let build = |(name, config): (&'static str, fn() -> AccelConfig)| {
            let vb = random_weights(0, device);
            let reference = KeyframeConfig::new(KeyframeKind::BisenetR18, preset.config().keyframe.classes);
            let reference = BiSeNet::new(&reference, vb.pp("reference"))?;
            let mut net = Accel::around(reference, &config(), Schedule::every(usize::MAX), vb)?;
            net.reference_mut().prepare()?;
            net.prepare_between()?;
            let state = net.start(frame).map_err(usage)?;
            let (key, between) = (Timings::new(warm_up), Timings::new(warm_up));
            Ok(Self { name, net, pictures: preset.pictures(), state, key, between })
        };
        BASELINES.into_iter().map(build).collect()
    }

    /// A frame as a key frame, and as one between key frames.
    pub fn step(&mut self, image: &Image) -> Result<()> {
        let size = image.size();
        let labels = |state: &mut StreamState| {
            on_pool(|| -> Result<Tensor> {
                let frame = self.pictures.normalization.tensor(image, &Device::Cpu)?;
                Ok(self.net.push(&frame, state)?.labels(size)?)
            })
        };
        let mut first = self.net.start(size).map_err(usage)?;
        let started = Instant::now();
        labels(&mut first)?;
        self.key.push(started.elapsed());
        if self.state.since_key().is_none() {
            self.state = first;
        }
        let started = Instant::now();
        labels(&mut self.state)?;
        self.between.push(started.elapsed());
        Ok(())
    }

    /// The times, if there are any.
    pub fn times(&self) -> Option<BaselineTimes> {
        let (key_ms, between_ms) = (self.key.distribution()?, self.between.distribution()?);
        let share = between_ms.median / key_ms.median;
        Some(BaselineTimes { name: self.name, key_ms, between_ms, share })
    }
}
