//! Section 13's table of the specification: what the authors' code has, counted layer by layer.

use packdet::{FrameSize, PackDetNet, Preset};

use crate::support::zeros;

/// Learned parameters, scales and shifts of frozen norms, and GMACs of body, pyramid and head at 800×1344.
const ROWS: [(Preset, u64, u64, [f64; 3]); 14] = [
    (Preset::Mnv2M4, 9_145_946, 0, [5.988, 13.539, 63.573]),
    (Preset::R50M2, 31_591_962, 53_120, [82.627, 17.066, 63.573]),
    (Preset::R50M4, 31_591_962, 53_120, [82.627, 17.066, 63.573]),
    (Preset::R50M4Nsp, 31_591_962, 53_120, [82.627, 17.066, 60.087]),
    (Preset::R101M4Long, 50_531_866, 105_344, [162.175, 17.066, 63.573]),
    (Preset::X101DcnM4Long, 96_619_534, 202_880, [356.852, 17.066, 65.141]),
    (Preset::FcosMnv2, 9_798_234, 0, [5.988, 13.539, 110.083]),
    (Preset::FcosR50, 32_244_250, 53_120, [82.627, 17.066, 110.083]),
    (Preset::FcosR101, 51_184_154, 105_344, [162.175, 17.066, 110.083]),
    (Preset::FcosX101Dcn, 97_334_030, 202_880, [356.852, 17.066, 112.870]),
    (Preset::RetinaPackR50, 36_493_364, 53_120, [82.627, 18.193, 83.053]),
    (Preset::RetinaPackR101Long, 55_433_268, 105_344, [162.175, 18.193, 83.053]),
    (Preset::RetinaNetR50, 37_915_572, 53_120, [82.627, 18.193, 144.713]),
    (Preset::RetinaNetR101, 56_855_476, 105_344, [162.175, 18.193, 144.713]),
];

#[test]
fn every_row_of_the_table_comes_out() {
    for (preset, params, frozen, gmacs) in ROWS {
        let net = PackDetNet::new(&preset.config(), zeros()).unwrap();
        let costs = net.part_costs(FrameSize::new(800, 1344)).unwrap();
        let is_frozen = preset.config().has_frozen_norms();
        let norms = if is_frozen { costs.norms } else { 0 };
        let name = preset.name();
        assert_eq!(norms, frozen, "{name}");
        assert_eq!(costs.body.params + costs.fpn.params + costs.head.params - norms, params, "{name}");
        for (cost, gmacs) in [costs.body, costs.fpn, costs.head].into_iter().zip(gmacs) {
            let got = (cost.macs as f64 / 1e6).round() / 1e3;
            assert_eq!(got, gmacs, "{name}");
        }
    }
}

#[test]
fn parts_have_the_parameters_of_the_authors() {
    let costs = |preset: Preset| {
        let net = PackDetNet::new(&preset.config(), zeros()).unwrap();
        net.part_costs(FrameSize::new(64, 64)).unwrap()
    };
    let (r50, mnv2) = (costs(Preset::R50M4), costs(Preset::Mnv2M4));
    assert_eq!(
        [r50.body.params - r50.norms, r50.fpn.params, r50.head.params],
        [23_454_912, 3_868_672, 4_268_378]
    );
    assert_eq!([mnv2.body.params, mnv2.fpn.params], [1_811_712, 3_065_856]);
    assert_eq!(costs(Preset::RetinaPackR50).fpn.params, 7_997_440);
    let x101 = costs(Preset::X101DcnM4Long);
    assert_eq!([x101.body.params - x101.norms, x101.head.params], [88_420_222, 4_330_640]);
}

/// torchvision's documentation of the two weight files, which counts frozen scales and shifts too where they are
/// variables; there they are buffers.
#[test]
fn torchvisions_nets_have_its_parameters() {
    for (preset, params) in
        [(Preset::FcosR50Torchvision, 32_269_600), (Preset::RetinaNetR50Torchvision, 34_014_999)]
    {
        let net = PackDetNet::new(&preset.config(), zeros()).unwrap();
        let costs = net.part_costs(FrameSize::new(64, 64)).unwrap();
        let all = costs.body.params + costs.fpn.params + costs.head.params;
        assert_eq!(all - costs.norms, params, "{}", preset.name());
    }
}

#[test]
fn the_narrow_net_has_less_than_four_million_parameters() {
    let net = PackDetNet::new(&Preset::Mnv2Tiny.config(), zeros()).unwrap();
    assert!(net.cost(FrameSize::new(64, 64)).unwrap().params < 4_000_000);
}
