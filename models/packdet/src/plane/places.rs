//! Which level and which place of the input each cell of a net's outputs is about.

use serde::{Deserialize, Serialize};
use zoo_core::FrameSize;
use zoo_kernels::MapBox;

use super::{Layout, Plane, STRIDES, level_sizes};
use crate::Result;

/// The point of the input that a cell stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Locations {
    /// The cell's centre, `((j + ½) · s, (i + ½) · s)`: where FCOS and PackDet measure boxes from.
    Centres,
    /// Its corner, `(j · s, i · s)`: what RetinaNet's anchors are moved by.
    Corners,
    /// `(j · ⌊W / w⌋, i · ⌊H / h⌋)` for an input of `H`×`W` and a map of `h`×`w`: torchvision's, for both. It differs from a
    /// corner where a coarse level's size was rounded up.
    Shares,
}

/// A cell of an output map.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cell {
    /// Its level, 0 for P3; 0 in gaps.
    pub level: u8,
    /// Its map, in the order of [`Places::maps`]; none in gaps.
    pub map: Option<u8>,
    /// The point of the padded input that it stands for, in pixels; (−1, −1) in gaps.
    pub x: f32,
    /// Likewise.
    pub y: f32,
}

impl Cell {
    const GAP: Self = Self { level: 0, map: None, x: -1.0, y: -1.0 };

    /// Input pixels to a cell of its level.
    pub fn stride(&self) -> f32 {
        STRIDES[usize::from(self.level)] as f32
    }
}

/// The cells of one output map, row by row.
#[derive(Debug, Clone, PartialEq)]
pub struct Grid {
    /// Rows and columns.
    pub size: FrameSize,
    /// As many as the map has.
    pub cells: Vec<Cell>,
}

/// One map of the pyramid among the outputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapPlace {
    /// Its level, 0 for P3.
    pub level: usize,
    /// The output map that it lies in.
    pub grid: usize,
    /// Where in it.
    pub at: MapBox,
}

/// The cells of all outputs of a net for one size of input.
#[derive(Debug, Clone, PartialEq)]
pub struct Places {
    /// One where the maps share a plane, else one for each map.
    pub grids: Vec<Grid>,
    /// The maps of the pyramid, extra ones last.
    pub maps: Vec<MapPlace>,
}

impl Places {
    /// Of maps in one plane.
    ///
    /// # Errors
    /// If the layout has no room for them.
    pub fn packed(layout: Layout, input: FrameSize, locations: Locations) -> Result<Self> {
        let sizes = level_sizes(input);
        let Plane { size, boxes } = layout.place(sizes)?;
        let maps = layout.levels().iter().zip(boxes).map(|(&level, at)| MapPlace { level, grid: 0, at });
        let mut places = Self { grids: vec![Grid::of_gaps(size)], maps: maps.collect() };
        places.locate(input, locations);
        Ok(places)
    }

    /// Of the maps of a layout, each by itself.
    pub fn separate(layout: Layout, input: FrameSize, locations: Locations) -> Self {
        let sizes = level_sizes(input);
        let levels = layout.levels();
        let grids = levels.iter().map(|&level| Grid::of_gaps(sizes[level])).collect();
        let place = |(grid, &level): (usize, &usize)| {
            let FrameSize { height, width } = sizes[level];
            MapPlace { level, grid, at: MapBox { left: 0, top: 0, width, height } }
        };
        let mut places = Self { grids, maps: levels.iter().enumerate().map(place).collect() };
        places.locate(input, locations);
        places
    }

    /// Says of every map's cells where they are.
    fn locate(&mut self, input: FrameSize, locations: Locations) {
        for (index, &MapPlace { level, grid, at }) in self.maps.iter().enumerate() {
            let stride = STRIDES[level];
            let (step, offset) = match locations {
                Locations::Centres => ((stride, stride), stride as f32 / 2.0),
                Locations::Corners => ((stride, stride), 0.0),
                Locations::Shares => ((input.height / at.height.max(1), input.width / at.width.max(1)), 0.0),
            };
            let Grid { size, cells } = &mut self.grids[grid];
            for i in 0..at.height {
                let row = &mut cells[(at.top + i) * size.width + at.left..][..at.width];
                for (j, cell) in row.iter_mut().enumerate() {
                    let (y, x) = ((i * step.0) as f32 + offset, (j * step.1) as f32 + offset);
                    *cell = Cell { level: level as u8, map: Some(index as u8), x, y };
                }
            }
        }
    }

    /// Whether the maps share one plane.
    pub fn is_packed(&self) -> bool {
        self.grids.len() < self.maps.len()
    }
}

impl Grid {
    fn of_gaps(size: FrameSize) -> Self {
        Self { size, cells: vec![Cell::GAP; size.area()] }
    }
}
