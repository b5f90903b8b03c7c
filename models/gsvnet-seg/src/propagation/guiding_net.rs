//! G, the guiding net: each pixel's weights of the candidates, from f and the edges.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Interpolation, add_maps, concat_channels};
use zoo_layers::{ConvNormAct, ConvSpec, Statistics, resize_like};

use crate::config::BN_EPS;

/// Channels at an eighth, a sixteenth and a thirty-second of the frame.
const CHANNELS: [usize; 3] = [32, 64, 128];
/// How maps are enlarged.
const ENLARGED: Interpolation = Interpolation::BilinearCorners;

/// Two steps down, two up, and a skip connection.
#[derive(Debug, Clone)]
pub struct GuidingNet {
    first: ConvNormAct,
    down: [ConvNormAct; 2],
    up: [ConvNormAct; 2],
    decoder: ConvNormAct,
}

impl GuidingNet {
    /// For so many classes and candidates. `vb` holds `guide_conv`, `guide_conv_feat`, `guide_deconv` and
    /// `guide_decoder`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(classes: usize, candidates: usize, vb: VarBuilder) -> Result<Self> {
        let layer = |name: &str, at: usize, inputs, outputs, stride| {
            let spec = ConvSpec::dense3(inputs, outputs, stride, BN_EPS, Activation::Relu);
            let vb = vb.pp(name);
            ConvNormAct::biased_norm(spec, vb.pp(at), vb.pp(at + 1))
        };
        let [eighth, sixteenth, last] = CHANNELS;
        Ok(Self {
            first: layer("guide_conv", 0, classes + 1, eighth, 1)?,
            down: [
                layer("guide_conv_feat", 0, eighth, sixteenth, 2)?,
                layer("guide_conv_feat", 3, sixteenth, last, 2)?,
            ],
            up: [
                layer("guide_deconv", 1, last, sixteenth, 1)?,
                layer("guide_deconv", 5, sixteenth, eighth, 1)?,
            ],
            decoder: layer("guide_decoder", 0, eighth, candidates, 1)?,
        })
    }

    fn layers(&mut self) -> impl Iterator<Item = &mut ConvNormAct> {
        [&mut self.first, &mut self.decoder].into_iter().chain(&mut self.down).chain(&mut self.up)
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.layers().try_for_each(ConvNormAct::prepare)
    }

    pub(super) fn set_statistics(&mut self, statistics: Statistics) {
        self.layers().for_each(|layer| layer.set_statistics(statistics));
    }

    /// `intra`: f, `[B, classes, h, w]`; `edges`: `[B, 1, h, w]`. Result: `[B, candidates, h, w]`, not negative.
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn forward(&self, intra: &Tensor, edges: &Tensor) -> Result<Tensor> {
        self.forward_probed(intra, edges, &mut |_, _| Ok(()))
    }

    /// [`GuidingNet::forward`], showing `g0`, `e1`, `e2`, `u1` and `u2`.
    pub(crate) fn forward_probed(
        &self,
        intra: &Tensor,
        edges: &Tensor,
        probe: crate::Probe,
    ) -> Result<Tensor> {
        let [down1, down2] = &self.down;
        let [up1, up2] = &self.up;
        let g0 = self.first.forward(&concat_channels(&[intra, edges])?)?;
        probe("g0", &g0)?;
        let e1 = down1.forward(&g0)?;
        probe("e1", &e1)?;
        let e2 = down2.forward(&e1)?;
        probe("e2", &e2)?;
        // To the size of the map on the same level, where the authors' code doubles: that needs frames of whole
        // multiples of 32, and is the same there.
        let u1 = up1.forward(&resize_like(&e2, &e1, ENLARGED)?)?;
        probe("u1", &u1)?;
        let u2 = up2.forward(&resize_like(&u1, &g0, ENLARGED)?)?;
        probe("u2", &u2)?;
        self.decoder.forward(&add_maps(&g0, &u2)?)
    }

    pub(super) fn cost(&self, low: FrameSize, tally: &mut Tally) {
        let [down1, down2] = &self.down;
        let [up1, up2] = &self.up;
        let eighth = self.first.cost(low, tally);
        let sixteenth = down1.cost(eighth, tally);
        down2.cost(sixteenth, tally);
        up1.cost(sixteenth, tally);
        up2.cost(eighth, tally);
        self.decoder.cost(eighth, tally);
    }
}
