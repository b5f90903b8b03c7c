//! Seeded nets and frames.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{VarBuilder, VarMap};
use gsvnet_seg::{FrameSize, GsvNet, PropagationConfig, Schedule, ScoreNet};
use zoo_core::Tally;
use zoo_kernels::{Pool, avg_pool2d};
use zoo_parity::seeded;

/// A net for key frames that is nothing but means of colour times seeded weights.
#[derive(Debug, Clone)]
pub struct Colors {
    weights: Tensor,
}

impl Colors {
    pub fn new(classes: usize) -> Self {
        Self { weights: (noise("colors", &[classes, 3, 1, 1]) * 20.0).unwrap() }
    }

    /// Makes its scores no numbers.
    pub fn spoil(&mut self) {
        self.weights = (&self.weights * f64::NAN).unwrap();
    }
}

impl ScoreNet for Colors {
    fn classes(&self) -> usize {
        self.weights.dims()[0]
    }

    fn check_input(&self, size: FrameSize) -> Result<()> {
        if size.height.min(size.width) < 4 {
            candle_core::bail!("colors: images of {size} are too small")
        }
        Ok(())
    }

    fn scores(&self, xs: &Tensor) -> Result<Tensor> {
        avg_pool2d(xs, Pool::square(4, 4, 0), true)?.contiguous()?.conv2d(&self.weights, 0, 1, 1, 1)
    }

    fn tally(&self, _: FrameSize, _: &mut Tally) {}
}

/// Seeded weights for whatever is asked for.
pub fn weights() -> VarBuilder<'static> {
    seeded::var_builder(None, DType::F32, &Device::Cpu)
}

pub fn net(classes: usize, cfg: &PropagationConfig, schedule: Schedule) -> GsvNet<Colors> {
    GsvNet::around(Colors::new(classes), cfg, schedule, weights()).unwrap()
}

/// Gives every variable of `vars` its seeded value.
pub fn seed(vars: &VarMap) {
    for (name, var) in vars.data().lock().unwrap().iter() {
        let values = seeded::value(name, var.dims()).unwrap();
        var.set(&Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap()).unwrap();
    }
}

/// Seeded noise between −1 and 1.
pub fn noise(name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_vec(seeded::input(name, shape).unwrap(), shape, &Device::Cpu).unwrap()
}

/// A frame of a video: large blobs that drift, and a little noise.
pub fn frame(index: usize, size: FrameSize) -> Tensor {
    let FrameSize { height: h, width: w } = size;
    let value = |channel: usize, y: usize, x: usize| {
        let (y, x) = (y as f32 / 17.0, (x + 3 * index) as f32 / 23.0);
        (y + channel as f32).sin() + (x * (1.0 + 0.2 * channel as f32)).cos()
    };
    let values: Vec<f32> = (0..3)
        .flat_map(|channel| (0..h).flat_map(move |y| (0..w).map(move |x| (channel, y, x))))
        .map(|(channel, y, x)| value(channel, y, x))
        .collect();
    let blobs = Tensor::from_vec(values, (1, 3, h, w), &Device::Cpu).unwrap();
    (blobs + (noise(&format!("frame.{index}"), &[1, 3, h, w]) * 0.1).unwrap()).unwrap()
}

pub fn values(xs: &Tensor) -> Vec<f32> {
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

/// Largest |a − b| over largest |b|.
pub fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let largest = |xs: &Tensor| values(&xs.abs().unwrap()).into_iter().fold(0.0, f32::max);
    largest(&(a - b).unwrap()) / largest(b).max(1e-12)
}
