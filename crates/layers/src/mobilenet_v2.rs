//! MobileNetV2: Sandler et al., "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018.
//!
//! Tensor names are torchvision's, so its `mobilenet_v2` checkpoint loads as it is, or [flat](MobileNetV2Names::Flat).

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{Backbone, FeatureInfo, FrameSize, Tally};
use zoo_kernels::Activation;

use crate::{
    ConvNormAct, ConvSpec, InvertedResidual, SamePadding, Statistics, Surroundings, Trunk, ZeroBorder,
};

/// (expansion t, channels c, repeats n, first stride s): Table 2 of the paper.
const SETTING: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];
const STEM_CHANNELS: usize = 32;
/// Of the last 1×1 convolution, scaled by `depth` too.
pub(crate) const LAST_CHANNELS: usize = 1280;

/// The features that [`Backbone::features`] gives: the last of strides 4, 8, 16 and 32, all linear.
const LEVELS: [usize; 4] = [3, 6, 13, 17];

/// Whose names the tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MobileNetV2Names {
    /// `features.2.conv.0.0`, `conv.1.0`, `conv.2`: torchvision.
    #[default]
    Torchvision,
    /// `features.2.conv.0`, `conv.3`, `conv.6`: a block's layers in one row, its activations counted too, as
    /// tonylins' PyTorch port and what is built on it.
    Flat,
}

/// Options of a [`MobileNetV2`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MobileNetV2Config {
    /// Multiplies every channel count, the last one included.
    pub depth: f64,
    /// Channel counts are rounded to multiples of this; 1 rounds down to whole channels.
    pub divisor: usize,
    /// Batch norm's epsilon: 1e-5 in torchvision, 1e-3 in TensorFlow.
    pub bn_eps: f64,
    /// Where the border of strided convolutions goes.
    pub padding: SamePadding,
    /// Whose names the tensors have.
    #[serde(default)]
    pub names: MobileNetV2Names,
}

impl Default for MobileNetV2Config {
    /// torchvision's `mobilenet_v2`.
    fn default() -> Self {
        Self::torchvision()
    }
}

impl MobileNetV2Config {
    /// torchvision's `mobilenet_v2`.
    pub const fn torchvision() -> Self {
        Self {
            depth: 1.0,
            divisor: 8,
            bn_eps: 1e-5,
            padding: SamePadding::Torch,
            names: MobileNetV2Names::Torchvision,
        }
    }

    /// A channel count scaled by `depth`: rounded to the nearest multiple of `divisor`, up once more
    /// where that lost over 10 %.
    pub fn channels(&self, base: usize) -> usize {
        nearest_multiple(base as f64 * self.depth, self.divisor)
    }
}

/// The rounding of scaled channel counts in the MobileNets and what follows them; down to whole
/// channels where the divisor is 1.
pub(crate) fn nearest_multiple(scaled: f64, divisor: usize) -> usize {
    if divisor <= 1 {
        return (scaled + 1e-6) as usize;
    }
    let nearest = ((scaled + divisor as f64 / 2.0) as usize / divisor * divisor).max(divisor);
    if (nearest as f64) < 0.9 * scaled { nearest + divisor } else { nearest }
}

/// A map inside the net, as `forward` passes it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tap {
    /// The output of `features.i`.
    Feature(usize),
    /// The expansion inside `features.i`, after its activation, before its depthwise convolution.
    Expansion(usize),
}

/// Reads the block's convolutions under `conv`, where the expansion comes first if there is one.
fn inverted_residual(
    cfg: &MobileNetV2Config,
    name: String,
    (inputs, outputs): (usize, usize),
    stride: usize,
    expansion: usize,
    vb: VarBuilder,
) -> Result<InvertedResidual> {
    let hidden = inputs * expansion;
    let vb = vb.pp("conv");
    // Where convolution and norm of the i-th of the block's layers lie.
    let layer = |i: usize| match cfg.names {
        MobileNetV2Names::Torchvision => (vb.pp(i).pp(0), vb.pp(i).pp(1)),
        MobileNetV2Names::Flat => (vb.pp(3 * i), vb.pp(3 * i + 1)),
    };
    let conv = |spec, (conv, norm)| ConvNormAct::new(spec, conv, norm);
    let expand = (expansion > 1)
        .then(|| conv(ConvSpec::pointwise(inputs, hidden, cfg.bn_eps, Activation::Relu6), layer(0)))
        .transpose()?;
    let at = usize::from(expand.is_some());
    let depthwise = ConvSpec::depthwise3(hidden, stride, cfg.bn_eps, Activation::Relu6);
    let project = ConvSpec::pointwise(hidden, outputs, cfg.bn_eps, Activation::None);
    let last = match cfg.names {
        MobileNetV2Names::Torchvision => (vb.pp(at + 1), vb.pp(at + 2)),
        MobileNetV2Names::Flat => layer(at + 1),
    };
    Ok(InvertedResidual {
        name,
        expand,
        depthwise: conv(depthwise.padded(cfg.padding), layer(at))?,
        squeeze_excite: None,
        project: conv(project, last)?,
        drop_rate: 0.0,
    })
}

/// The net up to its last 1×1 convolution, `features.0` … `features.18`, or up to the one before.
#[derive(Debug, Clone)]
pub struct MobileNetV2 {
    stem: ConvNormAct,
    blocks: Vec<InvertedResidual>,
    /// To 1280 channels; only classifiers need it.
    last: Option<ConvNormAct>,
    channels: Vec<usize>,
    levels: Vec<FeatureInfo>,
}

impl MobileNetV2 {
    /// `vb` holds `features.*`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &MobileNetV2Config, vb: VarBuilder) -> Result<Self> {
        let mut net = Self::without_last(cfg, vb.clone())?;
        let (inputs, outputs) = (net.trunk_channels(), cfg.channels(LAST_CHANNELS));
        let vb = vb.pp("features").pp(net.channels.len());
        let last = ConvSpec::pointwise(inputs, outputs, cfg.bn_eps, Activation::Relu6);
        net.last = Some(ConvNormAct::new(last, vb.pp(0), vb.pp(1))?);
        net.channels.push(outputs);
        Ok(net)
    }

    /// Without the last convolution, `features.18`, which [`Backbone::features`] does not show: for nets that read
    /// nothing but these.
    ///
    /// # Errors
    /// As [`MobileNetV2::new`].
    pub fn without_last(cfg: &MobileNetV2Config, vb: VarBuilder) -> Result<Self> {
        let vb = vb.pp("features");
        let mut inputs = cfg.channels(STEM_CHANNELS);
        let stem = ConvSpec::dense3(3, inputs, 2, cfg.bn_eps, Activation::Relu6).padded(cfg.padding);
        let stem = ConvNormAct::new(stem, vb.pp(0).pp(0), vb.pp(0).pp(1))?;
        let mut channels = vec![inputs];
        let mut blocks = Vec::new();
        let mut levels = Vec::new();
        let mut reduction = 2;
        for (expansion, base, repeats, first_stride) in SETTING {
            for repeat in 0..repeats {
                let i = channels.len();
                let stride = if repeat == 0 { first_stride } else { 1 };
                let outputs = cfg.channels(base);
                let name = format!("features.{i}");
                blocks.push(inverted_residual(
                    cfg,
                    name.clone(),
                    (inputs, outputs),
                    stride,
                    expansion,
                    vb.pp(i),
                )?);
                inputs = outputs;
                reduction *= stride;
                channels.push(outputs);
                if LEVELS.contains(&i) {
                    levels.push(FeatureInfo { channels: outputs, reduction, name });
                }
            }
        }
        Ok(Self { stem, blocks, last: None, channels, levels })
    }

    /// Channels of the output of `features.i`, by i.
    pub fn channels(&self) -> &[usize] {
        &self.channels
    }

    /// Channels of the expansion inside `features.i`, if it has one.
    pub fn expansion_channels(&self, i: usize) -> Option<usize> {
        let block = self.blocks.get(i.checked_sub(1)?)?;
        block.expand.as_ref().map(|expand| expand.spec().out_channels)
    }

    /// Folds batch norm for inference.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.stem.prepare()?;
        self.blocks.iter_mut().try_for_each(InvertedResidual::prepare)?;
        self.last.iter_mut().try_for_each(ConvNormAct::prepare)
    }

    /// What the norms normalise by, as long as they are not folded.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        for conv in self.last.iter_mut().chain([&mut self.stem]) {
            conv.set_statistics(statistics);
        }
        for block in &mut self.blocks {
            block.set_statistics(statistics);
        }
    }

    /// `xs`: `[B, 3, H, W]`, normalised; every spatial convolution's border comes from `around`,
    /// under the name `features.i`. Shows the maps on the way to `tap`, the expansions only of the
    /// blocks in `expansions` (the others may never have one in memory), and returns the last one,
    /// `[B, C, H/32, W/32]` (rounded up at each of the five strides), C = 1280 at depth 1 if the last convolution is
    /// there.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(
        &self,
        xs: &Tensor,
        around: &mut dyn Surroundings,
        expansions: &[usize],
        tap: &mut dyn FnMut(Tap, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        let mut xs = self.stem.forward_region(&around.place("features.0", xs)?)?;
        tap(Tap::Feature(0), &xs)?;
        for (i, block) in (1..).zip(&self.blocks) {
            let mut expanded = |expansion: &Tensor| tap(Tap::Expansion(i), expansion);
            xs = match expansions.contains(&i) {
                true => block.forward(&xs, around, Some(&mut expanded))?,
                false => block.forward(&xs, around, None)?,
            };
            tap(Tap::Feature(i), &xs)?;
        }
        let Some(last) = &self.last else { return Ok(xs) };
        let xs = last.forward(&xs)?;
        tap(Tap::Feature(self.blocks.len() + 1), &xs)?;
        Ok(xs)
    }

    /// Counts every layer for an input of `input`; returns the size of each feature's output, by i.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) -> Vec<FrameSize> {
        let mut sizes = vec![self.stem.cost(input, tally)];
        let mut size = sizes[0];
        for block in &self.blocks {
            size = block.cost(size, tally);
            sizes.push(size);
        }
        sizes.extend(self.last.iter().map(|last| last.cost(size, tally)));
        sizes
    }
}

impl Backbone for MobileNetV2 {
    fn features(&self, xs: &Tensor) -> Result<Vec<Tensor>> {
        let mut maps = Vec::with_capacity(LEVELS.len());
        self.forward(xs, &mut ZeroBorder, &[], &mut |tap, ys| {
            if let Tap::Feature(i) = tap
                && LEVELS.contains(&i)
            {
                maps.push(ys.clone());
            }
            Ok(())
        })?;
        Ok(maps)
    }

    fn info(&self) -> &[FeatureInfo] {
        &self.levels
    }
}

impl Trunk for MobileNetV2 {
    fn trunk(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward(xs, &mut ZeroBorder, &[], &mut |_, _| Ok(()))
    }

    fn trunk_channels(&self) -> usize {
        self.channels.last().copied().unwrap_or_default()
    }

    fn prepare(&mut self) -> Result<()> {
        MobileNetV2::prepare(self)
    }

    fn set_statistics(&mut self, statistics: Statistics) {
        MobileNetV2::set_statistics(self, statistics);
    }

    fn cost(&self, input: FrameSize, tally: &mut Tally) {
        MobileNetV2::cost(self, input, tally);
    }
}
