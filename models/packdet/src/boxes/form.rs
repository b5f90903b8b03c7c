//! What maps of boxes hold.

use serde::{Deserialize, Serialize};
use zoo_layers::detection::{BoxCoder, detectron_anchors, torchvision_anchors};

use crate::plane::{Cell, Places, STRIDES};

/// Sides of anchors in strides.
const ANCHOR_STRIDES: usize = 4;
/// Sizes of anchors between one level and the next.
const OCTAVES: usize = 3;
/// Height over width.
const RATIOS: [f64; 3] = [0.5, 1.0, 2.0];

/// What maps of boxes hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BoxForm {
    /// Distances from the cell's point to the box's sides, in pixels.
    Distances,
    /// Codes of differences from nine anchors a cell, as maskrcnn-benchmark draws and codes them.
    DetectronAnchors,
    /// The same as torchvision draws and codes them.
    TorchvisionAnchors,
}

impl BoxForm {
    /// Anchors of a cell; 1 where there are none, as each cell says one box.
    pub fn per_cell(self) -> usize {
        match self {
            Self::Distances => 1,
            Self::DetectronAnchors | Self::TorchvisionAnchors => OCTAVES * RATIOS.len(),
        }
    }

    /// The anchors of each level's first cell, finest first; none where distances are told.
    pub fn anchors(self) -> Vec<Vec<[f32; 4]>> {
        let of_level = |stride: usize| match self {
            Self::Distances => Vec::new(),
            Self::DetectronAnchors => {
                detectron_anchors(stride, (ANCHOR_STRIDES * stride) as f64, OCTAVES, &RATIOS)
            }
            Self::TorchvisionAnchors => {
                let size = (ANCHOR_STRIDES * stride) as f64;
                let octave = |i: usize| (size * 2f64.powf(i as f64 / OCTAVES as f64)) as usize as f32;
                let sizes: Vec<f32> = (0..OCTAVES).map(octave).collect();
                torchvision_anchors(&sizes, &RATIOS.map(|ratio| ratio as f32))
            }
        };
        STRIDES.map(of_level).into()
    }

    /// The code of differences from anchors; none where distances are told.
    pub fn coder(self) -> Option<BoxCoder> {
        match self {
            Self::Distances => None,
            Self::DetectronAnchors => Some(BoxCoder::DETECTRON),
            Self::TorchvisionAnchors => Some(BoxCoder::TORCHVISION),
        }
    }
}

/// All anchors of an input, in pixels of it: map by map, row by row, cell by cell.
pub fn anchors_of(form: BoxForm, places: &Places) -> Vec<[f32; 4]> {
    let decoder = Decoder::new(form);
    let mut anchors = Vec::new();
    for place in &places.maps {
        let Some(grid) = places.grids.get(place.grid) else { continue };
        let rows = grid.cells.chunks(grid.size.width.max(1)).skip(place.at.top).take(place.at.height);
        for cell in rows.flat_map(|row| row.iter().skip(place.at.left).take(place.at.width)) {
            anchors.extend((0..form.per_cell()).filter_map(|anchor| decoder.anchor(cell, anchor)));
        }
    }
    anchors
}

/// A form with its anchors drawn.
#[derive(Debug, Clone)]
pub(crate) struct Decoder {
    coder: Option<BoxCoder>,
    anchors: Vec<Vec<[f32; 4]>>,
}

impl Decoder {
    pub fn new(form: BoxForm) -> Self {
        Self { coder: form.coder(), anchors: form.anchors() }
    }

    /// An anchor of a cell, in pixels of the padded input.
    pub fn anchor(&self, cell: &Cell, anchor: usize) -> Option<[f32; 4]> {
        let [x0, y0, x1, y1] = *self.anchors.get(usize::from(cell.level))?.get(anchor)?;
        Some([cell.x + x0, cell.y + y0, cell.x + x1, cell.y + y1])
    }

    /// The box (x0, y0, x1, y1) that four values of a cell say, in pixels of the padded input.
    pub fn decode(&self, cell: &Cell, anchor: usize, values: [f32; 4]) -> Option<[f32; 4]> {
        match self.coder {
            None => {
                let [l, t, r, b] = values;
                Some([cell.x - l, cell.y - t, cell.x + r, cell.y + b])
            }
            Some(coder) => Some(coder.decode(self.anchor(cell, anchor)?, values)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_has_nine_anchors_of_its_own() {
        assert_eq!(BoxForm::DetectronAnchors.anchors()[0][0], [-18.0, -8.0, 25.0, 15.0]);
        let drawn = BoxForm::TorchvisionAnchors.anchors();
        assert!(drawn.iter().all(|of_level| of_level.len() == BoxForm::TorchvisionAnchors.per_cell()));
        // Squares of 32, 40 and 50 at P3; of 512, 645 and 812 at P7: torchvision cuts its sizes to whole pixels.
        for (level, halves) in [(0, [16.0, 20.0, 25.0]), (4, [256.0, 322.0, 406.0])] {
            assert_eq!([3, 4, 5].map(|i| drawn[level][i][2]), halves, "level {level}");
        }
        assert!(BoxForm::Distances.anchors().iter().all(Vec::is_empty));
    }
}
