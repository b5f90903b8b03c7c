use hotcoco::metrics::counts::average_precision_all_points;

use crate::{Error, Result};

/// Area under the monotone envelope of the precision–recall curve, all points ("VOC 2010"), of
/// detections that are already matched: `hits[i]` says whether detection `i` found one of the
/// `positives` objects. They are ranked by falling `scores`; of equal scores, the earlier one goes
/// first. 0 if there are no positives.
///
/// # Errors
/// If the two slices differ in length or a score is not a number.
pub fn average_precision(scores: &[f32], hits: &[bool], positives: usize) -> Result<f64> {
    if scores.len() != hits.len() {
        return Err(Error::Length {
            what: "hits of an average precision",
            expected: scores.len(),
            got: hits.len(),
        });
    }
    if let Some(index) = scores.iter().position(|s| s.is_nan()) {
        return Err(Error::NotANumber { frame: None, index });
    }
    let mut ranked: Vec<(f32, bool)> = scores.iter().copied().zip(hits.iter().copied()).collect();
    ranked.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    Ok(of_ranked(ranked.into_iter().map(|(_, hit)| hit), positives))
}

/// As [`average_precision`], of detections in their final order.
pub(crate) fn of_ranked(hits: impl IntoIterator<Item = bool>, positives: usize) -> f64 {
    let (mut hit, mut miss) = (0.0, 0.0);
    let (hits, misses): (Vec<f64>, Vec<f64>) = hits
        .into_iter()
        .map(|is_hit| {
            *(if is_hit { &mut hit } else { &mut miss }) += 1.0;
            (hit, miss)
        })
        .unzip();
    average_precision_all_points(&hits, &misses, positives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_curves() {
        type Case = (&'static str, &'static [f32], &'static [bool], usize, f64);
        let cases: [Case; 8] = [
            ("all found at once", &[0.9, 0.8], &[true, true], 2, 1.0),
            ("half found", &[0.9], &[true], 2, 0.5),
            ("a miss first", &[0.9, 0.8], &[false, true], 1, 0.5),
            (
                "the envelope lifts the dip",
                &[0.9, 0.8, 0.7, 0.6],
                &[true, false, true, true],
                3,
                1.0 / 3.0 + 0.5,
            ),
            ("unsorted input is ranked", &[0.8, 0.9], &[false, true], 1, 1.0),
            ("a tie keeps the input's order", &[0.5, 0.5], &[false, true], 1, 0.5),
            ("nothing found", &[], &[], 3, 0.0),
            ("nothing to find", &[0.9], &[false], 0, 0.0),
        ];
        for (name, scores, hits, positives, expected) in cases {
            let ap = average_precision(scores, hits, positives).unwrap();
            assert!((ap - expected).abs() < 1e-12, "{name}: {ap}, not {expected}");
        }
    }

    #[test]
    fn bad_scores_are_refused() {
        let error = average_precision(&[0.1, f32::NAN], &[true, true], 1).unwrap_err();
        assert_eq!(error.to_string(), "score 1 is not a number: leave such results out before measuring");
        let error = average_precision(&[0.1], &[], 1).unwrap_err();
        assert_eq!(error.to_string(), "hits of an average precision: expected 1 values, got 0");
    }
}
