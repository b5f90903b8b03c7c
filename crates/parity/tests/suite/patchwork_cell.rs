//! A real golden file end to end: seeded weights, inputs, a convolution, and the stored results.

use std::path::PathBuf;

use candle_core::{DType, Device};
use zoo_parity::{Case, Golden, Outputs, Registry, Tolerance, Verdict};

fn path() -> PathBuf {
    let golden = "../../models/patchwork-det/tests/golden/patchwork_cell.safetensors";
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(golden)
}

/// The parts of the file that need no cell: the last step's window is the whole frame, so the memory is
/// the last input, and `full_same` is a plain convolution of it.
fn case() -> Case {
    Case::new(["patchwork_cell"], Tolerance::Close, |golden, device| {
        let vb = golden.var_builder(DType::F32, device)?;
        let frame = golden.input("input.5", device)?;
        let weight = vb.get((5, 6, 3, 3), "s1.weight")?;
        let bias = vb.get(5, "s1.bias")?.reshape((1, 5, 1, 1))?;
        let mut outputs = Outputs::new();
        outputs.push("s1.memory", &frame)?;
        outputs.push("s1.full_same", &frame.conv2d(&weight, 1, 1, 1, 1)?.broadcast_add(&bias)?)?;
        Ok(outputs)
    })
    .with_exceptions(|_, name| name.ends_with(".memory").then_some(Tolerance::Exact))
}

#[test]
fn what_is_computed_agrees_and_what_is_not_fails() {
    let report = Registry::new([case()]).unwrap().run(path(), &Device::Cpu).unwrap();
    assert_eq!(report.rows.len(), 56);
    for row in &report.rows {
        let computed = row.name.starts_with("s1.memory") || row.name.starts_with("s1.full_same");
        assert_eq!(row.verdict == Verdict::Pass, computed, "{row:?}");
    }
    assert_eq!(report.first_difference.as_deref(), Some("s1.step0.bordered"));
    assert!(!report.passed);
}

#[test]
fn every_golden_of_the_model_opens() {
    let folder = path();
    let files = std::fs::read_dir(folder.parent().unwrap()).unwrap();
    let mut models: Vec<String> =
        files.map(|file| Golden::open(file.unwrap().path()).unwrap().meta().model.clone()).collect();
    models.sort();
    let expected = [
        "patchwork_cell",
        "patchwork_detector",
        "patchwork_detector",
        "patchwork_metrics",
        "patchwork_postprocess",
        "patchwork_segmenter",
    ];
    assert_eq!(models, expected);
}
