use std::iter::zip;

use crate::golden::Golden;
use crate::outputs::{Outputs, Produced};
use crate::report::{Failure, Row, Verdict};
use crate::stored::{Form, Stored};
use crate::tolerance::{Bounds, STATS_ROUNDING, Tolerance};

/// Compares everything that a safetensors golden stores, in the order of its `output_shapes`. `level`
/// names the tolerance of an output.
pub(crate) fn tensors(
    golden: &Golden,
    outputs: &Outputs,
    level: &dyn Fn(&str) -> Tolerance,
    factor: f64,
) -> (Vec<Row>, Vec<String>) {
    let meta = golden.meta();
    let mut stored: Vec<(&String, &Stored)> = golden.stored.iter().collect();
    // Values before their statistics, inputs that are no outputs last.
    stored.sort_by_key(|(_, tensor)| {
        let at = meta.output_shapes.get_index_of(&tensor.base).unwrap_or(usize::MAX);
        (at, tensor.form == Form::Stats)
    });
    let rows = stored.into_iter().map(|(name, tensor)| {
        let tolerance = level(&tensor.base);
        let given = meta.inputs.contains_key(&tensor.base) || outputs.given.contains(&tensor.base);
        let row = Draft { name, tolerance };
        if given {
            return row.verdict(Verdict::Given);
        }
        let Some(produced) = outputs.tensors.get(&tensor.base) else {
            return row.verdict(Verdict::Fail(Failure::NotProduced));
        };
        match meta.output_shapes.get(&tensor.base) {
            Some(shape) if *shape != produced.shape => row.verdict(Verdict::Fail(Failure::Shape {
                expected: shape.clone(),
                got: produced.shape.clone(),
            })),
            _ => row.compare(golden, tensor, produced, tolerance.bounds(factor)),
        }
    });
    let unmatched = outputs.tensors.keys().filter(|&name| !meta.output_shapes.contains_key(name));
    (rows.collect(), unmatched.chain(outputs.values.keys()).cloned().collect())
}

/// A row whose numbers are still to come.
pub(crate) struct Draft<'a> {
    pub name: &'a str,
    pub tolerance: Tolerance,
}

impl Draft<'_> {
    pub fn verdict(self, verdict: Verdict) -> Row {
        let Self { name, tolerance } = self;
        Row { name: name.to_owned(), count: 0, max_abs: 0.0, max_rel: 0.0, mean_rel: 0.0, tolerance, verdict }
    }

    fn compare(self, golden: &Golden, stored: &Stored, produced: &Produced, bounds: Bounds) -> Row {
        let values = &produced.values;
        match stored.form {
            Form::Whole => {
                let absmax = absmax(&stored.values);
                self.numbers(&stored.values, values, absmax, bounds)
            }
            Form::Strided(stride) => {
                let sampled: Vec<f64> = values.iter().copied().step_by(stride).collect();
                // The largest value of the whole tensor, where the file says it.
                let stats = golden.stored.get(&format!("{}@stats", stored.base));
                let whole = stats.and_then(|stats| stats.values.last()).copied();
                let absmax = whole.unwrap_or_else(|| absmax(&stored.values));
                self.numbers(&stored.values, &sampled, absmax, bounds)
            }
            Form::Stats => {
                let max_rel = bounds.max_rel.max(STATS_ROUNDING);
                let bounds = Bounds { max_rel, mean_rel: None, ..bounds };
                let absmax = stored.values.last().copied().unwrap_or_default();
                self.numbers(&stored.values, &stats(values), absmax, bounds)
            }
        }
    }

    /// Compares value by value, relative to `absmax`.
    pub fn numbers(self, expected: &[f64], got: &[f64], absmax: f64, bounds: Bounds) -> Row {
        if let Some(index) = zip(expected, got).position(|(e, g)| !(e.is_finite() && g.is_finite())) {
            return self.verdict(Verdict::Fail(Failure::NotFinite { index }));
        }
        let count = expected.len();
        let differences = || zip(expected, got).map(|(e, g)| (e - g).abs());
        let worst = differences().enumerate().max_by(|(_, a), (_, b)| a.total_cmp(b));
        let (index, max_abs) = worst.unwrap_or_default();
        let mean_abs = differences().sum::<f64>() / count.max(1) as f64;
        let within = max_abs <= bounds.max_rel * absmax + bounds.max_abs
            && bounds.mean_rel.is_none_or(|mean_rel| mean_abs <= mean_rel * absmax);
        let verdict = match (within, expected.get(index), got.get(index)) {
            (false, Some(&expected), Some(&got)) => Verdict::Fail(Failure::Apart { index, expected, got }),
            _ => Verdict::Pass,
        };
        let share = |of: f64| if of == 0.0 { 0.0 } else { of / absmax };
        Row { count, max_abs, max_rel: share(max_abs), mean_rel: share(mean_abs), ..self.verdict(verdict) }
    }
}

pub(crate) fn absmax(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |max, v| v.abs().max(max))
}

/// Mean, population standard deviation, largest absolute value.
fn stats(values: &[f64]) -> [f64; 3] {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n;
    [mean, variance.sqrt(), absmax(values)]
}
