use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder, VarMap};
use serde::Deserialize;
use zoo_parity::seeded;

/// Seeded weights in `dtype`, and the names and shapes that were asked for.
pub fn recorded(dtype: DType) -> (Asked, VarBuilder<'static>) {
    let asked = Asked::default();
    let vb = VarBuilder::from_backend(Box::new(asked.clone()), dtype, Device::Cpu);
    (asked, vb)
}

/// Seeded weights.
pub fn weights() -> VarBuilder<'static> {
    recorded(DType::F32).1
}

/// Name and shape.
type Request = (String, Vec<usize>);

/// What a net asked for, in its order.
#[derive(Clone, Default)]
pub struct Asked(Arc<Mutex<Vec<Request>>>);

impl Asked {
    /// A line for each tensor, one for the four of a batch norm: `NAME SHAPE`, sorted.
    pub fn lines(&self) -> Vec<String> {
        let asked = self.0.lock().unwrap();
        let is_norm = |module: &str| asked.iter().any(|(n, _)| *n == format!("{module}.running_var"));
        let mut lines: Vec<String> = asked
            .iter()
            .filter_map(|(name, shape)| {
                let (module, entry) = name.rsplit_once('.').unwrap_or(("", name));
                let shape = shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
                match entry {
                    "running_var" => Some(format!("{module}.* {shape}")),
                    _ if is_norm(module) => None,
                    _ => Some(format!("{name} {shape}")),
                }
            })
            .collect();
        lines.sort();
        lines
    }
}

impl SimpleBackend for Asked {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        self.0.lock().unwrap().push((name.to_owned(), shape.dims().to_vec()));
        let values = seeded::value(name, shape.dims()).map_err(candle_core::Error::wrap)?;
        Tensor::from_vec(values, shape, device)?.to_dtype(dtype)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: asked for without a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Of the largest value: the outputs of other projects, which add in another order.
pub const TOLERANCE: f64 = 1e-4;

/// What came out of another project's net.
#[derive(Deserialize)]
pub struct Output {
    shape: Vec<usize>,
    /// Mean, standard deviation, largest absolute value.
    stats: [f64; 3],
    stride: usize,
    values: Vec<f64>,
}

/// A module of another project, with seeded weights and seeded inputs.
#[derive(Deserialize)]
pub struct Golden {
    name: String,
    tensors: Vec<String>,
    pub params: u64,
    pub macs: u64,
    pub outputs: Vec<Output>,
}

impl Golden {
    /// The module of that name.
    pub fn of(name: &str) -> Self {
        let modules: Vec<Self> = serde_json::from_str(include_str!("../fixtures/modules.json")).unwrap();
        modules.into_iter().find(|module| module.name == name).unwrap()
    }

    /// A line for each tensor, sorted.
    pub fn tensors(&self) -> Vec<String> {
        let mut lines = self.tensors.clone();
        lines.sort();
        lines
    }
}

impl Output {
    /// Compares `got` with what is kept.
    pub fn check(&self, what: &str, got: &Tensor) {
        assert_eq!(got.dims(), self.shape, "{what}");
        let [mean, _, largest] = self.stats;
        let got = got.flatten_all().unwrap().to_dtype(DType::F64).unwrap();
        let mean = (got.mean_all().unwrap().to_scalar::<f64>().unwrap() - mean).abs() / largest;
        assert!(mean < TOLERANCE, "{what}: mean is off by {mean:.1e} of the largest value");
        let got = got.to_vec1::<f64>().unwrap();
        for (i, (got, want)) in got.iter().step_by(self.stride).zip(&self.values).enumerate() {
            let difference = (got - want).abs() / largest;
            assert!(difference < TOLERANCE, "{what}, value {i}: got {got}, want {want}");
        }
    }
}

/// A seeded input.
pub fn input(shape: [usize; 4]) -> Tensor {
    named_input("input", &shape)
}

/// The seeded input of that name.
pub fn named_input(name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_vec(seeded::input(name, shape).unwrap(), shape, &Device::Cpu).unwrap()
}

/// The largest difference of two tensors over the second's largest absolute value.
pub fn relative_difference(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let largest = |t: Tensor| t.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap();
    let largest = |t: Tensor| largest(t).to_scalar::<f64>().unwrap();
    let difference = largest((got - want).unwrap()) / largest(want.clone());
    if difference.is_nan() { f64::INFINITY } else { difference }
}

/// Gives every variable of `map` its seeded value.
pub fn seed(map: &VarMap) {
    for (name, var) in map.data().lock().unwrap().iter() {
        let values = seeded::value(name, var.dims()).unwrap();
        let values = Tensor::from_vec(values, var.shape(), &Device::Cpu).unwrap();
        var.set(&values.to_dtype(var.dtype()).unwrap()).unwrap();
    }
}

/// Compares the gradients of `loss` to the variables of `map` whose names begin with `prefix`, which are
/// f64, with difference quotients: for each variable along one direction.
pub fn check_gradients(map: &VarMap, prefix: &str, loss: &dyn Fn() -> Tensor) {
    const STEP: f64 = 1e-5;
    let gradients = loss().backward().unwrap();
    for (name, var) in map.data().lock().unwrap().iter().filter(|(name, _)| name.starts_with(prefix)) {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
        let values = var.as_tensor().copy().unwrap();
        let direction = named_input(name, var.dims()).to_dtype(DType::F64).unwrap();
        let loss_at = |step: f64| {
            var.set(&(&values + (&direction * step).unwrap()).unwrap()).unwrap();
            loss().to_scalar::<f64>().unwrap()
        };
        let quotient = (loss_at(STEP) - loss_at(-STEP)) / (2.0 * STEP);
        var.set(&values).unwrap();
        let sum = |xs: Tensor| xs.sum_all().unwrap().to_scalar::<f64>().unwrap();
        let along = sum((gradient * &direction).unwrap());
        let norm = sum(gradient.sqr().unwrap()).sqrt();
        assert!(norm > 0.0, "{name}: its gradient is 0");
        assert!((along - quotient).abs() < 1e-6 * norm, "{name}: got {along}, want {quotient}");
    }
}
