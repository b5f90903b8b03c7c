use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec, DeformableConv, GroupNorm};

use crate::config::{GN_EPS, GN_GROUPS};

/// The epsilon of convolutions without a batch norm.
pub(super) const NO_EPS: f64 = 0.0;

/// Convolution with a bias → group norm → ReLU.
#[derive(Debug, Clone)]
pub(super) struct ConvBlock {
    conv: Conv,
    norm: GroupNorm,
}

#[derive(Debug, Clone)]
enum Conv {
    Plain(Box<ConvNormAct>),
    Deformable(Box<DeformableConv>),
}

impl ConvBlock {
    /// From `inputs` to `outputs` channels; the places of the two layers.
    pub(super) fn new(
        (inputs, outputs, kernel): (usize, usize, usize),
        is_deformable: bool,
        conv: VarBuilder,
        norm: VarBuilder,
    ) -> Result<Self> {
        let spec = ConvSpec::dense(inputs, outputs, kernel, 1, NO_EPS, Activation::None);
        let conv = if is_deformable {
            Conv::Deformable(Box::new(DeformableConv::biased(spec, conv)?))
        } else {
            Conv::Plain(Box::new(ConvNormAct::biased(spec, conv)?))
        };
        Ok(Self { conv, norm: GroupNorm::new(GN_GROUPS, outputs, GN_EPS, Activation::Relu, norm)? })
    }

    /// Both below one name, `conv` and `gn`.
    pub(super) fn named(shape: (usize, usize, usize), is_deformable: bool, vb: VarBuilder) -> Result<Self> {
        Self::new(shape, is_deformable, vb.pp("conv"), vb.pp("gn"))
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.norm.prepare();
        match &mut self.conv {
            Conv::Plain(conv) => conv.prepare(),
            Conv::Deformable(conv) => conv.prepare(),
        }
    }

    fn convolve(&self, xs: &Tensor) -> Result<Tensor> {
        match &self.conv {
            Conv::Plain(conv) => conv.forward(xs),
            Conv::Deformable(conv) => conv.forward(xs),
        }
    }

    /// `[B, C, H, W]` → `[B, C', H, W]`.
    pub(super) fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        self.norm.forward(&self.convolve(xs)?, None)
    }

    /// Of several maps, each plus its addend where there are addends; the norm by the statistics of all of them if they
    /// are `joint`, else by each one's own.
    pub(super) fn forward_all(
        &self,
        maps: &[Tensor],
        addends: &[Tensor],
        joint: bool,
    ) -> Result<Vec<Tensor>> {
        if joint {
            let maps = maps.iter().map(|map| self.convolve(map)).collect::<Result<Vec<_>>>()?;
            return self.norm.forward_jointly(&maps, addends);
        }
        let each = maps.iter().enumerate();
        each.map(|(i, map)| self.norm.forward(&self.convolve(map)?, addends.get(i))).collect()
    }

    pub(super) fn cost(&self, input: FrameSize, tally: &mut Tally) {
        match &self.conv {
            Conv::Plain(conv) => conv.cost(input, tally),
            Conv::Deformable(conv) => conv.cost(input, tally),
        };
        self.norm.cost(tally);
    }
}

/// Counts what runs on maps of all these sizes with the same weights.
pub(super) fn cost_shared(sizes: &[FrameSize], tally: &mut Tally, cost: impl Fn(FrameSize, &mut Tally)) {
    for (i, &size) in sizes.iter().enumerate() {
        let mut own = Tally::new();
        cost(size, &mut own);
        for layer in own.layers() {
            let mut layer = layer.clone();
            if i > 0 {
                layer.params = 0;
            }
            tally.push(layer);
        }
    }
}
