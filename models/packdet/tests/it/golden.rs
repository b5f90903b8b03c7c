//! Golden files, as they are built and prepared.

use std::path::Path;

use candle_core::Device;
use zoo_parity::Registry;

fn passes(file: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file);
    for prepared in [false, true] {
        let registry = Registry::new(packdet::parity::cases(prepared)).unwrap();
        let report = registry.run(&path, &Device::Cpu).unwrap();
        assert!(report.passed, "prepared: {prepared}\n{report}");
        assert!(report.compared() > 0, "{report}");
    }
}

#[test]
fn boxes_in_the_plane() {
    passes("packdet_postprocess_m4.safetensors");
}

#[test]
fn boxes_map_by_map() {
    passes("packdet_postprocess_nsp.safetensors");
}

#[test]
fn suppression() {
    passes("packdet_ml_nms.safetensors");
}

#[test]
fn boxes_from_anchors() {
    passes("packdet_retinanet_postprocess.safetensors");
}

#[test]
fn preprocessing() {
    passes("packdet_preprocess.safetensors");
}

#[test]
#[cfg(feature = "train")]
fn losses() {
    for file in ["loss_m4", "loss_mnv2", "loss_nsp", "retinanet_loss"] {
        passes(&format!("packdet_{file}.safetensors"));
    }
}
