use std::path::Path;

use candle_core::Device;
use zoo_parity::Registry;

fn passes(file: &str, prepared: bool) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    let registry = Registry::new(patchwork_det::parity::cases(prepared)).unwrap();
    let report = registry.run(&path, &Device::Cpu).unwrap();
    assert!(report.passed, "prepared: {prepared}\n{report}");
    assert!(report.compared() > 100, "{report}");
}

#[test]
fn cell() {
    passes("patchwork_cell.safetensors", true);
}

#[test]
fn detector_on_a_single_frame() {
    passes("patchwork_sf.safetensors", false);
    passes("patchwork_sf.safetensors", true);
}

#[test]
fn detector_stream() {
    passes("patchwork_stream_m2n1.safetensors", false);
    passes("patchwork_stream_m2n1.safetensors", true);
}

#[test]
fn segmenter_stream() {
    passes("patchwork_stream_seg_m2n1.safetensors", false);
    passes("patchwork_stream_seg_m2n1.safetensors", true);
}

#[test]
fn post_processing() {
    passes("patchwork_postprocess.safetensors", true);
}

#[test]
fn measures() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/patchwork_metrics.safetensors");
    let registry = Registry::new(patchwork_det::parity::cases(true)).unwrap();
    let report = registry.run(&path, &Device::Cpu).unwrap();
    assert!(report.passed, "{report}");
}
