//! Every backbone against the project whose files it loads: tensors, counts and outputs, prepared and
//! not. `scripts/goldens/backbones.py` makes the fixture.

use candle_core::{DType, Device, IndexOp};
use candle_nn::VarBuilder;
use serde::Deserialize;
use zoo_core::{Backbone, FrameSize, Tally};
use zoo_layers::{
    Architecture, Classifier, EfficientNet, EfficientNetConfig, EfficientNetNames, MobileNetV2Config, ResNet,
    ResNetConfig, Trunk,
};

use crate::support::{Output, TOLERANCE, input, recorded, relative_difference, weights};

/// torchvision's documentation, IMAGENET1K_V1: parameters, and billions of multiply–adds in three digits.
const PUBLISHED: [(&str, u64, f64); 11] = [
    ("mobilenet_v2", 3_504_872, 0.301),
    ("resnet18", 11_689_512, 1.814),
    ("resnet34", 21_797_672, 3.664),
    ("resnet50", 25_557_032, 4.089),
    ("resnet101", 44_549_160, 7.801),
    ("resnext50_32x4d", 25_028_904, 4.23),
    ("resnext101_64x4d", 83_455_272, 15.46),
    ("efficientnet_b0", 5_288_548, 0.386),
    ("efficientnet_b1", 7_794_184, 0.687),
    ("efficientnet_b2", 9_109_994, 1.088),
    ("efficientnet_b3", 12_233_232, 1.827),
];

/// A net of another project, with seeded weights and the seeded input.
#[derive(Deserialize)]
struct Golden {
    name: String,
    tensors: Vec<String>,
    params: u64,
    size: usize,
    macs: u64,
    features: Vec<Output>,
    logits: Output,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("../fixtures/backbones.json")).unwrap()
}

/// Ours for a net of the fixture.
fn architecture(name: &str) -> Architecture {
    use EfficientNetNames::{EfficientNetPytorch, Timm};
    let efficientnet = |cfg: EfficientNetConfig| Architecture::EfficientNet(cfg);
    let resnet = |cfg: ResNetConfig| Architecture::ResNet(cfg);
    match name {
        "mobilenet_v2" => Architecture::MobileNetV2(MobileNetV2Config::default()),
        "resnet18" => resnet(ResNetConfig::resnet18()),
        "resnet34" => resnet(ResNetConfig::resnet34()),
        "resnet50" | "timm resnet50" => resnet(ResNetConfig::resnet50()),
        "resnet101" => resnet(ResNetConfig::resnet101()),
        "resnext50_32x4d" => resnet(ResNetConfig::resnext50_32x4d()),
        "resnext101_64x4d" => resnet(ResNetConfig::resnext101_64x4d()),
        "resnet18 before relu" => resnet(ResNetConfig { linear_features: true, ..ResNetConfig::resnet18() }),
        "resnet50 caffe" => resnet(ResNetConfig::resnet50().caffe()),
        "efficientnet_b0" => efficientnet(EfficientNetConfig::b0()),
        "efficientnet_b1" => efficientnet(EfficientNetConfig::b1()),
        "efficientnet_b2" => efficientnet(EfficientNetConfig::b2()),
        "efficientnet_b3" => efficientnet(EfficientNetConfig::b3()),
        "timm efficientnet_b0" => efficientnet(EfficientNetConfig::b0().with_names(Timm)),
        "timm tf_efficientnet_b0" => efficientnet(EfficientNetConfig::b0().tensorflow(Timm)),
        "timm tf_efficientnet_b1" => efficientnet(EfficientNetConfig::b1().tensorflow(Timm)),
        "timm tf_efficientnet_b3" => efficientnet(EfficientNetConfig::b3().tensorflow(Timm)),
        "timm efficientnet_lite0" => {
            efficientnet(EfficientNetConfig { lite: true, ..EfficientNetConfig::b0() }.with_names(Timm))
        }
        "timm tf_efficientnet_lite0" => efficientnet(EfficientNetConfig::lite0()),
        "timm tf_efficientnet_lite1" => efficientnet(EfficientNetConfig::lite1()),
        "timm tf_efficientnet_lite2" => efficientnet(EfficientNetConfig::lite2()),
        "EfficientNet-PyTorch b1" => efficientnet(EfficientNetConfig::b1().with_names(EfficientNetPytorch)),
        "EfficientNet-PyTorch lite0" => {
            efficientnet(EfficientNetConfig::lite0().with_names(EfficientNetPytorch))
        }
        other => panic!("no net for {other}"),
    }
}

/// Tensors, counts, outputs; then the same outputs from the prepared net.
fn check(golden: &Golden) {
    let name = &golden.name;
    let (asked, vb) = recorded(DType::F32);
    let mut net = Classifier::new(architecture(name), 1000, vb).unwrap();

    let mut tensors = golden.tensors.clone();
    tensors.sort();
    assert_eq!(asked.lines(), tensors, "{name}");
    let mut tally = Tally::new();
    net.cost(FrameSize::new(golden.size, golden.size), &mut tally);
    assert_eq!((tally.total().params, tally.total().macs), (golden.params, golden.macs), "{name}");

    let xs = input([1, 3, 65, 94]);
    let features = net.trunk().features(&xs).unwrap();
    let logits = net.forward(&xs).unwrap();
    assert_eq!(features.len(), golden.features.len(), "{name}");
    for ((got, want), info) in features.iter().zip(&golden.features).zip(net.trunk().info()) {
        want.check(&format!("{name}: {}", info.name), got);
        assert_eq!(got.dim(1).unwrap(), info.channels, "{name}: {}", info.name);
    }
    golden.logits.check(&format!("{name}: logits"), &logits);
    let reductions: Vec<_> = net.trunk().info().iter().map(|level| level.reduction).collect();
    assert_eq!(reductions, [4, 8, 16, 32], "{name}");

    net.prepare().unwrap();
    let prepared = net.trunk().features(&xs).unwrap();
    for ((got, want), info) in prepared.iter().zip(&features).zip(net.trunk().info()) {
        let difference = relative_difference(got, want);
        assert!(difference < TOLERANCE, "{name}: {}, prepared: {difference:.1e}", info.name);
    }
    let difference = relative_difference(&net.forward(&xs).unwrap(), &logits);
    assert!(difference < TOLERANCE, "{name}, prepared: {difference:.1e}");
}

fn check_all(of_interest: fn(&Architecture) -> bool) {
    let goldens = goldens();
    let mut chosen = goldens.iter().filter(|golden| of_interest(&architecture(&golden.name))).peekable();
    assert!(chosen.peek().is_some());
    chosen.for_each(check);
}

#[test]
fn mobilenets_are_those_of_other_projects() {
    check_all(|architecture| matches!(architecture, Architecture::MobileNetV2(_)));
}

#[test]
fn resnets_are_those_of_other_projects() {
    check_all(|architecture| matches!(architecture, Architecture::ResNet(_)));
}

#[test]
fn efficientnets_are_those_of_other_projects() {
    check_all(|architecture| matches!(architecture, Architecture::EfficientNet(_)));
}

#[test]
fn counts_are_the_published_ones() {
    let goldens = goldens();
    for (name, params, billions) in PUBLISHED {
        let golden = goldens.iter().find(|golden| golden.name == name).unwrap();
        assert_eq!(golden.params, params, "{name}");
        let difference = (golden.macs as f64 / 1e9 - billions).abs();
        assert!(difference <= 0.0005, "{name}: {} multiply–adds, published {billions}e9", golden.macs);
    }
}

#[test]
fn detectors_bodies_have_the_counts_of_their_paper() {
    // PackDet's bodies at 800×1344, without the classifier.
    for (name, cfg, millions) in
        [("R-50", ResNetConfig::resnet50(), 82_627), ("R-101", ResNetConfig::resnet101(), 162_175)]
    {
        let vb = VarBuilder::zeros(DType::F32, &Device::Cpu);
        let mut tally = Tally::new();
        ResNet::new(&cfg.caffe(), vb).unwrap().cost(FrameSize::new(800, 1344), &mut tally);
        assert_eq!((tally.total().macs + 500_000) / 1_000_000, millions, "{name}");
    }
    assert!(!ResNetConfig::resnext101_64x4d().caffe().stride_in_1x1, "groups keep the stride");
}

#[test]
fn a_batch_is_its_images_one_by_one() {
    for architecture in [
        Architecture::ResNet(ResNetConfig::resnet18()),
        Architecture::EfficientNet(EfficientNetConfig::b0()),
        Architecture::MobileNetV2(MobileNetV2Config::default()),
    ] {
        let mut net = Classifier::new(architecture, 10, weights()).unwrap();
        let xs = input([3, 3, 33, 40]);
        for state in ["plain", "prepared"] {
            let together = net.forward(&xs).unwrap();
            for i in 0..3 {
                let alone = net.forward(&xs.i(i..=i).unwrap()).unwrap();
                let difference = relative_difference(&together.i(i..=i).unwrap(), &alone);
                assert!(difference < 1e-5, "{architecture:?}, {state}, image {i}: {difference:.1e}");
            }
            net.prepare().unwrap();
        }
    }
}

#[test]
fn any_size_gives_maps_of_the_sizes_that_info_says() {
    let vb = weights();
    let mut nets: [Box<dyn Trunk>; 2] = [
        Box::new(ResNet::new(&ResNetConfig::resnet18(), vb.clone()).unwrap()),
        Box::new(EfficientNet::new(&EfficientNetConfig::lite0(), vb).unwrap()),
    ];
    for net in &mut nets {
        net.prepare().unwrap();
        for (height, width) in [(1, 1), (64, 32), (5, 71)] {
            let maps = net.features(&input([1, 3, height, width])).unwrap();
            for (map, info) in maps.iter().zip(net.info()) {
                let size = |n: usize| n.div_ceil(info.reduction);
                assert_eq!(map.dims(), [1, info.channels, size(height), size(width)], "{}", info.name);
            }
        }
    }
}

#[test]
fn taps_before_the_relu_are_what_it_cuts() {
    let xs = input([1, 3, 64, 64]);
    let cfg = ResNetConfig::resnet18();
    let features = |cfg: &ResNetConfig| ResNet::new(cfg, weights()).unwrap().features(&xs).unwrap();
    let (cut, linear) = (features(&cfg), features(&ResNetConfig { linear_features: true, ..cfg }));
    for (cut, linear) in cut.iter().zip(&linear) {
        assert!(linear.min_all().unwrap().to_scalar::<f32>().unwrap() < 0.0);
        assert_eq!(relative_difference(&linear.relu().unwrap(), cut), 0.0);
    }
}

#[test]
fn names_are_told_from_the_file() {
    for names in
        [EfficientNetNames::Torchvision, EfficientNetNames::Timm, EfficientNetNames::EfficientNetPytorch]
    {
        let map = candle_nn::VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        assert_eq!(EfficientNetNames::of(&vb), None);
        EfficientNet::new(&EfficientNetConfig::b0().with_names(names), vb.clone()).unwrap();
        assert_eq!(EfficientNetNames::of(&vb), Some(names));
    }
}

#[test]
fn configs_survive_json_and_refuse_what_they_do_not_know() {
    for golden in goldens() {
        let architecture = architecture(&golden.name);
        let text = serde_json::to_string(&architecture).unwrap();
        assert_eq!(serde_json::from_str::<Architecture>(&text).unwrap(), architecture, "{text}");
        let unknown = text.replacen('{', r#"{"depht":1,"#, 1);
        let error = serde_json::from_str::<Architecture>(&unknown).unwrap_err().to_string();
        assert!(error.contains("unknown field `depht`"), "{error}");
    }
}
