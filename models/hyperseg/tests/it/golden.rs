use std::path::Path;

use candle_core::Device;
use zoo_parity::Registry;

fn passes(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    for prepared in [false, true] {
        let registry = Registry::new(hyperseg::parity::cases(prepared)).unwrap();
        let report = registry.run(&path, &Device::Cpu).unwrap();
        assert!(report.passed, "prepared: {prepared}\n{report}");
        assert!(report.compared() > 100, "{report}");
    }
}

#[test]
fn preprocessing() {
    passes("hyperseg_preprocess.safetensors");
}

#[test]
fn division() {
    passes("hyperseg_divide_channels.json");
}

#[test]
fn layers() {
    passes("hyperseg_layers.safetensors");
}

#[test]
fn backbone() {
    passes("hyperseg_effnet_b1_features_96x160.safetensors");
}

#[test]
fn camvid_s() {
    passes("hyperseg_camvid_s_128x192.safetensors");
}

#[test]
fn cityscapes_m() {
    passes("hyperseg_city_m_128x256.safetensors");
}

#[test]
fn voc_l() {
    passes("hyperseg_voc_l_128x128.safetensors");
}
