//! RetinaNet's head: Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.

use candle_core::{Result, Tensor};
use candle_nn::VarBuilder;
use serde::{Deserialize, Serialize};
use zoo_core::{FrameSize, Tally};
use zoo_kernels::Activation;

use crate::{ConvNormAct, ConvSpec};

/// The epsilon of convolutions without a norm.
const NO_EPS: f64 = 0.0;

/// Whose names the tensors have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RetinaNetNames {
    /// `classification_head.conv.1.0`, `regression_head.bbox_reg`: torchvision from 0.12 on.
    #[default]
    Torchvision,
    /// `classification_head.conv.2`: torchvision before that, and its files.
    TorchvisionFlat,
    /// `cls_tower.2`, `bbox_pred`: maskrcnn-benchmark and its descendants.
    MaskrcnnBenchmark,
}

impl RetinaNetNames {
    /// The names under which `vb` holds a head.
    pub fn of(vb: &VarBuilder) -> Option<Self> {
        let has = |path: &str| vb.contains_tensor(&format!("{path}.weight"));
        if has("classification_head.conv.0.0") {
            Some(Self::Torchvision)
        } else if has("classification_head.conv.0") {
            Some(Self::TorchvisionFlat)
        } else {
            has("cls_tower.0").then_some(Self::MaskrcnnBenchmark)
        }
    }
}

/// Options of a [`RetinaNetHead`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RetinaNetHeadConfig {
    /// Channels of the maps and the towers.
    pub channels: usize,
    /// Convolutions of each tower.
    pub convs: usize,
    /// Anchors of a cell.
    pub anchors: usize,
    /// Classes that are scored.
    pub classes: usize,
    /// Whose names the tensors have.
    pub names: RetinaNetNames,
}

/// Two towers of 3×3 convolutions with ReLUs, and what is read from them: logits and codes of each anchor.
#[derive(Debug, Clone)]
pub struct RetinaNetHead {
    classes_tower: Vec<ConvNormAct>,
    boxes_tower: Vec<ConvNormAct>,
    logits: ConvNormAct,
    codes: ConvNormAct,
}

impl RetinaNetHead {
    /// `vb` holds the towers and the outputs as the configuration's names say.
    ///
    /// # Errors
    /// If a tensor is missing or has another shape.
    pub fn new(cfg: &RetinaNetHeadConfig, vb: VarBuilder) -> Result<Self> {
        let &RetinaNetHeadConfig { channels, convs, anchors, classes, names } = cfg;
        let (towers, outputs) = match names {
            RetinaNetNames::MaskrcnnBenchmark => {
                ([vb.pp("cls_tower"), vb.pp("bbox_tower")], [vb.pp("cls_logits"), vb.pp("bbox_pred")])
            }
            RetinaNetNames::Torchvision | RetinaNetNames::TorchvisionFlat => {
                let (classes, boxes) = (vb.pp("classification_head"), vb.pp("regression_head"));
                ([classes.pp("conv"), boxes.pp("conv")], [classes.pp("cls_logits"), boxes.pp("bbox_reg")])
            }
        };
        let conv = |outputs: usize, act, vb: VarBuilder<'_>| {
            ConvNormAct::biased(ConvSpec::dense3(channels, outputs, 1, NO_EPS, act), vb)
        };
        let layer = |vb: &VarBuilder<'_>, i: usize| match names {
            RetinaNetNames::Torchvision => conv(channels, Activation::Relu, vb.pp(i).pp(0)),
            // Convolutions and activations alternate.
            _ => conv(channels, Activation::Relu, vb.pp(2 * i)),
        };
        let tower = |vb: &VarBuilder<'_>| (0..convs).map(|i| layer(vb, i)).collect::<Result<Vec<_>>>();
        let [vb_classes, vb_boxes] = &towers;
        let [vb_logits, vb_codes] = outputs;
        Ok(Self {
            classes_tower: tower(vb_classes)?,
            boxes_tower: tower(vb_boxes)?,
            logits: conv(anchors * classes, Activation::None, vb_logits)?,
            codes: conv(anchors * 4, Activation::None, vb_codes)?,
        })
    }

    fn layers(&self) -> impl Iterator<Item = &ConvNormAct> {
        self.classes_tower.iter().chain([&self.logits]).chain(&self.boxes_tower).chain([&self.codes])
    }

    /// Packs the weights. Inference only: gradients end here.
    ///
    /// # Errors
    /// If candle cannot read the weights.
    pub fn prepare(&mut self) -> Result<()> {
        let towers = self.classes_tower.iter_mut().chain(&mut self.boxes_tower);
        towers.chain([&mut self.logits, &mut self.codes]).try_for_each(ConvNormAct::prepare)
    }

    /// `xs`: `[B, C, H, W]`, one level. Result: logits, `[B, anchors · classes, H, W]`, and codes,
    /// `[B, anchors · 4, H, W]`; all of an anchor's channels follow each other.
    ///
    /// # Errors
    /// If the channels do not fit.
    pub fn forward(&self, xs: &Tensor) -> Result<(Tensor, Tensor)> {
        let tower = |tower: &[ConvNormAct]| tower.iter().try_fold(xs.clone(), |xs, conv| conv.forward(&xs));
        let logits = self.logits.forward(&tower(&self.classes_tower)?)?;
        Ok((logits, self.codes.forward(&tower(&self.boxes_tower)?)?))
    }

    /// Counts every layer for a level of `input`.
    pub fn cost(&self, input: FrameSize, tally: &mut Tally) {
        for conv in self.layers() {
            conv.cost(input, tally);
        }
    }
}
