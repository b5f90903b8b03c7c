//! Reports: what passes, and each reason to fail.

use candle_core::{DType, Device, Tensor};
use serde_json::{Value, json};
use zoo_parity::{
    ACCELERATOR_FACTOR, Case, Error, Failure, Golden, Outputs, Registry, Report, Tolerance, Verdict,
};

use crate::golden;

/// `early` is stored whole, `late` at a stride of 3; the file's own order is the alphabet's reverse.
const EARLY: [f32; 4] = [1.0, -2.0, 3.0, -4.0];
const LATE: [f32; 8] = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0];

fn stored() -> Golden {
    let meta = r#"{
        "model": "made", "config": {}, "inputs": {"given": [1]},
        "output_shapes": {"z.early": [2, 2], "a.late": [8]}
    }"#;
    let tensors: &[(&str, &[usize], &[f32])] = &[
        ("z.early", &[2, 2], &EARLY),
        ("z.early@stats", &[3], &[-0.5, 2.692_582_4, 4.0]),
        ("a.late@stride=3", &[3], &[0.0, 3.0, 6.0]),
        ("a.late@stats", &[3], &[3.625, 2.496_873, 8.0]),
        ("given", &[1], &[7.0]),
    ];
    golden(&meta, tensors).unwrap()
}

fn run(
    golden: &Golden,
    tolerance: Tolerance,
    outputs: impl Fn() -> Outputs + Send + Sync + 'static,
) -> Report {
    let case = Case::new(["made"], tolerance, move |_, _| Ok(outputs()));
    Registry::new([case]).unwrap().run_golden(golden, &Device::Cpu).unwrap()
}

fn outputs(early: &[f32], early_shape: &[usize], late: &[f32]) -> Outputs {
    let mut outputs = Outputs::new();
    outputs.push_values("z.early", early_shape, early.iter().copied()).unwrap();
    outputs.push_values("a.late", &[late.len()], late.iter().copied()).unwrap();
    outputs
}

#[test]
fn equal_outputs_pass_in_forward_order() {
    let report = run(&stored(), Tolerance::Exact, || {
        let mut outputs = Outputs::new();
        let early = Tensor::new(&EARLY, &Device::Cpu).unwrap().reshape((2, 2)).unwrap();
        outputs.push("z.early", &early).unwrap();
        // Any type: 64-bit integers here.
        let late = Tensor::new(&LATE, &Device::Cpu).unwrap().to_dtype(DType::I64).unwrap();
        outputs.push("a.late", &late).unwrap();
        outputs
    });
    let names: Vec<_> = report.rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["z.early", "z.early@stats", "a.late@stride=3", "a.late@stats", "given"]);
    assert_eq!(report.rows.iter().map(|row| row.count).collect::<Vec<_>>(), [4, 3, 3, 3, 0]);
    assert_eq!(report.rows[4].verdict, Verdict::Given);
    assert!(report.passed && report.first_difference.is_none() && report.unmatched.is_empty());
    assert_eq!(report.compared(), 13);
    assert_eq!((report.device.as_str(), report.tolerance_factor), ("cpu", 1.0));
    assert_eq!((report.rows[0].max_abs, report.rows[0].max_rel), (0.0, 0.0));
}

#[test]
fn each_reason_to_fail() {
    struct Bad {
        name: &'static str,
        outputs: fn() -> Outputs,
        row: &'static str,
        failure: Failure,
        text: &'static str,
    }
    let cases = [
        Bad {
            name: "an output is missing",
            outputs: || {
                let mut outputs = Outputs::new();
                outputs.push_values("a.late", &[8], LATE).unwrap();
                outputs
            },
            row: "z.early",
            failure: Failure::NotProduced,
            text: "not produced",
        },
        Bad {
            name: "a transposed shape",
            outputs: || outputs(&EARLY, &[4, 1], &LATE),
            row: "z.early",
            failure: Failure::Shape { expected: vec![2, 2], got: vec![4, 1] },
            text: "shape [4, 1], expected [2, 2]",
        },
        Bad {
            name: "a strided output of another length",
            outputs: || outputs(&EARLY, &[2, 2], &LATE[..7]),
            row: "a.late@stride=3",
            failure: Failure::Shape { expected: vec![8], got: vec![7] },
            text: "shape [7], expected [8]",
        },
        Bad {
            name: "not a number",
            outputs: || outputs(&[1.0, -2.0, f32::NAN, -4.0], &[2, 2], &LATE),
            row: "z.early",
            failure: Failure::NotFinite { index: 2 },
            text: "value 2 is not finite",
        },
        Bad {
            name: "a value off",
            outputs: || outputs(&[1.0, -2.0, 3.5, -4.0], &[2, 2], &LATE),
            row: "z.early",
            failure: Failure::Apart { index: 2, expected: 3.0, got: 3.5 },
            text: "value 2 is 3.5, expected 3",
        },
        Bad {
            name: "a value off between the strides, which only the statistics see",
            outputs: || outputs(&EARLY, &[2, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 9.0]),
            row: "a.late@stats",
            failure: Failure::Apart { index: 2, expected: 8.0, got: 9.0 },
            text: "value 2 is 9, expected 8",
        },
    ];
    for Bad { name, outputs, row, failure, text } in cases {
        let report = run(&stored(), Tolerance::Close, outputs);
        assert!(!report.passed, "{name}");
        assert_eq!(report.first_difference.as_deref(), Some(row), "{name}");
        let (first, reason) = report.failures().next().unwrap();
        assert_eq!((first.name.as_str(), reason), (row, &failure), "{name}");
        assert_eq!(reason.to_string(), text);
        assert!(report.to_string().contains(&format!("FAIL: {text}")), "{report}");
        assert!(report.to_string().ends_with(&format!("of 5 rows, first {row}")), "{report}");
    }
}

#[test]
fn statistics_alone_are_asked_for_too() {
    // The values agree, the file's own mean does not.
    let meta = json!({"model": "made", "output_shapes": {"x": [2]}});
    let wrong = golden(&meta, &[("x", &[2], &[1.0, 3.0]), ("x@stats", &[3], &[2.5, 1.0, 3.0])]).unwrap();
    let report = run(&wrong, Tolerance::Exact, || {
        let mut outputs = Outputs::new();
        outputs.push_values("x", &[2], [1.0, 3.0]).unwrap();
        outputs
    });
    assert_eq!(report.first_difference.as_deref(), Some("x@stats"));
}

#[test]
fn nothing_to_compare_fails() {
    let empty = golden(&json!({"model": "made"}), &[]).unwrap();
    let report = run(&empty, Tolerance::Close, Outputs::new);
    assert!(!report.passed && report.rows.is_empty());
    assert!(report.to_string().ends_with("made.safetensors (made) on cpu: FAILED, nothing was compared"));

    let meta = json!({"model": "made", "output_shapes": {"x": [1]}});
    let all_given = golden(&meta, &[("x", &[1], &[1.0])]).unwrap();
    let report = run(&all_given, Tolerance::Close, || {
        let mut outputs = Outputs::new();
        outputs.given("x");
        outputs
    });
    assert_eq!(report.rows[0].verdict, Verdict::Given);
    assert!(!report.passed, "what the file gives is not compared");
}

#[test]
fn an_output_that_the_file_does_not_hold_is_listed() {
    let report = run(&stored(), Tolerance::Close, || {
        let mut outputs = outputs(&EARLY, &[2, 2], &LATE);
        outputs.push_values("extra", &[1], [1.0]).unwrap();
        outputs
    });
    assert!(report.passed, "{report}");
    assert_eq!(report.unmatched, ["extra"]);
    assert!(report.to_string().contains("not in the file: extra"), "{report}");
}

#[test]
fn tolerances_are_shares_of_the_largest_value() {
    const NET: Tolerance = Tolerance::Golden { max_rel_absmax: 1e-3, mean_rel_absmax: 1e-4 };
    // One of 20 values, of absmax 4, is off by `off`: a mean of off / 20.
    let cases = [
        (Tolerance::Exact, 0.0, true),
        (Tolerance::Exact, 1e-6, false),
        (Tolerance::Close, 3.9e-5, true),
        (Tolerance::Close, 4.1e-5, false),
        (Tolerance::Approx, 4.09e-4, true),
        (Tolerance::Approx, 4.11e-4, false),
        (NET, 3.9e-3, true),
        (NET, 4.1e-3, false),
    ];
    let meta = json!({"model": "made", "output_shapes": {"x": [20]}});
    let stored = golden(&meta, &[("x", &[20], &[-4.0; 20])]).unwrap();
    let shifted = |by: f64, values: usize| {
        move || {
            let mut outputs = Outputs::new();
            outputs
                .push_values("x", &[20], (0..20).map(|i| if i < values { by - 4.0 } else { -4.0 }))
                .unwrap();
            outputs
        }
    };
    for (tolerance, off, passes) in cases {
        let report = run(&stored, tolerance, shifted(off, 1));
        assert_eq!(report.passed, passes, "{tolerance}, off by {off}: {report}");
        let row = &report.rows[0];
        assert!((row.max_abs - off).abs() < 1e-12, "{row:?}");
        assert!(
            (row.max_rel - off / 4.0).abs() < 1e-12 && (row.mean_rel - off / 80.0).abs() < 1e-12,
            "{row:?}"
        );
    }
    // Every value a little off: the largest difference is fine, the mean is not.
    assert!(!run(&stored, NET, shifted(1e-3, 20)).passed);
    assert!(run(&stored, NET, shifted(3.9e-4, 20)).passed);
}

#[test]
fn zeros_must_come_out_as_zeros() {
    let meta = json!({"model": "made", "output_shapes": {"x": [1]}});
    let zero = golden(&meta, &[("x", &[1], &[0.0])]).unwrap();
    for (tolerance, value, passes) in [
        (Tolerance::Close, 0.0, true),
        (Tolerance::Close, 1e-9, false),
        (Tolerance::Approx, 1e-6, true),
        (Tolerance::Approx, 1e-4, false),
    ] {
        let report = run(&zero, tolerance, move || {
            let mut outputs = Outputs::new();
            outputs.push_values("x", &[1], [value]).unwrap();
            outputs
        });
        assert_eq!(report.passed, passes, "{tolerance}, {value}");
    }
}

#[test]
fn a_case_may_hold_some_outputs_to_another_tolerance() {
    let case = Case::new(["made"], Tolerance::Exact, |_, _| {
        Ok(outputs(&[1.0, -2.0, 3.0, -4.00001], &[2, 2], &LATE))
    })
    .with_exceptions(|golden, name| {
        (golden.meta().model == "made" && name == "z.early").then_some(Tolerance::Close)
    });
    let report = Registry::new([case]).unwrap().run_golden(&stored(), &Device::Cpu).unwrap();
    assert!(report.passed, "{report}");
    let levels: Vec<_> = report.rows.iter().map(|row| row.tolerance).collect();
    assert_eq!(levels[..3], [Tolerance::Close, Tolerance::Close, Tolerance::Exact]);
}

#[test]
fn a_report_is_json_and_a_table() {
    let report = run(&stored(), Tolerance::Close, || outputs(&[1.0, -2.0, 3.5, -4.0], &[2, 2], &LATE));
    let json: Value = serde_json::to_value(&report).unwrap();
    assert_eq!(json["passed"], false);
    assert_eq!(json["first_difference"], "z.early");
    assert_eq!(json["rows"][0]["tolerance"], "close 1e-5");
    assert_eq!(json["rows"][0]["verdict"]["fail"]["apart"]["got"], 3.5);
    assert_eq!(json["rows"][2]["verdict"], "pass");

    let text = report.to_string();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "tensor            values    max |Δ|    max rel   mean rel  tolerance   verdict");
    assert_eq!(
        lines[1],
        "z.early                4    5.00e-1    1.25e-1    3.12e-2  close 1e-5  FAIL: value 2 is 3.5, expected 3"
    );
    assert_eq!(lines[3], "a.late@stride=3        3     0.00e0     0.00e0     0.00e0  close 1e-5  ok");
    assert_eq!(lines[5], "given                  0          -          -          -  close 1e-5  given");
    assert_eq!(lines[6], "made.safetensors (made) on cpu: FAILED, 2 of 5 rows, first z.early");

    let brief = report.brief().to_string();
    let lines: Vec<_> = brief.lines().collect();
    assert_eq!(lines.len(), 4, "a head, two rows that failed, the sum: {brief}");
    assert!(lines[1].starts_with("z.early ") && lines[3].ends_with("first z.early"), "{brief}");
}

#[test]
fn a_report_says_that_its_tolerances_are_wider() {
    let mut report = run(&stored(), Tolerance::Close, || outputs(&EARLY, &[2, 2], &LATE));
    assert!(report.to_string().ends_with("on cpu: passed, 5 rows, 13 values"), "{report}");
    assert_eq!(report.brief().to_string(), "made.safetensors (made) on cpu: passed, 5 rows, 13 values");
    report.device = "cuda:0".into();
    report.tolerance_factor = ACCELERATOR_FACTOR;
    let last = "on cuda:0: passed, 5 rows, 13 values (tolerances ×10, not a CPU)";
    assert!(report.to_string().ends_with(last), "{report}");
}

#[test]
fn the_registry_names_what_it_lacks_and_passes_errors_on() {
    let case = |model: &str| Case::new([model], Tolerance::Close, |_, _| Err("no weights".into()));
    let registry = Registry::new([case("first"), case("second"), case("made")]).unwrap();
    assert_eq!(registry.models().collect::<Vec<_>>(), ["first", "second", "made"]);

    let stranger = golden(&json!({"model": "third"}), &[]).unwrap();
    let error = registry.run_golden(&stranger, &Device::Cpu).unwrap_err();
    assert_eq!(
        error.to_string(),
        "made.safetensors is for model 'third', which no case handles; known models: first, second, made"
    );
    let error = registry.run_golden(&stored(), &Device::Cpu).unwrap_err();
    assert_eq!(error.to_string(), "made.safetensors: running model 'made' failed: no weights");
    let error = Registry::default().run_golden(&stored(), &Device::Cpu).unwrap_err();
    assert!(error.to_string().ends_with("which no case handles; known models: none"), "{error}");
    let error = Registry::new([case("made"), case("made")]).unwrap_err();
    assert_eq!(error.to_string(), "two cases are registered for model 'made'");
}

#[test]
fn outputs_of_one_name_or_of_another_length_are_refused() {
    let mut outputs = Outputs::new();
    outputs.push_values("x", &[2], [1.0, 2.0]).unwrap();
    let again = outputs.push("x", &Tensor::zeros(2, DType::F32, &Device::Cpu).unwrap()).unwrap_err();
    assert!(matches!(&again, Error::DuplicateOutput(name) if name == "x"));
    assert_eq!(again.to_string(), "output 'x' was produced twice");
    let error = outputs.push_values("y", &[3], [1.0]).unwrap_err();
    assert_eq!(error.to_string(), "output 'y' of shape [3] was produced with 1 values");
}
