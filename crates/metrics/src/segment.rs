//! Semantic segmentation: confusion matrix and what follows from it.

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

    /// Intersection over union of each class; `None` for a class that neither side holds.
    pub fn iou(&self) -> Vec<Option<f64>> {
        (0..self.classes)
            .map(|class| {
                let right = self.count(class, class);
                let (truth, predicted) = (0..self.classes).fold((0, 0), |(truth, predicted), other| {
                    (truth + self.count(class, other), predicted + self.count(other, class))
                });
                ratio(right, truth + predicted - right)
            })
            .collect()
    }

    /// Mean of [`ConfusionMatrix::iou`] over the classes that have one.
    pub fn mean_iou(&self) -> Option<f64> {
        let iou: Vec<f64> = self.iou().into_iter().flatten().collect();
        (!iou.is_empty()).then(|| iou.iter().sum::<f64>() / iou.len() as f64)
    }

    /// Share of counted pixels with the right label.
    pub fn pixel_accuracy(&self) -> Option<f64> {
        ratio((0..self.classes).map(|class| self.count(class, class)).sum(), self.counts.iter().sum())
    }
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
