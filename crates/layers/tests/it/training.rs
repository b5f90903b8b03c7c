//! Nets before `prepare`: gradients on our kernels against candle's in f64, norms by the batch.

use std::sync::{Arc, Mutex};

use candle_core::{DType, Device, Result, Shape, Tensor, Var};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, ModuleT, VarBuilder};
use zoo_kernels::Activation;
use zoo_layers::{
    Architecture, Classifier, ConvNormAct, ConvSpec, EfficientNetConfig, MobileNetV2Config, ResNetConfig,
    Statistics,
};
use zoo_parity::seeded;

use crate::support::{input, relative_difference};

const BATCH: Statistics = Statistics::Batch { momentum: 0.1 };

/// Seeded weights as variables, by name.
#[derive(Clone, Default)]
struct Trained(Arc<Mutex<Vec<(String, Var)>>>);

impl Trained {
    fn vb(&self, dtype: DType) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), dtype, Device::Cpu)
    }

    fn var(&self, name: &str) -> Var {
        self.0.lock().unwrap().iter().find(|(n, _)| n == name).unwrap().1.clone()
    }
}

impl SimpleBackend for Trained {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let values = seeded::value(name, shape.dims()).map_err(candle_core::Error::wrap)?;
        let var = Var::from_tensor(&Tensor::from_vec(values, shape, device)?.to_dtype(dtype)?)?;
        self.0.lock().unwrap().push((name.to_owned(), var.clone()));
        Ok(var.as_tensor().clone())
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> Result<Tensor> {
        candle_core::bail!("{name}: asked for without a shape")
    }

    fn contains_tensor(&self, _: &str) -> bool {
        true
    }
}

/// Logits of a net in `dtype`, and the gradients of their mean square: of all weights, by name.
fn step(architecture: Architecture, statistics: Statistics, dtype: DType) -> (Tensor, Vec<(String, Tensor)>) {
    let weights = Trained::default();
    let mut net = Classifier::new(architecture, 7, weights.vb(dtype)).unwrap();
    net.set_statistics(statistics);
    let logits = net.forward(&input([4, 3, 64, 64]).to_dtype(dtype).unwrap()).unwrap();
    let grads = logits.sqr().unwrap().mean_all().unwrap().backward().unwrap();
    let vars = weights.0.lock().unwrap();
    let grads = vars
        .iter()
        .filter(|(name, _)| !name.contains("running"))
        .map(|(name, var)| (name.clone(), grads.get(var).unwrap().to_dtype(DType::F64).unwrap()))
        .collect();
    (logits.to_dtype(DType::F64).unwrap(), grads)
}

fn norm(t: &Tensor) -> f64 {
    t.sqr().unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap().sqrt()
}

#[test]
fn gradients_of_whole_nets_are_those_of_candles_operations_in_f64() {
    // A value that rounding moves across the corner of a ReLU takes its gradient with it: the
    // narrow bound is for nets without corners.
    const SMOOTH: f64 = 1e-3;
    const WITH_CORNERS: f64 = 0.2;
    for (architecture, tolerance) in [
        (Architecture::EfficientNet(EfficientNetConfig::b0()), SMOOTH),
        (Architecture::ResNet(ResNetConfig::resnet18()), WITH_CORNERS),
        (Architecture::MobileNetV2(MobileNetV2Config::default()), WITH_CORNERS),
    ] {
        for statistics in [Statistics::Stored, BATCH] {
            let (logits, grads) = step(architecture, statistics, DType::F32);
            let (want, exact) = step(architecture, statistics, DType::F64);
            let difference = relative_difference(&logits, &want);
            assert!(
                difference < 1e-4,
                "{architecture:?}, {statistics:?}: logits are off by {difference:.1e}"
            );
            // A shift before a norm by the batch has no effect, and a gradient of rounding errors.
            let least = exact.iter().map(|(_, grad)| norm(grad)).fold(0.0, f64::max) * 1e-3;
            for ((name, got), (_, want)) in grads.iter().zip(&exact) {
                let distance = norm(&(got - want).unwrap()) / norm(want).max(least);
                assert!(
                    distance < tolerance,
                    "{architecture:?}, {statistics:?}: {name} is off by {distance:.1e}"
                );
            }
        }
    }
}

#[test]
fn norms_by_the_batch_are_candle_nns_and_their_statistics_follow() {
    let spec = ConvSpec::dense3(8, 12, 2, 1e-3, Activation::Relu);
    let (ours, theirs) = (Trained::default(), Trained::default());
    let vb = ours.vb(DType::F32);
    let mut conv = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
    conv.set_statistics(BATCH);
    let vb = theirs.vb(DType::F32);
    let filter = vb.get((12, 8, 3, 3), "conv.weight").unwrap();
    let norm = candle_nn::batch_norm(12, 1e-3, vb.pp("norm")).unwrap();
    for step in 0..3 {
        let xs = (input([3, 8, 10, 10]) * f64::from(step + 1)).unwrap();
        let got = conv.forward(&xs).unwrap();
        let want = norm.forward_t(&xs.conv2d(&filter, 1, 2, 1, 1).unwrap(), true).unwrap().relu().unwrap();
        assert!(relative_difference(&got, &want) < 1e-5, "step {step}");
        let direction = input([3, 12, 5, 5]);
        let backward = |ys: &Tensor| (ys * &direction).unwrap().sum_all().unwrap().backward().unwrap();
        let (got, want) = (backward(&got), backward(&want));
        for name in ["conv.weight", "norm.weight", "norm.bias"] {
            let (got, want) = (got.get(&ours.var(name)).unwrap(), want.get(&theirs.var(name)).unwrap());
            assert!(relative_difference(got, want) < 1e-4, "step {step}: {name}");
        }
        for (name, want) in [("running_mean", norm.running_mean()), ("running_var", norm.running_var())] {
            let got = ours.var(&format!("norm.{name}"));
            assert!(relative_difference(&got, want) < 1e-5, "step {step}: {name}");
        }
    }
}

#[test]
fn stored_statistics_stay_and_are_what_is_folded() {
    let weights = Trained::default();
    let vb = weights.vb(DType::F32);
    let spec = ConvSpec::depthwise3(8, 1, 1e-3, Activation::Relu6);
    let mut conv = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
    let xs = input([2, 8, 7, 5]);
    let mean = || weights.var("norm.running_mean").copy().unwrap();
    let before = mean();
    conv.forward(&xs).unwrap();
    assert_eq!(relative_difference(&mean(), &before), 0.0, "stored statistics are not moved");
    conv.set_statistics(BATCH);
    conv.forward(&xs).unwrap();
    assert!(relative_difference(&mean(), &before) > 1e-3, "the batch moves them");
    conv.set_statistics(Statistics::Stored);
    let want = conv.forward(&xs).unwrap();
    conv.prepare().unwrap();
    assert!(relative_difference(&conv.forward(&xs).unwrap(), &want) < 1e-5);
}

#[test]
fn one_value_a_channel_has_no_variance() {
    let vb = Trained::default().vb(DType::F32);
    let spec = ConvSpec::pointwise(4, 4, 1e-3, Activation::None);
    let mut conv = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
    conv.set_statistics(BATCH);
    let error = conv.forward(&input([1, 4, 1, 1])).unwrap_err().to_string();
    assert!(error.contains("a batch of one value a channel has no variance"), "{error}");
}
