//! From given raw maps to boxes.

use std::sync::Arc;

use candle_core::{Device, Tensor};
use serde::Deserialize;
use zoo_core::FrameSize;
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};

use crate::boxes::{Candidate, Candidates, PostProcess};
use crate::plane::{Layout, Locations, Places};
use crate::raw::{RawMap, RawMaps};

/// The cases of decoding: labels and counts to the unit, boxes and scores closely.
pub(super) fn cases() -> Vec<Case> {
    let exact = |_: &Golden, name: &str| {
        let counted = ["labels", "pre_nms_count", "candidates_per_level"];
        counted.iter().any(|what| name.starts_with(what)).then_some(Tolerance::Exact)
    };
    vec![
        Case::new(["packdet.postprocess"], Tolerance::Close, points).with_exceptions(exact),
        Case::new(["retinanet.postprocess"], Tolerance::Close, anchors).with_exceptions(exact),
        Case::new(["packdet.ml_nms"], Tolerance::Close, suppression).with_exceptions(exact),
    ]
}

#[derive(Deserialize)]
struct PointsConfig {
    layout: Layout,
    pack: bool,
    level_sizes_hw: [(usize, usize); 5],
    image_sizes_hw: Vec<(usize, usize)>,
    inference_th: f32,
    nms_th: f32,
    pre_nms_top_n: usize,
    detections_per_img: usize,
}

/// The input that levels of such sizes come of.
pub(super) fn input_of(levels: &[(usize, usize)]) -> FrameSize {
    let (height, width) = levels.first().copied().unwrap_or_default();
    FrameSize::new(8 * height, 8 * width)
}

/// The layout without packing that has maps of these levels.
pub(super) fn layout_of(levels: &[usize]) -> Result<Layout, BoxError> {
    let found = Layout::ALL.into_iter().find(|layout| layout.levels() == levels);
    found.ok_or_else(|| format!("no layout has maps of levels {levels:?}").into())
}

/// The stride at each cell of an output map, `[1, 1, h, w]`.
pub(super) fn strides(places: &Places, grid: usize, device: &Device) -> candle_core::Result<Tensor> {
    let Some(grid) = places.grids.get(grid) else { candle_core::bail!("no output map {grid}") };
    let strides: Vec<f32> = grid.cells.iter().map(|cell| cell.stride()).collect();
    Tensor::from_vec(strides, (1, 1, grid.size.height, grid.size.width), device)
}

/// The name of an input of the only map, or of one of several.
pub(super) fn name_of(what: &str, map: Option<usize>) -> String {
    map.map_or_else(|| format!("input.{what}"), |map| format!("input.{what}.{map}"))
}

fn points(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let config: PointsConfig = golden.config()?;
    let input = input_of(&config.level_sizes_hw);
    let places = match config.pack {
        true => Places::packed(config.layout, input, Locations::Centres)?,
        false => Places::separate(config.layout, input, Locations::Centres),
    };
    let map = |grid: usize| -> Result<RawMap, BoxError> {
        let named = |what: &str| golden.input(&name_of(what, (!config.pack).then_some(grid)), device);
        let boxes = named("bbox_reg")?.affine(2.0, 2.0)?.broadcast_mul(&strides(&places, grid, device)?)?;
        Ok(RawMap {
            scores: named("logits")?.affine(6.0, -5.0)?,
            boxes,
            centerness: Some((named("centerness")? * 3.0)?),
        })
    };
    let maps = (0..places.grids.len()).map(map).collect::<Result<_, BoxError>>()?;
    let raw = RawMaps { maps, places: Arc::new(places) };
    let rule = PostProcess {
        score_threshold: config.inference_th,
        nms_iou: config.nms_th,
        group_best: config.pre_nms_top_n,
        max_boxes: config.detections_per_img,
        ..PostProcess::FCOS
    };
    let mut outputs = Outputs::new();
    for (b, &(height, width)) in config.image_sizes_hw.iter().enumerate() {
        let candidates = Candidates::decode(&raw, b, FrameSize::new(height, width), &rule)?;
        let passed = candidates.passed.iter().map(|&n| n as f64);
        let counts = [
            ("candidates_per_level", passed.collect::<Vec<_>>()),
            ("pre_nms_count", vec![candidates.boxes.len() as f64]),
        ];
        for (name, counts) in counts {
            let name = format!("{name}.{b}");
            if golden.meta().output_shapes.contains_key(&name) {
                outputs.push_values(name, &[counts.len()], counts)?;
            }
        }
        push_boxes(&mut outputs, &candidates.suppress(&rule), &format!(".{b}"))?;
    }
    Ok(outputs)
}

fn push_boxes(outputs: &mut Outputs, found: &[Candidate], suffix: &str) -> Result<(), BoxError> {
    let n = found.len();
    outputs.push_values(format!("boxes{suffix}"), &[n, 4], found.iter().flat_map(|c| c.bbox))?;
    outputs.push_values(format!("scores{suffix}"), &[n], found.iter().map(|c| c.score))?;
    outputs.push_values(format!("labels{suffix}"), &[n], found.iter().map(|c| c.class as f64 + 1.0))?;
    Ok(())
}

#[derive(Deserialize)]
struct AnchorsConfig {
    levels: Vec<usize>,
    level_sizes_hw: [(usize, usize); 5],
    image_size_hw: (usize, usize),
    inference_th: f32,
    nms_th: f32,
    pre_nms_top_n: usize,
    detections_per_img: usize,
    reference_skips_class_80: bool,
}

fn anchors(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let config: AnchorsConfig = golden.config()?;
    let places =
        Places::separate(layout_of(&config.levels)?, input_of(&config.level_sizes_hw), Locations::Corners);
    let map = |map: usize| -> Result<RawMap, BoxError> {
        let named = |what: &str| golden.input(&name_of(what, Some(map)), device);
        let scores = named("b.logits")?.affine(6.0, -5.0)?;
        Ok(RawMap { scores, boxes: (named("b.bbox_reg")? * 2.0)?, centerness: None })
    };
    let maps = (0..places.grids.len()).map(map).collect::<Result<_, BoxError>>()?;
    let raw = RawMaps { maps, places: Arc::new(places) };
    let rule = PostProcess {
        score_threshold: config.inference_th,
        nms_iou: config.nms_th,
        group_best: config.pre_nms_top_n,
        max_boxes: config.detections_per_img,
        drop_last_class: config.reference_skips_class_80,
        ..PostProcess::RETINANET
    };
    let (height, width) = config.image_size_hw;
    let found = Candidates::decode(&raw, 0, FrameSize::new(height, width), &rule)?.suppress(&rule);
    let mut outputs = Outputs::new();
    push_boxes(&mut outputs, &found, "")?;
    Ok(outputs)
}

/// Drawn boxes by the notes' formulas.
fn suppression(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    #[derive(Deserialize)]
    struct Config {
        nms_th: f32,
    }
    let config: Config = golden.config()?;
    let values = |name: &str| -> Result<Vec<f32>, BoxError> {
        Ok(golden.input(&format!("input.{name}"), device)?.flatten_all()?.to_vec1()?)
    };
    let (boxes, scores, labels) = (values("boxes")?, values("scores")?, values("labels")?);
    let boxes = boxes.as_chunks().0.iter().map(|&[x, y, w, h]| {
        let (cx, cy) = ((x + 1.0) * 50.0, (y + 1.0) * 40.0);
        let (w, h) = ((w + 1.5) * 20.0, (h + 1.5) * 20.0);
        [cx - w / 2.0, cy - h / 2.0, cx + w / 2.0, cy + h / 2.0]
    });
    let drawn = boxes.zip(scores).zip(labels).map(|((bbox, score), label)| Candidate {
        class: ((label + 1.0) / 2.0 * 4.0).floor() as usize,
        score: (score + 1.0) / 2.0,
        bbox,
    });
    let candidates = Candidates { boxes: drawn.collect(), passed: vec![] };
    let rule = PostProcess { nms_iou: config.nms_th, max_boxes: usize::MAX, ..PostProcess::FCOS };
    let mut outputs = Outputs::new();
    let boxes = candidates.boxes.iter().flat_map(|candidate| candidate.bbox);
    outputs.push_values("input_boxes", &[candidates.boxes.len(), 4], boxes)?;
    push_boxes(&mut outputs, &candidates.suppress(&rule), "")?;
    Ok(outputs)
}
