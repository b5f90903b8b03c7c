//! The segmenter of Section 4.2 (supplement, Section A): a head on the windowed backbone. Segmentation
//! is local, so it needs no restored map; the attention network restores its own.
//!
//! The supplement says no more of the head. Ours is a lateral pyramid whose width and strides meet
//! Table 5's FLOPs at both depths and in windows.

use candle_core::{Result, Tensor, bail};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;
use zoo_layers::{ConvNormAct, ConvSpec, MobileNetV2, Pointwise, Surroundings, Tap};

use crate::Grid;
use crate::attention::network::Attention;
use crate::config::SegmenterConfig;
use crate::net::detector::C4_BLOCK;
use crate::net::{Probe, RESTORE_CELL, WindowedNet, seen_like};

/// Features that the 3×3 laterals read, finest first: strides 4, 8, 16.
const LATERALS: [usize; 3] = [3, 6, 13];
/// The last feature, which the 1×1 lateral reads: stride 32.
const TOP: usize = 18;
/// The feature that the attention network restores.
const RESTORED: usize = 17;
/// The cells that remember the window's scores, and where there are any.
const LOGITS_CELL: &str = "logits";
const SEEN_CELL: &str = "seen";

/// The cells of the 3×3 laterals' inputs.
const LATERAL_CELLS: [&str; LATERALS.len()] = ["lateral.0", "lateral.1", "lateral.2"];

/// Scores for the full frame at stride 4, before upsampling.
#[derive(Debug, Clone)]
pub struct RawMask {
    /// Object scores before the sigmoid, `[B, out, H/4, W/4]`.
    pub logits: Tensor,
    /// 1 where the stream has predicted since it began, 0 where never, `[B, 1, H/4, W/4]`.
    pub seen: Tensor,
    /// Q-values of all windows, `[B, |A|]`, where they were asked for.
    pub q: Option<Tensor>,
}

/// The network: a frame or a window of it in, scores for the full frame out.
#[derive(Debug, Clone)]
pub struct SegmenterNet {
    backbone: MobileNetV2,
    laterals: Vec<ConvNormAct>,
    top: ConvNormAct,
    logits: Pointwise,
    attention: Option<Attention>,
}

impl SegmenterNet {
    /// `vb` holds `backbone.*`, `lateral.*`, `logits` and, if configured, `attention.*`.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &SegmenterConfig, vb: VarBuilder) -> Result<Self> {
        let backbone = MobileNetV2::new(&cfg.backbone, vb.pp("backbone"))?;
        let channels = |i: usize| match backbone.channels().get(i) {
            Some(&c) => Ok(c),
            None => bail!("backbone without features.{i}"),
        };
        let eps = cfg.backbone.bn_eps;
        let lateral = |i: usize, spec: ConvSpec| {
            let vb = vb.pp("lateral").pp(i);
            ConvNormAct::new(spec.padded(cfg.backbone.padding), vb.pp(0), vb.pp(1))
        };
        let laterals = LATERALS
            .iter()
            .enumerate()
            .map(|(i, &feature)| {
                lateral(i, ConvSpec::dense3(channels(feature)?, cfg.width, 1, eps, Activation::None))
            })
            .collect::<Result<_>>()?;
        let top = ConvSpec::pointwise(channels(TOP)?, cfg.width, eps, Activation::None);
        let top = lateral(LATERALS.len(), top)?;
        let attention = match cfg.attention {
            Some(grid) => {
                let inputs = channels(RESTORED)?;
                Some(Attention::new(&cfg.backbone, inputs, cfg.frame, grid, vb.pp("attention"))?)
            }
            None => None,
        };
        let logits = Pointwise::new(cfg.width, cfg.outputs, vb.pp("logits"))?;
        Ok(Self { backbone, laterals, top, logits, attention })
    }

    /// Folds batch norm for inference.
    ///
    /// # Errors
    /// If candle cannot compute the folded weights.
    pub fn prepare(&mut self) -> Result<()> {
        self.backbone.prepare()?;
        self.laterals.iter_mut().try_for_each(ConvNormAct::prepare)?;
        self.top.prepare()?;
        self.logits.prepare()?;
        self.attention.iter_mut().try_for_each(Attention::prepare)
    }
}

impl WindowedNet for SegmenterNet {
    type Raw = RawMask;

    fn forward(
        &self,
        xs: &Tensor,
        around: &mut dyn Surroundings,
        with_q: bool,
        probe: Probe,
    ) -> Result<RawMask> {
        let (mut taps, mut restored) = (Vec::with_capacity(LATERALS.len()), None);
        let last = self.backbone.forward(xs, around, &[C4_BLOCK], &mut |tap, ys| {
            match tap {
                Tap::Feature(i) if LATERALS.contains(&i) => taps.push(ys.clone()),
                Tap::Feature(RESTORED) => restored = Some(ys.clone()),
                _ => {}
            }
            match tap {
                Tap::Feature(i) => probe(&format!("f{i}"), ys),
                Tap::Expansion(C4_BLOCK) => probe("c4", ys),
                Tap::Expansion(_) => Ok(()),
            }
        })?;

        // Top-down: the coarse sum doubled by repetition, plus the next finer lateral.
        let mut sum = self.top.forward(&last)?;
        for ((tap, lateral), cell) in taps.iter().zip(&self.laterals).zip(LATERAL_CELLS).rev() {
            let features = around.place(cell, tap)?;
            let (_, _, h, w) = tap.dims4()?;
            sum = lateral.forward_region_add(&features, &sum.upsample_nearest2d(h, w)?)?;
        }
        probe("fused", &sum)?;
        let window = self.logits.forward(&Activation::Relu6.apply(&sum)?)?;
        let logits = around.place(LOGITS_CELL, &window)?.plane;
        let seen = around.place(SEEN_CELL, &seen_like(&window)?)?.plane;

        let q = match (&self.attention, with_q, restored) {
            (Some(attention), true, Some(feature)) => {
                let restored = around.place(RESTORE_CELL, &feature)?.plane;
                probe("restore", &restored)?;
                Some(attention.forward(&restored)?)
            }
            (_, false, _) => None,
            _ => bail!("Q-values were asked of a segmenter that was built without attention"),
        };
        Ok(RawMask { logits, seen, q })
    }

    fn q_values(raw: &RawMask) -> Option<&Tensor> {
        raw.q.as_ref()
    }

    fn attention_grid(&self) -> Option<(Grid, FrameSize)> {
        self.attention.as_ref().map(Attention::built_for)
    }

    fn cost(&self, frame: FrameSize, window: FrameSize, with_q: bool, tally: &mut Tally) {
        let sizes = self.backbone.cost(window, tally);
        self.top.cost(sizes[TOP], tally);
        for (&feature, lateral) in LATERALS.iter().zip(&self.laterals).rev() {
            lateral.cost(sizes[feature], tally);
        }
        let [finest, ..] = LATERALS;
        self.logits.cost(sizes[finest], tally);
        if let (Some(attention), true) = (&self.attention, with_q) {
            attention.cost(frame, tally);
        }
    }
}
