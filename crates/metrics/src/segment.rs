//! Semantic segmentation: one confusion matrix over a whole set of images, and what follows from it.
//!
//! The means are of the set, not of the images: a class that fills one picture and is missing in the next counts by
//! its pixels.

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Counts pixels by true and predicted class, over any number of images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfusionMatrix {
    classes: usize,
    ignore: Option<u8>,
    /// `classes` rows (truth) of `classes` columns (prediction).
    counts: Vec<u64>,
}

impl ConfusionMatrix {
    /// For `classes` classes; pixels whose true label is `ignore` do not count, whatever is predicted
    /// there.
    pub fn new(classes: u8, ignore: Option<u8>) -> Self {
        let classes = usize::from(classes);
        Self { classes, ignore, counts: vec![0; classes * classes] }
    }

    /// Adds the pixels of an image.
    ///
    /// # Errors
    /// If the slices differ in length or a label is no class. Nothing is counted then.
    pub fn add(&mut self, predicted: &[u8], truth: &[u8]) -> Result<()> {
        if predicted.len() != truth.len() {
            return Err(Error::Length {
                what: "predicted pixels",
                expected: truth.len(),
                got: predicted.len(),
            });
        }
        let ignore = self.ignore;
        let counted = || truth.iter().zip(predicted).enumerate().filter(|&(_, (&t, _))| Some(t) != ignore);
        for (index, (&t, &p)) in counted() {
            for (what, class) in [("true pixel", t), ("predicted pixel", p)] {
                if usize::from(class) >= self.classes {
                    let class = usize::from(class);
                    return Err(Error::UnknownClass { what, index, class, classes: self.classes });
                }
            }
        }
        for (_, (&t, &p)) in counted() {
            if let Some(count) = self.counts.get_mut(usize::from(t) * self.classes + usize::from(p)) {
                *count += 1;
            }
        }
        Ok(())
    }

    /// Pixels of true class `truth` that were labelled `predicted`; 0 for a class that does not exist.
    pub fn count(&self, truth: usize, predicted: usize) -> u64 {
        let row = self.counts.chunks_exact(self.classes.max(1)).nth(truth);
        row.and_then(|row| row.get(predicted)).copied().unwrap_or(0)
    }

    /// Adds what another matrix counted, of other images or by another worker.
    ///
    /// # Errors
    /// If it has other classes. Nothing is added then.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if other.classes != self.classes {
            return Err(Error::Length {
                what: "classes of the matrix to merge",
                expected: self.classes,
                got: other.classes,
            });
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        Ok(())
    }

    /// Number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Pixels that truly are of a class.
    pub fn truth(&self, class: usize) -> u64 {
        (0..self.classes).map(|predicted| self.count(class, predicted)).sum()
    }

    /// Pixels that were labelled as a class.
    pub fn predicted(&self, class: usize) -> u64 {
        (0..self.classes).map(|truth| self.count(truth, class)).sum()
    }

    /// Intersection over union of each class; `None` for a class that neither side holds.
    pub fn iou(&self) -> Vec<Option<f64>> {
        self.iou_by(IouRule::Present)
    }

    /// Intersection over union of each class by a benchmark's rule.
    pub fn iou_by(&self, rule: IouRule) -> Vec<Option<f64>> {
        let iou = |class| {
            let shared = self.count(class, class);
            let union = self.truth(class) + self.predicted(class) - shared;
            match rule {
                IouRule::Present => ratio(shared, union),
                IouRule::All { epsilon } => Some(shared as f64 / (union as f64 + epsilon)),
            }
        };
        (0..self.classes).map(iou).collect()
    }

    /// Mean of [`ConfusionMatrix::iou`] over the classes that have one.
    pub fn mean_iou(&self) -> Option<f64> {
        self.mean_iou_by(IouRule::Present)
    }

    /// Mean intersection over union by a benchmark's rule.
    pub fn mean_iou_by(&self, rule: IouRule) -> Option<f64> {
        mean(&self.iou_by(rule))
    }

    /// Share of each class's pixels that got the right label; `None` for a class that is not there.
    pub fn class_accuracy(&self) -> Vec<Option<f64>> {
        (0..self.classes).map(|class| ratio(self.count(class, class), self.truth(class))).collect()
    }

    /// Share of counted pixels with the right label.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        ratio((0..self.classes).map(|class| self.count(class, class)).sum(), self.counts.iter().sum())
    }

    /// All of it at once, with names.
    pub fn summary(&self, rule: IouRule, name: impl Fn(usize) -> String) -> SegmentationScores {
        let rows = self.iou_by(rule).into_iter().zip(self.class_accuracy()).enumerate();
        SegmentationScores {
            mean_iou: self.mean_iou_by(rule),
            pixel_accuracy: self.pixel_accuracy(),
            mean_accuracy: mean(&self.class_accuracy()),
            pixels: self.counts.iter().sum(),
            classes: rows
                .map(|(class, (iou, accuracy))| ClassScore {
                    label: name(class),
                    iou,
                    accuracy,
                    pixels: self.truth(class),
                })
                .collect(),
        }
    }
}

/// How the union is divided by, and which classes enter the mean.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum IouRule {
    /// shared / union, over the classes that the truth or the prediction holds; the benchmarks' own.
    #[default]
    Present,
    /// shared / (union + ε), over all classes: one that is nowhere counts as 0. Where every class occurs, ε is lost
    /// in rounding.
    All {
        /// What keeps the division from 0/0.
        epsilon: f64,
    },
}

impl IouRule {
    /// The evaluation of HyperSeg's authors.
    pub const HYPERSEG: Self = Self::All { epsilon: 1e-6 };
    /// The evaluation of GSVNet's authors.
    pub const GSVNET: Self = Self::All { epsilon: 1e-8 };
}

/// What a segmenter scored on a set of images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SegmentationScores {
    /// Mean intersection over union.
    pub mean_iou: Option<f64>,
    /// Share of pixels with the right label.
    pub pixel_accuracy: Option<f64>,
    /// Mean of the classes' accuracies.
    pub mean_accuracy: Option<f64>,
    /// Pixels that counted.
    pub pixels: u64,
    /// The classes by index.
    pub classes: Vec<ClassScore>,
}

/// What one class scored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClassScore {
    /// The class's name.
    pub label: String,
    /// Intersection over union.
    pub iou: Option<f64>,
    /// Share of its pixels that got the right label.
    pub accuracy: Option<f64>,
    /// Pixels that truly are of it.
    pub pixels: u64,
}

/// Over what there is.
fn mean(values: &[Option<f64>]) -> Option<f64> {
    let there: Vec<f64> = values.iter().copied().flatten().collect();
    (!there.is_empty()).then(|| there.iter().sum::<f64>() / there.len() as f64)
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_counts_over_two_images() {
        let mut matrix = ConfusionMatrix::new(4, Some(255));
        matrix.add(&[0, 0, 1, 1, 9], &[0, 1, 1, 1, 255]).unwrap();
        matrix.add(&[2, 0], &[0, 0]).unwrap();
        assert_eq!(
            (matrix.count(0, 0), matrix.count(1, 0), matrix.count(0, 2), matrix.count(9, 9)),
            (2, 1, 1, 0)
        );
        // Class 0: 2 shared of 4; class 1: 2 of 3; class 2: predicted only; class 3: nowhere.
        assert_eq!(matrix.iou(), [Some(0.5), Some(2.0 / 3.0), Some(0.0), None]);
        assert!((matrix.mean_iou().unwrap() - (0.5 + 2.0 / 3.0) / 3.0).abs() < 1e-12);
        assert_eq!(matrix.pixel_accuracy(), Some(4.0 / 6.0));
    }

    #[test]
    fn an_absent_class_is_left_out_or_counts_as_zero() {
        let mut matrix = ConfusionMatrix::new(3, None);
        matrix.add(&[0, 0, 1, 1], &[0, 0, 1, 0]).unwrap();
        let near =
            |got: Option<f64>, want: f64| assert!((got.unwrap() - want).abs() < 1e-6, "{got:?}, {want}");
        near(matrix.mean_iou(), (2.0 / 3.0 + 0.5) / 2.0);
        near(matrix.mean_iou_by(IouRule::HYPERSEG), (2.0 / 3.0 + 0.5) / 3.0);
        assert_eq!(matrix.iou_by(IouRule::GSVNET)[2], Some(0.0));
        assert_eq!(matrix.class_accuracy(), [Some(2.0 / 3.0), Some(1.0), None]);
    }

    /// Two rounds of an evaluation by hand: pooled they give another mean than the mean of theirs.
    #[test]
    fn matrices_pool() {
        let matrix = |counts: [u64; 4]| ConfusionMatrix { classes: 2, ignore: None, counts: counts.to_vec() };
        let mut pooled = matrix([8, 2, 1, 9]);
        let near =
            |got: Option<f64>, want: f64| assert!((got.unwrap() - want).abs() < 5e-5, "{got:?}, {want}");
        near(pooled.mean_iou_by(IouRule::GSVNET), 0.7386);
        near(matrix([5, 5, 0, 10]).mean_iou(), 0.5833);
        pooled.merge(&matrix([5, 5, 0, 10])).unwrap();
        near(pooled.mean_iou(), 0.6614);
        let error = pooled.merge(&ConfusionMatrix::new(3, None)).unwrap_err().to_string();
        assert_eq!(error, "classes of the matrix to merge: expected 2 values, got 3");
        assert_eq!(pooled, matrix([13, 7, 1, 19]));
    }

    #[test]
    fn a_summary_says_it_all() {
        let mut matrix = ConfusionMatrix::new(2, Some(255));
        matrix.add(&[0, 1, 1, 0], &[0, 1, 0, 255]).unwrap();
        let summary = matrix.summary(IouRule::Present, |class| format!("class {class}"));
        let expected = r#"{"mean_iou":0.5,"pixel_accuracy":0.6666666666666666,"mean_accuracy":0.75,"pixels":3,"classes":[{"label":"class 0","iou":0.5,"accuracy":0.5,"pixels":2},{"label":"class 1","iou":0.5,"accuracy":1.0,"pixels":1}]}"#;
        assert_eq!(serde_json::to_string(&summary).unwrap(), expected);
    }

    #[test]
    fn nothing_counted_is_none() {
        let mut matrix = ConfusionMatrix::new(2, Some(255));
        matrix.add(&[0, 1], &[255, 255]).unwrap();
        assert_eq!((matrix.mean_iou(), matrix.pixel_accuracy()), (None, None));
        assert_eq!(ConfusionMatrix::new(0, None).iou(), []);
    }

    #[test]
    fn bad_input_is_named_and_counts_nothing() {
        let cases: &[(&[u8], &[u8], &str)] = &[
            (&[0], &[0, 1], "predicted pixels: expected 2 values, got 1"),
            (&[0, 2], &[0, 1], "predicted pixel 1 is class 2, but there are 2 classes (0 to 1)"),
            (&[0, 1], &[0, 7], "true pixel 1 is class 7, but there are 2 classes (0 to 1)"),
        ];
        for &(predicted, truth, message) in cases {
            let mut matrix = ConfusionMatrix::new(2, None);
            assert_eq!(matrix.add(predicted, truth).unwrap_err().to_string(), message);
            assert_eq!(matrix, ConfusionMatrix::new(2, None), "{message}");
        }
    }
}
