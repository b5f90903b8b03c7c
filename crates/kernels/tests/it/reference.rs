//! What references are written with: maps of f64, and gradients by finite differences.

use candle_core::{DType, Device, Tensor, Var};

use crate::support::noise;

/// A tensor's values in f64, with its shape.
pub struct Values {
    pub dims: Vec<usize>,
    pub values: Vec<f64>,
}

impl Values {
    pub fn of(xs: &Tensor) -> Self {
        let values = xs.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
        Self { dims: xs.dims().to_vec(), values }
    }

    pub fn at(&self, index: [usize; 4]) -> f64 {
        self.values[index.iter().zip(&self.dims).fold(0, |at, (i, n)| at * n + i)]
    }

    /// The value at a place of a map, `outside` beyond its border.
    pub fn at_or(&self, image: usize, channel: usize, y: isize, x: isize, outside: f64) -> f64 {
        let (h, w) = (self.dims[2] as isize, self.dims[3] as isize);
        if (0..h).contains(&y) && (0..w).contains(&x) {
            self.at([image, channel, y as usize, x as usize])
        } else {
            outside
        }
    }
}

/// A map whose values are `value(image, channel, row, column)`.
pub fn map(dims: [usize; 4], mut value: impl FnMut(usize, usize, usize, usize) -> f64) -> Tensor {
    let [b, c, h, w] = dims;
    let mut values = Vec::new();
    for image in 0..b {
        for channel in 0..c {
            for y in 0..h {
                values.extend((0..w).map(|x| value(image, channel, y, x)));
            }
        }
    }
    Tensor::from_vec(values, &dims, &Device::Cpu).unwrap()
}

/// The map in both orders of memory, and as a part of a larger one.
pub fn layouts(xs: &Tensor) -> [Tensor; 3] {
    let last = xs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    let wider = xs.pad_with_same(3, 1, 2).unwrap().narrow(3, 1, xs.dim(3).unwrap()).unwrap();
    [xs.clone(), last.permute((0, 3, 1, 2)).unwrap(), wider]
}

/// Compares the gradients of `f` to f64 `inputs` with finite differences, under a fixed random
/// weighting of the result, so that nothing cancels. Some forty values of each input are tried.
pub fn assert_gradients(name: &str, inputs: &[&Tensor], f: impl Fn(&[Tensor]) -> Tensor) {
    let loss = |inputs: &[Tensor]| {
        let ys = f(inputs);
        (&ys * noise(6, ys.dims(), DType::F64)).unwrap().sum_all().unwrap()
    };
    let vars: Vec<Var> = inputs.iter().map(|xs| Var::from_tensor(xs).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let grads = loss(&tracked).backward().unwrap();
    for (i, input) in inputs.iter().enumerate() {
        let grad = Values::of(grads.get(&tracked[i]).unwrap()).values;
        let values = Values::of(input).values;
        let step = 1e-6;
        for at in (0..values.len()).step_by(values.len().div_ceil(40)) {
            let shifted = |by: f64| -> f64 {
                let mut values = values.clone();
                values[at] += by;
                let mut inputs: Vec<Tensor> = inputs.iter().map(|&xs| xs.clone()).collect();
                inputs[i] = Tensor::from_vec(values, input.dims(), &Device::Cpu).unwrap();
                loss(&inputs).to_scalar().unwrap()
            };
            let want = (shifted(step) - shifted(-step)) / (2.0 * step);
            assert!(
                (grad[at] - want).abs() < 1e-6 * want.abs().max(1.0),
                "{name}, input {i} at {at}: got {}, want {want}",
                grad[at]
            );
        }
    }
}
