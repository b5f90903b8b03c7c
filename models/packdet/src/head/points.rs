//! Heads without anchors: towers, and for each cell the classes' logits, four distances and centerness.

use candle_core::{Result, Tensor};
use candle_nn::{Init, VarBuilder};
use zoo_core::{FrameSize, LayerCost, Tally};
use zoo_kernels::{Activation, channels_last};
use zoo_layers::{ConvNormAct, ConvSpec};

use super::block::{ConvBlock, NO_EPS, cost_shared};
use super::{Frame, Maps, Probe, show};
use crate::config::{BoxRule, Flavour, PointsConfig, Tower};
use crate::plane::LEVELS;
use crate::raw::{BoxUnits, RawMap};

/// Convolutions of an FCOS tower.
const FCOS_CONVS: usize = 4;

/// Two towers and what is read from them.
#[derive(Debug, Clone)]
pub(super) struct PointsHead {
    config: PointsConfig,
    classes_tower: Vec<ConvBlock>,
    boxes_tower: Vec<ConvBlock>,
    logits: ConvNormAct,
    boxes: ConvNormAct,
    centerness: ConvNormAct,
    /// A factor for each level, `[5]`.
    scales: Option<Scales>,
}

#[derive(Debug, Clone)]
struct Scales {
    name: String,
    /// One of five values, or five of one.
    values: Vec<Tensor>,
}

impl Scales {
    /// `[5]`
    fn all(&self) -> Result<Tensor> {
        match &self.values[..] {
            [all] => Ok(all.clone()),
            each => Tensor::cat(each, 0),
        }
    }
}

/// Where the parts of a head lie.
struct Names<'a> {
    classes: VarBuilder<'a>,
    boxes: VarBuilder<'a>,
    logits: VarBuilder<'a>,
    distances: VarBuilder<'a>,
    centerness: VarBuilder<'a>,
}

impl PointsHead {
    /// PackDet's: `vb` holds `cls_tower`, `bbox_tower`, `cls_logits`, `bbox_pred`, `centerness` and `scale_layer`.
    pub(super) fn packdet(
        config: PointsConfig,
        (channels, convs, classes): (usize, usize, usize),
        vb: VarBuilder,
    ) -> Result<Self> {
        let block = |vb: VarBuilder, i: usize| {
            let is_deformable = config.deformable && i + 1 == convs;
            ConvBlock::named((channels, channels, 3), is_deformable, vb.pp(i))
        };
        let vb_scales = vb.pp("scale_layer");
        let scales = Scales {
            name: vb_scales.prefix(),
            values: vec![vb_scales.get_with_hints(LEVELS, "scales", Init::Const(1.0))?],
        };
        Self::new(config, (channels, convs, classes), rpn_names(&vb), block, Some(scales))
    }

    /// FCOS's. maskrcnn-benchmark's `vb` holds `cls_tower`, `bbox_tower`, `cls_logits`, `bbox_pred`, `centerness` and
    /// `scales`, torchvision's `classification_head` and `regression_head`.
    pub(super) fn fcos(
        config: PointsConfig,
        flavour: Flavour,
        (channels, classes): (usize, usize),
        vb: VarBuilder,
    ) -> Result<Self> {
        let block = |vb: VarBuilder, i: usize| {
            let is_deformable = config.deformable && i + 1 == FCOS_CONVS;
            ConvBlock::new((channels, channels, 3), is_deformable, vb.pp(3 * i), vb.pp(3 * i + 1))
        };
        let shape = (channels, FCOS_CONVS, classes);
        match flavour {
            Flavour::MaskrcnnBenchmark => {
                let vb_scales = vb.pp("scales");
                let scale = |i: usize| vb_scales.pp(i).get_with_hints(1, "scale", Init::Const(1.0));
                let values = (0..LEVELS).map(scale).collect::<Result<_>>()?;
                let scales = Scales { name: vb_scales.prefix(), values };
                Self::new(config, shape, rpn_names(&vb), block, Some(scales))
            }
            Flavour::Torchvision => {
                let (classes, boxes) = (vb.pp("classification_head"), vb.pp("regression_head"));
                let names = Names {
                    classes: classes.pp("conv"),
                    boxes: boxes.pp("conv"),
                    logits: classes.pp("cls_logits"),
                    distances: boxes.pp("bbox_reg"),
                    centerness: boxes.pp("bbox_ctrness"),
                };
                Self::new(config, shape, names, block, None)
            }
        }
    }

    fn new(
        config: PointsConfig,
        (channels, convs, classes): (usize, usize, usize),
        names: Names,
        block: impl Fn(VarBuilder, usize) -> Result<ConvBlock>,
        scales: Option<Scales>,
    ) -> Result<Self> {
        let tower = |vb: VarBuilder| (0..convs).map(|i| block(vb.clone(), i)).collect::<Result<Vec<_>>>();
        let output = |outputs: usize, vb: VarBuilder| {
            ConvNormAct::biased(ConvSpec::dense3(channels, outputs, 1, NO_EPS, Activation::None), vb)
        };
        Ok(Self {
            config,
            classes_tower: tower(names.classes)?,
            boxes_tower: tower(names.boxes)?,
            logits: output(classes, names.logits)?,
            boxes: output(4, names.distances)?,
            centerness: output(1, names.centerness)?,
            scales,
        })
    }

    pub(super) fn prepare(&mut self) -> Result<()> {
        self.classes_tower.iter_mut().chain(&mut self.boxes_tower).try_for_each(ConvBlock::prepare)?;
        if let Some(scales) = &mut self.scales {
            scales.values = vec![scales.all()?.detach()];
        }
        [&mut self.logits, &mut self.boxes, &mut self.centerness]
            .into_iter()
            .try_for_each(ConvNormAct::prepare)
    }

    /// Norms of the towers go over all maps if they are `joint`.
    pub(super) fn forward(
        &self,
        xs: &Maps,
        joint: bool,
        frame: &Frame,
        units: BoxUnits,
        probe: Probe,
    ) -> Result<Vec<RawMap>> {
        let tower = |tower: &[ConvBlock]| {
            tower.iter().try_fold(xs.clone(), |xs, block| block.forward_all(&xs, &[], joint))
        };
        let each = |conv: &ConvNormAct, maps: &Maps| {
            maps.iter().map(|map| conv.forward(map)).collect::<Result<Vec<_>>>()
        };
        let places = &frame.places;
        let classes = tower(&self.classes_tower)?;
        show(probe, "cls_tower", places, &classes)?;
        let scores = each(&self.logits, &classes)?;
        let mut centerness = match self.config.centerness {
            Tower::Classes => each(&self.centerness, &classes)?,
            Tower::Boxes => vec![],
        };
        drop(classes);
        let boxes = tower(&self.boxes_tower)?;
        show(probe, "bbox_tower", places, &boxes)?;
        let distances = each(&self.boxes, &boxes)?;
        if self.config.centerness == Tower::Boxes {
            centerness = each(&self.centerness, &boxes)?;
        }
        show(probe, "bbox_pred_raw", places, &distances)?;
        let scales = self.scales.as_ref().map(Scales::all).transpose()?;
        let mut raw = Vec::with_capacity(scores.len());
        for (i, ((scores, boxes), centerness)) in
            scores.into_iter().zip(distances).zip(centerness).enumerate()
        {
            let boxes = self.distances(&boxes, scales.as_ref(), frame, i, units)?;
            raw.push(RawMap { scores, boxes, centerness: Some(centerness) });
        }
        Ok(raw)
    }

    /// Distances of one output map, by the rule of the configuration.
    fn distances(
        &self,
        raw: &Tensor,
        scales: Option<&Tensor>,
        frame: &Frame,
        grid: usize,
        units: BoxUnits,
    ) -> Result<Tensor> {
        let mut ys = channels_last(raw)?;
        let (_, h, w, _) = ys.dims4()?;
        let tables = &frame.tables[grid];
        if let Some(scales) = scales {
            ys = ys.broadcast_mul(&scales.index_select(&tables.levels, 0)?.reshape((1, h, w, 1))?)?;
        }
        let ys = match (self.config.boxes, units) {
            (BoxRule::Relu, BoxUnits::Pixels) => ys.relu()?.broadcast_mul(&tables.strides)?,
            (BoxRule::Relu, BoxUnits::Strides) => ys.relu()?,
            (BoxRule::Exp, BoxUnits::Pixels) => ys.exp()?,
            (BoxRule::Exp, BoxUnits::Strides) => ys.exp()?.broadcast_div(&tables.strides)?,
        };
        ys.permute((0, 3, 1, 2))
    }

    pub(super) fn cost(&self, grids: &[FrameSize], tally: &mut Tally) {
        for block in self.classes_tower.iter().chain(&self.boxes_tower) {
            cost_shared(grids, tally, |size, tally| block.cost(size, tally));
        }
        for conv in [&self.logits, &self.boxes, &self.centerness] {
            cost_shared(grids, tally, |size, tally| {
                conv.cost(size, tally);
            });
        }
        if let Some(Scales { name, .. }) = &self.scales {
            tally.push(LayerCost { name: name.clone(), params: LEVELS as u64, ..LayerCost::default() });
        }
    }
}

fn rpn_names<'a>(vb: &VarBuilder<'a>) -> Names<'a> {
    Names {
        classes: vb.pp("cls_tower"),
        boxes: vb.pp("bbox_tower"),
        logits: vb.pp("cls_logits"),
        distances: vb.pp("bbox_pred"),
        centerness: vb.pp("centerness"),
    }
}
