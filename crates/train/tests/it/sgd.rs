//! Descent against its definition, number by number.

use candle_core::{Device, Tensor, Var};
use zoo_train::{Decay, Schedule, Sgd, SgdConfig};

fn variable(value: f64) -> Var {
    Var::new(value, &Device::Cpu).unwrap()
}

fn value(var: &Var) -> f64 {
    var.to_scalar().unwrap()
}

/// Of x³ / 3, whose slope is x².
fn loss(var: &Var) -> Tensor {
    (var.as_tensor().powf(3.0).unwrap() / 3.0).unwrap()
}

#[test]
fn steps_are_pytorchs() {
    const RATE: f64 = 0.1;
    for (momentum, nesterov, weight_decay) in
        [(0.0, false, 0.0), (0.0, false, 0.3), (0.9, false, 0.0), (0.9, true, 0.0), (0.8, true, 5e-4)]
    {
        let cfg = SgdConfig { momentum, nesterov, weight_decay };
        let var = variable(1.5);
        let mut sgd = Sgd::new(cfg).unwrap().with([var.clone()], RATE).unwrap();
        let (mut x, mut velocity) = (1.5f64, 0.0);
        for step in 0..5 {
            sgd.step(&loss(&var).backward().unwrap(), 1.0).unwrap();
            let slope = x * x + weight_decay * x;
            velocity = momentum * velocity + slope;
            x -= RATE * if nesterov { slope + momentum * velocity } else { velocity };
            assert!((value(&var) - x).abs() < 1e-12, "{cfg:?}, step {step}: {}, expected {x}", value(&var));
        }
    }
}

#[test]
fn each_group_has_its_rate_and_all_follow_the_schedule() {
    let (slow, fast, apart) = (variable(1.0), variable(1.0), variable(1.0));
    let mut sgd = Sgd::new(SgdConfig::default()).unwrap();
    sgd = sgd.with([slow.clone()], 0.01).unwrap().with([fast.clone(), apart.clone()], 0.04).unwrap();
    assert_eq!(sgd.variables().map(|(_, rate)| rate).collect::<Vec<_>>(), [0.01, 0.04, 0.04]);
    let schedule = Schedule::new(Decay::Step { every: 1, factor: 0.5 });
    let (mut of_slow, mut of_fast) = (1.0f64, 1.0f64);
    for step in 0..3 {
        let both = (loss(&slow) + loss(&fast)).unwrap();
        sgd.step(&both.backward().unwrap(), schedule.factor(step)).unwrap();
        let factor = 0.5f64.powi(i32::try_from(step).unwrap());
        of_slow -= 0.01 * factor * of_slow.powi(2);
        of_fast -= 0.04 * factor * of_fast.powi(2);
        assert!((value(&slow) - of_slow).abs() < 1e-12, "step {step}");
        assert!((value(&fast) - of_fast).abs() < 1e-12, "step {step}");
    }
    assert_eq!(value(&apart), 1.0, "without a gradient nothing moves it");
}

#[test]
fn options_that_make_no_descent_are_named() {
    for cfg in [
        SgdConfig { momentum: -0.1, ..SgdConfig::default() },
        SgdConfig { weight_decay: f64::NAN, ..SgdConfig::default() },
        SgdConfig { nesterov: true, ..SgdConfig::default() },
    ] {
        let error = Sgd::new(cfg).unwrap_err().to_string();
        assert!(error.contains("momentum and weight decay of at least 0"), "{error}");
    }
    let error = Sgd::new(SgdConfig::default()).unwrap().with([], f64::INFINITY).unwrap_err().to_string();
    assert!(error.contains("a learning rate of at least 0, got inf"), "{error}");
}
