//! The feature pyramid against torchvision's, prepared and not. `scripts/goldens/modules.py` makes the
//! fixture.

use candle_core::{DType, Device, IndexOp, Tensor};
use candle_nn::{VarBuilder, VarMap};
use zoo_core::{Backbone, FeatureInfo, FrameSize, Tally};
use zoo_layers::{
    ExtraLevels, Fpn, FpnConfig, FpnNames, MobileNetV2, MobileNetV2Config, ResNet, ResNetConfig,
};

use crate::support::{
    Golden, TOLERANCE, check_gradients, named_input, recorded, relative_difference, seed, weights,
};

/// Sizes of the fixture's maps.
const SIZES: [(usize, usize); 3] = [(17, 23), (9, 12), (5, 6)];

/// Maps of strides 8, 16 and 32.
fn maps_of(channels: [usize; 3]) -> Vec<FeatureInfo> {
    let level = |(channels, reduction)| FeatureInfo { channels, reduction, name: format!("c{reduction}") };
    channels.into_iter().zip([8, 16, 32]).map(level).collect()
}

fn inputs(batch: usize) -> Vec<Tensor> {
    let input = |(i, (channels, (h, w)))| named_input(&format!("input.{i}"), &[batch, channels, h, w]);
    [12, 20, 28].into_iter().zip(SIZES).enumerate().map(input).collect()
}

#[test]
fn levels_are_torchvisions() {
    use FpnNames::{MaskrcnnBenchmark, Torchvision, TorchvisionFlat};
    for (name, extra, names, reductions) in [
        ("pyramid", ExtraLevels::None, Torchvision, &[8, 16, 32][..]),
        ("pyramid, pool", ExtraLevels::Pool, Torchvision, &[8, 16, 32, 64]),
        ("pyramid, from p5", ExtraLevels::FromP5, Torchvision, &[8, 16, 32, 64, 128]),
        ("pyramid, from c5", ExtraLevels::FromC5, Torchvision, &[8, 16, 32, 64, 128]),
        ("pyramid, flat names", ExtraLevels::FromP5, TorchvisionFlat, &[8, 16, 32, 64, 128]),
        (
            "pyramid, maskrcnn-benchmark's names",
            ExtraLevels::FromC5,
            MaskrcnnBenchmark,
            &[8, 16, 32, 64, 128],
        ),
    ] {
        let golden = Golden::of(name);
        let (asked, vb) = recorded(DType::F32);
        let cfg = FpnConfig { channels: 16, extra, names };
        let mut fpn = Fpn::new(&cfg, &maps_of([12, 20, 28]), vb).unwrap();
        assert_eq!(asked.lines(), golden.tensors(), "{name}");
        let found: Vec<_> = fpn.info().iter().map(|level| (level.channels, level.reduction)).collect();
        assert_eq!(found, reductions.iter().map(|&r| (16, r)).collect::<Vec<_>>(), "{name}");

        let mut tally = Tally::new();
        let sizes = fpn.cost(&SIZES.map(|(h, w)| FrameSize::new(h, w)), &mut tally);
        assert_eq!((tally.total().params, tally.total().macs), (golden.params, golden.macs), "{name}");
        assert_eq!(tally.total().residual_adds, 16 * (17 * 23 + 9 * 12), "{name}");

        let maps = inputs(2);
        let plain = fpn.forward(&maps).unwrap();
        assert_eq!(plain.len(), golden.outputs.len(), "{name}");
        for (i, (want, got)) in golden.outputs.iter().zip(&plain).enumerate() {
            want.check(&format!("{name}, level {i}"), got);
            assert_eq!(got.dims()[2..], [sizes[i].height, sizes[i].width], "{name}, level {i}");
        }
        fpn.prepare().unwrap();
        fpn.prepare().unwrap();
        let prepared = fpn.forward(&maps).unwrap();
        let second: Vec<_> = maps.iter().map(|map| map.i(1..2).unwrap()).collect();
        let second = fpn.forward(&second).unwrap();
        for (i, (got, want)) in prepared.iter().zip(&plain).enumerate() {
            let difference = relative_difference(got, want);
            assert!(difference < TOLERANCE, "{name}, level {i}, prepared: {difference:.1e}");
            let difference = relative_difference(&second[i], &got.i(1..2).unwrap());
            assert!(difference < 1e-5, "{name}, level {i}, one of the batch: {difference:.1e}");
        }
    }
}

#[test]
fn counts_are_those_of_packdet() {
    // At 800×1344, PackDet's and RetinaPack's pyramids: parameters, and millions of multiply–adds.
    let zeros = || VarBuilder::zeros(DType::F32, &Device::Cpu);
    let resnet = ResNet::new(&ResNetConfig::resnet50().caffe(), zeros()).unwrap();
    let mobilenet = MobileNetV2::new(&MobileNetV2Config::default(), zeros()).unwrap();
    let names = FpnNames::MaskrcnnBenchmark;
    for (maps, extra, params, millions) in [
        (resnet.info(), ExtraLevels::FromP5, 3_868_672, 17_066),
        (resnet.info(), ExtraLevels::FromC5, 7_997_440, 18_193),
        (mobilenet.info(), ExtraLevels::FromP5, 3_065_856, 13_539),
    ] {
        let cfg = FpnConfig { extra, names, ..FpnConfig::default() };
        let (asked, vb) = recorded(DType::F32);
        let fpn = Fpn::new(&cfg, &maps[1..], vb).unwrap();
        assert!(asked.lines().contains(&"fpn_layer2.weight 256x256x3x3".to_owned()));
        let mut tally = Tally::new();
        let sizes = [8, 16, 32].map(|stride| FrameSize::new(800 / stride, 1344 / stride));
        let levels = fpn.cost(&sizes, &mut tally);
        let levels: Vec<_> = levels.iter().map(|size| (size.height, size.width)).collect();
        assert_eq!(levels, [(100, 168), (50, 84), (25, 42), (13, 21), (7, 11)]);
        assert_eq!(tally.total().params, params, "{extra:?}");
        assert_eq!((tally.total().macs + 500_000) / 1_000_000, millions, "{extra:?}");
    }
}

#[test]
fn names_are_told_from_the_file() {
    for names in [FpnNames::Torchvision, FpnNames::TorchvisionFlat, FpnNames::MaskrcnnBenchmark] {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        assert_eq!(FpnNames::of(&vb), None);
        let cfg = FpnConfig { names, ..FpnConfig::default() };
        Fpn::new(&cfg, &maps_of([4, 4, 4]), vb.clone()).unwrap();
        assert_eq!(FpnNames::of(&vb), Some(names));
    }
}

#[test]
fn gradients_are_difference_quotients() {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
    for extra in [ExtraLevels::Pool, ExtraLevels::FromC5] {
        let vb = vb.pp(format!("{extra:?}"));
        let cfg = FpnConfig { channels: 3, extra, ..FpnConfig::default() };
        let fpn = Fpn::new(&cfg, &maps_of([2, 3, 4]), vb.clone()).unwrap();
        let maps: Vec<_> = [(2, 17, 13), (3, 9, 7), (4, 5, 4)]
            .into_iter()
            .enumerate()
            .map(|(i, (c, h, w))| vb.get((1, c, h, w), &format!("map.{i}")).unwrap())
            .collect();
        seed(&map);
        let loss = || {
            let levels = fpn.forward(&maps).unwrap();
            let squares = levels.iter().map(|level| level.sqr().unwrap().sum_all().unwrap());
            squares.reduce(|a, b| (a + b).unwrap()).unwrap()
        };
        check_gradients(&map, &format!("{extra:?}"), &loss);
    }
}

#[test]
fn faults_are_named() {
    let vb = weights();
    let build = |maps: &[FeatureInfo]| Fpn::new(&FpnConfig::default(), maps, vb.pp("fpn"));
    let fpn = build(&maps_of([12, 20, 28])).unwrap();
    let mut maps = inputs(1);
    for (message, expected) in [
        (build(&[]).unwrap_err(), "fpn: a pyramid needs at least one map"),
        (fpn.forward(&maps[1..]).unwrap_err(), "fpn: expected 3 maps, got 2"),
        (
            {
                maps.swap(0, 1);
                fpn.forward(&maps).unwrap_err()
            },
            "fpn.inner_blocks.1.0: expected 20 channels, got 12",
        ),
    ] {
        let message = message.to_string();
        assert!(message.contains(expected), "{message}");
    }
}
