//! Targets and losses of given raw maps.

use std::sync::Arc;

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use zoo_layers::detection::PointAssigner;
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};
use zoo_train::{IouLoss, SigmoidFocal, centerness};

use super::boxes::{input_of, layout_of, name_of, strides};
use crate::plane::{Layout, Locations, Places};
use crate::raw::{RawMap, RawMaps};
use crate::training::flat::fours;
use crate::training::{AnchorLoss, PointLoss, TrueBox};

/// The cases of training: labels to the unit, losses closely.
pub(super) fn cases() -> Vec<Case> {
    let exact = |_: &Golden, name: &str| ["labels", "pos_index"].contains(&name).then_some(Tolerance::Exact);
    vec![
        Case::new(["packdet.loss"], Tolerance::Close, points).with_exceptions(exact),
        Case::new(["retinanet.loss"], Tolerance::Close, anchors).with_exceptions(exact),
    ]
}

/// `[x0, y0, x1, y1, label]` of each object of each image.
type Objects = Vec<Vec<[f32; 5]>>;

fn truth(objects: &Objects) -> Vec<Vec<TrueBox>> {
    let of =
        |&[x0, y0, x1, y1, label]: &[f32; 5]| TrueBox { class: label as usize - 1, bbox: [x0, y0, x1, y1] };
    objects.iter().map(|of_image| of_image.iter().map(of).collect()).collect()
}

#[derive(Deserialize)]
struct PointsConfig {
    #[serde(default)]
    levels: Vec<usize>,
    layout: Option<Layout>,
    level_sizes_hw: Vec<(usize, usize)>,
    norm_reg_targets: bool,
    center_sampling_radius: f32,
    iou_loss_type: IouLoss,
    loss_alpha: f64,
    loss_gamma: f64,
    boxes_xyxy_label: Objects,
}

fn points(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let config: PointsConfig = golden.config()?;
    let input = input_of(&config.level_sizes_hw);
    let places = match config.layout {
        Some(layout) => Places::packed(layout, input, Locations::Centres)?,
        None => Places::separate(layout_of(&config.levels)?, input, Locations::Centres),
    };
    let in_strides = config.norm_reg_targets;
    // The notes' factors of the boxes, in units of the loss.
    let factor = if in_strides { 3.0 } else { 40.0 };
    let map = |grid: usize| -> Result<RawMap, BoxError> {
        let named =
            |what: &str| golden.input(&name_of(what, config.layout.is_none().then_some(grid)), device);
        let mut boxes = named("bbox_reg")?.affine(factor, factor)?;
        if in_strides {
            boxes = boxes.broadcast_mul(&strides(&places, grid, device)?)?;
        }
        let centerness = Some((named("centerness")? * 2.0)?);
        Ok(RawMap { scores: named("logits")?.affine(3.0, -4.0)?, boxes, centerness })
    };
    let maps = (0..places.grids.len()).map(map).collect::<Result<Vec<_>, BoxError>>()?;
    let raw = RawMaps { maps, places: Arc::new(places) };
    let loss = PointLoss {
        assigner: PointAssigner::fcos(config.center_sampling_radius),
        focal: SigmoidFocal { alpha: config.loss_alpha, gamma: config.loss_gamma },
        iou: config.iou_loss_type,
        in_strides,
    };
    let truth = truth(&config.boxes_xyxy_label);
    let like = Tensor::zeros(0, DType::F32, device)?;
    let mut outputs = Outputs::new();
    if let Some(shape) = golden.meta().output_shapes.get("labels") {
        let targets = loss.targets(&raw.places, 80, &truth)?;
        let n = targets.positives.len();
        outputs.push_values("labels", shape, targets.labels.iter().copied())?;
        outputs.push_values("pos_index", &[n], targets.positives.iter().copied())?;
        let distances = fours(&targets.distances, &like)?;
        outputs.push("reg_targets_pos", &distances)?;
        outputs.push("centerness_targets_pos", &centerness(&distances)?)?;
    }
    let of = loss.of(&raw, &truth)?;
    let of_centres = of.centerness.ok_or("no loss of centerness")?;
    for (name, loss) in [("loss_cls", of.classes), ("loss_reg", of.boxes), ("loss_centerness", of_centres)] {
        outputs.push(name, &loss.reshape(1)?)?;
    }
    Ok(outputs)
}

#[derive(Deserialize)]
struct AnchorsConfig {
    levels: Vec<usize>,
    level_sizes_hw: Vec<(usize, usize)>,
    boxes_xyxy_label: Objects,
    fg_iou: f32,
    bg_iou: f32,
    bbox_reg_beta: f64,
    alpha: f64,
    gamma: f64,
}

fn anchors(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let config: AnchorsConfig = golden.config()?;
    let places =
        Places::separate(layout_of(&config.levels)?, input_of(&config.level_sizes_hw), Locations::Corners);
    let map = |map: usize| -> Result<RawMap, BoxError> {
        let named = |what: &str| golden.input(&name_of(what, Some(map)), device);
        let scores = named("logits")?.affine(3.0, -4.0)?;
        Ok(RawMap { scores, boxes: named("bbox_reg")?, centerness: None })
    };
    let maps = (0..places.grids.len()).map(map).collect::<Result<Vec<_>, BoxError>>()?;
    let raw = RawMaps { maps, places: Arc::new(places) };
    let mut loss = AnchorLoss {
        focal: SigmoidFocal { alpha: config.alpha, gamma: config.gamma },
        beta: config.bbox_reg_beta,
        ..AnchorLoss::default()
    };
    (loss.matcher.positive, loss.matcher.negative) = (config.fg_iou, config.bg_iou);
    let truth = truth(&config.boxes_xyxy_label);
    let targets = loss.targets(&raw.places, 80, &truth)?;
    let mut outputs = Outputs::new();
    let images = truth.len().max(1);
    outputs.push_values(
        "labels",
        &[images, targets.labels.len() / images],
        targets.labels.iter().copied(),
    )?;
    outputs.push("pos_targets", &fours(&targets.codes, &Tensor::zeros(0, DType::F32, device)?)?)?;
    let of = loss.of(&raw, &truth)?;
    outputs.push("loss_cls", &of.classes.reshape(1)?)?;
    outputs.push("loss_reg", &of.boxes.reshape(1)?)?;
    Ok(outputs)
}
