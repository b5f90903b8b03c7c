use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
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
                let (module, entry) = name.rsplit_once('.').unwrap();
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

/// A seeded input.
pub fn input(shape: [usize; 4]) -> Tensor {
    Tensor::from_vec(seeded::input("input", &shape).unwrap(), &shape, &Device::Cpu).unwrap()
}

/// The largest difference of two tensors over the second's largest absolute value.
pub fn relative_difference(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.dims(), want.dims());
    let largest = |t: Tensor| t.abs().unwrap().max_all().unwrap().to_dtype(DType::F64).unwrap();
    let largest = |t: Tensor| largest(t).to_scalar::<f64>().unwrap();
    let difference = largest((got - want).unwrap()) / largest(want.clone());
    if difference.is_nan() { f64::INFINITY } else { difference }
}
