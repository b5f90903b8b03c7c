//! `.json` case files: arguments and results side by side.

use candle_core::Device;
use serde_json::{Value, json};
use zoo_parity::{Case, Failure, Golden, Outputs, Registry, Report, Tolerance};

fn file() -> Value {
    json!({
        "notes": "halves of even numbers; null where the reference raises",
        "cases": [
            {"n": 4, "result": {"half": [2, 2]}},
            {"n": 3, "result": null},
        ],
    })
}

fn run(file: &Value, case: impl Fn(&Value, &mut Outputs) + Send + Sync + 'static) -> Report {
    let golden = Golden::from_bytes("halves.json", file.to_string().as_bytes()).unwrap();
    let case = Case::new(["halves"], Tolerance::Exact, move |golden, _| {
        let mut outputs = Outputs::new();
        case(golden.cases().ok_or("not a case file")?, &mut outputs);
        Ok(outputs)
    });
    Registry::new([case]).unwrap().run_golden(&golden, &Device::Cpu).unwrap()
}

/// Computes the results from the arguments; `wrong` replaces the first.
fn halves(cases: &Value, outputs: &mut Outputs, wrong: Option<Value>) {
    for (i, case) in cases["cases"].as_array().unwrap().iter().enumerate() {
        outputs.given(format!("/cases/{i}/n"));
        let n = case["n"].as_u64().unwrap();
        let result = if n % 2 == 0 { json!({"half": [n / 2, n / 2]}) } else { Value::Null };
        let result = wrong.clone().filter(|_| i == 0).unwrap_or(result);
        outputs.push_value(format!("/cases/{i}/result"), result).unwrap();
    }
}

#[test]
fn right_results_pass() {
    let report = run(&file(), |cases, outputs| halves(cases, outputs, None));
    assert!(report.passed, "{report}");
    assert_eq!((report.model.as_str(), report.compared()), ("halves", 3));
    let names: Vec<_> = report.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["/cases/0/result", "/cases/1/result"]);
}

#[test]
fn wrong_results_fail_with_their_place() {
    let structure = |at: &str, expected: &str, got: &str| Failure::Structure {
        at: at.into(),
        expected: expected.into(),
        got: got.into(),
    };
    for (wrong, failure) in [
        (json!({"half": [2, 3]}), Failure::Apart { index: 1, expected: 2.0, got: 3.0 }),
        (json!({"half": [2]}), structure("/cases/0/result/half", "[2,2]", "[2]")),
        (json!({"whole": [2, 2]}), structure("/cases/0/result", r#"{"half":[2,2]}"#, r#"{"whole":[2,2]}"#)),
        (json!({"half": [2, "2"]}), structure("/cases/0/result/half/1", "2", r#""2""#)),
        (Value::Null, structure("/cases/0/result", r#"{"half":[2,2]}"#, "null")),
    ] {
        let report = run(&file(), move |cases, outputs| halves(cases, outputs, Some(wrong.clone())));
        assert_eq!(report.first_difference.as_deref(), Some("/cases/0/result"));
        assert_eq!(report.failures().next().unwrap().1, &failure);
    }
}

#[test]
fn what_was_neither_produced_nor_given_fails() {
    let report = run(&file(), |_, outputs| {
        outputs.given("/cases/0");
        outputs.push_value("/cases/1/n", json!(3)).unwrap();
        outputs.push_value("/cases/2/result", json!(1)).unwrap();
    });
    let failed: Vec<_> = report.failures().map(|(row, failure)| (row.name.as_str(), failure)).collect();
    assert_eq!(failed, [("/cases/1/result", &Failure::NotProduced)]);
    assert_eq!(report.unmatched, ["/cases/2/result"]);

    let report = run(&json!({"notes": "nothing else"}), |_, _| {});
    assert!(!report.passed && report.to_string().ends_with("FAILED, nothing was compared"), "{report}");
}

#[test]
fn a_pointer_covers_what_lies_below_it_and_no_neighbour() {
    let report = run(&json!({"a": [1], "ab": 2, "a/b": 3}), |_, outputs| {
        outputs.given("/a");
        outputs.push_value("/ab", json!(2)).unwrap();
    });
    let failed: Vec<_> = report.failures().map(|(row, _)| row.name.as_str()).collect();
    assert_eq!(failed, ["/a~1b"], "the key a/b is no part of a");
}

#[test]
fn a_model_entry_names_the_case_and_a_pointer_counts_once() {
    let golden = Golden::from_bytes("x.json", br#"{"model": "named", "notes": "n"}"#).unwrap();
    assert_eq!((golden.meta().model.as_str(), golden.meta().notes.as_str()), ("named", "n"));
    let mut outputs = Outputs::new();
    outputs.push_value("/a", json!(1)).unwrap();
    let error = outputs.push_value("/a", json!(1)).unwrap_err();
    assert_eq!(error.to_string(), "output '/a' was produced twice");
}
