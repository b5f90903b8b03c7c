//! Before it is prepared a net trains: every weight gets a gradient, and a step along it lowers the loss as it says.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use gsvnet_seg::{KeyframeConfig, KeyframeKind, KeyframeNet, ScoreNet};
use zoo_layers::Statistics;

use super::support::{images, net};
use crate::support::{seed, values};

/// A batch in which every norm sees at least four values a channel: fewer make a loss of steps and kinks.
fn batch() -> Tensor {
    images(4, 96, 128)
}

/// Mean square of all scores, those of auxiliary heads included: what a step should make smaller.
fn loss(net: &KeyframeNet, auxiliary: bool) -> Tensor {
    let mean = |scores: &Tensor| scores.sqr().unwrap().mean_all().unwrap();
    match (net, auxiliary) {
        (KeyframeNet::BiSeNet(net), true) => {
            let scores = net.forward_training(&batch()).unwrap();
            assert_eq!(scores.auxiliary.len(), 2);
            assert_eq!(scores.auxiliary[0].dims(), [4, 11, 6, 8]);
            assert_eq!(scores.auxiliary[1].dims(), [4, 11, 12, 16]);
            scores.auxiliary.iter().fold(mean(&scores.scores), |sum, scores| (sum + mean(scores)).unwrap())
        }
        (net, _) => mean(&net.scores(&batch()).unwrap()),
    }
}

fn value(loss: &Tensor) -> f32 {
    loss.to_scalar().unwrap()
}

fn trains(kind: KeyframeKind, auxiliary: bool) {
    let vars = VarMap::new();
    let cfg = KeyframeConfig { auxiliary_heads: auxiliary, ..KeyframeConfig::new(kind, 11) };
    let mut net = KeyframeNet::new(&cfg, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
    seed(&vars);
    net.set_statistics(Statistics::Batch { momentum: 0.1 });
    let means = |vars: &VarMap| -> Vec<f32> {
        let data = vars.data().lock().unwrap();
        let mut names: Vec<_> = data.keys().filter(|name| name.ends_with("running_mean")).collect();
        names.sort();
        names.iter().map(|name| values(&data[*name].as_detached_tensor())[0]).collect()
    };
    let before = means(&vars);
    let first = loss(&net, auxiliary);
    let grads = first.backward().unwrap();
    let unmoved = before.iter().zip(means(&vars)).filter(|(before, after)| *before == after).count();
    assert_eq!(unmoved, 0, "{}: stored means that did not follow", kind.name());

    let mut without: Vec<String> = Vec::new();
    let mut squares = 0.0;
    let data = vars.data().lock().unwrap();
    let trained: Vec<_> = data.iter().filter(|(name, _)| !name.contains("running_")).collect();
    for (name, var) in &trained {
        let size = grads.get(var.as_tensor()).map(|grad| {
            assert_eq!(grad.dims(), var.dims(), "{name}");
            grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()
        });
        match size {
            Some(size) if size > 0.0 && size.is_finite() => squares += size,
            _ => without.push(format!("{name}: {size:?}")),
        }
    }
    assert!(without.is_empty(), "{}: {without:?}", kind.name());

    // So far down the slope that the loss would fall by a thousandth, were it straight.
    let fall = 1e-3 * value(&first);
    let step = fall / squares;
    for (_, var) in trained {
        let Some(grad) = grads.get(var.as_tensor()) else { continue };
        let moved = (var.as_detached_tensor() - (grad * f64::from(step)).unwrap()).unwrap();
        var.set(&moved).unwrap();
    }
    drop(data);
    let fell = value(&first) - value(&loss(&net, auxiliary));
    assert!((fell / fall - 1.0).abs() < 0.05, "{}: the loss fell by {fell} instead of {fall}", kind.name());
}

#[test]
fn swiftnet_r18_trains() {
    trains(KeyframeKind::SwiftnetR18, false);
}

#[test]
fn swiftnet_mobilenet_v2_trains() {
    trains(KeyframeKind::SwiftnetMobilenetV2, false);
}

#[test]
fn pyramid_swiftnet_trains() {
    trains(KeyframeKind::SwiftnetR18Pyramid, false);
}

#[test]
fn bisenet_r18_trains_with_its_auxiliary_heads() {
    trains(KeyframeKind::BisenetR18, true);
}

#[test]
fn bisenet_x39_trains() {
    trains(KeyframeKind::BisenetX39, false);
}

#[test]
fn statistics_are_the_batchs_or_the_stored_ones() {
    for kind in KeyframeKind::ALL {
        let mut net = net(kind, 11);
        let scores = |net: &KeyframeNet| values(&net.scores(&batch()).unwrap());
        let stored = scores(&net);
        net.set_statistics(Statistics::Batch { momentum: 0.0 });
        let batch = scores(&net);
        assert!(batch.iter().all(|score| score.is_finite()), "{}", kind.name());
        assert_ne!(batch, stored, "{}", kind.name());
        net.set_statistics(Statistics::Stored);
        assert_eq!(scores(&net), stored, "{}: momentum 0 keeps what is stored", kind.name());
    }
}

#[test]
fn auxiliary_heads_are_for_training_only() {
    let KeyframeNet::BiSeNet(net) = net(KeyframeKind::BisenetR18, 11) else { panic!("a BiSeNet") };
    let error = net.forward_training(&batch()).unwrap_err().to_string();
    assert!(error.contains("build the net with auxiliary_heads"), "{error}");
}
