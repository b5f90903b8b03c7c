//! Memory that grows from pass to pass.

use candle_core::Tensor;
use candle_nn::VarBuilder;
use zoo_kernels::{Activation, on_pool};
use zoo_layers::{
    Architecture, Classifier, EfficientNetConfig, ExtraLevels, Fpn, FpnConfig, GroupNorm, MobileNetV2Config,
    ResNetBlock, ResNetConfig, TransformerBlock, TransformerConfig,
};
use zoo_testing::memory::{alone, growth};

use crate::support::{input, named_input, weights};

const PASSES: usize = 1000;
/// Pages that the allocator moves about. 256 bytes that stay behind at each pass are as much.
const NOISE: i64 = 256 << 10;

/// What a pass of a net returns.
type Pass = Box<dyn Fn() -> candle_core::Result<Tensor> + Send + Sync>;

fn classifier(architecture: impl Into<Architecture>, vb: VarBuilder) -> Pass {
    let mut net = Classifier::new(architecture, 10, vb).unwrap();
    net.prepare().unwrap();
    let xs = input([1, 3, 32, 32]);
    Box::new(move || net.forward(&xs))
}

/// Every kind of backbone, the deep ones with one block a stage, and the modules that heads are made of.
fn nets() -> Vec<(&'static str, Pass)> {
    let vb = weights();
    let one_a_stage = |cfg: ResNetConfig| ResNetConfig { blocks: [1; 4], ..cfg };
    let grouped = one_a_stage(ResNetConfig::resnext50_32x4d());
    let basic = ResNetConfig { block: ResNetBlock::Basic, ..one_a_stage(ResNetConfig::resnet50()) };
    let deformable =
        ResNetConfig { deformable: [false, false, true, true], ..one_a_stage(ResNetConfig::resnet50()) };
    let norm = GroupNorm::new(4, 32, 1e-5, Activation::Relu, vb.pp("group_norm")).unwrap();
    let normed = named_input("normed", &[1, 32, 9, 7]);
    let trunk = Classifier::new(&basic, 10, vb.clone()).unwrap();
    let cfg = FpnConfig { channels: 32, extra: ExtraLevels::FromP5, ..FpnConfig::default() };
    let mut pyramid = Fpn::new(&cfg, trunk.trunk().info(), vb.pp("fpn")).unwrap();
    pyramid.prepare().unwrap();
    let maps = trunk.trunk().features(&input([1, 3, 32, 32])).unwrap();
    let mut block = TransformerBlock::new(&TransformerConfig::vit(48, 3), vb.pp("block")).unwrap();
    block.prepare().unwrap();
    let tokens = named_input("tokens", &[2, 17, 48]);
    vec![
        ("MobileNetV2", classifier(&MobileNetV2Config::default(), vb.clone())),
        ("ResNet, basic blocks", classifier(&basic, vb.clone())),
        ("ResNet, bottlenecks", classifier(&one_a_stage(ResNetConfig::resnet50()), vb.clone())),
        ("ResNet, deformable bottlenecks", classifier(&deformable, vb.clone())),
        ("group norm", Box::new(move || norm.forward(&normed, Some(&normed)))),
        ("ResNeXt", classifier(&grouped, vb.clone())),
        ("EfficientNet", classifier(&EfficientNetConfig::b0(), vb.clone())),
        ("EfficientNet-Lite", classifier(&EfficientNetConfig::lite0(), vb)),
        ("pyramid", Box::new(move || pyramid.forward(&maps).map(|mut levels| levels.remove(0)))),
        ("transformer block", Box::new(move || block.forward(&tokens, &[]))),
    ]
}

#[test]
fn a_thousand_passes_keep_nothing() {
    alone("memory::a_thousand_passes_keep_nothing", || {
        for (name, pass) in nets() {
            let work = || drop(on_pool(&pass).unwrap());
            let Some(bytes) = growth(PASSES, work) else {
                eprintln!("SKIPPED: this system does not tell a process's memory");
                return;
            };
            println!("{name}: {bytes} bytes more after {PASSES} passes");
            assert!(bytes < NOISE, "{name}: {bytes} bytes more after {PASSES} passes");
        }
    });
}

#[test]
fn what_passes_keep_is_noticed() {
    alone("memory::what_passes_keep_is_noticed", || {
        let mut kept = Vec::new();
        if let Some(bytes) = growth(PASSES, || kept.push(named_input("kept", &[512]))) {
            assert!(bytes > NOISE, "{bytes} bytes more after keeping {} tensors of 2 KiB", kept.len());
        }
    });
}
