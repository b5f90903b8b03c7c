use std::borrow::Cow;
use std::fmt;

use serde::{Deserialize, Serialize};

use crate::FrameSize;

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
    /// Class index of each pixel, row by row.
    pub classes: Vec<u8>,
    /// Names of the classes, by index.
    pub labels: Vec<Cow<'static, str>>,
}

impl SegMap {
    /// The share of pixels of each class, in the order of `labels`.
    pub fn coverage(&self) -> Vec<f32> {
        let mut counts = vec![0usize; self.labels.len()];
        for &class in &self.classes {
            if let Some(count) = counts.get_mut(usize::from(class)) {
                *count += 1;
            }
        }
        let all = self.classes.len().max(1) as f32;
        counts.into_iter().map(|n| n as f32 / all).collect()
    }
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

    #[test]
    fn coverage_counts_pixels_per_class() {
        let map = SegMap {
            size: FrameSize::new(1, 4),
            classes: vec![0, 1, 1, 1],
            labels: vec!["background".into(), "object".into()],
        };
        assert_eq!(map.coverage(), [0.25, 0.75]);
    }
}
