//! What the golden files do not show: other nets, sizes, batches and classes, and that a prepared net does what the
//! plain one does.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use gsvnet_seg::keyframe::PyramidSwiftNet;
use gsvnet_seg::{Joins, KeyframeConfig, KeyframeKind, KeyframeNet, ScoreNet};
use zoo_core::FrameSize;
use zoo_parity::Golden;

use super::support::{images, net, net_of, prepared};
use crate::support::{difference, seed, values};

/// Folding and packing round.
const ROUNDING: f32 = 1e-4;

fn stride(kind: KeyframeKind) -> usize {
    if matches!(kind, KeyframeKind::BisenetR18 | KeyframeKind::BisenetX39) { 8 } else { 4 }
}

#[test]
fn prepared_nets_do_what_plain_ones_do() {
    for kind in KeyframeKind::ALL {
        let plain = net(kind, 19);
        assert_eq!(plain.classes(), 19);
        // The second is odd in every stage.
        for (height, width) in [(96, 160), (75, 107)] {
            let xs = images(1, height, width);
            let want = plain.scores(&xs).unwrap();
            let (h, w) = (height.div_ceil(stride(kind)), width.div_ceil(stride(kind)));
            assert_eq!(want.dims(), [1, 19, h, w], "{}", kind.name());
            for joins in [Joins::Joined, Joins::Separate] {
                let mut net = plain.clone();
                net.prepare_with(joins).unwrap();
                let apart = difference(&net.scores(&xs).unwrap(), &want);
                assert!(apart < ROUNDING, "{} {joins:?} {height}×{width}: {apart}", kind.name());
            }
        }
    }
}

/// What is left of the difference between plain and folded nets where rounding is out of the way, and nothing is packed.
#[test]
fn in_f64_folding_and_joining_change_nothing() {
    for kind in KeyframeKind::ALL {
        let mut net = net_of(kind, 11, DType::F64);
        let xs = images(1, 41, 64).to_dtype(DType::F64).unwrap();
        let want = net.scores(&xs).unwrap();
        assert_eq!(want.dtype(), DType::F64);
        net.prepare().unwrap();
        let largest = |xs: &Tensor| {
            let largest = xs.abs().unwrap().flatten_all().unwrap().max(0).unwrap();
            largest.to_scalar::<f64>().unwrap()
        };
        let apart = largest(&(net.scores(&xs).unwrap() - &want).unwrap()) / largest(&want);
        assert!(apart < 1e-12, "{}: {apart:e}", kind.name());
    }
}

#[test]
fn small_and_narrow_images_and_eleven_classes() {
    for kind in KeyframeKind::ALL {
        let (plain, prepared) = (net(kind, 11), prepared(kind, 11));
        for (height, width) in [(32, 32), (33, 61), (32, 200)] {
            let xs = images(1, height, width);
            let want = plain.scores(&xs).unwrap();
            let (h, w) = (height.div_ceil(stride(kind)), width.div_ceil(stride(kind)));
            assert_eq!(want.dims(), [1, 11, h, w], "{}", kind.name());
            let apart = difference(&prepared.scores(&xs).unwrap(), &want);
            assert!(apart < ROUNDING, "{} {height}×{width}: {apart}", kind.name());
        }
    }
}

#[test]
fn a_batch_is_what_its_images_are_alone() {
    for kind in KeyframeKind::ALL {
        let net = prepared(kind, 19);
        let xs = images(3, 64, 96);
        let all = net.scores(&xs).unwrap();
        for i in 0..3 {
            let one = net.scores(&xs.narrow(0, i, 1).unwrap()).unwrap();
            let apart = difference(&all.narrow(0, i, 1).unwrap(), &one);
            assert!(apart < ROUNDING, "{} image {i}: {apart}", kind.name());
        }
    }
}

#[test]
fn a_net_prepared_twice_is_prepared_once() {
    for kind in KeyframeKind::ALL {
        let mut net = prepared(kind, 19);
        let xs = images(1, 64, 64);
        let once = values(&net.scores(&xs).unwrap());
        net.prepare().unwrap();
        assert_eq!(values(&net.scores(&xs).unwrap()), once, "{}", kind.name());
    }
}

#[test]
fn probes_see_each_stage_and_may_stop_the_pass() {
    for (kind, expected) in [
        (
            KeyframeKind::SwiftnetMobilenetV2,
            vec!["features.3", "features.6", "features.13", "features.17", "spp", "up0", "up1", "up2"],
        ),
        (
            KeyframeKind::SwiftnetR34,
            vec!["stem", "layer1", "layer2", "layer3", "layer4", "spp", "up0", "up1", "up2"],
        ),
        (
            KeyframeKind::BisenetX39,
            vec![
                "spatial", "layer1", "layer2", "layer3", "global", "arm0", "refine0", "arm1", "refine1",
                "ffm",
            ],
        ),
    ] {
        let net = net(kind, 19);
        let xs = images(1, 64, 64);
        let mut seen = Vec::new();
        let probed = net.forward_probed(&xs, &mut |name, _| {
            seen.push(name.to_owned());
            Ok(())
        });
        assert_eq!(seen, expected, "{}", kind.name());
        assert_eq!(values(&probed.unwrap()), values(&net.scores(&xs).unwrap()), "{}", kind.name());
        let stopped = net.forward_probed(&xs, &mut |name, _| match name == expected[4] {
            true => Err(candle_core::Error::msg("enough")),
            false => Ok(()),
        });
        assert!(stopped.unwrap_err().to_string().starts_with("enough"), "{}", kind.name());
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let net = net(KeyframeKind::SwiftnetMobilenetV2, 19);
    let error = net.scores(&images(1, 31, 64)).unwrap_err().to_string();
    assert!(error.contains("images of 31×64 are too small: both sides must be at least 32"), "{error}");
    assert!(net.check_input(FrameSize::new(32, 32)).is_ok());
    let error = net.scores(&images(1, 64, 64).narrow(1, 0, 2).unwrap()).unwrap_err().to_string();
    assert!(error.contains("expected images of 3 channels, [B, 3, H, W], got [1, 2, 64, 64]"), "{error}");

    let zeros = || VarBuilder::zeros(DType::F32, &Device::Cpu);
    let error = |cfg: KeyframeConfig| KeyframeNet::new(&cfg, zeros()).unwrap_err().to_string();
    let none = error(KeyframeConfig::new(KeyframeKind::BisenetR18, 0));
    assert!(none.contains("bisenet-r18: expected at least one class, got 0"), "{none}");
    let heads =
        error(KeyframeConfig { auxiliary_heads: true, ..KeyframeConfig::new(KeyframeKind::SwiftnetR18, 19) });
    assert!(heads.contains("only bisenet-r18 has auxiliary heads"), "{heads}");
}

/// Names and values of a net's seeded tensors.
fn tensors(kind: KeyframeKind) -> HashMap<String, Tensor> {
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    KeyframeNet::new(&KeyframeConfig::new(kind, 19), vb).unwrap();
    seed(&vars);
    let data = vars.data().lock().unwrap();
    data.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect()
}

fn from_tensors(kind: KeyframeKind, tensors: HashMap<String, Tensor>) -> candle_core::Result<KeyframeNet> {
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    KeyframeNet::new(&KeyframeConfig::new(kind, 19), vb)
}

#[test]
fn a_missing_tensor_is_named() {
    for (kind, name) in [
        (KeyframeKind::SwiftnetR18, "backbone.spp.spp.spp_fuse.norm.running_var"),
        (KeyframeKind::SwiftnetMobilenetV2, "backbone.upsample.2.blend_conv.conv.weight"),
        (KeyframeKind::SwiftnetR18Pyramid, "backbone.layer3.1.bn2.2.bias"),
        (KeyframeKind::BisenetR18, "ffm.channel_attention.2.conv.weight"),
        (KeyframeKind::BisenetX39, "context_path.layer2.7.residual_branch.1.point_wise_cbr.bn.weight"),
    ] {
        let mut tensors = tensors(kind);
        assert!(tensors.remove(name).is_some(), "{name}");
        let error = from_tensors(kind, tensors).unwrap_err().to_string();
        assert!(error.contains(name), "{name}: {error}");
    }
}

/// The golden files list names and shapes of the authors' nets.
#[test]
fn tensors_are_those_of_the_checkpoints() {
    for kind in [
        KeyframeKind::SwiftnetR18,
        KeyframeKind::SwiftnetR18Pyramid,
        KeyframeKind::BisenetR18,
        KeyframeKind::BisenetX39,
    ] {
        let file = format!("tests/golden/gsvnet_{}.safetensors", kind.name().replace('-', "_"));
        let golden = Golden::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        // Counters of batches, mean and deviation that SwiftNet does not use, and heads that only training does.
        let unused = ["num_batches_tracked", "img_mean", "img_std"];
        let expected: BTreeMap<_, _> = golden
            .meta()
            .state
            .iter()
            .filter(|(name, _)| !unused.iter().any(|unused| name.ends_with(unused)))
            .filter(|(name, _)| !name.starts_with("heads.0") && !name.starts_with("heads.1"))
            .cloned()
            .collect();
        let got: BTreeMap<_, _> =
            tensors(kind).into_iter().map(|(name, tensor)| (name, tensor.dims().to_vec())).collect();
        assert_eq!(got, expected, "{}", kind.name());
    }
}

/// Files of ImageNet's classifiers have one norm for all scales.
#[test]
fn a_plain_resnets_norms_serve_all_scales() {
    let kind = KeyframeKind::SwiftnetR18Pyramid;
    let all = tensors(kind);
    let mut plain = HashMap::new();
    let mut copied = HashMap::new();
    for (name, tensor) in &all {
        let scale = |k: usize| {
            let at = [".bn1", ".bn2"].into_iter().find_map(|norm| name.find(&format!("{norm}.{k}.")))?;
            Some((at + 4, k))
        };
        match (0..3).find_map(scale) {
            Some((at, k)) => {
                let first = format!("{}.0{}", &name[..at], &name[at + 2..]);
                copied.insert(name.clone(), all[&first].clone());
                if k == 0 {
                    plain.insert(format!("{}{}", &name[..at], &name[at + 2..]), tensor.clone());
                }
            }
            None => {
                plain.insert(name.clone(), tensor.clone());
                copied.insert(name.clone(), tensor.clone());
            }
        }
    }
    assert_eq!(plain.len(), 20 + 4 * 20 + 4 + 5 * 5 + 6);
    let xs = images(1, 64, 96);
    let scores = |tensors| values(&from_tensors(kind, tensors).unwrap().scores(&xs).unwrap());
    let plain = scores(plain);
    assert_eq!(plain, scores(copied));
    assert_ne!(plain, scores(all));
}

#[test]
fn the_pyramids_normalisation_is_by_colour() {
    let pixels =
        Tensor::new(&[73.15f32, 82.9 + 48.49, 0.0], &Device::Cpu).unwrap().reshape((1, 3, 1, 1)).unwrap();
    let got = values(&PyramidSwiftNet::normalize(&pixels).unwrap());
    for (got, expected) in got.into_iter().zip([0.0, 1.0, -72.3 / 47.73]) {
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }
}

#[test]
fn configurations_are_read_as_they_are_written() {
    let cfg = KeyframeConfig::new(KeyframeKind::SwiftnetR18, 11);
    let text = serde_json::to_string(&cfg).unwrap();
    assert_eq!(text, r#"{"net":"swiftnet-r18","classes":11}"#);
    assert_eq!(serde_json::from_str::<KeyframeConfig>(&text).unwrap(), cfg);
    let error = serde_json::from_str::<KeyframeConfig>(r#"{"net":"bisenet-r18","classes":19,"heads":2}"#);
    assert!(error.unwrap_err().to_string().contains("unknown field `heads`"));
    for kind in KeyframeKind::ALL {
        assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
    }
}
