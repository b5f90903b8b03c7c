//! Golden files, as nets are built and prepared.

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

macro_rules! files {
    ($($name:ident: $file:literal),* $(,)?) => {
        $(
            #[test]
            fn $name() {
                passes(concat!("packdet_", $file, ".safetensors"));
            }
        )*
    };
}

files! {
    packing_of_type_1: "packop_type1_128x192",
    packing_of_type_2: "packop_m2_160x96",
    packing_of_type_3: "packop_type3_96x224",
    packing_of_type_4: "packop_m4_224x352",
    group_norm_of_several_maps: "chgn",
    deformable_convolution_with_a_bias: "dcn_s1",
    deformable_convolution_in_groups: "dcn_s2_g4",
    deformable_stage: "resnet_dcn_stage",
    resnext_stage: "resnext_stage",
    long_head: "head_m4_sep",
    small_long_head: "head_m4_small",
    small_long_head_of_type_2: "head_m2_small",
    exponential_boxes: "head_exp_small",
    head_without_packing: "head_m4_nsp_small",
    cross_head_group_norm: "head_chgn_small",
    fcos_head: "fcos_head",
    packdet_r50: "r50_m4",
    packdet_mobilenet_v2: "mnv2_m4",
    retinanet_r50: "retinanet_r50",
    torchvisions_fcos: "fcos_resnet50_fpn",
    torchvisions_retinanet: "retinanet_resnet50_fpn",
    boxes_in_the_plane: "postprocess_m4",
    boxes_map_by_map: "postprocess_nsp",
    suppression: "ml_nms",
    boxes_from_anchors: "retinanet_postprocess",
    preprocessing: "preprocess",
}

#[test]
#[cfg(feature = "train")]
fn losses() {
    for file in ["loss_m4", "loss_mnv2", "loss_nsp", "retinanet_loss"] {
        passes(&format!("packdet_{file}.safetensors"));
    }
}
