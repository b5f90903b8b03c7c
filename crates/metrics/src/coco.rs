//! COCO average precision, counted by the `hotcoco` crate (whose numbers equal pycocotools').
//!
//! Data in memory becomes a `hotcoco::Dataset` and, through `COCO::load_res_anns`, results on it; files
//! go through `COCO::new` and `COCO::load_res`. Both run `COCOeval` for boxes with the reference
//! parameters (IoU 0.50 to 0.95, 101 recall points, at most 100 results an image and class); the means
//! come from its summary, the numbers by class from its precision array, and its sentinel −1 for
//! "nothing to measure" becomes `None`.

mod annotations;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hotcoco::{Annotation, COCO, COCOeval, Category, Dataset, Image, IouType};
use serde::Serialize;
use zoo_core::{BBox, Detections};

use crate::matching::{check_box, check_frames};
use crate::{Error, Object, Result};
pub use annotations::{AnnotatedImage, AnnotatedSet};

/// An annotated object.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Truth {
    /// What and where.
    pub object: Object,
    /// Area in square pixels that decides on small, medium or large: COCO's files give the mask's. The
    /// box's where `None`.
    pub area: Option<f64>,
    /// A region that holds a crowd of the class: results inside it count neither way.
    pub crowd: bool,
}

impl From<Object> for Truth {
    fn from(object: Object) -> Self {
        Self { object, area: None, crowd: false }
    }
}

/// COCO's measures of one class.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ClassAp {
    /// Mean over IoU 0.50, 0.55, …, 0.95.
    pub ap: f64,
    /// At IoU 0.50.
    pub ap50: f64,
}

/// COCO's measures: means over the classes that have ground truth, `None` if none has (of that size).
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CocoAp {
    /// Mean over IoU 0.50, 0.55, …, 0.95.
    pub ap: Option<f64>,
    /// At IoU 0.50.
    pub ap50: Option<f64>,
    /// At IoU 0.75.
    pub ap75: Option<f64>,
    /// As `ap`, of objects below 32² pixels.
    pub small: Option<f64>,
    /// As `ap`, of objects of 32² to 96² pixels.
    pub medium: Option<f64>,
    /// As `ap`, of objects above 96² pixels.
    pub large: Option<f64>,
    /// By category id, for the classes that have ground truth.
    pub per_class: BTreeMap<usize, ClassAp>,
}

/// COCO's measures of results on `truth`, both one entry an image. Results of a class that has no
/// ground truth at all change nothing, as in the reference.
///
/// # Errors
/// If the images do not pair up, a score is not a number, or a box is not finite.
pub fn evaluate(truth: &[Vec<Truth>], found: &[Detections]) -> Result<CocoAp> {
    check_frames(truth.len(), found)?;
    let mut classes = BTreeSet::new();
    let mut annotations = Vec::new();
    for (image, objects) in truth.iter().enumerate() {
        for (index, truth) in objects.iter().enumerate() {
            let Object { class_id, bbox } = truth.object;
            check_box("truth", image, index, bbox)?;
            let xywh = xywh(bbox);
            classes.insert(class_id);
            annotations.push(Annotation {
                id: annotations.len() as u64 + 1,
                image_id: image as u64,
                category_id: class_id as u64,
                bbox: Some(xywh),
                area: Some(truth.area.unwrap_or(xywh[2] * xywh[3])),
                iscrowd: truth.crowd,
                ..Annotation::default()
            });
        }
    }
    let results = found.iter().enumerate().flat_map(|(image, d)| {
        // hotcoco would count them just the same, but print a warning on every run.
        d.items.iter().filter(|d| classes.contains(&d.class_id)).map(move |d| Annotation {
            image_id: image as u64,
            category_id: d.class_id as u64,
            bbox: Some(xywh(d.bbox)),
            score: Some(f64::from(d.score)),
            ..Annotation::default()
        })
    });
    let results: Vec<Annotation> = results.collect();
    let truth = COCO::from_dataset(Dataset {
        images: (0..truth.len()).map(|image| Image { id: image as u64, ..Image::default() }).collect(),
        categories: classes
            .iter()
            .map(|&class| Category { id: class as u64, name: format!("{class}"), ..Category::default() })
            .collect(),
        annotations,
        ..Dataset::default()
    });
    let results = truth.load_res_anns(results)?;
    summarise(truth, results)
}

/// COCO's measures of a results file (a list of `image_id`, `category_id`, `bbox`, `score`) on an
/// annotation file of the COCO format. hotcoco warns on standard error about results for images or
/// categories that the annotations do not have.
///
/// # Errors
/// If a file cannot be read or is not of its format.
pub fn evaluate_files(truth: &Path, results: &Path) -> Result<CocoAp> {
    let wrap = |what, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::CocoFile { what, path, source }
    };
    let annotations = COCO::new(truth).map_err(wrap("ground truth", truth))?;
    let found = annotations.load_res(results).map_err(wrap("results", results))?;
    summarise(annotations, found)
}

fn xywh(bbox: BBox) -> [f64; 4] {
    let [x0, y0, x1, y1] = [bbox.x0, bbox.y0, bbox.x1, bbox.y1].map(f64::from);
    [x0, y0, (x1 - x0).max(0.0), (y1 - y0).max(0.0)]
}

fn summarise(truth: COCO, results: COCO) -> Result<CocoAp> {
    let mut eval = COCOeval::new(truth, results, IouType::Bbox);
    eval.evaluate()?;
    eval.accumulate();
    // `summarize` would print; this one computes the same and returns the lines.
    eval.summarize_lines();
    let means = eval.get_results(None, false);
    let mean = |key| means.get(key).copied().filter(|&v| v >= 0.0);
    Ok(CocoAp {
        ap: mean("AP"),
        ap50: mean("AP50"),
        ap75: mean("AP75"),
        small: mean("APs"),
        medium: mean("APm"),
        large: mean("APl"),
        per_class: per_class(&eval),
    })
}

fn per_class(eval: &COCOeval) -> BTreeMap<usize, ClassAp> {
    let (Some(curves), Some(half)) = (eval.accumulated(), eval.params.iou_thr_idx(0.5)) else {
        return BTreeMap::new();
    };
    let (area, cap) = (eval.params.all_area_idx(), eval.params.max_det_idx());
    let shape = curves.shape;
    let mean = |class: usize, thresholds: std::ops::Range<usize>| {
        let places =
            thresholds.flat_map(|t| (0..shape.r).map(move |r| shape.precision_idx(t, r, class, area, cap)));
        let values: Vec<f64> =
            places.filter_map(|at| curves.precision.get(at).copied()).filter(|&v| v >= 0.0).collect();
        (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64)
    };
    let classes = curves.cat_ids.iter().enumerate();
    classes
        .filter_map(|(k, &id)| {
            let ap = ClassAp { ap: mean(k, 0..shape.t)?, ap50: mean(k, half..half + 1)? };
            Some((usize::try_from(id).ok()?, ap))
        })
        .collect()
}
