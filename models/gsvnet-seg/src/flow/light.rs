//! The light flow net: Figure A8.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, add_maps, concat_channels};
use zoo_layers::{ConvNormAct, ConvSpec, Statistics};

use crate::config::BN_EPS;

/// Channels of the first layer and of all others.
const CHANNELS: (usize, usize) = (32, 64);
/// Reaches of the parallel layers.
const DILATIONS: [usize; 4] = [1, 2, 4, 8];
const ACT: Activation = Activation::LeakyRelu(0.1);

/// Two layers of stride 2, four parallel dilated ones whose results are added up one after the other and then merged,
/// and the flow.
///
/// Figure A8 has 3×3 in all but two blocks; in the authors' code the merge is 1×1.
#[derive(Debug, Clone)]
pub struct LightFlow {
    conv1: ConvNormAct,
    conv2: ConvNormAct,
    dilated: Vec<ConvNormAct>,
    merge: ConvNormAct,
    to_flow: ConvNormAct,
}

impl LightFlow {
    pub(super) fn new(vb: VarBuilder) -> Result<Self> {
        let layer = |name: &str, spec: ConvSpec| {
            let vb = vb.pp(name);
            ConvNormAct::biased_norm(spec, vb.pp(0), vb.pp(1))
        };
        let (first, wide) = CHANNELS;
        let dense = |inputs, outputs, stride| ConvSpec::dense3(inputs, outputs, stride, BN_EPS, ACT);
        let dilated = DILATIONS.iter().enumerate().map(|(i, &dilation)| {
            layer(&format!("conv_dilate_{}", i + 1), dense(wide, wide, 1).dilated(dilation))
        });
        Ok(Self {
            conv1: layer("conv1", dense(6, first, 2))?,
            conv2: layer("conv2", dense(first, wide, 2))?,
            dilated: dilated.collect::<Result<_>>()?,
            merge: layer("conv_merge", ConvSpec::pointwise(DILATIONS.len() * wide, wide, BN_EPS, ACT))?,
            to_flow: ConvNormAct::biased(
                ConvSpec::dense3(wide, 2, 1, BN_EPS, Activation::None),
                vb.pp("toflow"),
            )?,
        })
    }

    fn layers(&mut self) -> impl Iterator<Item = &mut ConvNormAct> {
        [&mut self.conv1, &mut self.conv2, &mut self.merge, &mut self.to_flow]
            .into_iter()
            .chain(&mut self.dilated)
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.layers().try_for_each(ConvNormAct::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.layers().for_each(|layer| layer.set_statistics(statistics));
    }

    /// `[B, 6, h, w]`, the frame before its predecessor. Result: `[B, 2, h/4, w/4]`, rounded up.
    pub(super) fn forward(&self, frames: &Tensor) -> Result<Tensor> {
        self.forward_probed(frames, &mut |_, _| Ok(()))
    }

    /// [`LightFlow::forward`], showing `conv1`, `conv2`, `x1` … `x4` and `merged`.
    pub(crate) fn forward_probed(&self, frames: &Tensor, probe: crate::Probe) -> Result<Tensor> {
        let xs = self.conv1.forward(frames)?;
        probe("conv1", &xs)?;
        let xs = self.conv2.forward(&xs)?;
        probe("conv2", &xs)?;
        let mut sums: Vec<Tensor> = Vec::with_capacity(DILATIONS.len());
        for (i, layer) in self.dilated.iter().enumerate() {
            let ys = layer.forward(&xs)?;
            let sum = match sums.last() {
                Some(before) => add_maps(&ys, before)?,
                None => ys,
            };
            probe(&format!("x{}", i + 1), &sum)?;
            sums.push(sum);
        }
        // No activation follows the sum.
        let merged = self.merge.forward(&concat_channels(&sums.iter().collect::<Vec<_>>())?)?;
        let merged = add_maps(&merged, &xs)?;
        probe("merged", &merged)?;
        self.to_flow.forward(&merged)
    }

    pub(super) fn cost(&self, low: FrameSize, tally: &mut Tally) {
        let size = self.conv1.cost(low, tally);
        let size = self.conv2.cost(size, tally);
        for layer in &self.dilated {
            layer.cost(size, tally);
        }
        self.merge.cost(size, tally);
        self.to_flow.cost(size, tally);
    }
}
