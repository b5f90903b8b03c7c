//! What detectors are made of: deformable convolutions, group norm, RetinaNet's head, and names of other projects.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use zoo_kernels::Activation;
use zoo_layers::detection::{RetinaNetHead, RetinaNetHeadConfig, RetinaNetNames};
use zoo_layers::{
    ConvNormAct, ConvSpec, DeformableConv, GroupNorm, MobileNetV2, MobileNetV2Config, MobileNetV2Names,
    Padding, ResNet, ResNetConfig, SamePadding, Trunk,
};

use crate::support::{TOLERANCE, named_input, recorded, relative_difference, weights};

fn built(tensors: HashMap<String, Tensor>) -> VarBuilder<'static> {
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

/// The tensors that a net asks for, with seeded values.
fn asked(build: impl FnOnce(VarBuilder<'static>)) -> HashMap<String, Tensor> {
    let vars = VarMap::new();
    build(VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu));
    let all = vars.data().lock().unwrap();
    let seeded = |name: &str, shape: &[usize]| {
        let values = zoo_parity::seeded::value(name, shape).unwrap();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    all.iter().map(|(name, var)| (name.clone(), seeded(name, var.dims()))).collect()
}

#[test]
fn offsets_of_zero_and_halves_make_half_a_convolution() {
    let spec = ConvSpec::dense3(6, 10, 2, 1e-5, Activation::Relu).grouped(2);
    let mut tensors = asked(|vb| drop(DeformableConv::biased(spec, vb).unwrap()));
    for (name, tensor) in &mut tensors {
        // A sigmoid of 0 is ½.
        if name.starts_with("offset.") {
            *tensor = tensor.zeros_like().unwrap();
        }
    }
    let plain = tensors.iter().map(|(name, tensor)| {
        let factor = if name == "conv.weight" { 0.5 } else { 1.0 };
        (name.clone(), (tensor * factor).unwrap())
    });
    let plain = ConvNormAct::biased(spec, built(plain.collect()).pp("conv")).unwrap();
    let mut conv = DeformableConv::biased(spec, built(tensors)).unwrap();
    let xs = named_input("xs", &[2, 6, 9, 7]);
    let want = plain.forward(&xs).unwrap();
    assert!(relative_difference(&conv.forward(&xs).unwrap(), &want) < TOLERANCE);
    conv.prepare().unwrap();
    assert!(relative_difference(&conv.forward(&xs).unwrap(), &want) < TOLERANCE);
}

#[test]
fn a_deformable_convolution_takes_its_norm_in() {
    let spec = ConvSpec::dense3(8, 12, 1, 1e-5, Activation::Relu);
    let vb = weights();
    let mut conv = DeformableConv::new(spec, vb.pp("conv2"), vb.pp("bn2")).unwrap();
    let xs = named_input("xs", &[2, 8, 7, 9]);
    let plain = conv.forward(&xs).unwrap();
    conv.prepare().unwrap();
    let d = relative_difference(&conv.forward(&xs).unwrap(), &plain);
    assert!(d < TOLERANCE, "{d}");
    let mut tally = zoo_core::Tally::new();
    let size = conv.cost(zoo_core::FrameSize::new(7, 9), &mut tally);
    assert_eq!((size.height, size.width), (7, 9));
    let total = tally.total();
    assert_eq!(total.params, 27 * 8 * 9 + 27 + 12 * 8 * 9 + 2 * 12);
    assert_eq!(total.macs, (27 + 12) * 8 * 9 * 63);
    let tensorflow = spec.padded(Padding::Same(SamePadding::Tf));
    let error = DeformableConv::biased(tensorflow, weights()).unwrap_err().to_string();
    assert!(error.contains("padded as in PyTorch"), "{error}");
}

#[test]
fn deformable_stages_ask_for_the_names_of_the_authors() {
    let cfg =
        ResNetConfig { deformable: [false, false, true, true], blocks: [1; 4], ..ResNetConfig::resnet50() };
    let (asked, vb) = recorded(DType::F32);
    let mut net = ResNet::new(&cfg.caffe(), vb).unwrap();
    let lines = asked.lines();
    for line in [
        "layer2.0.conv2.weight 128x128x3x3",
        "layer3.0.conv2.conv.weight 256x256x3x3",
        "layer3.0.conv2.offset.weight 27x256x3x3",
        "layer4.0.conv2.offset.bias 27",
        "layer4.0.bn2.* 512",
    ] {
        assert!(lines.iter().any(|got| got == line), "{line} is not among {lines:?}");
    }
    assert!(!lines.iter().any(|line| line.starts_with("layer3.0.conv2.weight")));
    let xs = named_input("xs", &[1, 3, 64, 64]);
    let plain = net.trunk(&xs).unwrap();
    Trunk::prepare(&mut net).unwrap();
    assert!(relative_difference(&net.trunk(&xs).unwrap(), &plain) < 10.0 * TOLERANCE);

    let basic = ResNetConfig { deformable: [true; 4], ..ResNetConfig::resnet18() };
    let error = ResNet::new(&basic, weights()).unwrap_err().to_string();
    assert!(error.contains("layer1.0: only bottlenecks have deformable convolutions"), "{error}");
}

#[test]
fn a_group_norm_of_one_map_is_the_common_one() {
    let norm = GroupNorm::new(4, 16, 1e-5, Activation::Relu, weights()).unwrap();
    let maps = [named_input("a", &[2, 16, 5, 6]), named_input("b", &[2, 16, 2, 3])];
    let alone = norm.forward(&maps[0], Some(&maps[0])).unwrap();
    let one = norm.forward_jointly(&maps[..1], &maps[..1]).unwrap();
    assert!(relative_difference(&one[0], &alone) < TOLERANCE);
    // Halves of a map have the map's statistics together.
    let halves = [0, 1].map(|i| maps[0].narrow(3, 3 * i, 3).unwrap());
    let joined = Tensor::cat(&norm.forward_jointly(&halves, &[]).unwrap(), 3).unwrap();
    assert!(relative_difference(&joined, &norm.forward(&maps[0], None).unwrap()) < TOLERANCE);
    assert_eq!(norm.forward_jointly(&maps, &[]).unwrap()[1].dims(), maps[1].dims());
}

#[test]
fn retinanets_head_goes_by_three_sets_of_names() {
    let cfg = |names| RetinaNetHeadConfig { channels: 8, convs: 3, anchors: 2, classes: 5, names };
    let torchvision = cfg(RetinaNetNames::Torchvision);
    let tensors = asked(|vb| drop(RetinaNetHead::new(&torchvision, vb).unwrap()));
    let flat_name = |name: &str| {
        for i in 0..3 {
            let layer = format!("conv.{i}.0.");
            if name.contains(&layer) {
                return name.replace(&layer, &format!("conv.{}.", 2 * i));
            }
        }
        name.to_owned()
    };
    let flat: HashMap<_, _> =
        tensors.iter().map(|(name, tensor)| (flat_name(name), tensor.clone())).collect();
    let benchmark = flat.iter().map(|(name, tensor)| {
        let name = name.replace("classification_head.conv", "cls_tower");
        let name = name.replace("regression_head.conv", "bbox_tower").replace("bbox_reg", "bbox_pred");
        let name = name.replace("classification_head.", "").replace("regression_head.", "");
        (name, tensor.clone())
    });
    let xs = named_input("xs", &[2, 8, 5, 6]);
    let mut outputs = vec![];
    for (tensors, names) in [
        (tensors.clone(), RetinaNetNames::Torchvision),
        (flat.clone(), RetinaNetNames::TorchvisionFlat),
        (benchmark.collect(), RetinaNetNames::MaskrcnnBenchmark),
    ] {
        let vb = built(tensors);
        assert_eq!(RetinaNetNames::of(&vb), Some(names));
        let mut head = RetinaNetHead::new(&cfg(names), vb).unwrap();
        outputs.push(head.forward(&xs).unwrap());
        head.prepare().unwrap();
        outputs.push(head.forward(&xs).unwrap());
    }
    for (logits, codes) in &outputs {
        assert_eq!((logits.dims(), codes.dims()), (&[2, 10, 5, 6][..], &[2, 8, 5, 6][..]));
        assert!(relative_difference(logits, &outputs[0].0) < TOLERANCE);
        assert!(relative_difference(codes, &outputs[0].1) < TOLERANCE);
    }
    assert_eq!(RetinaNetNames::of(&built(HashMap::new())), None);
}

#[test]
fn flat_names_of_mobilenet_v2_are_those_of_its_first_port() {
    let cfg = MobileNetV2Config { names: MobileNetV2Names::Flat, ..MobileNetV2Config::torchvision() };
    let (asked, vb) = recorded(DType::F32);
    MobileNetV2::without_last(&cfg, vb).unwrap();
    let lines = asked.lines();
    for line in [
        "features.0.0.weight 32x3x3x3",
        "features.1.conv.0.weight 32x1x3x3",
        "features.1.conv.1.* 32",
        "features.1.conv.3.weight 16x32x1x1",
        "features.1.conv.4.* 16",
        "features.17.conv.0.weight 960x160x1x1",
        "features.17.conv.3.weight 960x1x3x3",
        "features.17.conv.4.* 960",
        "features.17.conv.6.weight 320x960x1x1",
        "features.17.conv.7.* 320",
    ] {
        assert!(lines.iter().any(|got| got == line), "{line} is not among {lines:?}");
    }
}
