use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Interpolation;
use zoo_layers::{NormActConv, Statistics};

use super::{FEATURES, LADDER_KERNEL, norm_relu_conv};
use crate::Probe;

/// The way back up (Section 3.4 of SwiftNet's paper): three times the coarse map is brought to the size of a finer one
/// of the encoder, whose channels are projected to as many, and their sum is convolved.
#[derive(Debug, Clone)]
pub struct Ladder {
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
struct Step {
    bottleneck: NormActConv,
    blend: NormActConv,
}

impl Ladder {
    /// For the encoder's maps of `channels`, coarse to fine; `vb` holds `0` … `2`.
    pub(super) fn new(channels: [usize; 3], vb: VarBuilder) -> Result<Self> {
        let step = |(i, channels): (usize, usize)| {
            let vb = vb.pp(i);
            Ok(Step {
                bottleneck: norm_relu_conv(channels, FEATURES, 1, vb.pp("bottleneck"))?,
                blend: norm_relu_conv(FEATURES, FEATURES, LADDER_KERNEL, vb.pp("blend_conv"))?,
            })
        };
        Ok(Self { steps: channels.into_iter().enumerate().map(step).collect::<Result<_>>()? })
    }

    /// Moves norms into the layers that make their inputs. A step's norm is over a sum: one addend, resized, is the
    /// result of `before` or of the last step, which is times the norm's scale from now on; the other is the
    /// bottleneck's, which does the rest.
    pub(super) fn join(&mut self, before: &mut NormActConv, after: &mut NormActConv) -> Result<()> {
        let mut producer = before;
        for Step { bottleneck, blend } in &mut self.steps {
            let entry = blend.hand_over()?;
            producer.take_in(&entry.scaling())?;
            bottleneck.take_in(&entry)?;
            producer = blend;
        }
        producer.take_in(&after.hand_over()?)
    }

    fn layers_mut(&mut self) -> impl Iterator<Item = &mut NormActConv> {
        self.steps.iter_mut().flat_map(|Step { bottleneck, blend }| [bottleneck, blend])
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.layers_mut().try_for_each(NormActConv::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.layers_mut().for_each(|layer| layer.set_statistics(statistics));
    }

    /// `xs`: `[B, 128, h, w]`; `maps`: the encoder's, coarse to fine. Result: 128 channels, sized as the last map.
    ///
    /// # Errors
    /// If a shape does not fit, and what the probe returns.
    pub fn forward(&self, xs: &Tensor, maps: [&Tensor; 3], probe: Probe) -> Result<Tensor> {
        let mut xs = xs.clone();
        for (i, (Step { bottleneck, blend }, map)) in self.steps.iter().zip(maps).enumerate() {
            xs = blend.forward(&bottleneck.lateral(map, &xs, Interpolation::Bilinear)?)?;
            probe(&format!("up{i}"), &xs)?;
        }
        Ok(xs)
    }

    pub(super) fn cost(&self, sizes: [FrameSize; 3], tally: &mut Tally) {
        for (Step { bottleneck, blend }, size) in self.steps.iter().zip(sizes) {
            bottleneck.cost(size, tally);
            blend.cost(size, tally);
        }
    }
}
