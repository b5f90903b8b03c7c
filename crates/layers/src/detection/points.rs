use candle_core::{Result, bail};
use serde::{Deserialize, Serialize};

use super::box_area;

/// A cell of a map by what it sees of the image.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Its level of the pyramid, finest first.
    pub level: usize,
    /// Where in the image, in pixels.
    pub x: f32,
    /// Where in the image, in pixels.
    pub y: f32,
}

/// Which object a point has to find, and how far its sides are from it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AssignedPoint {
    /// Index among the image's objects.
    pub object: usize,
    /// Left, top, right, bottom, in pixels.
    pub distances: [f32; 4],
}

/// Objects to points, by size and place (Tian et al., "FCOS: Fully Convolutional One-Stage Object Detection", ICCV
/// 2019, Section 3.2, with the authors' later centre sampling).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PointAssigner {
    /// Pixels between the cells of each level.
    pub strides: Vec<f32>,
    /// A level's points take boxes whose farthest side is so far away, both ends included.
    pub ranges: Vec<[f32; 2]>,
    /// A point must lie in the square of so many strides around a box's centre, and inside the box; anywhere inside if 0.
    pub centre_radius: f32,
}

impl PointAssigner {
    /// FCOS's five levels of strides 8 to 128: sides up to 64, 128, 256, 512 pixels, and beyond.
    pub fn fcos(centre_radius: f32) -> Self {
        Self {
            strides: vec![8.0, 16.0, 32.0, 64.0, 128.0],
            ranges: vec![[-1.0, 64.0], [64.0, 128.0], [128.0, 256.0], [256.0, 512.0], [512.0, 1e8]],
            centre_radius,
        }
    }

    /// What each point has to find: of the boxes (x0, y0, x1, y1) that are its level's size and that it lies in, the one
    /// of least area (sides with one pixel more, the first of equal ones); `None` is background.
    ///
    /// # Errors
    /// If a point's level has no stride or no range.
    pub fn assign(&self, points: &[Point], boxes: &[[f32; 4]]) -> Result<Vec<Option<AssignedPoint>>> {
        let areas: Vec<f32> = boxes.iter().map(|&bbox| box_area(bbox, true)).collect();
        let assigned = points.iter().map(|point| {
            let (Some(&stride), Some(&range)) =
                (self.strides.get(point.level), self.ranges.get(point.level))
            else {
                bail!(
                    "assigning points: a point is of level {}, but there are {} strides and {} ranges of sizes",
                    point.level,
                    self.strides.len(),
                    self.ranges.len()
                )
            };
            let mut best: Option<(f32, AssignedPoint)> = None;
            for (object, (&bbox, &area)) in boxes.iter().zip(&areas).enumerate() {
                let distances = distances(point, bbox);
                let farthest = distances.into_iter().fold(f32::NEG_INFINITY, f32::max);
                let fits = farthest >= range[0] && farthest <= range[1];
                if fits && self.inside(point, bbox, stride) && best.is_none_or(|(least, _)| area < least) {
                    best = Some((area, AssignedPoint { object, distances }));
                }
            }
            Ok(best.map(|(_, assigned)| assigned))
        });
        assigned.collect()
    }

    fn inside(&self, point: &Point, bbox: [f32; 4], stride: f32) -> bool {
        let [x0, y0, x1, y1] = bbox;
        let region = if self.centre_radius > 0.0 {
            let (cx, cy, reach) = ((x0 + x1) / 2.0, (y0 + y1) / 2.0, stride * self.centre_radius);
            [x0.max(cx - reach), y0.max(cy - reach), x1.min(cx + reach), y1.min(cy + reach)]
        } else {
            bbox
        };
        distances(point, region).iter().all(|&distance| distance > 0.0)
    }
}

/// From a point to the left, top, right and bottom side of a box.
fn distances(point: &Point, [x0, y0, x1, y1]: [f32; 4]) -> [f32; 4] {
    [point.x - x0, point.y - y0, x1 - point.x, y1 - point.y]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(level: usize, x: f32, y: f32) -> Point {
        Point { level, x, y }
    }

    fn object(assigner: &PointAssigner, point: Point, boxes: &[[f32; 4]]) -> Option<usize> {
        assigner.assign(&[point], boxes).unwrap()[0].map(|assigned| assigned.object)
    }

    #[test]
    fn size_place_and_area_decide() {
        let (anywhere, centre) = (PointAssigner::fcos(0.0), PointAssigner::fcos(1.5));
        let boxes = [[0.0, 0.0, 40.0, 40.0], [10.0, 10.0, 30.0, 30.0], [0.0, 0.0, 300.0, 200.0]];
        for (name, assigner, point, expected) in [
            ("the smaller of two", &anywhere, at(0, 20.0, 20.0), Some(1)),
            ("only the larger", &anywhere, at(0, 4.0, 20.0), Some(0)),
            ("on the edge is outside", &anywhere, at(0, 0.0, 20.0), None),
            ("too far from the centre", &centre, at(0, 4.0, 20.0), None),
            ("12 pixels from the centre is too far", &centre, at(0, 8.0, 20.0), None),
            ("less is not", &centre, at(0, 8.5, 20.0), Some(0)),
            ("the large one by its level", &anywhere, at(2, 100.0, 100.0), Some(2)),
            ("a level too fine", &anywhere, at(1, 100.0, 100.0), None),
            ("64 belongs to the finer level", &anywhere, at(0, 64.0, 64.0), None),
            ("a gap of the plane", &anywhere, at(0, -1.0, -1.0), None),
        ] {
            assert_eq!(object(assigner, point, &boxes), expected, "{name}");
        }
        // 64 pixels from its farthest side a box belongs to both levels.
        let square = [[0.0, 0.0, 128.0, 128.0]];
        for level in [0, 1] {
            assert_eq!(object(&anywhere, at(level, 64.0, 64.0), &square), Some(0), "level {level}");
        }
        let assigned = anywhere.assign(&[at(0, 20.0, 15.0)], &boxes).unwrap()[0].unwrap();
        assert_eq!(assigned.distances, [10.0, 5.0, 10.0, 15.0]);
        let twice = [boxes[1], boxes[1]];
        assert_eq!(object(&anywhere, at(0, 20.0, 20.0), &twice), Some(0), "the first of equal ones");
        assert_eq!(object(&anywhere, at(0, 20.0, 20.0), &[]), None);
    }

    #[test]
    fn a_level_without_a_range_is_an_error() {
        let error = PointAssigner::fcos(0.0).assign(&[at(5, 0.0, 0.0)], &[]).unwrap_err().to_string();
        assert!(error.contains("a point is of level 5, but there are 5 strides and 5 ranges"), "{error}");
    }
}
