//! Comparison of `.json` case files, whose arguments and results stand side by side.

use serde_json::Value;

use crate::compare::{Draft, absmax};
use crate::outputs::Outputs;
use crate::report::{Failure, Row, Verdict};
use crate::tolerance::Tolerance;

/// Entry that names the model.
pub(crate) const MODEL: &str = "model";
/// Entry with remarks.
pub(crate) const NOTES: &str = "notes";

/// Compares what was produced, in its own order, and reports every part of the file that was neither
/// produced nor given.
pub(crate) fn values(
    cases: &Value,
    outputs: &Outputs,
    level: &dyn Fn(&str) -> Tolerance,
    factor: f64,
) -> (Vec<Row>, Vec<String>) {
    let (mut rows, mut unmatched) = (Vec::new(), Vec::new());
    for (pointer, got) in &outputs.values {
        match cases.pointer(pointer) {
            Some(expected) => rows.push(compare(pointer, expected, got, level(pointer), factor)),
            None => unmatched.push(pointer.clone()),
        }
    }
    unmatched.extend(outputs.tensors.keys().cloned());

    let below = |leaf: &str, pointer: &str| {
        leaf.strip_prefix(pointer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let known = [MODEL, NOTES].map(|key| format!("/{key}"));
    let mut left = Vec::new();
    leaves(cases, String::new(), &mut |leaf, _| {
        let mut accounted = outputs.values.keys().chain(&outputs.given).chain(&known);
        if !accounted.any(|pointer| below(leaf, pointer)) {
            left.push(leaf.to_owned());
        }
    });
    rows.extend(left.iter().map(|leaf| {
        Draft { name: leaf, tolerance: level(leaf) }.verdict(Verdict::Fail(Failure::NotProduced))
    }));
    (rows, unmatched)
}

fn compare(pointer: &str, expected: &Value, got: &Value, tolerance: Tolerance, factor: f64) -> Row {
    let draft = Draft { name: pointer, tolerance };
    let mut numbers = (Vec::new(), Vec::new());
    let mut others = 0;
    match pair(expected, got, pointer, &mut numbers, &mut others) {
        Err(failure) => draft.verdict(Verdict::Fail(failure)),
        Ok(()) => {
            let (expected, got) = numbers;
            let row = draft.numbers(&expected, &got, absmax(&expected), tolerance.bounds(factor));
            Row { count: row.count + others, ..row }
        }
    }
}

/// Collects the numbers of both trees in order and counts the other leaves, which must be equal.
fn pair(
    expected: &Value,
    got: &Value,
    at: &str,
    numbers: &mut (Vec<f64>, Vec<f64>),
    others: &mut usize,
) -> Result<(), Failure> {
    let differs =
        || Failure::Structure { at: at.to_owned(), expected: expected.to_string(), got: got.to_string() };
    match (expected, got) {
        (Value::Array(e), Value::Array(g)) if e.len() == g.len() => {
            for (i, (e, g)) in e.iter().zip(g).enumerate() {
                pair(e, g, &format!("{at}/{i}"), numbers, others)?;
            }
        }
        (Value::Object(e), Value::Object(g)) if e.len() == g.len() => {
            for (key, e) in e {
                let g = g.get(key).ok_or_else(differs)?;
                pair(e, g, &format!("{at}/{}", escape(key)), numbers, others)?;
            }
        }
        (Value::Number(e), Value::Number(g)) => {
            let (e, g) = (e.as_f64().ok_or_else(differs)?, g.as_f64().ok_or_else(differs)?);
            numbers.0.push(e);
            numbers.1.push(g);
        }
        (e, g) if e == g => *others += 1,
        _ => return Err(differs()),
    }
    Ok(())
}

/// Calls `visit` with every value that has no parts.
fn leaves(value: &Value, at: String, visit: &mut dyn FnMut(&str, &Value)) {
    match value {
        Value::Array(items) if !items.is_empty() => {
            for (i, item) in items.iter().enumerate() {
                leaves(item, format!("{at}/{i}"), visit);
            }
        }
        Value::Object(entries) if !entries.is_empty() => {
            for (key, item) in entries {
                leaves(item, format!("{at}/{}", escape(key)), visit);
            }
        }
        leaf => visit(&at, leaf),
    }
}

/// A key as a JSON pointer spells it.
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
