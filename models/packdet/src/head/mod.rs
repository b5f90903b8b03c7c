//! Heads: what is behind the pyramid.

mod block;
mod long;
mod points;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{FrameSize, Tally};
use zoo_layers::detection::{RetinaNetHead, RetinaNetHeadConfig, RetinaNetNames};

use self::block::cost_shared;
use self::long::LongHead;
use self::points::PointsHead;
use crate::config::{ANCHORS, Config, Flavour, HeadConfig};
use crate::plane::{Grid, Places};
use crate::raw::{BoxUnits, RawMap};
use crate::{Probe, RawMaps};

/// Convolutions of a RetinaNet tower.
const RETINANET_CONVS: usize = 4;

/// One plane, or the maps of a layout.
type Maps = Vec<Tensor>;

/// What follows from an input's size alone.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) places: std::sync::Arc<Places>,
    /// Of each of the places' grids.
    tables: Vec<Tables>,
}

/// Of each cell of an output map.
#[derive(Debug)]
struct Tables {
    /// `[h · w]`, integers; 0 in gaps.
    levels: Tensor,
    /// Input pixels to a cell of its level, `[1, h, w, 1]`.
    strides: Tensor,
}

impl Frame {
    pub(crate) fn new(places: Places, dtype: DType, device: &Device) -> Result<Self> {
        let tables = places.grids.iter().map(|Grid { size, cells }| {
            let levels = cells.iter().map(|cell| u32::from(cell.level)).collect::<Vec<_>>();
            let strides = cells.iter().map(|cell| cell.stride()).collect::<Vec<_>>();
            let strides = Tensor::from_vec(strides, (1, size.height, size.width, 1), device)?;
            let levels = Tensor::from_vec(levels, size.area(), device)?;
            Ok(Tables { levels, strides: strides.to_dtype(dtype)? })
        });
        let tables = tables.collect::<Result<_>>()?;
        Ok(Self { places: std::sync::Arc::new(places), tables })
    }
}

/// A head of any kind.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    /// What all levels share before the towers.
    long: Option<LongHead>,
    outputs: Outputs,
}

#[derive(Debug, Clone)]
enum Outputs {
    Points(Box<PointsHead>),
    Anchors(Box<RetinaNetHead>),
}

impl Head {
    /// `vb` holds the whole net.
    pub(crate) fn new(config: &Config, vb: VarBuilder) -> Result<Self> {
        let &Config { pyramid, classes, flavour, .. } = config;
        let rpn = vb.pp("rpn");
        let anchors = |channels: usize, convs: usize, names: RetinaNetNames, vb: VarBuilder| {
            let config = RetinaNetHeadConfig { channels, convs, anchors: ANCHORS, classes, names };
            RetinaNetHead::new(&config, vb).map(|head| Outputs::Anchors(Box::new(head)))
        };
        let points = |head| Outputs::Points(Box::new(head));
        let (long, outputs) = match config.head {
            HeadConfig::PackDet { long, points: config } => {
                let head = rpn.pp("head");
                let shape = (long.channels, long.tower, classes);
                let outputs = points(PointsHead::packdet(config, shape, head.pp("predictor"))?);
                (Some(LongHead::new(long, pyramid, head)?), outputs)
            }
            HeadConfig::RetinaPack(long) => {
                let names = RetinaNetNames::MaskrcnnBenchmark;
                let outputs = anchors(long.channels, long.tower, names, rpn.pp("head"))?;
                (Some(LongHead::new(long, pyramid, rpn)?), outputs)
            }
            HeadConfig::Fcos(config) => {
                let vb = if flavour == Flavour::Torchvision { vb.pp("head") } else { rpn.pp("head") };
                (None, points(PointsHead::fcos(config, flavour, (pyramid, classes), vb)?))
            }
            HeadConfig::RetinaNet => {
                let (names, vb) = match flavour {
                    Flavour::MaskrcnnBenchmark => (RetinaNetNames::MaskrcnnBenchmark, rpn.pp("head")),
                    Flavour::Torchvision => {
                        let vb = vb.pp("head");
                        (RetinaNetNames::of(&vb).unwrap_or(RetinaNetNames::Torchvision), vb)
                    }
                };
                (None, anchors(pyramid, RETINANET_CONVS, names, vb)?)
            }
        };
        Ok(Self { long, outputs })
    }

    pub(crate) fn prepare(&mut self) -> Result<()> {
        self.long.iter_mut().try_for_each(LongHead::prepare)?;
        match &mut self.outputs {
            Outputs::Points(head) => head.prepare(),
            Outputs::Anchors(head) => head.prepare(),
        }
    }

    /// `levels`: P3 … P7, which are let go of as soon as they are packed.
    pub(crate) fn forward(
        &self,
        levels: Vec<Tensor>,
        frame: &Frame,
        units: BoxUnits,
        probe: Probe,
    ) -> Result<RawMaps> {
        let (maps, joint) = match &self.long {
            Some(long) => (long.forward(levels, &frame.places, probe)?, long.is_joint()),
            None => (levels, false),
        };
        let maps = match &self.outputs {
            Outputs::Points(head) => head.forward(&maps, joint, frame, units, probe)?,
            Outputs::Anchors(head) => {
                let raw = |map: &Tensor| {
                    let (scores, boxes) = head.forward(map)?;
                    Ok(RawMap { scores, boxes, centerness: None })
                };
                maps.iter().map(raw).collect::<Result<Vec<_>>>()?
            }
        };
        let outputs =
            |of: fn(&RawMap) -> Option<&Tensor>| maps.iter().filter_map(of).cloned().collect::<Maps>();
        show(probe, "logits", &frame.places, &outputs(|raw| Some(&raw.scores)))?;
        show(probe, "bbox_reg", &frame.places, &outputs(|raw| Some(&raw.boxes)))?;
        show(probe, "centerness", &frame.places, &outputs(|raw| raw.centerness.as_ref()))?;
        Ok(RawMaps { maps, places: frame.places.clone() })
    }

    /// Counts every layer.
    pub(crate) fn cost(&self, input: FrameSize, places: &Places, tally: &mut Tally) {
        let grids: Vec<FrameSize> = places.grids.iter().map(|grid| grid.size).collect();
        if let Some(long) = &self.long {
            long.cost(input, &grids, tally);
        }
        match &self.outputs {
            Outputs::Points(head) => head.cost(&grids, tally),
            Outputs::Anchors(head) => {
                cost_shared(&grids, tally, |size, tally| head.cost(size, tally));
            }
        }
    }
}

/// Shows a plane by its name, or maps that are apart by their names and numbers.
fn show(probe: Probe, name: &str, places: &Places, maps: &Maps) -> Result<()> {
    if places.is_packed() {
        return maps.iter().try_for_each(|plane| probe(name, plane));
    }
    maps.iter().enumerate().try_for_each(|(i, map)| probe(&format!("{name}.{i}"), map))
}
