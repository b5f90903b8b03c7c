//! EfficientNet: Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural
//! Networks", ICML 2019; the Lite variants are those of TensorFlow's `lite` folder: ReLU6 instead of
//! swish, no squeeze-and-excitation, stem and head of fixed width, first and last stage of fixed depth.
//!
//! Three projects publish weights under names of their own, with two epsilons and two paddings:
//!
//! | file | names | epsilon | padding |
//! |---|---|---|---|
//! | torchvision `efficientnet_b0` … `b3` | [`EfficientNetNames::Torchvision`] | 1e-5 | torch |
//! | timm `efficientnet_b0` … `b3`, `efficientnet_lite0` … `lite2` | [`EfficientNetNames::Timm`] | 1e-5 | torch |
//! | timm `tf_efficientnet_b0` … `b3`, `tf_efficientnet_lite0` … `lite2` | [`EfficientNetNames::Timm`] | 1e-3 | TensorFlow |
//! | EfficientNet-PyTorch and its Lite ports | [`EfficientNetNames::EfficientNetPytorch`] | 1e-3 | TensorFlow, fixed |

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{Backbone, FeatureInfo, FrameSize, Tally};
use zoo_kernels::Activation;

use crate::mobilenet_v2::{LAST_CHANNELS, nearest_multiple};
use crate::{
    ConvNormAct, ConvSpec, InvertedResidual, Padding, SamePadding, SqueezeExcite, Statistics, Trunk,
    ZeroBorder,
};

/// A row of Table 1 of the paper.
struct Stage {
    expansion: usize,
    kernel: usize,
    stride: usize,
    channels: usize,
    blocks: usize,
}

const fn stage(expansion: usize, kernel: usize, stride: usize, channels: usize, blocks: usize) -> Stage {
    Stage { expansion, kernel, stride, channels, blocks }
}

/// Table 1 of the paper: EfficientNet-B0.
const STAGES: [Stage; 7] = [
    stage(1, 3, 1, 16, 1),
    stage(6, 3, 2, 24, 2),
    stage(6, 5, 2, 40, 2),
    stage(6, 3, 2, 80, 3),
    stage(6, 5, 1, 112, 3),
    stage(6, 5, 2, 192, 4),
    stage(6, 3, 1, 320, 1),
];
const STEM_CHANNELS: usize = 32;
/// Channels are rounded to multiples of this.
const DIVISOR: usize = 8;
/// Channels of a block's input over those of its squeezed means.
const SQUEEZE: usize = 4;

/// The last stages of strides 2, 4, 8, 16 and 32; [`Backbone::features`] gives all but the first.
const LEVELS: [usize; 5] = [0, 1, 2, 4, 6];

/// Whose names the tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum EfficientNetNames {
    /// `features.0.0`, `features.1.0.block.0.0`, …
    #[default]
    Torchvision,
    /// `conv_stem`, `blocks.0.0.conv_dw`, …
    Timm,
    /// `_conv_stem`, `_blocks.0._depthwise_conv`, …
    #[serde(rename = "efficientnet-pytorch")]
    EfficientNetPytorch,
}

/// Paths of a convolution and its norm.
type ConvPaths = (&'static str, &'static str);

/// Paths inside a block.
struct BlockPaths {
    expand: ConvPaths,
    depthwise: ConvPaths,
    /// The two convolutions of squeeze-and-excitation.
    squeeze: (&'static str, &'static str),
    project: ConvPaths,
}

impl EfficientNetNames {
    /// The names under which `vb` holds the stem.
    pub fn of(vb: &VarBuilder) -> Option<Self> {
        [Self::Torchvision, Self::Timm, Self::EfficientNetPytorch]
            .into_iter()
            .find(|names| vb.contains_tensor(&format!("{}.weight", names.stem().0)))
    }

    fn stem(self) -> ConvPaths {
        match self {
            Self::Torchvision => ("features.0.0", "features.0.1"),
            Self::Timm => ("conv_stem", "bn1"),
            Self::EfficientNetPytorch => ("_conv_stem", "_bn0"),
        }
    }

    /// Where a block's tensors lie: by stage and number in it, or by number in the net.
    fn block(self, stage: usize, repeat: usize, index: usize) -> String {
        match self {
            Self::Torchvision => format!("features.{}.{repeat}.block", stage + 1),
            Self::Timm => format!("blocks.{stage}.{repeat}"),
            Self::EfficientNetPytorch => format!("_blocks.{index}"),
        }
    }

    fn inside_block(self, has_expansion: bool) -> BlockPaths {
        let [expand, depthwise, squeeze, project] = match (self, has_expansion) {
            (Self::Torchvision, true) => [("0.0", "0.1"), ("1.0", "1.1"), ("2.fc1", "2.fc2"), ("3.0", "3.1")],
            (Self::Torchvision, false) => [("", ""), ("0.0", "0.1"), ("1.fc1", "1.fc2"), ("2.0", "2.1")],
            (Self::Timm, true) => [
                ("conv_pw", "bn1"),
                ("conv_dw", "bn2"),
                ("se.conv_reduce", "se.conv_expand"),
                ("conv_pwl", "bn3"),
            ],
            (Self::Timm, false) => {
                [("", ""), ("conv_dw", "bn1"), ("se.conv_reduce", "se.conv_expand"), ("conv_pw", "bn2")]
            }
            (Self::EfficientNetPytorch, _) => [
                ("_expand_conv", "_bn0"),
                ("_depthwise_conv", "_bn1"),
                ("_se_reduce", "_se_expand"),
                ("_project_conv", "_bn2"),
            ],
        };
        BlockPaths { expand, depthwise, squeeze, project }
    }

    fn last(self) -> ConvPaths {
        match self {
            Self::Torchvision => ("features.8.0", "features.8.1"),
            Self::Timm => ("conv_head", "bn2"),
            Self::EfficientNetPytorch => ("_conv_head", "_bn1"),
        }
    }

    /// The classifier's path.
    pub(crate) fn classifier(self) -> &'static str {
        match self {
            Self::Torchvision => "classifier.1",
            Self::Timm => "classifier",
            Self::EfficientNetPytorch => "_fc",
        }
    }
}

/// Options of an [`EfficientNet`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EfficientNetConfig {
    /// Multiplies the channels.
    pub width: f64,
    /// Multiplies the blocks of a stage.
    pub depth: f64,
    /// Whether it is a Lite variant.
    pub lite: bool,
    /// Side of the images that it was made for.
    pub image_size: usize,
    /// Batch norm's epsilon.
    pub bn_eps: f64,
    /// Where the border of strided convolutions goes.
    pub padding: SamePadding,
    /// The border is what an image of `image_size` has, for images of any size.
    pub fixed_padding: bool,
    /// Whose names the tensors have.
    pub names: EfficientNetNames,
}

impl EfficientNetConfig {
    const fn torchvision(width: f64, depth: f64, image_size: usize) -> Self {
        Self {
            width,
            depth,
            lite: false,
            image_size,
            bn_eps: 1e-5,
            padding: SamePadding::Torch,
            fixed_padding: false,
            names: EfficientNetNames::Torchvision,
        }
    }

    /// torchvision's `efficientnet_b0`.
    pub const fn b0() -> Self {
        Self::torchvision(1.0, 1.0, 224)
    }

    /// torchvision's `efficientnet_b1`.
    pub const fn b1() -> Self {
        Self::torchvision(1.0, 1.1, 240)
    }

    /// torchvision's `efficientnet_b2`.
    pub const fn b2() -> Self {
        Self::torchvision(1.1, 1.2, 260)
    }

    /// torchvision's `efficientnet_b3`.
    pub const fn b3() -> Self {
        Self::torchvision(1.2, 1.4, 300)
    }

    /// timm's `tf_efficientnet_lite0`.
    pub const fn lite0() -> Self {
        Self { lite: true, ..Self::b0() }.tensorflow(EfficientNetNames::Timm)
    }

    /// timm's `tf_efficientnet_lite1`.
    pub const fn lite1() -> Self {
        Self { lite: true, ..Self::b1() }.tensorflow(EfficientNetNames::Timm)
    }

    /// timm's `tf_efficientnet_lite2`.
    pub const fn lite2() -> Self {
        Self { lite: true, ..Self::b2() }.tensorflow(EfficientNetNames::Timm)
    }

    /// The same for weights that come from TensorFlow: its epsilon and its padding, which
    /// EfficientNet-PyTorch computed once, for images of the nominal size.
    pub const fn tensorflow(self, names: EfficientNetNames) -> Self {
        let fixed_padding = matches!(names, EfficientNetNames::EfficientNetPytorch);
        Self { bn_eps: 1e-3, padding: SamePadding::Tf, fixed_padding, names, ..self }
    }

    /// The same with tensors under the names of another project. EfficientNet-PyTorch's come with
    /// TensorFlow's numbers.
    pub const fn with_names(self, names: EfficientNetNames) -> Self {
        match names {
            EfficientNetNames::EfficientNetPytorch => self.tensorflow(names),
            EfficientNetNames::Torchvision | EfficientNetNames::Timm => Self { names, ..self },
        }
    }

    /// A channel count scaled by `width`.
    pub fn channels(&self, base: usize) -> usize {
        nearest_multiple(base as f64 * self.width, DIVISOR)
    }

    /// Channels at strides 2, 4, 8, 16 and 32, as [`EfficientNet::last_blocks`] lists them.
    pub fn level_channels(&self) -> [usize; LEVELS.len()] {
        LEVELS.map(|stage| self.channels(STAGES[stage].channels))
    }

    /// Channels of the first convolution.
    pub fn stem_channels(&self) -> usize {
        self.outer_channels(STEM_CHANNELS)
    }

    /// Channels of the last 1×1 convolution.
    pub fn last_channels(&self) -> usize {
        self.outer_channels(LAST_CHANNELS)
    }

    /// A channel count of stem or head, which the Lite variants leave as it is.
    fn outer_channels(&self, base: usize) -> usize {
        if self.lite { base } else { self.channels(base) }
    }

    fn blocks(&self, stage: usize) -> usize {
        let blocks = STAGES[stage].blocks;
        let is_outer = stage == 0 || stage + 1 == STAGES.len();
        if self.lite && is_outer { blocks } else { (blocks as f64 * self.depth).ceil() as usize }
    }

    fn act(&self) -> Activation {
        if self.lite { Activation::Relu6 } else { Activation::Silu }
    }

    /// The border of a convolution whose input has `nominal` rows in an image of the nominal size.
    fn border(&self, nominal: usize, kernel: usize, stride: usize) -> Padding {
        if !self.fixed_padding {
            return self.padding.into();
        }
        let (before, after) = self.padding.axis(nominal, kernel, stride);
        Padding::Fixed { before, after }
    }
}

impl Default for EfficientNetConfig {
    /// torchvision's `efficientnet_b0`.
    fn default() -> Self {
        Self::b0()
    }
}

/// Stem, blocks and the last 1×1 convolution.
///
/// [`Backbone::features`] gives the last blocks of strides 4, 8, 16 and 32, all linear.
#[derive(Debug, Clone)]
pub struct EfficientNet {
    stem: ConvNormAct,
    blocks: Vec<InvertedResidual>,
    last: ConvNormAct,
    /// The last block of each stride.
    level_blocks: Vec<usize>,
    levels: Vec<FeatureInfo>,
}

impl EfficientNet {
    /// `vb` holds the tensors under the names of `cfg`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &EfficientNetConfig, vb: VarBuilder) -> Result<Self> {
        let conv =
            |spec, vb: &VarBuilder, paths: ConvPaths| ConvNormAct::new(spec, vb.pp(paths.0), vb.pp(paths.1));
        let (eps, act, names) = (cfg.bn_eps, cfg.act(), cfg.names);
        let mut nominal = cfg.image_size;
        let mut inputs = cfg.stem_channels();
        let stem = ConvSpec::dense3(3, inputs, 2, eps, act).padded(cfg.border(nominal, 3, 2));
        let stem = conv(stem, &vb, names.stem())?;
        nominal = nominal.div_ceil(2);
        let mut reduction = 2;
        let (mut blocks, mut level_blocks, mut levels) = (Vec::new(), Vec::new(), Vec::new());
        for (s, &Stage { expansion, kernel, stride, channels, .. }) in STAGES.iter().enumerate() {
            let outputs = cfg.channels(channels);
            let repeats = cfg.blocks(s);
            for repeat in 0..repeats {
                let stride = if repeat == 0 { stride } else { 1 };
                let hidden = inputs * expansion;
                let name = names.block(s, repeat, blocks.len());
                let vb = vb.pp(&name);
                let paths = names.inside_block(expansion > 1);
                let expand = (expansion > 1)
                    .then(|| conv(ConvSpec::pointwise(inputs, hidden, eps, act), &vb, paths.expand))
                    .transpose()?;
                let depthwise = ConvSpec::depthwise(hidden, kernel, stride, eps, act)
                    .padded(cfg.border(nominal, kernel, stride));
                let squeeze_excite = (!cfg.lite)
                    .then(|| {
                        let (reduce, widen) = (vb.pp(paths.squeeze.0), vb.pp(paths.squeeze.1));
                        SqueezeExcite::new(hidden, (inputs / SQUEEZE).max(1), act, reduce, widen)
                    })
                    .transpose()?;
                let project = ConvSpec::pointwise(hidden, outputs, eps, Activation::None);
                blocks.push(InvertedResidual {
                    name,
                    expand,
                    depthwise: conv(depthwise, &vb, paths.depthwise)?,
                    squeeze_excite,
                    project: conv(project, &vb, paths.project)?,
                    drop_rate: 0.0,
                });
                inputs = outputs;
                reduction *= stride;
                nominal = nominal.div_ceil(stride);
            }
            if LEVELS.contains(&s) {
                let last = blocks.len() - 1;
                level_blocks.push(last);
                let name = names.block(s, repeats - 1, last);
                levels.push(FeatureInfo { channels: outputs, reduction, name });
            }
        }
        let last = ConvSpec::pointwise(inputs, cfg.last_channels(), eps, act);
        let last = conv(last, &vb, names.last())?;
        Ok(Self { stem, blocks, last, level_blocks, levels })
    }

    /// The last block of each stride from 2 on: its number, from 0, and what comes out of it.
    pub fn last_blocks(&self) -> impl ExactSizeIterator<Item = (usize, &FeatureInfo)> {
        self.level_blocks.iter().copied().zip(&self.levels)
    }

    /// In training, drop connect's rate: of block i of n, counted from 0, it is `rate` · i / n, as in
    /// EfficientNet-PyTorch (0.2 there). 0, as at first and once it is prepared, drops nothing.
    pub fn set_drop_connect(&mut self, rate: f64) {
        let count = self.blocks.len();
        for (i, block) in self.blocks.iter_mut().enumerate() {
            block.drop_rate = rate * i as f64 / count as f64;
        }
    }

    /// `xs`: `[B, 3, H, W]`, normalised. Shows every block's output and its number, from 0, to `tap`;
    /// returns the last convolution's, `[B, 1280 · width, H/32, W/32]` (rounded up at each of the five
    /// strides unless the padding is fixed).
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, xs: &Tensor, tap: &mut dyn FnMut(usize, &Tensor) -> Result<()>) -> Result<Tensor> {
        let mut xs = self.stem.forward(xs)?;
        for (i, block) in self.blocks.iter().enumerate() {
            xs = block.forward(&xs, &mut ZeroBorder, None)?;
            tap(i, &xs)?;
        }
        self.last.forward(&xs)
    }
}

impl Trunk for EfficientNet {
    fn trunk(&self, xs: &Tensor) -> Result<Tensor> {
        self.forward(xs, &mut |_, _| Ok(()))
    }

    fn trunk_channels(&self) -> usize {
        self.last.spec().out_channels
    }

    fn prepare(&mut self) -> Result<()> {
        self.stem.prepare()?;
        self.blocks.iter_mut().try_for_each(InvertedResidual::prepare)?;
        self.last.prepare()
    }

    fn set_statistics(&mut self, statistics: Statistics) {
        for conv in [&mut self.stem, &mut self.last] {
            conv.set_statistics(statistics);
        }
        for block in &mut self.blocks {
            block.set_statistics(statistics);
        }
    }

    fn cost(&self, input: FrameSize, tally: &mut Tally) {
        let size = self.stem.cost(input, tally);
        let size = self.blocks.iter().fold(size, |size, block| block.cost(size, tally));
        self.last.cost(size, tally);
    }
}

impl Backbone for EfficientNet {
    fn features(&self, xs: &Tensor) -> Result<Vec<Tensor>> {
        let blocks = self.level_blocks.get(1..).unwrap_or_default();
        let mut maps = Vec::with_capacity(blocks.len());
        self.forward(xs, &mut |i, ys| {
            if blocks.contains(&i) {
                maps.push(ys.clone());
            }
            Ok(())
        })?;
        Ok(maps)
    }

    fn info(&self) -> &[FeatureInfo] {
        self.levels.get(1..).unwrap_or_default()
    }
}
