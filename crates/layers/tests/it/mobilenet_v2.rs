//! The backbone's own conventions; its names, numbers and outputs are in `backbones`.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use zoo_core::{Backbone, FrameSize, Tally};
use zoo_layers::{MobileNetV2, MobileNetV2Config, SamePadding, Tap, Trunk, ZeroBorder};

#[test]
fn channels_scale_as_the_two_conventions_say() {
    let channels = |depth, divisor| {
        let cfg = MobileNetV2Config { depth, divisor, ..Default::default() };
        [32, 16, 24, 32, 64, 96, 160, 320, 1280].map(|c| cfg.channels(c))
    };
    assert_eq!(channels(1.0, 8), [32, 16, 24, 32, 64, 96, 160, 320, 1280]);
    assert_eq!(channels(0.5, 1), [16, 8, 12, 16, 32, 48, 80, 160, 640]);
    assert_eq!(channels(1.4, 1), [44, 22, 33, 44, 89, 134, 224, 448, 1792]);
    assert_eq!(channels(0.5, 8), [16, 8, 16, 16, 32, 48, 80, 160, 640]);
    assert_eq!(channels(1.4, 8), [48, 24, 32, 48, 88, 136, 224, 448, 1792]);
}

#[test]
fn features_are_what_info_says_on_odd_sizes_too() {
    let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    for padding in [SamePadding::Torch, SamePadding::Tf] {
        let cfg = MobileNetV2Config { depth: 0.5, padding, ..Default::default() };
        let mut net = MobileNetV2::new(&cfg, vb.clone()).unwrap();
        MobileNetV2::prepare(&mut net).unwrap();
        let reductions: Vec<_> = net.info().iter().map(|f| f.reduction).collect();
        assert_eq!(reductions, [4, 8, 16, 32]);
        for (height, width) in [(64, 96), (33, 47), (1, 5)] {
            let xs = Tensor::zeros((1, 3, height, width), DType::F32, &Device::Cpu).unwrap();
            for (map, info) in net.features(&xs).unwrap().iter().zip(net.info()) {
                let size = |n: usize| n.div_ceil(info.reduction);
                assert_eq!(map.dims(), [1, info.channels, size(height), size(width)], "{}", info.name);
            }
        }
    }
}

#[test]
fn taps_come_in_forward_order() {
    let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
    let net = MobileNetV2::new(&MobileNetV2Config { depth: 0.5, ..Default::default() }, vb).unwrap();
    let xs = Tensor::zeros((1, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
    let mut taps = Vec::new();
    net.forward(&xs, &mut ZeroBorder, &[2, 14], &mut |tap, _| {
        taps.push(tap);
        Ok(())
    })
    .unwrap();
    assert_eq!(taps[..4], [Tap::Feature(0), Tap::Feature(1), Tap::Expansion(2), Tap::Feature(2)]);
    assert_eq!(taps[15..17], [Tap::Expansion(14), Tap::Feature(14)]);
    assert_eq!(taps.last(), Some(&Tap::Feature(18)));
    assert_eq!(taps.len(), 19 + 2);
}

#[test]
fn without_the_last_convolution_all_maps_are_the_same() {
    let vb = crate::support::weights();
    let cfg = MobileNetV2Config::default();
    let whole = MobileNetV2::new(&cfg, vb.clone()).unwrap();
    let (asked, recorded) = crate::support::recorded(DType::F32);
    let short = MobileNetV2::without_last(&cfg, recorded).unwrap();
    assert!(!asked.lines().iter().any(|line| line.starts_with("features.18")));
    assert_eq!((short.channels(), short.info()), (&whole.channels()[..18], whole.info()));
    assert_eq!((short.trunk_channels(), whole.trunk_channels()), (320, 1280));
    let xs = crate::support::input([1, 3, 33, 47]);
    for (got, want) in short.features(&xs).unwrap().iter().zip(whole.features(&xs).unwrap()) {
        assert_eq!(crate::support::relative_difference(got, &want), 0.0);
    }
    assert_eq!(short.trunk(&xs).unwrap().dims(), [1, 320, 2, 2]);
    let sizes = |net: &MobileNetV2| net.cost(FrameSize::new(33, 47), &mut Tally::new());
    assert_eq!(sizes(&short), sizes(&whole)[..18]);
}
