//! Seeded nets and images.

use std::collections::{BTreeMap, HashMap};

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use hyperseg::{BackboneName, Config, HyperSegNet, Preset};
use zoo_parity::seeded;

/// Names and shapes of a net's tensors.
pub fn state(cfg: &Config) -> BTreeMap<String, Vec<usize>> {
    let vars = VarMap::new();
    HyperSegNet::new(cfg, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
    let data = vars.data().lock().unwrap();
    data.iter().map(|(name, var)| (name.clone(), var.dims().to_vec())).collect()
}

/// Seeded values, but dynamic weights three hundredths of them: else what is dynamic multiplies rounding a thousandfold,
/// and no two ways of computing the same agree.
pub fn value(name: &str, shape: &[usize]) -> Vec<f32> {
    let is_mapping = name.contains("signal2weights") || name.contains("out_conv");
    let factor = if is_mapping { 0.03 } else { 1.0 };
    seeded::value(name, shape).unwrap().iter().map(|v| v * factor).collect()
}

/// All [`value`]s of a net.
pub fn tensors(cfg: &Config) -> HashMap<String, Tensor> {
    let tensors = state(cfg).into_iter().map(|(name, shape)| {
        let tensor = Tensor::from_vec(value(&name, &shape), shape, &Device::Cpu).unwrap();
        (name, tensor)
    });
    tensors.collect()
}

/// As the nets take them.
pub fn weights(tensors: HashMap<String, Tensor>) -> VarBuilder<'static> {
    VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu)
}

/// A net with [`value`]s.
pub fn net(cfg: &Config) -> HyperSegNet {
    HyperSegNet::new(cfg, weights(tensors(cfg))).unwrap()
}

/// A preset on the smallest backbone.
pub fn small(preset: Preset) -> Config {
    Config { backbone: BackboneName::EfficientnetLite0, ..preset.config() }
}

/// Images of seeded noise.
pub fn noise(batch: usize, height: usize, width: usize) -> Tensor {
    let shape = [batch, 3, height, width];
    let values = seeded::input(&format!("noise.{batch}.{height}.{width}"), &shape).unwrap();
    Tensor::from_vec(values, &shape[..], &Device::Cpu).unwrap()
}

/// Largest |a − b| over largest |b|.
pub fn difference(a: &Tensor, b: &Tensor) -> f32 {
    assert_eq!(a.dims(), b.dims());
    let largest =
        |xs: &Tensor| xs.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f32>().unwrap();
    largest(&(a - b).unwrap()) / largest(b)
}

pub fn values(xs: &Tensor) -> Vec<f32> {
    xs.flatten_all().unwrap().to_vec1().unwrap()
}
