//! Seeded nets and inputs.

use candle_core::{DType, Device, Tensor};
use candle_nn::VarBuilder;
use packdet::{Config, PackDetNet, Preset};
use zoo_parity::{Gain, seeded};

/// Deep nets with frozen norms explode without.
const GAIN: f32 = 0.75;

/// Seeded weights for whatever is asked for.
pub fn weights() -> VarBuilder<'static> {
    seeded::var_builder_with_gain(vec![Gain::MinDims(2, GAIN)], DType::F32, &Device::Cpu)
}

pub fn zeros() -> VarBuilder<'static> {
    VarBuilder::zeros(DType::F32, &Device::Cpu)
}

pub fn net(config: &Config) -> PackDetNet {
    PackDetNet::new(config, weights()).unwrap()
}

pub fn prepared(config: &Config) -> PackDetNet {
    let mut net = net(config);
    net.prepare().unwrap();
    net
}

/// Presets that build different nets, those of the largest backbones aside.
pub fn presets() -> impl Iterator<Item = Preset> {
    let large = |preset: &Preset| preset.name().contains("101") || preset.name().ends_with("-2x");
    Preset::ALL.into_iter().filter(move |preset| !large(preset))
}

/// Seeded noise between −1 and 1.
pub fn noise(name: &str, shape: &[usize]) -> Tensor {
    Tensor::from_vec(seeded::input(name, shape).unwrap(), shape, &Device::Cpu).unwrap()
}

/// Largest |a − b| over largest |b|.
pub fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let values = |xs: &Tensor| xs.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let largest = |xs: &Tensor| values(&xs.abs().unwrap()).into_iter().fold(0.0, f32::max);
    largest(&(a - b).unwrap()) / largest(b).max(1e-12)
}
