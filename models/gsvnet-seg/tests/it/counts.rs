//! Section 14's counts: what the authors' code has.

use gsvnet_seg::{FlowKind, FlowNet, FrameSize, KernelSize, PropagationConfig, Schedule, operations};
use zoo_core::{Cost, Tally};

use crate::support::{net, weights};

/// A frame of Cityscapes, and an eighth of it.
const FRAME: FrameSize = FrameSize::new(1024, 2048);
const LOW: FrameSize = FrameSize::new(128, 256);

fn flow(kind: FlowKind) -> Cost {
    let mut tally = Tally::new();
    FlowNet::new(kind, weights()).unwrap().cost(LOW, &mut tally);
    tally.total()
}

fn between(kernel_size: KernelSize) -> Tally {
    let cfg = PropagationConfig { kernel_size, ..PropagationConfig::default() };
    let mut tally = Tally::new();
    net(19, &cfg, Schedule::default()).propagation_cost(FRAME, &mut tally);
    tally
}

/// Those of the layers whose names begin so, and thousands of millions of multiply–accumulates.
fn part(tally: &Tally, prefix: &str) -> (u64, f64) {
    let layers = tally.layers().iter().filter(|layer| layer.name.starts_with(prefix));
    let (params, macs) = layers.fold((0, 0), |(p, m), layer| (p + layer.params, m + layer.macs));
    (params, macs as f64 / 1e9)
}

#[test]
fn frames_between_key_frames_have_the_authors_parameters_and_macs() {
    let tally = between(KernelSize::Three);
    assert_eq!(tally.total().params, 396_487);
    assert_eq!((tally.total().macs as f64 / 1e7).round() / 1e2, 2.76);
    for (name, params, gmacs) in [
        ("ofnet", 186_402, 0.390),
        ("grm.intra_net", 15_763, 0.510),
        ("grm.guide", 194_241, 1.802),
        ("ideal_dk", 81, 0.050),
        ("filtering", 0, 0.007),
    ] {
        let got = part(&tally, name);
        assert_eq!(got.0, params, "{name}");
        // 1.8025 is 1.802 in one rounding and 1.803 in another.
        assert!((got.1 - gmacs).abs() < 5.1e-4, "{name}: {} GMACs", got.1);
    }
    assert_eq!((operations(&tally) as f64 / 1e7).round() / 1e2, 2.78);
}

#[test]
fn larger_kernels_add_weights_of_the_guiding_net_alone() {
    let (three, five) = (between(KernelSize::Three), between(KernelSize::Five));
    assert_eq!(part(&five, "ideal_dk").0, 17 * 25);
    // Eight more candidates of 3×3×32 weights, a bias, a scale and a shift.
    assert_eq!(part(&five, "grm.guide").0 - part(&three, "grm.guide").0, 8 * (9 * 32 + 3));
}

#[test]
fn flownet_s_is_two_hundred_times_the_light_net() {
    let cost = flow(FlowKind::FlownetS);
    assert_eq!(cost.params, 38_676_514);
    assert_eq!((cost.macs as f64 / 1e7).round() / 1e2, 2.63);
    assert_eq!(flow(FlowKind::Light).params, 186_402);
}
