//! Names and shapes of the tensors that nets ask for.

use std::collections::BTreeMap;
use std::path::Path;

use packdet::Preset;
use zoo_parity::Golden;

use crate::support::asked;

/// Running counters of batch norms, which nothing asks for.
const COUNTER: &str = "num_batches_tracked";

#[test]
fn nets_ask_for_the_tensors_of_the_golden_files() {
    for (file, preset) in [
        ("r50_m4", Preset::R50M4),
        ("mnv2_m4", Preset::Mnv2M4),
        ("retinanet_r50", Preset::RetinaNetR50),
        ("fcos_resnet50_fpn", Preset::FcosR50Torchvision),
        ("retinanet_resnet50_fpn", Preset::RetinaNetR50Torchvision),
    ] {
        let path = format!("tests/golden/packdet_{file}.safetensors");
        let golden = Golden::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let state = golden.meta().state.iter().filter(|(name, _)| !name.ends_with(COUNTER));
        let expected: BTreeMap<_, _> = state.cloned().collect();
        assert_eq!(asked(&preset.config()), expected, "{file}");
    }
}

/// The authors' files' tensors, less the anchors of those that have them and MobileNetV2's counters.
#[test]
fn nets_ask_for_as_many_tensors_as_the_authors_files_have() {
    for (preset, tensors, left_out) in [
        (Preset::R50M4, 368, 0),
        (Preset::R50M4Nsp, 368, 0),
        (Preset::R101M4Long, 623, 0),
        (Preset::X101DcnM4Long, 679, 0),
        (Preset::Mnv2M4, 409, 51),
        (Preset::RetinaPackR50, 365, 8),
        (Preset::FcosR50, 324, 0),
        (Preset::RetinaNetR50, 306, 5),
    ] {
        assert_eq!(asked(&preset.config()).len(), tensors - left_out, "{}", preset.name());
    }
}

#[test]
fn deformable_and_flat_parts_lie_where_the_authors_have_them() {
    for (preset, name, shape) in [
        (Preset::X101DcnM4Long, "rpn.head.predictor.cls_tower.1.conv.offset.weight", &[27, 128, 3, 3][..]),
        (Preset::X101DcnM4Long, "rpn.head.predictor.bbox_tower.1.conv.conv.bias", &[128]),
        (Preset::X101DcnM4Long, "backbone.body.layer3.22.conv2.conv.weight", &[1024, 16, 3, 3]),
        (Preset::FcosX101Dcn, "rpn.head.cls_tower.9.offset.bias", &[27]),
        (Preset::FcosX101Dcn, "rpn.head.bbox_tower.10.weight", &[256]),
        (Preset::FcosR50, "rpn.head.scales.4.scale", &[1]),
        (Preset::RetinaPackR50, "rpn.mf.mf_s4_1.conv.weight", &[256, 256, 3, 3]),
        (Preset::RetinaPackR50, "rpn.fe.conv_blocks.11.gn.bias", &[128]),
        (Preset::RetinaPackR50, "rpn.head.cls_tower.2.weight", &[128, 128, 3, 3]),
        (Preset::RetinaPackR50, "backbone.fpn.top_blocks.p6.weight", &[256, 2048, 3, 3]),
        (Preset::RetinaNetR50, "rpn.head.cls_logits.weight", &[720, 256, 3, 3]),
    ] {
        assert_eq!(asked(&preset.config()).get(name).map(Vec::as_slice), Some(shape), "{name}");
    }
}
