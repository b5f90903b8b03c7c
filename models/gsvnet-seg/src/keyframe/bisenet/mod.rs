//! BiSeNet: C. Yu, J. Wang, C. Peng, C. Gao, G. Yu, N. Sang, "BiSeNet: Bilateral Segmentation Network for Real-time
//! Semantic Segmentation", ECCV 2018.
//!
//! A shallow path keeps the detail at stride 8, a deep one (ResNet-18 or Xception39) sees far; gates choose channels
//! on the way back, and where the two meet.

mod attention;
mod context;
mod head;
mod spatial;
mod xception;

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, ScoreNet, Tally};
use zoo_kernels::{Activation, Interpolation, global_avg_pool2d};
use zoo_layers::{ConvNormAct, ConvSpec, Statistics, resize_like};

pub use attention::{Fusion, Refinement};
pub use context::ContextPath;
pub use head::Head;
pub use spatial::SpatialPath;
pub use xception::Xception;

use super::{KeyframeConfig, PartCosts, check_image, check_side};
use crate::Probe;
use crate::accel::FeatureNet;
use crate::config::BN_EPS;

/// Channels on the way back.
const FEATURES: usize = 128;
/// Channels of both paths together.
const FUSED: usize = 2 * FEATURES;
/// Hidden channels of the head and of the auxiliary heads.
const HEAD: usize = 64;
const AUXILIARY: usize = 256;
/// Of the maps that the context path gives.
const STRIDES: [usize; 3] = [8, 16, 32];

/// The code's unit: convolution without bias → norm → ReLU. `vb` holds `conv` and `bn`.
fn conv_norm_relu(spec: ConvSpec, vb: VarBuilder) -> Result<ConvNormAct> {
    ConvNormAct::new(spec, vb.pp("conv"), vb.pp("bn"))
}

fn relu3(inputs: usize, outputs: usize) -> ConvSpec {
    ConvSpec::dense3(inputs, outputs, 1, BN_EPS, Activation::Relu)
}

fn relu1(inputs: usize, outputs: usize) -> ConvSpec {
    ConvSpec::pointwise(inputs, outputs, BN_EPS, Activation::Relu)
}

/// Scores of all heads.
#[derive(Debug, Clone)]
pub struct TrainingScores {
    /// `[B, classes, ceil(H / 8), ceil(W / 8)]`
    pub scores: Tensor,
    /// Those of the auxiliary heads, at strides 16 and 8.
    pub auxiliary: Vec<Tensor>,
}

/// BiSeNet.
///
/// Its probes see `spatial`, the context path's maps (`stem` and `layer1` … `layer4` of ResNet-18, `layer1` … `layer3`
/// of Xception39), `global`, `arm0`, `refine0`, `arm1`, `refine1` and `ffm`.
#[derive(Debug, Clone)]
pub struct BiSeNet {
    spatial: SpatialPath,
    context: ContextPath,
    global: ConvNormAct,
    /// Coarse to fine, as the refinements behind them.
    arms: [Refinement; 2],
    refines: [ConvNormAct; 2],
    fusion: Fusion,
    head: Head,
    /// On the two refined maps; none in inference.
    auxiliary: Vec<Head>,
    classes: usize,
}

impl BiSeNet {
    /// `vb` holds `spatial_path`, `context_path`, `global_context`, `arms`, `refines`, `ffm` and `heads`.
    ///
    /// # Errors
    /// If the configuration is of another net, or a tensor is missing or has another shape.
    pub fn new(cfg: &KeyframeConfig, vb: VarBuilder) -> Result<Self> {
        let context = ContextPath::new(cfg.net, vb.pp("context_path"))?;
        let [_, c4, c5] = context.channels()?;
        let arm = |i: usize, channels| Refinement::new(channels, vb.pp("arms").pp(i));
        let refine = |i: usize| conv_norm_relu(relu3(FEATURES, FEATURES), vb.pp("refines").pp(i));
        let heads = vb.pp("heads");
        let auxiliary = |i: usize| Head::new(FEATURES, AUXILIARY, cfg.classes, heads.pp(i));
        Ok(Self {
            spatial: SpatialPath::new(vb.pp("spatial_path"))?,
            global: conv_norm_relu(relu1(c5, FEATURES), vb.pp("global_context").pp(1))?,
            arms: [arm(0, c5)?, arm(1, c4)?],
            refines: [refine(0)?, refine(1)?],
            fusion: Fusion::new(vb.pp("ffm"))?,
            head: Head::new(FUSED, HEAD, cfg.classes, heads.pp(2))?,
            auxiliary: if cfg.auxiliary_heads { vec![auxiliary(0)?, auxiliary(1)?] } else { vec![] },
            context,
            classes: cfg.classes,
        })
    }

    /// Classes that it scores.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Folds batch norm, packs the weights, and drops the auxiliary heads. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.auxiliary.clear();
        self.spatial.prepare()?;
        self.context.prepare()?;
        self.global.prepare()?;
        self.arms.iter_mut().try_for_each(Refinement::prepare)?;
        self.refines.iter_mut().try_for_each(ConvNormAct::prepare)?;
        self.fusion.prepare()?;
        self.head.prepare()
    }

    /// What the norms normalise by, as long as they are not folded. The batch's statistics need more than one image:
    /// some norms see one value a channel of each.
    pub fn set_statistics(&mut self, statistics: Statistics) {
        self.spatial.set_statistics(statistics);
        self.context.set_statistics(statistics);
        self.global.set_statistics(statistics);
        self.arms.iter_mut().for_each(|arm| arm.set_statistics(statistics));
        self.refines.iter_mut().for_each(|refine| refine.set_statistics(statistics));
        self.fusion.set_statistics(statistics);
        self.head.set_statistics(statistics);
        self.auxiliary.iter_mut().for_each(|head| head.set_statistics(statistics));
    }

    /// `xs`: `[B, 3, H, W]`, RGB, normalised. Result: logits, `[B, classes, ceil(H / 8), ceil(W / 8)]`.
    ///
    /// # Errors
    /// If the input's shape does not fit, and what the probe returns.
    pub fn forward(&self, xs: &Tensor, probe: Option<Probe>) -> Result<Tensor> {
        let [fused, ..] = self.maps(xs, probe)?;
        self.head.forward(&fused)
    }

    /// [`BiSeNet::forward`] with the auxiliary heads' scores.
    ///
    /// # Errors
    /// As there, and if the net has no such heads.
    pub fn forward_training(&self, xs: &Tensor) -> Result<TrainingScores> {
        if self.auxiliary.is_empty() {
            bail!(
                "bisenet: there are no auxiliary heads: build the net with auxiliary_heads, and do not prepare it"
            )
        }
        let [fused, refined @ ..] = self.maps(xs, None)?;
        let auxiliary = self.auxiliary.iter().zip(&refined).map(|(head, map)| head.forward(map));
        Ok(TrainingScores {
            scores: self.head.forward(&fused)?,
            auxiliary: auxiliary.collect::<Result<_>>()?,
        })
    }

    /// What the heads read: both paths' map, then the refined ones, coarse to fine.
    fn maps(&self, xs: &Tensor, probe: Option<Probe>) -> Result<[Tensor; 3]> {
        let is_probed = probe.is_some();
        let mut nobody = |_: &str, _: &Tensor| Ok(());
        let probe = probe.unwrap_or(&mut nobody);
        let spatial = self.spatial.forward(xs)?;
        probe("spatial", &spatial)?;
        let [c3, c4, c5] = self.context.forward(xs, probe)?;
        let global = self.global.forward(&global_avg_pool2d(&c5)?)?;
        probe("global", &global)?;
        let spread = resize_like(&global, &c5, Interpolation::Nearest)?;
        let [arm0, arm1] = &self.arms;
        let [refine0, refine1] = &self.refines;
        if is_probed {
            // Otherwise nothing but the sums is ever there.
            probe("arm0", &arm0.forward(&c5)?)?;
        }
        let ys = arm0.forward_add(&c5, &spread)?;
        let refined0 = refine0.forward(&resize_like(&ys, &c4, Interpolation::BilinearCorners)?)?;
        probe("refine0", &refined0)?;
        if is_probed {
            probe("arm1", &arm1.forward(&c4)?)?;
        }
        let ys = arm1.forward_add(&c4, &refined0)?;
        let refined1 = refine1.forward(&resize_like(&ys, &c3, Interpolation::BilinearCorners)?)?;
        probe("refine1", &refined1)?;
        let fused = self.fusion.forward(&spatial, &refined1)?;
        probe("ffm", &fused)?;
        Ok([fused, refined0, refined1])
    }

    /// Parameters and operations for images of `input`: `spatial`, `context`, `refinement`, `fusion`, `head`, and
    /// `auxiliary`.
    pub fn costs(&self, input: FrameSize) -> PartCosts {
        let size =
            |stride: usize| FrameSize::new(input.height.div_ceil(stride), input.width.div_ceil(stride));
        let [s8, s16, s32] = STRIDES.map(size);
        let [mut spatial, mut context, mut refinement, mut fusion, mut head, mut auxiliary] =
            [const { Tally::new() }; 6];
        self.spatial.cost(input, &mut spatial);
        self.context.cost(input, &mut context);
        self.global.cost(FrameSize::new(1, 1), &mut refinement);
        for ((arm, refine), (from, to)) in self.arms.iter().zip(&self.refines).zip([(s32, s16), (s16, s8)]) {
            arm.cost(from, &mut refinement);
            refine.cost(to, &mut refinement);
        }
        self.fusion.cost(s8, &mut fusion);
        self.head.cost(s8, &mut head);
        for (auxiliary_head, size) in self.auxiliary.iter().zip([s16, s8]) {
            auxiliary_head.cost(size, &mut auxiliary);
        }
        vec![
            ("spatial", spatial),
            ("context", context),
            ("refinement", refinement),
            ("fusion", fusion),
            ("head", head),
            ("auxiliary", auxiliary),
        ]
    }
}

impl ScoreNet for BiSeNet {
    fn classes(&self) -> usize {
        self.classes
    }

    fn check_input(&self, size: FrameSize) -> Result<()> {
        check_side(size)
    }

    fn scores(&self, xs: &Tensor) -> Result<Tensor> {
        self.classify(&self.features(xs)?)
    }

    fn tally(&self, input: FrameSize, tally: &mut Tally) {
        self.costs(input).into_iter().for_each(|(_, part)| tally.append(part));
    }
}

/// What both paths make together, `[B, 256, ceil(H / 8), ceil(W / 8)]`.
impl FeatureNet for BiSeNet {
    fn features(&self, xs: &Tensor) -> Result<Tensor> {
        check_image(xs)?;
        let [fused, ..] = self.maps(xs, None)?;
        Ok(fused)
    }

    fn classify(&self, features: &Tensor) -> Result<Tensor> {
        self.head.forward(features)
    }

    fn tally_head(&self, input: FrameSize, tally: &mut Tally) {
        let [stride, ..] = STRIDES;
        self.head.cost(FrameSize::new(input.height.div_ceil(stride), input.width.div_ceil(stride)), tally);
    }
}
