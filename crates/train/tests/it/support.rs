//! What tests of losses share.

use candle_core::{DType, Device, Result, Tensor, Var};
use zoo_parity::seeded;

/// Values between −3 and 3 that follow from the name, f64.
pub fn drawn(name: &str, shape: &[usize]) -> Tensor {
    let values = seeded::input(name, shape).unwrap();
    let scores = Tensor::from_vec(values, shape, &Device::Cpu).unwrap().to_dtype(DType::F64).unwrap();
    (scores * 3.0).unwrap()
}

pub fn values(tensor: &Tensor) -> Vec<f64> {
    tensor.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

pub fn value(tensor: &Tensor) -> f64 {
    values(tensor)[0]
}

/// Compares the gradient of a loss with finite differences of every score.
pub fn assert_gradient(name: &str, scores: &Tensor, loss: impl Fn(&Tensor) -> Result<Tensor>) {
    const STEP: f64 = 1e-5;
    let var = Var::from_tensor(scores).unwrap();
    let gradients = loss(var.as_tensor()).unwrap().backward().unwrap();
    let got = values(gradients.get(&var).unwrap());
    let at = values(scores);
    for i in 0..at.len() {
        let moved = |by: f64| {
            let mut values = at.clone();
            values[i] += by;
            value(&loss(&Tensor::from_vec(values, scores.shape(), &Device::Cpu).unwrap()).unwrap())
        };
        let slope = (moved(STEP) - moved(-STEP)) / (2.0 * STEP);
        assert!((got[i] - slope).abs() < 1e-8, "{name}, score {i}: gradient {}, differences {slope}", got[i]);
    }
    assert!(got.iter().any(|g| g.abs() > 1e-3), "{name}: a gradient of nothing tells nothing");
}
