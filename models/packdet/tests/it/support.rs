//! Seeded nets and inputs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
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

/// Presets that build different nets.
pub fn presets() -> Vec<Preset> {
    let mut found: Vec<Preset> = vec![];
    for preset in Preset::ALL {
        if found.iter().all(|known| known.config() != preset.config()) {
            found.push(preset);
        }
    }
    found
}

/// Names and shapes of what a net asks for, batch norms' counters aside.
pub fn asked(config: &Config) -> BTreeMap<String, Vec<usize>> {
    let asked = Asked::default();
    let vb = VarBuilder::from_backend(Box::new(asked.clone()), DType::F32, Device::Cpu);
    PackDetNet::new(config, vb).unwrap();
    asked.0.lock().unwrap().clone()
}

#[derive(Clone, Default)]
struct Asked(Arc<Mutex<BTreeMap<String, Vec<usize>>>>);

impl SimpleBackend for Asked {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let twice = self.0.lock().unwrap().insert(name.to_owned(), shape.dims().to_vec());
        assert!(twice.is_none(), "{name} is asked for twice");
        Tensor::zeros(shape, dtype, device)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: asked for without a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
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
