//! Where each map lies in the plane: Figure 3 of the paper, with the tables of the authors' code.

use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_kernels::MapBox;

use super::LEVELS;
use crate::{Error, Result};

/// Maps where there are extra ones.
const MAPS: usize = LEVELS + 3;

/// How maps lie side by side in the plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Layout {
    /// P4 under P3, the others in a row beside it.
    #[serde(rename = "type-1")]
    Type1,
    /// The same with three extra maps below the row: `m2` in the names of configurations.
    #[serde(rename = "type-2")]
    Type2,
    /// P4 under P3, the others a staircase from the lower right corner.
    #[serde(rename = "type-3")]
    Type3,
    /// The same with three extra maps between the steps: `m4` in the names of configurations.
    #[serde(rename = "type-4")]
    Type4,
}

/// The maps of a pyramid in their plane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plane {
    /// Rows and columns.
    pub size: FrameSize,
    /// The maps' boxes, in the order of [`Layout::levels`].
    pub boxes: Vec<MapBox>,
}

impl Layout {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Type1, Self::Type2, Self::Type3, Self::Type4];

    /// As in configurations.
    pub fn name(self) -> &'static str {
        match self {
            Self::Type1 => "type-1",
            Self::Type2 => "type-2",
            Self::Type3 => "type-3",
            Self::Type4 => "type-4",
        }
    }

    /// Whether there are extra maps, of P5, P6 and P7.
    pub fn has_extra_maps(self) -> bool {
        matches!(self, Self::Type2 | Self::Type4)
    }

    /// The level of each map, 0 for P3; extra maps come last.
    pub fn levels(self) -> &'static [usize] {
        if self.has_extra_maps() { &[0, 1, 2, 3, 4, 2, 3, 4] } else { &[0, 1, 2, 3, 4] }
    }

    /// Lays out maps of levels of such sizes.
    ///
    /// # Errors
    /// If a map would lie outside the plane or two would overlap, as they do where P5 has a side of 1.
    pub fn place(self, sizes: [FrameSize; LEVELS]) -> Result<Plane> {
        let fault = |why: &str| Error::Layout {
            layout: self.name(),
            sizes: sizes.map(|size| size.to_string()).join(", "),
            why: why.to_owned(),
        };
        let size = FrameSize::new(sizes[0].height + sizes[1].height, sizes[0].width);
        let corners = match self {
            Self::Type1 | Self::Type2 => beside(sizes),
            Self::Type3 | Self::Type4 => {
                staircase(sizes).ok_or_else(|| fault("the staircase is too long"))?
            }
        };
        let placed = self.levels().iter().zip(corners).map(|(&level, (left, top))| MapBox {
            left,
            top,
            width: sizes[level].width,
            height: sizes[level].height,
        });
        let plane = Plane { size, boxes: placed.collect() };
        for (i, map) in plane.boxes.iter().enumerate() {
            if map.left + map.width > size.width || map.top + map.height > size.height {
                return Err(fault(&format!("map {i} would leave the plane of {size}")));
            }
            if let Some(other) = plane.boxes.iter().take(i).position(|other| other.overlaps(map)) {
                return Err(fault(&format!("maps {other} and {i} would overlap")));
            }
        }
        Ok(plane)
    }
}

/// Left and top of each map, extra ones included, of types 1 and 2.
fn beside([p3, p4, p5, p6, _]: [FrameSize; LEVELS]) -> [(usize, usize); MAPS] {
    let (top, low) = (p3.height, p3.height + p5.height);
    let fifth = p4.width;
    let sixth = fifth + p5.width;
    let seventh = sixth + p6.width;
    [(0, 0), (0, top), (fifth, top), (sixth, top), (seventh, top), (fifth, low), (sixth, low), (seventh, low)]
}

/// The same of types 3 and 4; none where they would begin left of the plane or above it.
fn staircase([p3, p4, p5, p6, p7]: [FrameSize; LEVELS]) -> Option<[(usize, usize); MAPS]> {
    let (right, bottom) = (p3.width, p3.height + p4.height);
    let fifth = (right.checked_sub(p5.width)?, bottom.checked_sub(p5.height)?);
    let above_sixth = fifth.1.checked_sub(p6.height)?;
    let above_seventh = above_sixth.checked_sub(p7.height)?;
    let sixth = fifth.0.checked_sub(p6.width)?;
    let extra_sixth = right.checked_sub(p6.width)?;
    Some([
        (0, 0),
        (0, p3.height),
        fifth,
        (sixth, above_sixth),
        (sixth.checked_sub(p7.width)?, above_seventh),
        (p4.width, fifth.1),
        (extra_sixth, above_sixth),
        (extra_sixth.checked_sub(p7.width)?, above_seventh),
    ])
}
