//! Optical flow O, from a frame back to the one before it: Section 3.2, Figure A8.

mod flownet_s;
mod light;

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Interpolation, resize2d};
use zoo_layers::Statistics;

pub use flownet_s::FlowNetS;
pub use light::LightFlow;

/// What a flow net's values are divided by to be pixels of an eighth of the frame. The nets' maps are smaller than
/// that and are resized; the values are not scaled along.
pub const FLOW_DIVISOR: f64 = 4.0;

/// Which flow net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum FlowKind {
    /// The paper's own light net.
    #[default]
    Light,
    /// FlowNet2's FlowNetS ("Ours-FlowNet"): nearly a hundred times the parameters of all nets between key frames.
    FlownetS,
}

/// A flow net.
#[derive(Debug, Clone)]
pub enum FlowNet {
    /// See [`LightFlow`].
    Light(Box<LightFlow>),
    /// See [`FlowNetS`].
    FlowNetS(Box<FlowNetS>),
}

impl FlowNet {
    /// `vb` holds the net's layers by the names of its code.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(kind: FlowKind, vb: VarBuilder) -> Result<Self> {
        Ok(match kind {
            FlowKind::Light => Self::Light(Box::new(LightFlow::new(vb)?)),
            FlowKind::FlownetS => Self::FlowNetS(Box::new(FlowNetS::new(vb)?)),
        })
    }

    /// Folds norms and packs weights. Inference only.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        match self {
            Self::Light(net) => net.prepare(),
            Self::FlowNetS(net) => net.prepare(),
        }
    }

    /// What the norms normalise by; FlowNetS has none.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        if let Self::Light(net) = self {
            net.set_statistics(statistics);
        }
    }

    /// The flow from `now` to `before`, both `[B, 3, h, w]`: an eighth of the frames, normalised, in the order of
    /// channels that the net was trained with. Result: `[B, 2, h, w]` (x to the right, y down), in the net's units:
    /// [`FLOW_DIVISOR`] to a pixel of `now`.
    ///
    /// # Errors
    /// If the shapes differ, or are too small for the net.
    pub fn forward(&self, now: &Tensor, before: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = now.dims4()?;
        let flow = match self {
            Self::Light(net) => net.forward(&Tensor::cat(&[now, before], 1)?)?,
            Self::FlowNetS(net) => net.forward(&Tensor::cat(&[before, now], 1)?)?,
        };
        resize2d(&flow, (h, w), Interpolation::BilinearCorners)
    }

    /// Counts the layers for frames of which an eighth is `low`.
    pub fn cost(&self, low: FrameSize, tally: &mut Tally) {
        match self {
            Self::Light(net) => net.cost(low, tally),
            Self::FlowNetS(net) => net.cost(low, tally),
        }
    }
}
