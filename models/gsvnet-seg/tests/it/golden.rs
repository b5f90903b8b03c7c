use std::path::Path;

use candle_core::Device;
use zoo_parity::Registry;

fn passes(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    for prepared in [false, true] {
        let registry = Registry::new(gsvnet_seg::parity::cases(prepared)).unwrap();
        let report = registry.run(&path, &Device::Cpu).unwrap();
        assert!(report.passed, "prepared: {prepared}\n{report}");
        assert!(report.compared() > 100, "{report}");
    }
}

#[test]
fn light_flow() {
    passes("gsvnet_flow_light.safetensors");
}

#[test]
fn flownet_s() {
    passes("gsvnet_flownet_s.safetensors");
}

#[test]
fn warp() {
    passes("gsvnet_warp.safetensors");
}

#[test]
fn guided_filter() {
    passes("gsvnet_guided_filter.safetensors");
}

#[test]
fn swiftnet_r18() {
    passes("gsvnet_swiftnet_r18.safetensors");
}

#[test]
fn swiftnet_r18_pyramid() {
    passes("gsvnet_swiftnet_r18_pyramid.safetensors");
}

#[test]
fn bisenet_r18() {
    passes("gsvnet_bisenet_r18.safetensors");
}

#[test]
fn bisenet_x39() {
    passes("gsvnet_bisenet_x39.safetensors");
}

#[test]
fn pipeline() {
    passes("gsvnet_pipeline_swiftnet_l4.safetensors");
}
