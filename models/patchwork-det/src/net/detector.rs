//! The detector of Section 4.1 (supplement, Section A and Figure 10): stateful MobileNetV2, SSD heads
//! of two resolutions, a restored map with a feature pyramid, and the attention network.
//!
//! The supplement gives the parts and their order; their sizes are those of SSDLite-MobileNetV2 in
//! TensorFlow's object detection API, which meet Table 4's FLOPs and fit its published COCO weights.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Region, channels_last};
use zoo_layers::{ConvNormAct, ConvSpec, MobileNetV2, Pointwise, Surroundings, Tap};

use crate::Grid;
use crate::attention::network::{Attention, restored_size};
use crate::config::DetectorConfig;
use crate::net::{Probe, RESTORE_CELL, WindowedNet, seen_like};

/// Levels of predictions: C4, C5, and the four maps of the pyramid.
pub const LEVELS: usize = 2 + PYRAMID_LAYERS;
/// Anchors a cell, level by level.
pub const ANCHORS_PER_CELL: [usize; LEVELS] = [3, 6, 6, 6, 6, 6];
/// Values of a box code.
pub(crate) const BOX_CODE: usize = 4;
/// Levels of the high-resolution heads (Figure 10), which run on the window and predict only for it.
const WINDOWED_LEVELS: usize = 2;
/// The block whose expansion is C4, at stride 16.
pub(crate) const C4_BLOCK: usize = 14;
/// The last feature of the backbone, C5, at stride 32.
const C5_FEATURE: usize = 18;
/// "The feature pyramid consists of 4 layers of separable convolutions."
const PYRAMID_LAYERS: usize = 4;

/// Channels of the pyramid's layers at a depth multiplier.
///
/// As TensorFlow's object detection API scales them (`depth_fn`): rounded down to whole channels, at
/// least 16, whatever divisor the backbone rounds by. Each layer is reduced to half as many before its
/// 3×3 convolution.
pub fn pyramid_channels(depth: f64) -> [usize; PYRAMID_LAYERS] {
    [512.0, 256.0, 256.0, 128.0].map(|base: f64| ((base * depth) as usize).max(16))
}

/// The names of a windowed level's cells. What a head predicts for the window is remembered like a
/// feature map, so the predictions for the rest of the frame persist.
struct LevelCells {
    /// The features that both predictors of the level read.
    features: &'static str,
    /// Class scores of the frame.
    classes: &'static str,
    /// Box codes of the frame.
    boxes: &'static str,
    /// Where the frame has been predicted at all.
    seen: &'static str,
}

/// The cells of C4's heads and of C5's.
const LEVEL_CELLS: [LevelCells; WINDOWED_LEVELS] = [
    LevelCells { features: "head.0", classes: "cls.0", boxes: "box.0", seen: "seen.0" },
    LevelCells { features: "head.1", classes: "cls.1", boxes: "box.1", seen: "seen.1" },
];

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

    fn prepare(&mut self) -> Result<()> {
        self.depthwise.prepare()?;
        self.output.prepare()
    }

    fn cost(&self, input: FrameSize, tally: &mut Tally) {
        self.output.cost(self.depthwise.cost(input, tally), tally);
    }
}

/// The predictors of one level.
#[derive(Debug, Clone)]
struct Head {
    class: Predictor,
    boxes: Predictor,
}

impl Head {
    /// `vb` holds `cls.{level}` and `box.{level}`.
    fn new(cfg: &DetectorConfig, channels: usize, level: usize, vb: &VarBuilder) -> Result<Self> {
        let anchors = ANCHORS_PER_CELL[level];
        Ok(Self {
            class: Predictor::new(cfg, channels, anchors * cfg.classes, vb.pp("cls").pp(level))?,
            boxes: Predictor::new(cfg, channels, anchors * BOX_CODE, vb.pp("box").pp(level))?,
        })
    }

    /// Class scores and box codes of every cell of `features`.
    fn forward(&self, features: &Region) -> Result<(Tensor, Tensor)> {
        Ok((self.class.forward(features)?, self.boxes.forward(features)?))
    }

    fn prepare(&mut self) -> Result<()> {
        self.class.prepare()?;
        self.boxes.prepare()
    }

    fn cost(&self, input: FrameSize, tally: &mut Tally) {
        self.class.cost(input, tally);
        self.boxes.cost(input, tally);
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

    /// What follows the reduction: half the rows and columns.
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
    pyramid: Box<[PyramidLayer; PYRAMID_LAYERS]>,
    heads: Box<[Head; LEVELS]>,
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
        let (Some(c4), Some(&c5)) =
            (backbone.expansion_channels(C4_BLOCK), backbone.channels().get(C5_FEATURE))
        else {
            bail!("backbone without an expansion in features.{C4_BLOCK} and a features.{C5_FEATURE}")
        };
        let [p1, p2, p3, p4] = pyramid_channels(cfg.backbone.depth);
        let channels = [c4, c5, p1, p2, p3, p4];
        let layer = |i: usize| {
            let (inputs, outputs) = (channels[i + 1], channels[i + 2]);
            PyramidLayer::new(cfg, inputs, outputs, vb.pp("extras").pp(i))
        };
        let head = |level: usize| Head::new(cfg, channels[level], level, &vb);
        let pyramid = Box::new([layer(0)?, layer(1)?, layer(2)?, layer(3)?]);
        let attention = match cfg.attention {
            Some(grid) => {
                let restored = pyramid[0].reduce.spec().out_channels;
                Some(Attention::new(&cfg.backbone, restored, cfg.frame, grid, vb.pp("attention"))?)
            }
            None => None,
        };
        Ok(Self {
            backbone,
            pyramid,
            heads: Box::new([head(0)?, head(1)?, head(2)?, head(3)?, head(4)?, head(5)?]),
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
        self.heads.iter_mut().try_for_each(Head::prepare)?;
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
        let c5 = self.backbone.forward(xs, around, &[C4_BLOCK], &mut |tap, ys| match tap {
            Tap::Expansion(C4_BLOCK) => {
                c4 = Some(ys.clone());
                probe("c4", ys)
            }
            Tap::Expansion(_) => Ok(()),
            Tap::Feature(i) => probe(&format!("f{i}"), ys),
        })?;
        let Some(c4) = c4 else { bail!("backbone without an expansion in features.{C4_BLOCK}") };
        let (windowed, whole) = self.heads.split_at(WINDOWED_LEVELS);
        let mut predictions = Predictions::new(self.classes);

        // High-resolution heads, on the window; what they say of the rest of the frame persists.
        for (level, ((head, cells), features)) in
            windowed.iter().zip(&LEVEL_CELLS).zip([&c4, &c5]).enumerate()
        {
            let (class, boxes) = head.forward(&around.place(cells.features, features)?)?;
            probe(&format!("cls{level}.win"), &class)?;
            probe(&format!("box{level}.win"), &boxes)?;
            predictions.push(
                &around.place(cells.classes, &class)?.plane,
                &around.place(cells.boxes, &boxes)?.plane,
                &around.place(cells.seen, &seen_like(&class)?)?.plane,
            )?;
        }

        // The restored map. It is reduced on the window, before it is restored: Table 4's cost of
        // M=4, N=2 leaves no room for a reduction of the whole map.
        let [first, ..] = &*self.pyramid;
        let restored = around.place(RESTORE_CELL, &first.reduce.forward(&c5)?)?.plane;
        probe("restore", &restored)?;

        // The pyramid on the restored map, with the low-resolution heads.
        let mut map = restored.clone();
        for (i, (layer, head)) in self.pyramid.iter().zip(whole).enumerate() {
            let reduced = if i == 0 { map } else { layer.reduce.forward(&map)? };
            map = layer.shrink(&reduced)?;
            probe(&format!("p{}", i + 1), &map)?;
            let (class, boxes) = head.forward(&Region::whole(&map)?)?;
            predictions.push(&class, &boxes, &seen_like(&class)?)?;
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
        // The expansion has the size of what it expands, the output of the block before.
        let (c4, c5) = (sizes[C4_BLOCK - 1], sizes[C5_FEATURE]);
        let (windowed, whole) = self.heads.split_at(WINDOWED_LEVELS);
        for (head, size) in windowed.iter().zip([c4, c5]) {
            head.cost(size, tally);
        }
        let [first, ..] = &*self.pyramid;
        first.reduce.cost(c5, tally);
        let mut map = restored_size(frame);
        for (i, (layer, head)) in self.pyramid.iter().zip(whole).enumerate() {
            if i > 0 {
                layer.reduce.cost(map, tally);
            }
            map = layer.expand.cost(layer.depthwise.cost(map, tally), tally);
            head.cost(map, tally);
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
            channels_last(map)?.reshape((b, h * w * c / per_anchor, per_anchor))
        };
        let (b, c, h, w) = class.dims4()?;
        let anchors = c / self.classes;
        self.levels.push(FrameSize::new(h, w));
        self.logits.push(flatten(class, self.classes)?);
        self.boxes.push(flatten(boxes, BOX_CODE)?);
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
