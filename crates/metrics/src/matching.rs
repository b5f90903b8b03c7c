use serde::{Deserialize, Serialize};
use zoo_core::{BBox, Detection, Detections};

use crate::{Error, Result};

/// An object that is really there.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Object {
    /// The class, numbered as in the detections.
    pub class_id: usize,
    /// Where, in pixels of the original image.
    pub bbox: BBox,
}

impl Object {
    /// An object of a class at a place.
    pub const fn new(class_id: usize, bbox: BBox) -> Self {
        Self { class_id, bbox }
    }
}

/// Something that a detection may match.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Target {
    pub object: Object,
    /// Smallest IoU of a match.
    pub min_iou: f32,
    /// Detections here count neither as hits nor as misses.
    pub ignore: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Hit,
    Miss,
    Ignored,
}

/// One entry a frame on both sides, and scores and boxes that can be compared.
pub(crate) fn check_frames(truth: usize, found: &[Detections]) -> Result<()> {
    if truth != found.len() {
        return Err(Error::FrameCount { truth, found: found.len() });
    }
    for (frame, detections) in found.iter().enumerate() {
        for (index, d) in detections.items.iter().enumerate() {
            if d.score.is_nan() {
                return Err(Error::NotANumber { frame: Some(frame), index });
            }
            check_box("box", frame, index, d.bbox)?;
        }
    }
    Ok(())
}

pub(crate) fn check_box(what: &'static str, frame: usize, index: usize, bbox: BBox) -> Result<()> {
    if [bbox.x0, bbox.y0, bbox.x1, bbox.y1].iter().all(|edge| edge.is_finite()) {
        Ok(())
    } else {
        Err(Error::NotFinite { what, frame, index, bbox })
    }
}

/// Matches all detections of all frames, best score first (ties: input order), each to the free
/// target of its frame and class with the highest sufficient IoU. A detection that finds no free
/// target but lies on an ignored one is ignored; any number may lie on the same ignored one.
/// Returns class and outcome in ranked order.
pub(crate) fn match_ranked(targets: &[Vec<Target>], found: &[Detections]) -> Vec<(usize, Outcome)> {
    let mut ranked: Vec<(usize, &Detection)> =
        found.iter().enumerate().flat_map(|(frame, d)| d.items.iter().map(move |d| (frame, d))).collect();
    ranked.sort_by(|(_, a), (_, b)| b.score.total_cmp(&a.score));

    let mut free: Vec<Vec<(Target, bool)>> =
        targets.iter().map(|frame| frame.iter().map(|&target| (target, true)).collect()).collect();
    ranked
        .into_iter()
        .map(|(frame, d)| {
            let mut best: Option<(f32, &mut bool)> = None;
            let mut on_ignored = false;
            for (target, free) in free.get_mut(frame).into_iter().flatten() {
                let iou = target.object.bbox.iou(&d.bbox);
                if target.object.class_id != d.class_id || iou < target.min_iou {
                    continue;
                }
                if target.ignore {
                    on_ignored = true;
                } else if *free && best.as_ref().is_none_or(|(so_far, _)| iou > *so_far) {
                    best = Some((iou, free));
                }
            }
            let outcome = match best {
                Some((_, free)) => {
                    *free = false;
                    Outcome::Hit
                }
                None if on_ignored => Outcome::Ignored,
                None => Outcome::Miss,
            };
            (d.class_id, outcome)
        })
        .collect()
}
