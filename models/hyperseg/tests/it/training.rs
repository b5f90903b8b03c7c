//! Before it is prepared a net trains: every weight gets a gradient.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use hyperseg::{HyperSegNet, Preset};
use zoo_layers::Statistics;

use crate::support::{noise, small, value};

#[test]
fn every_weight_that_has_an_effect_gets_a_gradient() {
    for preset in [Preset::VocL, Preset::CityscapesS, Preset::CamvidS] {
        let cfg = small(preset);
        let vars = VarMap::new();
        let mut net =
            HyperSegNet::new(&cfg, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
        for (name, var) in vars.data().lock().unwrap().iter() {
            var.set(&Tensor::from_vec(value(name, var.dims()), var.dims(), &Device::Cpu).unwrap()).unwrap();
        }
        let mean = |name: &str| {
            let data = vars.data().lock().unwrap();
            data[name].as_detached_tensor().flatten_all().unwrap().to_vec1::<f32>().unwrap()
        };
        let running = "backbone._bn1.running_mean";
        let before = mean(running);
        net.set_statistics(Statistics::Batch { momentum: 0.1 });
        let loss = net.forward(&noise(2, 128, 128)).unwrap().sqr().unwrap().mean_all().unwrap();
        let grads = loss.backward().unwrap();
        let mut without: Vec<String> = Vec::new();
        for (name, var) in vars.data().lock().unwrap().iter() {
            let is_statistic = name.contains("running_");
            let size = grads.get(var.as_tensor()).map(|grad| {
                assert_eq!(grad.dims(), var.dims(), "{name}");
                grad.sqr().unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap()
            });
            assert!(size.is_none_or(f32::is_finite), "{name}: {size:?}");
            if !is_statistic && size.is_none_or(|size| size == 0.0) {
                without.push(name.clone());
            }
        }
        // CamVid's levels all read the first half of the signal.
        without.retain(|name| {
            preset != Preset::CamvidS || !name.contains("down_blocks") && !name.contains("up_blocks")
        });
        assert!(without.is_empty(), "{}: {without:?}", preset.name());
        assert_ne!(mean(running), before, "{}", preset.name());
    }
}
