//! Top-k accuracy.

use crate::{Error, Result};

/// Share of images whose true class is among the `k` best scores. `scores` holds `classes` values an
/// image, `labels` one class an image. Of equal scores, the lower class ranks first. `None` without
/// images.
///
/// # Errors
/// If the lengths do not fit, `k` is not in `1..=classes`, a label is not a class, or a score is not a
/// number.
pub fn top_k_accuracy(scores: &[f32], classes: usize, labels: &[usize], k: usize) -> Result<Option<f64>> {
    if k == 0 || k > classes {
        return Err(Error::TopK { k, classes });
    }
    let expected = labels.len().saturating_mul(classes);
    if scores.len() != expected {
        return Err(Error::Length { what: "scores of a top-k accuracy", expected, got: scores.len() });
    }
    if let Some(index) = scores.iter().position(|s| s.is_nan()) {
        return Err(Error::NotANumber { frame: None, index });
    }
    let mut right = 0usize;
    for (index, (row, &label)) in scores.chunks_exact(classes).zip(labels).enumerate() {
        let Some(&own) = row.get(label) else {
            return Err(Error::UnknownClass { what: "true label", index, class: label, classes });
        };
        let ahead = row.iter().enumerate().filter(|&(class, &s)| s > own || (s == own && class < label));
        right += usize::from(ahead.count() < k);
    }
    Ok((!labels.is_empty()).then(|| right as f64 / labels.len() as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_accuracies() {
        let scores = [
            0.1, 0.7, 0.2, // class 1 first, then 2
            0.5, 0.5, 0.0, // tie of 0 and 1
            0.0, 0.1, 0.9, // class 2 first
        ];
        for (labels, k, expected) in [
            ([1, 0, 2], 1, 1.0),
            ([1, 1, 2], 1, 2.0 / 3.0),
            ([2, 1, 0], 1, 0.0),
            ([2, 1, 0], 2, 2.0 / 3.0),
            ([0, 2, 0], 3, 1.0),
        ] {
            let got = top_k_accuracy(&scores, 3, &labels, k).unwrap();
            assert_eq!(got, Some(expected), "labels {labels:?}, k {k}");
        }
        assert_eq!(top_k_accuracy(&[], 3, &[], 1).unwrap(), None);
    }

    #[test]
    fn bad_input_is_named() {
        let cases: &[(&[f32], &[usize], usize, &str)] = &[
            (&[0.0, 1.0], &[0], 0, "top-0 accuracy of 2 classes: k must lie in 1..=2"),
            (&[0.0, 1.0], &[0], 3, "top-3 accuracy of 2 classes: k must lie in 1..=2"),
            (&[0.0], &[0], 1, "scores of a top-k accuracy: expected 2 values, got 1"),
            (&[0.0, 1.0], &[2], 1, "true label 0 is class 2, but there are 2 classes (0 to 1)"),
            (&[0.0, f32::NAN], &[0], 1, "score 1 is not a number: leave such results out before measuring"),
        ];
        for &(scores, labels, k, message) in cases {
            let error = top_k_accuracy(scores, 2, labels, k).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
    }
}
