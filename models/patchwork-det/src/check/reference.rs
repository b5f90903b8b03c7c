//! The single-frame detector as one writes it with `candle-nn` alone: grouped convolutions, batch
//! norm and clamps as separate operations. The oracle of tests, and the baseline of `zoo bench`.
//!
//! It shares no layer with [`crate::DetectorNet`], only what the checkpoint fixes for both: how channel
//! counts are rounded, and how many anchors a cell has.

use candle_core::{Result, Tensor};
use candle_nn::{
    BatchNorm, Conv2d, Conv2dConfig, Module, ModuleT, VarBuilder, batch_norm, conv2d, conv2d_no_bias,
};
use zoo_core::FrameSize;
use zoo_layers::SamePadding;

use crate::config::DetectorConfig;
use crate::detector::{ANCHORS_PER_CELL, C4_BLOCK, pyramid_channels};

/// (expansion, channels, repeats, first stride): MobileNetV2's table, written down a second time on
/// purpose. An oracle that took its layers from `zoo_layers` would follow every mistake there.
const SETTING: [(usize, usize, usize, usize); 7] = [
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
];

/// Convolution, batch norm, ReLU6 (or not).
#[derive(Debug)]
struct Layer {
    conv: Conv2d,
    norm: BatchNorm,
    kernel: usize,
    stride: usize,
    padding: SamePadding,
    relu6: bool,
}

impl Layer {
    fn forward(&self, xs: &Tensor) -> Result<Tensor> {
        let (_, _, h, w) = xs.dims4()?;
        let pads = self.padding.pads(FrameSize::new(h, w), self.kernel, self.stride);
        let xs = xs.pad_with_zeros(2, pads.top, pads.bottom)?.pad_with_zeros(3, pads.left, pads.right)?;
        let ys = self.norm.forward_t(&self.conv.forward(&xs)?, false)?;
        if self.relu6 { ys.clamp(0.0, 6.0) } else { Ok(ys) }
    }
}

/// Builds layers with one configuration's options.
struct Builder<'a>(&'a DetectorConfig);

impl Builder<'_> {
    fn layer(
        &self,
        (inputs, outputs): (usize, usize),
        (kernel, stride): (usize, usize),
        relu6: bool,
        conv: VarBuilder,
        norm: VarBuilder,
    ) -> Result<Layer> {
        // Every 3×3 but the stem's is depthwise.
        let groups = if kernel == 3 && inputs == outputs { inputs } else { 1 };
        let options = Conv2dConfig { stride, groups, ..Default::default() };
        Ok(Layer {
            conv: conv2d_no_bias(inputs, outputs, kernel, options, conv)?,
            norm: batch_norm(outputs, self.0.backbone.bn_eps, norm)?,
            kernel,
            stride,
            padding: self.0.backbone.padding,
            relu6,
        })
    }

    fn predictor(&self, channels: usize, outputs: usize, vb: VarBuilder) -> Result<(Layer, Conv2d)> {
        let depthwise = self.layer((channels, channels), (3, 1), true, vb.pp(0).pp(0), vb.pp(0).pp(1))?;
        Ok((depthwise, conv2d(channels, outputs, 1, Default::default(), vb.pp(1))?))
    }
}

/// Expansion (if any), depthwise, projection.
#[derive(Debug)]
struct Block {
    layers: Vec<Layer>,
    residual: bool,
}

/// The detector of [`crate::DetectorNet`], single frames only.
#[derive(Debug)]
pub struct PlainDetector {
    stem: Layer,
    blocks: Vec<Block>,
    last: Layer,
    extras: Vec<[Layer; 3]>,
    heads: Vec<[(Layer, Conv2d); 2]>,
    classes: usize,
}

impl PlainDetector {
    /// Takes the same tensors as [`crate::DetectorNet`].
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &DetectorConfig, vb: VarBuilder) -> Result<Self> {
        let build = Builder(cfg);
        let features = vb.pp("backbone").pp("features");
        let channels = |base| cfg.backbone.channels(base);
        let mut inputs = channels(32);
        let stem = build.layer((3, inputs), (3, 2), true, features.pp("0.0"), features.pp("0.1"))?;
        let mut blocks = Vec::new();
        let mut c4 = 0;
        for (expansion, base, repeats, first_stride) in SETTING {
            for repeat in 0..repeats {
                let vb = features.pp(blocks.len() + 1).pp("conv");
                let (hidden, outputs) = (inputs * expansion, channels(base));
                let stride = if repeat == 0 { first_stride } else { 1 };
                let mut layers = Vec::new();
                if expansion > 1 {
                    layers.push(build.layer((inputs, hidden), (1, 1), true, vb.pp("0.0"), vb.pp("0.1"))?);
                }
                let at = layers.len();
                layers.push(build.layer(
                    (hidden, hidden),
                    (3, stride),
                    true,
                    vb.pp(at).pp(0),
                    vb.pp(at).pp(1),
                )?);
                layers.push(build.layer((hidden, outputs), (1, 1), false, vb.pp(at + 1), vb.pp(at + 2))?);
                blocks.push(Block { layers, residual: stride == 1 && inputs == outputs });
                if blocks.len() == C4_BLOCK {
                    c4 = hidden;
                }
                inputs = outputs;
            }
        }
        let c5 = channels(1280);
        let last = build.layer((inputs, c5), (1, 1), true, features.pp("18.0"), features.pp("18.1"))?;
        let mut head_channels = vec![c4, c5];
        let mut extras = Vec::new();
        let mut inputs = c5;
        for (i, outputs) in pyramid_channels(cfg.backbone.depth).into_iter().enumerate() {
            let half = outputs / 2;
            let vb = vb.pp("extras").pp(i);
            extras.push([
                build.layer((inputs, half), (1, 1), true, vb.pp("0.0"), vb.pp("0.1"))?,
                build.layer((half, half), (3, 2), true, vb.pp("1.0"), vb.pp("1.1"))?,
                build.layer((half, outputs), (1, 1), true, vb.pp("2.0"), vb.pp("2.1"))?,
            ]);
            head_channels.push(outputs);
            inputs = outputs;
        }
        let heads = head_channels
            .iter()
            .zip(ANCHORS_PER_CELL)
            .enumerate()
            .map(|(i, (&c, anchors))| {
                Ok([
                    build.predictor(c, anchors * cfg.classes, vb.pp("cls").pp(i))?,
                    build.predictor(c, anchors * 4, vb.pp("box").pp(i))?,
                ])
            })
            .collect::<Result<_>>()?;
        Ok(Self { stem, blocks, last, extras, heads, classes: cfg.classes })
    }

    /// `xs`: `[B, 3, H, W]`. Result: logits `[B, A, K]` and box codes `[B, A, 4]`.
    ///
    /// # Errors
    /// If a shape does not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<(Tensor, Tensor)> {
        let mut maps = Vec::new();
        let mut xs = self.stem.forward(xs)?;
        for (i, block) in (1..).zip(&self.blocks) {
            let input = xs.clone();
            for (j, layer) in block.layers.iter().enumerate() {
                xs = layer.forward(&xs)?;
                if (i, j) == (C4_BLOCK, 0) {
                    maps.push(xs.clone());
                }
            }
            if block.residual {
                xs = (xs + input)?;
            }
        }
        xs = self.last.forward(&xs)?;
        maps.push(xs.clone());
        for layers in &self.extras {
            for layer in layers {
                xs = layer.forward(&xs)?;
            }
            maps.push(xs.clone());
        }
        let (mut logits, mut boxes) = (Vec::new(), Vec::new());
        for (map, [class, code]) in maps.iter().zip(&self.heads) {
            for (out, per_anchor, (depthwise, output)) in
                [(&mut logits, self.classes, class), (&mut boxes, 4, code)]
            {
                // [B, anchors·n, h, w] → [B, h·w·anchors, n]
                let ys = output.forward(&depthwise.forward(map)?)?.permute((0, 2, 3, 1))?.contiguous()?;
                out.push(ys.reshape((ys.dim(0)?, (), per_anchor))?);
            }
        }
        Ok((Tensor::cat(&logits, 1)?, Tensor::cat(&boxes, 1)?))
    }
}
