//! Parameters and operations against the paper's, and against what its authors' code has.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use gsvnet_seg::{KeyframeConfig, KeyframeKind, KeyframeNet, operations};
use zoo_core::{FrameSize, ScoreNet, Tally};

/// Three quarters of Cityscapes' frames.
const THREE_QUARTERS: FrameSize = FrameSize { height: 768, width: 1536 };

fn zeros(cfg: KeyframeConfig) -> KeyframeNet {
    KeyframeNet::new(&cfg, VarBuilder::zeros(DType::F32, &Device::Cpu)).unwrap()
}

fn net(kind: KeyframeKind) -> KeyframeNet {
    zeros(KeyframeConfig::new(kind, 19))
}

fn parts(net: &KeyframeNet) -> Vec<(&'static str, u64)> {
    net.costs(THREE_QUARTERS).iter().map(|(name, tally)| (*name, tally.total().params)).collect()
}

#[test]
fn parameters_are_those_of_the_authors_code() {
    let with_heads =
        KeyframeConfig { auxiliary_heads: true, ..KeyframeConfig::new(KeyframeKind::BisenetR18, 19) };
    for (cfg, expected) in [
        (KeyframeConfig::new(KeyframeKind::SwiftnetR18, 19), 11_797_071),
        (KeyframeConfig::new(KeyframeKind::SwiftnetR18Pyramid, 19), 12_056_275),
        (KeyframeConfig::new(KeyframeKind::BisenetR18, 19), 12_894_163),
        (with_heads, 13_494_777),
        (KeyframeConfig::new(KeyframeKind::BisenetX39, 19), 1_541_963),
    ] {
        assert_eq!(zeros(cfg).cost(THREE_QUARTERS).params, expected, "{cfg:?}");
    }
    // Eight classes fewer are 8 · (128 + 1) parameters fewer.
    let camvid = zeros(KeyframeConfig::new(KeyframeKind::SwiftnetR18, 11));
    assert_eq!(camvid.cost(THREE_QUARTERS).params, 11_797_071 - 8 * 129);
}

#[test]
fn swiftnets_parameters_by_parts() {
    let expected = vec![("encoder", 11_176_512), ("pooling", 116_476), ("ladder", 501_376), ("head", 2_707)];
    assert_eq!(parts(&net(KeyframeKind::SwiftnetR18)), expected);
    // torchvision's ResNet-34 without its classifier; MobileNetV2 without that and without its last convolution.
    let resnet34 = 21_797_672 - 513_000;
    let mobilenet_v2 = 3_504_872 - 1_281_000 - (320 * 1280 + 2 * 1280);
    assert_eq!(parts(&net(KeyframeKind::SwiftnetR34))[0], ("encoder", resnet34));
    // The maps have 24, 32, 96 and 320 channels instead of 64, 128, 256 and 512: fewer projections.
    let bottlenecks = (64 + 128 + 256 - 24 - 32 - 96) * (128 + 2);
    let reduction = (512 - 320) * (128 + 2);
    let expected = vec![
        ("encoder", mobilenet_v2),
        ("pooling", 116_476 - reduction),
        ("ladder", 501_376 - bottlenecks),
        ("head", 2_707),
    ];
    assert_eq!(parts(&net(KeyframeKind::SwiftnetMobilenetV2)), expected);
}

/// The paper prints 58.5, 26.0 and 58.0 G; the last is 1 % below what the authors' code does.
#[test]
fn operations_are_those_that_were_measured() {
    let half = FrameSize::new(512, 1024);
    let whole = FrameSize::new(1024, 2048);
    for (kind, size, macs, all) in [
        (KeyframeKind::SwiftnetR18, THREE_QUARTERS, 58.26, Some(58.52)),
        (KeyframeKind::SwiftnetR18, half, 25.89, Some(26.01)),
        (KeyframeKind::SwiftnetR18, whole, 103.57, None),
        (KeyframeKind::BisenetR18, THREE_QUARTERS, 58.34, Some(58.63)),
        (KeyframeKind::BisenetX39, THREE_QUARTERS, 15.62, Some(15.79)),
        // Nobody else's counts: what the model card says.
        (KeyframeKind::SwiftnetR18Pyramid, THREE_QUARTERS, 72.11, Some(72.39)),
        (KeyframeKind::SwiftnetR34, THREE_QUARTERS, 101.74, Some(102.10)),
        (KeyframeKind::SwiftnetMobilenetV2, THREE_QUARTERS, 21.46, Some(21.99)),
    ] {
        let mut tally = Tally::new();
        let mut built = net(kind);
        built.tally(size, &mut tally);
        let giga = |count: u64| (count as f64 / 1e7).round() / 100.0;
        let got = (giga(tally.total().macs), all.map(|_| giga(operations(&tally))));
        assert_eq!(got, (macs, all), "{} {size}", kind.name());
        // They are the net's as it was built, whatever has been folded.
        built.prepare().unwrap();
        let mut prepared = Tally::new();
        built.tally(size, &mut prepared);
        assert_eq!(prepared.layers(), tally.layers(), "{}", kind.name());
    }
}
