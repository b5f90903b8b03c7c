//! Heads without anchors.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};
use zoo_layers::detection::{Point, PointAssigner};
use zoo_train::{IouLoss, SigmoidFocal, binary_cross_entropy, centerness, nothing};

use super::flat::{check_images, chosen, fours, label, rows};
use super::{DetectionLoss, TrueBox};
use crate::config::{BoxRule, Config, HeadConfig};
use crate::plane::{Cell, Places};
use crate::raw::RawMaps;

/// Targets and loss of PackDet and FCOS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointLoss {
    /// Who finds what.
    pub assigner: PointAssigner,
    /// Of the classes.
    pub focal: SigmoidFocal,
    /// Of the boxes.
    pub iou: IouLoss,
    /// Whether boxes are compared in strides of their level; otherwise in pixels.
    pub in_strides: bool,
}

/// What the cells of a batch have to say: image by image, map by map, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct PointTargets {
    /// 0 where nothing is, else the class from 1 on. A plane's gaps and cells over padding are background.
    pub labels: Vec<i32>,
    /// The cells that show something, by their numbers in `labels`.
    pub positives: Vec<u32>,
    /// Left, top, right, bottom of the box of each of these, in the loss's units.
    pub distances: Vec<[f32; 4]>,
    /// Pixels to such a unit, for each of these.
    pub units: Vec<f32>,
}

impl PointLoss {
    /// The switches of the authors' "improved" configurations: centre sampling, GIoU, boxes in strides.
    pub fn improved() -> Self {
        Self {
            assigner: PointAssigner::fcos(1.5),
            focal: SigmoidFocal::default(),
            iou: IouLoss::Giou,
            in_strides: true,
        }
    }

    /// FCOS's first version, which the MobileNetV2 configurations keep.
    pub fn plain() -> Self {
        Self { assigner: PointAssigner::fcos(0.0), iou: IouLoss::Iou, in_strides: false, ..Self::improved() }
    }

    /// What a net of this configuration is trained with; `None` where it has anchors.
    pub fn of_config(config: &Config) -> Option<Self> {
        match config.head {
            HeadConfig::PackDet { points, .. } | HeadConfig::Fcos(points) => Some(match points.boxes {
                BoxRule::Relu => Self::improved(),
                BoxRule::Exp => Self::plain(),
            }),
            HeadConfig::RetinaNet | HeadConfig::RetinaPack(_) => None,
        }
    }

    /// What each cell has to say of the objects of a batch's images.
    ///
    /// # Errors
    /// If an object is of no class.
    pub fn targets(&self, places: &Places, classes: usize, truth: &[Vec<TrueBox>]) -> Result<PointTargets> {
        let cells: Vec<&Cell> = places.grids.iter().flat_map(|grid| &grid.cells).collect();
        let points: Vec<Point> =
            cells.iter().map(|cell| Point { level: usize::from(cell.level), x: cell.x, y: cell.y }).collect();
        let mut targets = PointTargets {
            labels: Vec::with_capacity(truth.len() * points.len()),
            positives: Vec::new(),
            distances: Vec::new(),
            units: Vec::new(),
        };
        for objects in truth {
            let boxes: Vec<[f32; 4]> = objects.iter().map(|object| object.bbox).collect();
            for (assigned, cell) in self.assigner.assign(&points, &boxes)?.into_iter().zip(&cells) {
                let object = assigned.and_then(|assigned| Some((assigned, objects.get(assigned.object)?)));
                let Some((assigned, object)) = object else {
                    targets.labels.push(0);
                    continue;
                };
                let unit = if self.in_strides { cell.stride() } else { 1.0 };
                targets.positives.push(targets.labels.len() as u32);
                targets.labels.push(label(object, classes)?);
                targets.distances.push(assigned.distances.map(|distance| distance / unit));
                targets.units.push(unit);
            }
        }
        Ok(targets)
    }

    /// The loss of a batch: the focal sum over all cells and classes by the number n of positives (at least 1); the boxes'
    /// weighted by the centerness that they should have, by its sum; centerness' cross entropy by n. Where nothing is to
    /// be found the latter two are 0 and stay in the graph.
    ///
    /// # Errors
    /// If there is not one list of objects an image, an object is of no class, or the maps are of a head with anchors.
    pub fn of(&self, raw: &RawMaps, truth: &[Vec<TrueBox>]) -> Result<DetectionLoss> {
        let maps = |of: fn(&crate::raw::RawMap) -> Option<&Tensor>| -> Result<Vec<Tensor>> {
            let maps: Option<Vec<Tensor>> = raw.maps.iter().map(|map| of(map).cloned()).collect();
            let Some(maps) = maps else { bail!("the loss of a head without anchors: it has no centerness") };
            Ok(maps)
        };
        let scores = maps(|map| Some(&map.scores))?;
        let Some((images, classes, _, _)) = scores.first().map(Tensor::dims4).transpose()? else {
            bail!("the loss of a head: there are no maps")
        };
        check_images(images, truth)?;
        let targets = self.targets(&raw.places, classes, truth)?;
        let n = targets.positives.len().max(1) as f64;
        let of_classes = (self.focal.sum(&rows(&scores, classes)?, &targets.labels)? / n)?;
        let boxes = rows(&maps(|map| Some(&map.boxes))?, 4)?;
        let centres = rows(&maps(|map| map.centerness.as_ref())?, 1)?.squeeze(1)?;
        if targets.positives.is_empty() {
            let (boxes, centerness) = (nothing(&boxes)?, nothing(&centres)?);
            return Ok(DetectionLoss { classes: of_classes, boxes, centerness: Some(centerness) });
        }
        let (device, dtype) = (boxes.device(), boxes.dtype());
        let units = Tensor::new(targets.units.as_slice(), device)?.to_dtype(dtype)?.unsqueeze(1)?;
        let distances = fours(&targets.distances, &boxes)?;
        let wanted = centerness(&distances)?;
        let found = chosen(&boxes, &targets.positives)?.broadcast_div(&units)?;
        let of_boxes = ((self.iou.of(&found, &distances)? * &wanted)?.sum_all()? / wanted.sum_all()?)?;
        let of_centres = binary_cross_entropy(&chosen(&centres, &targets.positives)?, &wanted)?.sum_all()?;
        Ok(DetectionLoss { classes: of_classes, boxes: of_boxes, centerness: Some((of_centres / n)?) })
    }
}
