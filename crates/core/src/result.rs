use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Error, FrameSize, Result, SegClass};

/// An axis-aligned box in pixels of the original image: (x0, y0) is its top left corner, (x1, y1)
/// its bottom right one, exclusive, so that width = x1 − x0.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BBox {
    /// Left edge.
    pub x0: f32,
    /// Top edge.
    pub y0: f32,
    /// Right edge.
    pub x1: f32,
    /// Bottom edge.
    pub y1: f32,
}

impl BBox {
    /// From the four edges.
    pub const fn new(x0: f32, y0: f32, x1: f32, y1: f32) -> Self {
        Self { x0, y0, x1, y1 }
    }

    /// x1 − x0, at least 0.
    pub fn width(&self) -> f32 {
        (self.x1 - self.x0).max(0.0)
    }

    /// y1 − y0, at least 0.
    pub fn height(&self) -> f32 {
        (self.y1 - self.y0).max(0.0)
    }

    /// Area in square pixels.
    pub fn area(&self) -> f32 {
        self.width() * self.height()
    }

    /// Area shared with another box.
    pub fn intersection(&self, other: &Self) -> f32 {
        let width = (self.x1.min(other.x1) - self.x0.max(other.x0)).max(0.0);
        let height = (self.y1.min(other.y1) - self.y0.max(other.y0)).max(0.0);
        width * height
    }

    /// Intersection over union, in 0..=1; 0 where both boxes are empty.
    pub fn iou(&self, other: &Self) -> f32 {
        let shared = self.intersection(other);
        let union = self.area() + other.area() - shared;
        if union > 0.0 { shared / union } else { 0.0 }
    }
}

impl fmt::Display for BBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:.1}, {:.1}, {:.1}, {:.1}]", self.x0, self.y0, self.x1, self.y1)
    }
}

/// One object: what, how sure, where.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detection {
    /// The class as the data set numbers it (a COCO category id, say).
    pub class_id: usize,
    /// The class's name.
    pub label: Cow<'static, str>,
    /// Confidence in 0..=1.
    pub score: f32,
    /// Where, in pixels of the original image.
    pub bbox: BBox,
}

impl Detection {
    /// A detection from its four parts.
    pub fn new(class_id: usize, label: impl Into<Cow<'static, str>>, score: f32, bbox: BBox) -> Self {
        Self { class_id, label: label.into(), score, bbox }
    }
}

/// All objects found in one image, best first.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Detections {
    /// The size of the image that the boxes refer to.
    pub size: FrameSize,
    /// The objects, by falling score.
    pub items: Vec<Detection>,
}

impl Detections {
    /// Results for an image of `size`; `items` come best first.
    pub fn new(size: FrameSize, items: Vec<Detection>) -> Self {
        Self { size, items }
    }

    /// The objects with at least this score.
    pub fn above(&self, score: f32) -> impl Iterator<Item = &Detection> {
        self.items.iter().filter(move |d| d.score >= score)
    }

    /// Number of objects.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

/// A class for every pixel of the original image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegMap {
    /// The image's size.
    pub size: FrameSize,
    /// Class index of each pixel, row by row; [`SegMap::IGNORED`] where a label file says nothing.
    pub classes: Vec<u8>,
    /// The classes by index: names, colours, and the numbers of the data set's files.
    pub legend: Cow<'static, [SegClass]>,
}

impl SegMap {
    /// Stands in true labels where a pixel does not count; no net predicts it.
    pub const IGNORED: u8 = 255;

    /// Takes one class a pixel, row by row. Classes that the legend does not name have no name and no colour of their
    /// own, and are nothing wrong.
    ///
    /// # Errors
    /// If the number of classes is not the number of pixels.
    pub fn new(
        size: FrameSize,
        classes: Vec<u8>,
        legend: impl Into<Cow<'static, [SegClass]>>,
    ) -> Result<Self> {
        if classes.len() != size.area() {
            return Err(Error::ClassCount { size, expected: size.area(), got: classes.len() });
        }
        Ok(Self { size, classes, legend: legend.into() })
    }

    /// The share of pixels of each class, in the legend's order. Pixels without a class count as pixels, so that the
    /// shares may sum to less than 1.
    pub fn coverage(&self) -> Vec<ClassShare> {
        let mut counts = [0usize; 256];
        for &class in &self.classes {
            if let Some(count) = counts.get_mut(usize::from(class)) {
                *count += 1;
            }
        }
        let all = self.classes.len().max(1) as f32;
        let classes = self.legend.iter().zip(counts).enumerate();
        classes
            .map(|(class_id, (class, count))| ClassShare {
                class_id,
                label: class.name.clone(),
                share: count as f32 / all,
            })
            .collect()
    }

    /// A copy of the rectangle of `size` whose first pixel is (`top`, `left`).
    ///
    /// # Errors
    /// If the rectangle leaves the map.
    pub fn crop(&self, top: usize, left: usize, size: FrameSize) -> Result<Self> {
        self.size.check_inside(top, left, size)?;
        let mut classes = Vec::with_capacity(size.area());
        for row in self.classes.chunks_exact(self.size.width.max(1)).skip(top).take(size.height) {
            classes.extend(row.iter().skip(left).take(size.width));
        }
        Self::new(size, classes, self.legend.clone())
    }
}

/// How much of a picture one class covers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassShare {
    /// Class index.
    pub class_id: usize,
    /// The class's name.
    pub label: Cow<'static, str>,
    /// Share of all pixels, in 0..=1.
    pub share: f32,
}

/// One guess about what a whole image shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Classification {
    /// Class index.
    pub class_id: usize,
    /// The class's name.
    pub label: Cow<'static, str>,
    /// Softmax probability.
    pub score: f32,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn iou_of_known_pairs() {
        let unit = BBox::new(0.0, 0.0, 2.0, 2.0);
        for (name, other, expected) in [
            ("itself", unit, 1.0),
            ("half to the right", BBox::new(1.0, 0.0, 3.0, 2.0), 1.0 / 3.0),
            ("touching only", BBox::new(2.0, 0.0, 4.0, 2.0), 0.0),
            ("inverted, hence empty", BBox::new(2.0, 2.0, 0.0, 0.0), 0.0),
        ] {
            assert!((unit.iou(&other) - expected).abs() < 1e-6, "{name}: {}", unit.iou(&other));
        }
        let empty = BBox::new(1.0, 1.0, 1.0, 1.0);
        assert_eq!(empty.iou(&empty), 0.0);
    }

    const LEGEND: [SegClass; 2] =
        [SegClass::new("background", 0, [0; 3]), SegClass::new("object", 1, [200, 0, 0])];

    fn map(height: usize, width: usize, classes: &[u8]) -> Result<SegMap> {
        SegMap::new(FrameSize::new(height, width), classes.to_vec(), LEGEND.to_vec())
    }

    #[test]
    fn coverage_counts_pixels_per_class() {
        let coverage = map(1, 5, &[0, 1, 1, 1, SegMap::IGNORED]).unwrap().coverage();
        let shares: Vec<_> = coverage.iter().map(|c| (c.class_id, c.label.as_ref(), c.share)).collect();
        assert_eq!(shares, [(0, "background", 0.2), (1, "object", 0.6)]);
    }

    #[test]
    fn a_map_has_one_class_a_pixel() {
        let error = map(2, 3, &[0; 5]).unwrap_err().to_string();
        assert_eq!(error, "a class map of 2×3 (rows × columns) needs 6 classes, one a pixel, got 5");
    }

    #[test]
    fn a_part_of_a_map_has_the_named_pixels() {
        let whole = map(3, 4, &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]).unwrap();
        let part = whole.crop(1, 2, FrameSize::new(2, 2)).unwrap();
        assert_eq!((part.size, part.classes.as_slice()), (FrameSize::new(2, 2), &[6, 7, 10, 11][..]));
        assert_eq!(part.legend, whole.legend);
        assert!(whole.crop(2, 0, FrameSize::new(2, 2)).is_err());
        assert!(whole.crop(0, usize::MAX, FrameSize::new(1, 2)).is_err());
    }
}
