//! The rules by which raw maps become boxes, as data.

use serde::{Deserialize, Serialize};
use zoo_kernels::Nms;

use super::BoxForm;
use crate::{Error, Result};

/// How raw maps become boxes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostProcess {
    /// What the maps of boxes hold.
    pub form: BoxForm,
    /// A cell shows a class if its score exceeds this.
    pub score_threshold: f32,
    /// Which score that is.
    pub threshold: Threshold,
    /// At most so many scores of each group go on, the best ones.
    pub group_best: usize,
    /// What a group is.
    pub group: Group,
    /// Boxes of one class that overlap a better one by more than this (in the older convention: by this or more) are
    /// dropped.
    pub nms_iou: f32,
    /// What belongs to a box.
    pub convention: Convention,
    /// At most so many boxes of an image stay; with [`Convention::PlusOne`] those, too, that score like the last of them.
    pub max_boxes: usize,
    /// Whether the last class is never reported: what RetinaPack's code does, by a loop that ends one class too early.
    #[serde(default)]
    pub drop_last_class: bool,
}

/// Which score is held against the threshold, in heads with centerness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Threshold {
    /// The class's, whatever the centerness.
    Class,
    /// The result's, √(class · centerness).
    Result,
}

/// Scores that compete for the next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Group {
    /// Those of a level: an extra map's together with its original's, a plane's gaps with the finest level's.
    Level,
    /// Those of a map; gaps are in none.
    Map,
}

/// What belongs to a box.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Convention {
    /// Its corners are pixels that belong to it, so that its sides are x1 − x0 + 1: maskrcnn-benchmark's. Boxes are clipped
    /// to the last pixel; an overlap of exactly [`PostProcess::nms_iou`] drops a box, as on the authors' CPUs.
    PlusOne,
    /// Its corners are edges: torchvision's. Boxes are clipped to the image's size.
    Edges,
}

impl PostProcess {
    /// PackDet's and FCOS's.
    pub const FCOS: Self = Self {
        form: BoxForm::Distances,
        score_threshold: 0.05,
        threshold: Threshold::Class,
        group_best: 1000,
        group: Group::Level,
        nms_iou: 0.6,
        convention: Convention::PlusOne,
        max_boxes: 100,
        drop_last_class: false,
    };

    /// RetinaNet's and RetinaPack's.
    pub const RETINANET: Self =
        Self { form: BoxForm::DetectronAnchors, group: Group::Map, nms_iou: 0.4, ..Self::FCOS };

    /// torchvision's FCOS.
    pub const TORCHVISION_FCOS: Self = Self {
        score_threshold: 0.2,
        threshold: Threshold::Result,
        convention: Convention::Edges,
        ..Self::FCOS
    };

    /// torchvision's RetinaNet.
    pub const TORCHVISION_RETINANET: Self = Self {
        form: BoxForm::TorchvisionAnchors,
        nms_iou: 0.5,
        convention: Convention::Edges,
        max_boxes: 300,
        ..Self::RETINANET
    };

    /// Whether it can be followed.
    ///
    /// # Errors
    /// If a threshold is none.
    pub fn validate(&self) -> Result<()> {
        let Self { score_threshold, nms_iou, .. } = *self;
        if !(0.0..=1.0).contains(&score_threshold) || !(0.0..=1.0).contains(&nms_iou) {
            return Err(Error::Config(format!(
                "boxes are kept from a score of {score_threshold} and below an overlap of {nms_iou} on, expected both in 0 to 1"
            )));
        }
        Ok(())
    }

    /// By whom a box is dropped.
    pub(super) fn nms(&self, limit: usize) -> Nms {
        let plus_one = self.convention == Convention::PlusOne;
        Nms { limit, plus_one, at_threshold: plus_one, ..Nms::new(self.nms_iou) }
    }

    /// No class with a logit below this passes the threshold; what lies above has to be looked at.
    pub(super) fn least_logit(&self) -> f32 {
        let threshold = f64::from(self.score_threshold);
        // Centerness is 1 at most.
        let least = match self.threshold {
            Threshold::Class => threshold,
            Threshold::Result if self.form == BoxForm::Distances => threshold * threshold,
            Threshold::Result => threshold,
        };
        // Further from the threshold than any rounding of the score.
        let least = 0.999 * least;
        if least > 0.0 { (least / (1.0 - least)).ln() as f32 } else { f32::NEG_INFINITY }
    }
}
