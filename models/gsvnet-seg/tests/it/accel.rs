//! The baselines around BiSeNet: what is moved, what is fused, what it costs.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use gsvnet_seg::accel::mean_fusion;
use gsvnet_seg::keyframe::BiSeNet;
use gsvnet_seg::{
    Accel, AccelConfig, AccelStep, FeatureNet, FlowKind, FlowNet, FrameSize, IntraNet, KeyReason,
    KeyframeConfig, KeyframeKind, Schedule, ScoreNet, warp_scores,
};
use zoo_core::{Cost, Tally};
use zoo_kernels::{Interpolation, resize2d};

use crate::support::{difference, frame, seed, values};

const CLASSES: usize = 5;
const SIZE: FrameSize = FrameSize::new(128, 192);
/// An eighth of it, three quarters, and an eighth of these.
const LOW: (usize, usize) = (16, 24);
const SEEN: (usize, usize) = (96, 144);
const MAP: [usize; 4] = [1, 256, 12, 18];

/// Seeded but for the fusion, which is the mean; and its variables.
fn accel(cfg: &AccelConfig) -> (Accel<BiSeNet>, VarMap) {
    let mut vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let reference = KeyframeConfig::new(KeyframeKind::BisenetR18, CLASSES);
    let reference = BiSeNet::new(&reference, vb.pp("reference")).unwrap();
    let net = Accel::around(reference, cfg, Schedule::every(3), vb).unwrap();
    seed(&vars);
    for (name, var) in vars.data().lock().unwrap().iter() {
        // Xception39's deep chain of linear filters grows without bound otherwise.
        if name.starts_with("update.context_path.layer") {
            var.set(&(var.as_detached_tensor() * 0.5).unwrap()).unwrap();
        }
    }
    vars.set_one("fusion.weight", mean_fusion(CLASSES, DType::F32, &Device::Cpu).unwrap()).unwrap();
    vars.set_one("fusion.bias", Tensor::zeros(CLASSES, DType::F32, &Device::Cpu).unwrap()).unwrap();
    (net, vars)
}

fn run(net: &Accel<BiSeNet>, frames: usize) -> Vec<AccelStep> {
    let mut state = net.start(SIZE).unwrap();
    (0..frames).map(|i| net.push(&frame(i, SIZE), &mut state).unwrap()).collect()
}

fn resized(map: &Tensor, size: (usize, usize)) -> Tensor {
    resize2d(map, size, Interpolation::BilinearCorners).unwrap()
}

#[test]
fn key_frames_are_the_references() {
    let (net, _) = accel(&AccelConfig::lite());
    let steps = run(&net, 4);
    let keys: Vec<_> = steps.iter().map(|step| step.key).collect();
    assert_eq!(keys, [Some(KeyReason::First), None, None, Some(KeyReason::Interval)]);
    for i in [0, 3] {
        let want = resized(&net.reference().scores(&resized(&frame(i, SIZE), SEEN)).unwrap(), LOW);
        assert_eq!(values(&steps[i].scores), values(&want), "frame {i}");
    }
    for step in steps {
        assert_eq!((step.scores.dims(), step.features.dims()), (&[1, CLASSES, 16, 24][..], &MAP[..]));
        assert_eq!(step.labels(SIZE).unwrap().dims(), [1, 128, 192]);
    }
}

/// Of each frame after a key frame, from the parts' own calls: at first the fusion is the mean of both branches.
#[test]
fn features_are_moved_and_both_branches_fused() {
    for cfg in [AccelConfig::lite(), AccelConfig::x39()] {
        let (net, vars) = accel(&cfg);
        let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
        let flow_net = FlowNet::new(cfg.flow, vb.pp("ofnet")).unwrap();
        let low = |i: usize| {
            let low = resized(&frame(i, SIZE), LOW).contiguous().unwrap();
            low.index_select(&Tensor::new(&[2u32, 1, 0], &Device::Cpu).unwrap(), 1).unwrap()
        };
        let steps = run(&net, 3);
        for i in [1, 2] {
            let flow = resized(&flow_net.forward(&low(i), &low(i - 1)).unwrap(), (MAP[2], MAP[3]));
            assert!(values(&flow).iter().any(|v| v.abs() > 0.1), "nothing moves");
            // Those that were moved before, not the frame's own.
            let features = warp_scores(&steps[i - 1].features, &flow).unwrap();
            assert!(difference(&steps[i].features, &features) < 1e-5, "frame {i}");
            let reference = resized(&net.reference().classify(&features).unwrap(), LOW);
            let update = if cfg.flow == FlowKind::Light {
                IntraNet::new(CLASSES, vb.pp("update")).unwrap().forward(&low(i)).unwrap()
            } else {
                let x39 = KeyframeConfig::new(KeyframeKind::BisenetX39, CLASSES);
                let x39 = BiSeNet::new(&x39, vb.pp("update")).unwrap();
                resized(&x39.scores(&resized(&frame(i, SIZE), SEEN)).unwrap(), LOW)
            };
            let mean = ((reference + update).unwrap() * 0.5).unwrap();
            assert!(difference(&steps[i].scores, &mean) < 1e-5, "{cfg:?}, frame {i}");
        }
    }
}

/// Without flow, the features stay where they are.
#[test]
fn where_nothing_moves_the_reference_stays() {
    let (net, vars) = accel(&AccelConfig::lite());
    for (name, var) in vars.data().lock().unwrap().iter() {
        if name.starts_with("ofnet.toflow") || name.starts_with("update.6") {
            var.set(&var.as_tensor().zeros_like().unwrap()).unwrap();
        }
    }
    let steps = run(&net, 3);
    for step in &steps[1..] {
        assert!(difference(&step.features, &steps[0].features) < 1e-6);
        let half = (&steps[0].scores * 0.5).unwrap();
        assert!(difference(&step.scores, &half) < 1e-5, "an update branch of zeros halves the scores");
    }
}

#[test]
fn prepared_nets_are_the_plain_ones() {
    for cfg in [AccelConfig::lite(), AccelConfig::x39()] {
        let (net, _) = accel(&cfg);
        let mut prepared = net.clone();
        prepared.reference_mut().prepare().unwrap();
        prepared.prepare_between().unwrap();
        for (i, (got, want)) in run(&prepared, 4).iter().zip(run(&net, 4)).enumerate() {
            let apart = difference(&got.scores, &want.scores);
            assert!(apart < 1e-3, "{cfg:?}, frame {i}: {apart}");
        }
    }
}

#[test]
fn streams_go_on_from_clones_and_refuse_other_sizes() {
    let (mut net, _) = accel(&AccelConfig::lite());
    net.prepare_between().unwrap();
    let mut state = net.start(SIZE).unwrap();
    net.push(&frame(0, SIZE), &mut state).unwrap();
    let mut clone = state.clone();
    let [first, second] = [&mut state, &mut clone].map(|state| net.push(&frame(1, SIZE), state).unwrap());
    assert_eq!(values(&first.scores), values(&second.scores));
    let error = net.push(&frame(2, FrameSize::new(128, 200)), &mut state).unwrap_err().to_string();
    assert!(error.contains("[B, 3, 128, 192]") && error.contains("start another stream"), "{error}");
    assert_eq!(state.since_key(), Some(1), "as it was");
    assert!(net.push(&frame(2, SIZE), &mut state).is_ok());
    let error = net.start(FrameSize::new(40, 400)).unwrap_err().to_string();
    assert!(error.contains("40×400") && error.contains("at least 32×32"), "{error}");
}

/// For Cityscapes, from the parts' counts.
#[test]
fn counts_are_the_sums_of_the_parts() {
    let frame = FrameSize::new(1024, 2048);
    let zeros = || VarBuilder::zeros(DType::F32, &Device::Cpu);
    let total = |count: &dyn Fn(&mut Tally)| -> Cost {
        let mut tally = Tally::new();
        count(&mut tally);
        tally.total()
    };
    // 3×3 from 256 to 64 channels, a norm, and 1×1 to the classes; on 96×192. And 38 scores to 19 on 128×256.
    let head = (9 * 256 * 64 + 2 * 64 + 64 * 19 + 19, (9 * 256 * 64 + 64 * 19) * 96 * 192);
    let fusion = (38 * 19 + 19, 38 * 19 * 128 * 256);
    for (cfg, params, gmacs) in [
        (AccelConfig::lite(), 186_402 + 15_763, 0.390 + 0.510),
        (AccelConfig::x39(), 38_676_514 + 1_541_963, 2.63 + 15.62),
    ] {
        let reference = BiSeNet::new(&KeyframeConfig::new(KeyframeKind::BisenetR18, 19), zeros()).unwrap();
        let net = Accel::around(reference, &cfg, Schedule::default(), zeros()).unwrap();
        let key = total(&|tally| net.key_cost(frame, tally));
        assert_eq!((key.params, (key.macs as f64 / 1e7).round() / 1e2), (12_894_163, 58.34));
        let between = total(&|tally| net.between_cost(frame, tally));
        assert_eq!(between.params, params + head.0 + fusion.0, "{cfg:?}");
        let giga = (between.macs - head.1 - fusion.1) as f64 / 1e9;
        assert!((giga - gmacs).abs() < 0.011, "{cfg:?}: {giga}, expected {gmacs}");
    }
}

#[test]
fn configurations_survive_json() {
    for cfg in [AccelConfig::lite(), AccelConfig::x39()] {
        let text = serde_json::to_string(&cfg).unwrap();
        assert_eq!(serde_json::from_str::<AccelConfig>(&text).unwrap(), cfg, "{text}");
    }
}
