//! Blocks against candle-nn's own layers, the backbone against torchvision's facts.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed step is a failed test")]

use candle_core::{DType, Device, Tensor};
use candle_nn::{BatchNorm, Conv2dConfig, Module, ModuleT, VarBuilder, VarMap, batch_norm, conv2d_no_bias};
use zoo_core::{Backbone, FrameSize, Tally};
use zoo_kernels::{Activation, Region};
use zoo_layers::{
    Classifier, ConvNormAct, ConvSpec, MobileNetV2, MobileNetV2Config, SamePadding, Tap, ZeroBorder,
};

/// Random weights with norms that do something.
fn weights() -> (VarMap, VarBuilder<'static>) {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    (map, vb)
}

fn shake_norms(map: &VarMap) {
    for (name, var) in map.data().lock().unwrap().iter() {
        if name.contains("norm") {
            let noise = Tensor::rand(0.5f32, 1.5, var.shape(), &Device::Cpu).unwrap();
            var.set(&noise).unwrap();
        }
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    (a - b).unwrap().abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar().unwrap()
}

#[test]
fn conv_norm_act_equals_candle_nn_before_and_after_folding() {
    let act = Activation::Relu6;
    for (name, spec) in [
        ("pointwise", ConvSpec::pointwise(8, 12, 1e-5, act)),
        ("pointwise, linear", ConvSpec::pointwise(8, 12, 1e-3, Activation::None)),
        ("dense 3×3", ConvSpec::dense3(8, 12, 1, 1e-5, act)),
        ("dense 3×3, stride 2", ConvSpec::dense3(8, 12, 2, 1e-5, act)),
        ("depthwise 3×3", ConvSpec::depthwise3(8, 1, 1e-5, act)),
        ("depthwise 3×3, stride 2", ConvSpec::depthwise3(8, 2, 1e-5, Activation::Relu)),
    ] {
        let (map, vb) = weights();
        let mut block = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        shake_norms(&map);
        let options = Conv2dConfig {
            padding: spec.kernel / 2,
            stride: spec.stride,
            groups: if spec.depthwise { 8 } else { 1 },
            ..Default::default()
        };
        let conv = conv2d_no_bias(8, spec.out_channels, spec.kernel, options, vb.pp("conv")).unwrap();
        let norm: BatchNorm = batch_norm(spec.out_channels, spec.eps, vb.pp("norm")).unwrap();
        for (height, width) in [(9, 7), (1, 1), (16, 10)] {
            let xs = Tensor::randn(0f32, 1.0, (2, 8, height, width), &Device::Cpu).unwrap();
            let want = spec.act.apply(&norm.forward_t(&conv.forward(&xs).unwrap(), false).unwrap()).unwrap();
            let plain = block.forward(&xs).unwrap();
            assert!(largest_difference(&plain, &want) < 1e-4, "{name} {height}×{width}");
        }
        let xs = Tensor::randn(0f32, 1.0, (2, 8, 9, 7), &Device::Cpu).unwrap();
        let plain = block.forward(&xs).unwrap();
        block.prepare().unwrap();
        block.prepare().unwrap();
        let folded = block.forward(&xs).unwrap();
        assert!(largest_difference(&plain, &folded) < 1e-4, "{name}, folded");
    }
}

#[test]
fn a_region_reads_its_border_from_the_plane() {
    let (_map, vb) = weights();
    for spec in [
        ConvSpec::dense3(4, 4, 1, 1e-5, Activation::None),
        ConvSpec::depthwise3(4, 1, 1e-5, Activation::None),
    ] {
        let block = ConvNormAct::new(spec, vb.pp(spec.depthwise as usize), vb.pp("n")).unwrap();
        let plane = Tensor::randn(0f32, 1.0, (1, 4, 12, 12), &Device::Cpu).unwrap();
        let whole = block.forward(&plane).unwrap();
        let part = block.forward_region(&Region::new(&plane, 3, 5, 4, 6).unwrap()).unwrap();
        let expected = whole.narrow(2, 3, 4).unwrap().narrow(3, 5, 6).unwrap();
        assert!(largest_difference(&part, &expected.contiguous().unwrap()) < 1e-5, "{spec:?}");
    }
}

#[test]
fn wrong_channels_are_named() {
    let (_map, vb) = weights();
    let block =
        ConvNormAct::new(ConvSpec::pointwise(8, 4, 1e-5, Activation::None), vb.pp("stem"), vb.pp("n"))
            .unwrap();
    let xs = Tensor::zeros((1, 5, 2, 2), DType::F32, &Device::Cpu).unwrap();
    let error = block.forward(&xs).unwrap_err().to_string();
    assert!(error.contains("stem: expected 8 channels, got 5"), "{error}");
    let spec = ConvSpec { out_channels: 9, ..ConvSpec::depthwise3(8, 1, 1e-5, Activation::None) };
    assert!(ConvNormAct::new(spec, vb.pp("d"), vb.pp("d")).is_err());
}

#[test]
fn mobilenet_v2_has_torchvisions_names_parameters_and_macs() {
    let (map, vb) = weights();
    let net = Classifier::new(&MobileNetV2Config::default(), 1000, vb).unwrap();
    let mut tally = Tally::new();
    net.cost(FrameSize::new(224, 224), &mut tally);
    // torchvision: 3 504 872 parameters; 300.77 M multiply–adds at 224².
    assert_eq!(tally.total().params, 3_504_872);
    assert_eq!(tally.total().macs, 300_774_272);
    let data = map.data().lock().unwrap();
    // torchvision's 314 entries less 52 counters of batches.
    assert_eq!(data.len(), 262);
    for (name, shape) in [
        ("features.0.0.weight", vec![32, 3, 3, 3]),
        ("features.1.conv.0.0.weight", vec![32, 1, 3, 3]),
        ("features.1.conv.1.weight", vec![16, 32, 1, 1]),
        ("features.1.conv.2.running_var", vec![16]),
        ("features.14.conv.0.0.weight", vec![576, 96, 1, 1]),
        ("features.14.conv.1.1.bias", vec![576]),
        ("features.17.conv.2.weight", vec![320, 960, 1, 1]),
        ("features.18.1.running_mean", vec![1280]),
        ("classifier.1.weight", vec![1000, 1280]),
    ] {
        let var = data.get(name).unwrap_or_else(|| panic!("no {name}"));
        assert_eq!(var.dims(), shape, "{name}");
    }
}

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
    let (_map, vb) = weights();
    for padding in [SamePadding::Torch, SamePadding::Tf] {
        let cfg = MobileNetV2Config { depth: 0.5, padding, ..Default::default() };
        let mut net = MobileNetV2::new(&cfg, vb.clone()).unwrap();
        net.prepare().unwrap();
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
    let (_map, vb) = weights();
    let net = MobileNetV2::new(&MobileNetV2Config { depth: 0.5, ..Default::default() }, vb).unwrap();
    let xs = Tensor::zeros((1, 3, 32, 32), DType::F32, &Device::Cpu).unwrap();
    let mut taps = Vec::new();
    net.forward(&xs, &mut ZeroBorder, &mut |tap, _| {
        taps.push(tap);
        Ok(())
    })
    .unwrap();
    assert_eq!(taps[..4], [Tap::Feature(0), Tap::Feature(1), Tap::Expansion(2), Tap::Feature(2)]);
    assert_eq!(taps.last(), Some(&Tap::Feature(18)));
    assert_eq!(taps.len(), 19 + 16);
}
