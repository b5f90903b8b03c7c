use candle_core::{Device, Var};
use gsvnet_seg::training::{
    BATCH, CAMVID_WEIGHTS, CITYSCAPES_WEIGHTS, DECAY, EPOCHS, PAPER_RATE, Part, Rates, SGD, STEPS,
    initialise, optimiser,
};

use super::support::Model;

#[test]
fn each_part_learns_at_its_rate_and_the_rest_does_not() {
    let model = Model::new();
    let bank = Var::zeros((9, 1, 1, 3, 3), candle_core::DType::F32, &Device::Cpu).unwrap();
    let bank_name = "grm.ideal_dk.filter_copy_s".to_owned();
    model.vars.data().lock().unwrap().insert(bank_name, bank);
    let rates = Rates::default();
    assert_eq!((rates.flow, rates.intra, rates.guide, rates.kernels), (1e-4, 0.01, 0.04, 0.01));
    let sgd = optimiser(&model.vars, &rates).unwrap();
    let by_rate = |rate: f64| {
        let of_rate = sgd.variables().filter(|&(_, r)| (r - rate).abs() < 1e-12);
        of_rate.map(|(var, _)| var.elem_count()).sum::<usize>()
    };
    // Section 14's parameters, with 4 classes for 19: the intra-frame net's last layer, the guiding net's first.
    assert_eq!(by_rate(1e-4), 186_402);
    assert_eq!(by_rate(0.01), 15_763 - 15 * (32 * 9 + 1) + 81);
    assert_eq!(by_rate(0.04), 194_241 - 15 * 32 * 9);
    let learning = model.names().into_iter().filter(|name| !name.contains("running_"));
    let learning: Vec<String> = learning.filter(|name| Part::of_tensor(name).is_some()).collect();
    assert_eq!(sgd.variables().count(), learning.len());
    assert!(model.names().contains(&"segnet.conv.weight".to_owned()));
    assert_eq!(Part::of_tensor("segnet.conv.weight"), None);
    let uniform = optimiser(&model.vars, &Rates::all(PAPER_RATE)).unwrap();
    assert!(uniform.variables().all(|(_, rate)| rate == 0.002));
    assert!(optimiser(&model.vars, &Rates::all(-1.0)).is_err());
}

#[test]
fn numbers_are_the_authors() {
    assert_eq!((STEPS, EPOCHS, BATCH), ([1, 2, 3, 4], 100, 8));
    assert_eq!((SGD.momentum, SGD.nesterov, SGD.weight_decay), (0.9, true, 5e-4));
    for (step, factor) in [(0, 1.0), (99, 1.0), (100, 0.992), (350, 0.992f64.powi(3))] {
        assert!((DECAY.factor(step) - factor).abs() < 1e-12, "step {step}");
    }
    let rates: Rates = serde_json::from_str(r#"{"flow": 0.002}"#).unwrap();
    assert_eq!(rates, Rates { flow: PAPER_RATE, ..Rates::default() });
}

/// The weights are 1 / ln(1.02 + p): the p that they came from are parts of one whole.
#[test]
fn weights_of_classes_come_from_their_shares() {
    let shares = |weights: &[f32]| -> Vec<f64> {
        weights.iter().map(|&weight| (1.0 / f64::from(weight)).exp() - 1.02).collect()
    };
    let cityscapes = shares(&CITYSCAPES_WEIGHTS);
    assert!((cityscapes.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{cityscapes:?}");
    let camvid = shares(&CAMVID_WEIGHTS);
    let all: f64 = camvid.iter().sum();
    assert!((0.85..0.95).contains(&all), "a tenth of CamVid's pixels have no class: {camvid:?}");
    for (what, shares, most) in [("road", &cityscapes, 0), ("road", &camvid, 3)] {
        let largest = shares.iter().copied().fold(0.0, f64::max);
        assert!(shares.iter().all(|share| *share > 0.0) && shares[most] == largest, "{what}: {shares:?}");
    }
}

#[test]
fn filters_of_two_parts_are_drawn_by_their_fans() {
    let (model, before) = (Model::new(), Model::new());
    initialise(&model.vars).unwrap();
    for name in model.names() {
        let (drawn, old) = (model.value(&name), before.value(&name));
        let shape = model.vars.data().lock().unwrap()[&name].dims().to_vec();
        let [outputs, inputs, 3, 3] = shape[..] else {
            assert_eq!(drawn, old, "{name}");
            continue;
        };
        if !name.starts_with("grm.") {
            assert_eq!(drawn, old, "{name}");
            continue;
        }
        let sum = drawn.iter().map(|&v| f64::from(v)).sum::<f64>();
        let squares = drawn.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
        let (count, variance) = (drawn.len() as f64, 2.0 / (9 * (inputs + outputs)) as f64);
        // Seven standard deviations of what so many draws have.
        assert!((sum / count).abs() < 7.0 * (variance / count).sqrt(), "{name}: mean {}", sum / count);
        let off = squares / count / variance - 1.0;
        assert!(off.abs() < 7.0 * (2.0 / count).sqrt(), "{name}: variance off by {off}");
    }
}
