//! How much of a reference run's boxes another run keeps: the measure for a cheaper way to run the
//! same weights, where the full-cost run is the yardstick and nobody has labelled the frames.
//!
//! A reference box of score ≥ 0.5 is a truth. One below is a region to ignore: a detection of its
//! class that finds no free truth but overlaps it by IoU ≥ 0.5 counts neither way.
//!
//! [`Agreement::ap50`] pools all classes into one ranking (matches are within a class all the same),
//! because a short clip holds one or two boxes of most classes and a mean over classes would be
//! governed by those. The area is the all-point one of [`crate::average_precision`].

use serde::Serialize;
use zoo_core::{Detection, Detections};

use crate::average_precision::of_ranked;
use crate::matching::{Outcome, Target, check_frames, match_ranked};
use crate::{Error, Object, Result};

/// Reference boxes of at least this score are truths.
pub const TRUTH_SCORE: f32 = 0.5;
/// Smallest IoU of a match.
pub const MIN_IOU: f32 = 0.5;
/// Smallest score with which a truth counts as found.
pub const FOUND_SCORE: f32 = 0.3;

/// Agreement of a run with a reference run.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Agreement {
    /// Reference boxes that count as truths.
    pub truths: usize,
    /// Average precision at IoU 0.5, all classes in one ranking; `None` without truths.
    pub ap50: Option<f64>,
    /// Share of the truths that a box of the same class, IoU ≥ 0.5 and score ≥ 0.3 covers.
    pub found_share: Option<f64>,
    /// Mean of the best IoU over the truths that were found.
    pub mean_iou: Option<f64>,
}

/// Agreement of `found` with `reference`, both one entry a frame, in pixels of the same frames.
///
/// # Errors
/// If the frames do not pair up or differ in size, a score is not a number, or a box is not finite.
pub fn agreement(reference: &[Detections], found: &[Detections]) -> Result<Agreement> {
    check_frames(reference.len(), found)?;
    check_frames(found.len(), reference)?;
    if let Some((a, b)) = reference.iter().zip(found).find(|(a, b)| a.size != b.size) {
        return Err(Error::FrameSize { reference: a.size, found: b.size });
    }

    let target = |d: &Detection| Target {
        object: Object::new(d.class_id, d.bbox),
        min_iou: MIN_IOU,
        ignore: d.score < TRUTH_SCORE,
    };
    let targets: Vec<Vec<Target>> =
        reference.iter().map(|frame| frame.items.iter().map(target).collect()).collect();
    let truths = targets.iter().flatten().filter(|t| !t.ignore).count();
    let hits = match_ranked(&targets, found)
        .into_iter()
        .filter(|&(_, outcome)| outcome != Outcome::Ignored)
        .map(|(_, outcome)| outcome == Outcome::Hit);
    let ap50 = (truths > 0).then(|| of_ranked(hits, truths));

    let covered: Vec<f32> = reference
        .iter()
        .zip(found)
        .flat_map(|(reference, found)| {
            reference.above(TRUTH_SCORE).filter_map(|truth| {
                found
                    .above(FOUND_SCORE)
                    .filter(|d| d.class_id == truth.class_id)
                    .map(|d| d.bbox.iou(&truth.bbox))
                    .filter(|&iou| iou >= MIN_IOU)
                    .max_by(f32::total_cmp)
            })
        })
        .collect();
    let share = |n: f64, of: usize| (of > 0).then(|| n / of as f64);
    Ok(Agreement {
        truths,
        ap50,
        found_share: share(covered.len() as f64, truths),
        mean_iou: share(covered.iter().copied().map(f64::from).sum(), covered.len()),
    })
}
