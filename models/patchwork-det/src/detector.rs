//! The detector of Section 4.1 (supplement, Figure 10): stateful MobileNetV2, SSD heads of two
//! resolutions, a restored map with a feature pyramid, and the attention network.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Region, channels_last};
use zoo_layers::{ConvNormAct, ConvSpec, MobileNetV2, Pointwise, Surroundings, Tap};

use crate::Grid;
use crate::attention::{Attention, restored_size};
use crate::config::DetectorConfig;
use crate::net::{Probe, WindowedNet};

/// Anchors a cell, level by level: C4, C5, and the four maps of the pyramid.
pub const ANCHORS_PER_CELL: [usize; 6] = [3, 6, 6, 6, 6, 6];
/// Levels whose heads run on the window and predict only for it.
const WINDOWED_LEVELS: usize = 2;
/// The block whose expansion is C4, at stride 16.
const C4_BLOCK: usize = 14;
/// Channels of the pyramid at depth 1.
const PYRAMID_CHANNELS: [usize; 4] = [512, 256, 256, 128];
/// A pyramid layer keeps at least so many channels at small depths.
const MIN_PYRAMID_CHANNELS: usize = 16;

/// Predictions for all anchors of the full frame, before decoding.
#[derive(Debug, Clone)]
pub struct RawDetections {
    /// Class scores before the sigmoid, `[B, A, K]`, background at 0.
    pub logits: Tensor,
    /// Encoded boxes (dx, dy, dw, dh), `[B, A, 4]`.
    pub boxes: Tensor,
    /// 1 where an anchor has been predicted since the stream began, 0 where never, `[B, A]`.
    pub seen: Tensor,
    /// Cells of each level, finest first.
    pub levels: Vec<FrameSize>,
    /// Q-values of all windows, `[B, |A|]`, where they were asked for.
    pub q: Option<Tensor>,
}

/// A class or box predictor: 3×3 depthwise, then 1×1 with a bias (SSDLite).
#[derive(Debug, Clone)]
struct Predictor {
    depthwise: ConvNormAct,
    output: Pointwise,
}

impl Predictor {
    fn new(cfg: &DetectorConfig, channels: usize, outputs: usize, vb: VarBuilder) -> Result<Self> {
        let spec = ConvSpec::depthwise3(channels, 1, cfg.backbone.bn_eps, Activation::Relu6);
        Ok(Self {
            depthwise: ConvNormAct::new(spec.padded(cfg.backbone.padding), vb.pp(0).pp(0), vb.pp(0).pp(1))?,
            output: Pointwise::new(channels, outputs, vb.pp(1))?,
        })
    }

    fn forward(&self, features: &Region) -> Result<Tensor> {
        self.output.forward(&self.depthwise.forward_region(features)?)
    }

    fn cost(&self, input: FrameSize, tally: &mut Tally) {
        self.output.cost(self.depthwise.cost(input, tally), tally);
    }
}

/// A pyramid layer: 1×1 to half the channels, 3×3 depthwise of stride 2, 1×1.
#[derive(Debug, Clone)]
struct PyramidLayer {
    reduce: ConvNormAct,
    depthwise: ConvNormAct,
    expand: ConvNormAct,
}

impl PyramidLayer {
    fn new(cfg: &DetectorConfig, inputs: usize, outputs: usize, vb: VarBuilder) -> Result<Self> {
        let (half, eps) = (outputs / 2, cfg.backbone.bn_eps);
        let layer = |i: usize, spec: ConvSpec| {
            ConvNormAct::new(spec.padded(cfg.backbone.padding), vb.pp(i).pp(0), vb.pp(i).pp(1))
        };
        Ok(Self {
            reduce: layer(0, ConvSpec::pointwise(inputs, half, eps, Activation::Relu6))?,
            depthwise: layer(1, ConvSpec::depthwise3(half, 2, eps, Activation::Relu6))?,
            expand: layer(2, ConvSpec::pointwise(half, outputs, eps, Activation::Relu6))?,
        })
    }

    fn shrink(&self, reduced: &Tensor) -> Result<Tensor> {
        self.expand.forward(&self.depthwise.forward(reduced)?)
    }

    fn prepare(&mut self) -> Result<()> {
        self.reduce.prepare()?;
        self.depthwise.prepare()?;
        self.expand.prepare()
    }
}

/// The network: a frame or a window of it in, predictions for the full frame out.
#[derive(Debug, Clone)]
pub struct DetectorNet {
    backbone: MobileNetV2,
    pyramid: Vec<PyramidLayer>,
    class_heads: Vec<Predictor>,
    box_heads: Vec<Predictor>,
    attention: Option<Attention>,
    classes: usize,
}

impl DetectorNet {
    /// `vb` holds `backbone.*`, `extras.*`, `cls.*`, `box.*` and, if configured, `attention.*`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &DetectorConfig, vb: VarBuilder) -> Result<Self> {
        let backbone = MobileNetV2::new(&cfg.backbone, vb.pp("backbone"))?;
        let (Some(c4), Some(&c5)) = (backbone.expansion_channels(C4_BLOCK), backbone.channels().last())
        else {
            bail!("backbone without features.{C4_BLOCK}")
        };
        let scaled = |c: usize| ((c as f64 * cfg.backbone.depth + 1e-6) as usize).max(MIN_PYRAMID_CHANNELS);
        let mut head_channels = vec![c4, c5];
        head_channels.extend(PYRAMID_CHANNELS.map(scaled));
        let pyramid = head_channels
            .windows(2)
            .skip(1)
            .enumerate()
            .map(|(i, c)| PyramidLayer::new(cfg, c[0], c[1], vb.pp("extras").pp(i)))
            .collect::<Result<_>>()?;
        let heads = |name: &str, per_anchor: usize| {
            head_channels
                .iter()
                .zip(ANCHORS_PER_CELL)
                .enumerate()
                .map(|(i, (&c, anchors))| Predictor::new(cfg, c, anchors * per_anchor, vb.pp(name).pp(i)))
                .collect::<Result<Vec<_>>>()
        };
        let attention = match cfg.attention {
            Some(grid) => {
                let channels = scaled(PYRAMID_CHANNELS[0]) / 2;
                Some(Attention::new(&cfg.backbone, channels, cfg.frame, grid, vb.pp("attention"))?)
            }
            None => None,
        };
        Ok(Self {
            class_heads: heads("cls", cfg.classes)?,
            box_heads: heads("box", 4)?,
            backbone,
            pyramid,
            attention,
            classes: cfg.classes,
        })
    }

    /// Folds batch norm for inference.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.backbone.prepare()?;
        self.pyramid.iter_mut().try_for_each(PyramidLayer::prepare)?;
        for head in self.class_heads.iter_mut().chain(&mut self.box_heads) {
            head.depthwise.prepare()?;
        }
        self.attention.iter_mut().try_for_each(Attention::prepare)
    }
}

impl WindowedNet for DetectorNet {
    type Raw = RawDetections;

    fn forward(
        &self,
        xs: &Tensor,
        around: &mut dyn Surroundings,
        with_q: bool,
        probe: Probe,
    ) -> Result<RawDetections> {
        // The backbone, on the window: C4 at stride 16 and C5 at stride 32.
        let mut c4 = None;
        let c5 = self.backbone.forward(xs, around, &mut |tap, ys| match tap {
            Tap::Expansion(C4_BLOCK) => {
                c4 = Some(ys.clone());
                probe("c4", ys)
            }
            Tap::Expansion(_) => Ok(()),
            Tap::Feature(i) => probe(&format!("f{i}"), ys),
        })?;
        let Some(c4) = c4 else { bail!("backbone without features.{C4_BLOCK}") };
        let mut heads = self.class_heads.iter().zip(&self.box_heads);
        let mut predictions = Predictions::new(self.classes);

        // High-resolution heads, on the window; what they say of the rest of the frame persists.
        for (i, (features, (class_head, box_head))) in
            [c4, c5.clone()].iter().zip(heads.by_ref().take(WINDOWED_LEVELS)).enumerate()
        {
            let features = around.place(&format!("head.{i}"), features)?;
            let (class, boxes) = (class_head.forward(&features)?, box_head.forward(&features)?);
            probe(&format!("cls{i}.win"), &class)?;
            probe(&format!("box{i}.win"), &boxes)?;
            let seen = class.narrow(1, 0, 1)?.ones_like()?;
            predictions.push(
                &around.place(&format!("cls.{i}"), &class)?.plane,
                &around.place(&format!("box.{i}"), &boxes)?.plane,
                &around.place(&format!("seen.{i}"), &seen)?.plane,
            )?;
        }

        // The restored map, and on it the pyramid with the low-resolution heads.
        let [first, rest @ ..] = self.pyramid.as_slice() else { bail!("detector without a pyramid") };
        let restored = around.place("restore", &first.reduce.forward(&c5)?)?.plane;
        probe("restore", &restored)?;
        let mut level = first.shrink(&restored)?;
        let mut rest = rest.iter();
        for (i, (class_head, box_head)) in heads.enumerate() {
            if i > 0
                && let Some(layer) = rest.next()
            {
                level = layer.shrink(&layer.reduce.forward(&level)?)?;
            }
            probe(&format!("p{}", i + 1), &level)?;
            let features = Region::whole(&level)?;
            let (class, boxes) = (class_head.forward(&features)?, box_head.forward(&features)?);
            predictions.push(&class, &boxes, &class.narrow(1, 0, 1)?.ones_like()?)?;
        }

        // Attention: what to look at next.
        let q = match (&self.attention, with_q) {
            (Some(attention), true) => Some(attention.forward(&restored)?),
            (None, true) => bail!("Q-values were asked of a detector that was built without attention"),
            (_, false) => None,
        };
        predictions.finish(q)
    }

    fn q_values(raw: &RawDetections) -> Option<&Tensor> {
        raw.q.as_ref()
    }

    fn attention_grid(&self) -> Option<(Grid, FrameSize)> {
        self.attention.as_ref().map(Attention::built_for)
    }

    fn cost(&self, frame: FrameSize, window: FrameSize, with_q: bool, tally: &mut Tally) {
        let sizes = self.backbone.cost(window, tally);
        let at = |i: usize| sizes.get(i).copied().unwrap_or(window);
        let (c4, c5) = (at(C4_BLOCK - 1), at(sizes.len().saturating_sub(1)));
        let mut heads = self.class_heads.iter().zip(&self.box_heads);
        for (size, (class_head, box_head)) in [c4, c5].into_iter().zip(heads.by_ref().take(WINDOWED_LEVELS)) {
            class_head.cost(size, tally);
            box_head.cost(size, tally);
        }
        let mut level = restored_size(frame);
        for (i, (layer, (class_head, box_head))) in self.pyramid.iter().zip(heads).enumerate() {
            // The first reduction runs on the window, before the map is restored.
            layer.reduce.cost(if i == 0 { c5 } else { level }, tally);
            level = layer.expand.cost(layer.depthwise.cost(level, tally), tally);
            class_head.cost(level, tally);
            box_head.cost(level, tally);
        }
        if let (Some(attention), true) = (&self.attention, with_q) {
            attention.cost(frame, tally);
        }
    }
}

/// Collects the levels' maps in the order of the anchors: level, row, column, anchor.
struct Predictions {
    classes: usize,
    logits: Vec<Tensor>,
    boxes: Vec<Tensor>,
    seen: Vec<Tensor>,
    levels: Vec<FrameSize>,
}

impl Predictions {
    fn new(classes: usize) -> Self {
        Self { classes, logits: vec![], boxes: vec![], seen: vec![], levels: vec![] }
    }

    /// Adds a level: `class` `[B, anchors·K, h, w]`, `boxes` `[B, anchors·4, h, w]`, `seen` `[B, 1, h, w]`.
    fn push(&mut self, class: &Tensor, boxes: &Tensor, seen: &Tensor) -> Result<()> {
        let flatten = |map: &Tensor, per_anchor: usize| -> Result<Tensor> {
            let (b, c, h, w) = map.dims4()?;
            channels_last(&map.reshape((b, c, h * w))?)?.reshape((b, h * w * c / per_anchor, per_anchor))
        };
        let (b, c, h, w) = class.dims4()?;
        let anchors = c / self.classes;
        self.levels.push(FrameSize::new(h, w));
        self.logits.push(flatten(class, self.classes)?);
        self.boxes.push(flatten(boxes, 4)?);
        self.seen.push(seen.reshape((b, h * w, 1))?.repeat((1, 1, anchors))?.reshape((b, h * w * anchors))?);
        Ok(())
    }

    fn finish(self, q: Option<Tensor>) -> Result<RawDetections> {
        Ok(RawDetections {
            logits: Tensor::cat(&self.logits, 1)?,
            boxes: Tensor::cat(&self.boxes, 1)?,
            seen: Tensor::cat(&self.seen, 1)?,
            levels: self.levels,
            q,
        })
    }
}
