//! Heads with anchors.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};
use zoo_layers::detection::{AnchorMatch, AnchorMatcher};
use zoo_train::{SigmoidFocal, nothing, smooth_l1};

use super::flat::{check_images, chosen, fours, label, rows};
use super::{DetectionLoss, TrueBox};
use crate::boxes::{BoxForm, anchors_of};
use crate::plane::{MapPlace, Places};
use crate::raw::{RawMap, RawMaps};

/// Smaller differences are squared.
const BETA: f64 = 0.11;

/// Targets and loss of RetinaNet and RetinaPack.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AnchorLoss {
    /// The anchors and their codes.
    pub form: BoxForm,
    /// Who finds what.
    pub matcher: AnchorMatcher,
    /// Of the classes.
    pub focal: SigmoidFocal,
    /// The β of the boxes' smooth L1.
    pub beta: f64,
}

/// What the anchors of a batch have to say: image by image, map by map, cell by cell, anchor by anchor.
#[derive(Debug, Clone, PartialEq)]
pub struct AnchorTargets {
    /// 0 where nothing is, −1 where it does not count, else the class from 1 on.
    pub labels: Vec<i32>,
    /// The anchors that show something, by their numbers in `labels`.
    pub positives: Vec<u32>,
    /// The code of the box of each of these.
    pub codes: Vec<[f32; 4]>,
}

impl Default for AnchorLoss {
    /// The authors'.
    fn default() -> Self {
        Self {
            form: BoxForm::DetectronAnchors,
            matcher: AnchorMatcher::RETINANET,
            focal: SigmoidFocal::default(),
            beta: BETA,
        }
    }
}

impl AnchorLoss {
    /// What each anchor has to say of the objects of a batch's images. Anchors that leave the image count.
    ///
    /// # Errors
    /// If an object is of no class, or the form has no anchors.
    pub fn targets(&self, places: &Places, classes: usize, truth: &[Vec<TrueBox>]) -> Result<AnchorTargets> {
        let Some(coder) = self.form.coder() else {
            bail!("targets of anchors: boxes are told as {:?}, without any", self.form)
        };
        let anchors = anchors_of(self.form, places);
        let mut targets = AnchorTargets { labels: Vec::new(), positives: Vec::new(), codes: Vec::new() };
        for objects in truth {
            let boxes: Vec<[f32; 4]> = objects.iter().map(|object| object.bbox).collect();
            for (answer, &anchor) in self.matcher.assign(&anchors, &boxes).into_iter().zip(&anchors) {
                let object = match answer {
                    AnchorMatch::Object(object) => objects.get(object),
                    AnchorMatch::Background => None,
                    AnchorMatch::Ignored => {
                        targets.labels.push(SigmoidFocal::IGNORED);
                        continue;
                    }
                };
                if let Some(object) = object {
                    targets.positives.push(targets.labels.len() as u32);
                    targets.codes.push(coder.encode(anchor, object.bbox));
                }
                targets.labels.push(object.map_or(Ok(0), |object| label(object, classes))?);
            }
        }
        Ok(targets)
    }

    /// The loss of a batch: the focal sum by positives plus images; smooth L1 of the positives' codes by four times their
    /// number.
    ///
    /// # Errors
    /// If there is not one list of objects an image, or an object is of no class.
    pub fn of(&self, raw: &RawMaps, truth: &[Vec<TrueBox>]) -> Result<DetectionLoss> {
        // A plane's maps are cut out: gaps say nothing here.
        let maps = |of: fn(&RawMap) -> &Tensor| -> Result<Vec<Tensor>> {
            let cut = |place: &MapPlace| match raw.maps.get(place.grid) {
                Some(map) => {
                    let rows = of(map).narrow(2, place.at.top, place.at.height)?;
                    rows.narrow(3, place.at.left, place.at.width)
                }
                None => bail!("the loss of a head: map {} of {}", place.grid, raw.maps.len()),
            };
            raw.places.maps.iter().map(cut).collect()
        };
        let scores = maps(|map| &map.scores)?;
        let Some((images, channels, _, _)) = scores.first().map(Tensor::dims4).transpose()? else {
            bail!("the loss of a head: there are no maps")
        };
        check_images(images, truth)?;
        let classes = channels / self.form.per_cell();
        let targets = self.targets(&raw.places, classes, truth)?;
        let positives = targets.positives.len();
        let of_classes = self.focal.sum(&rows(&scores, classes)?, &targets.labels)?;
        let of_classes = (of_classes / (positives + images) as f64)?;
        let boxes = rows(&maps(|map| &map.boxes)?, 4)?;
        if positives == 0 {
            return Ok(DetectionLoss { classes: of_classes, boxes: nothing(&boxes)?, centerness: None });
        }
        let codes = fours(&targets.codes, &boxes)?;
        let difference = (chosen(&boxes, &targets.positives)? - codes)?;
        let of_boxes = (smooth_l1(&difference, self.beta)?.sum_all()? / (4 * positives) as f64)?;
        Ok(DetectionLoss { classes: of_classes, boxes: of_boxes, centerness: None })
    }
}
