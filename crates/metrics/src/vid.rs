//! ImageNet VID mean average precision at IoU 0.5.
//!
//! Per class over all frames: detections by falling score (ties: input order), each matched to the
//! free box of its frame and class with the highest IoU that suffices; AP is the area under the
//! monotone precision envelope, all points; mAP is the mean over the classes that have ground truth.

use std::collections::BTreeMap;

use serde::Serialize;
use zoo_core::{BBox, Detections};

use crate::average_precision::of_ranked;
use crate::matching::{Outcome, Target, check_box, check_frames, match_ranked};
use crate::{Object, Result};

/// The IoU that a match needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlap {
    /// 0.5 for every box.
    #[default]
    Half,
    /// min(0.5, w·h / ((w+10)·(h+10))) of the true box: ILSVRC's allowance of 5 pixels a side, which
    /// lowers the bar for boxes below about 24 pixels.
    Ilsvrc,
}

impl Overlap {
    /// Smallest IoU of a match with this true box.
    pub fn min_iou(self, truth: &BBox) -> f32 {
        const HALF: f32 = 0.5;
        const MARGIN: f32 = 10.0;
        match self {
            Self::Half => HALF,
            Self::Ilsvrc => {
                let (w, h) = (truth.width(), truth.height());
                HALF.min(w * h / ((w + MARGIN) * (h + MARGIN)))
            }
        }
    }
}

/// Average precision by class and its mean.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MeanAp {
    /// Mean over the classes that have ground truth; `None` if none has.
    pub mean: Option<f64>,
    /// AP of each class that has ground truth.
    pub per_class: BTreeMap<usize, f64>,
}

/// VID mAP of results on `truth`, both one entry a frame.
///
/// # Errors
/// If the frames do not pair up, a score is not a number, or a box is not finite.
pub fn mean_average_precision(
    truth: &[Vec<Object>],
    found: &[Detections],
    overlap: Overlap,
) -> Result<MeanAp> {
    check_frames(truth.len(), found)?;
    let mut positives: BTreeMap<usize, usize> = BTreeMap::new();
    let mut targets = Vec::with_capacity(truth.len());
    for (frame, objects) in truth.iter().enumerate() {
        for (index, object) in objects.iter().enumerate() {
            check_box("truth", frame, index, object.bbox)?;
            *positives.entry(object.class_id).or_default() += 1;
        }
        let target =
            |&object: &Object| Target { object, min_iou: overlap.min_iou(&object.bbox), ignore: false };
        targets.push(objects.iter().map(target).collect());
    }

    let mut hits: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
    for (class, outcome) in match_ranked(&targets, found) {
        hits.entry(class).or_default().push(outcome == Outcome::Hit);
    }
    let per_class: BTreeMap<usize, f64> = positives
        .into_iter()
        .map(|(class, positives)| (class, of_ranked(hits.remove(&class).unwrap_or_default(), positives)))
        .collect();
    let mean = (!per_class.is_empty()).then(|| per_class.values().sum::<f64>() / per_class.len() as f64);
    Ok(MeanAp { mean, per_class })
}
