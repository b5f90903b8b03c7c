//! Before it is prepared a net trains: every weight gets a gradient.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use hyperseg::{BackboneName, DropRates, HyperSegNet, Preset};
use zoo_layers::Statistics;

use crate::support::{net, noise, small, value, values};

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

#[test]
fn training_drops_in_the_backbone_and_inference_does_not() {
    let cfg = small(Preset::CamvidS);
    let xs = noise(1, 64, 64);
    let logits = |net: &HyperSegNet| values(&net.forward(&xs).unwrap());
    let mut training = net(&cfg);
    let whole = logits(&training);
    for rates in [
        DropRates { drop_connect: 0.0, dropout: 0.3 },
        DropRates { drop_connect: 0.9, dropout: 0.0 },
        BackboneName::EfficientnetB3.drop_rates(),
    ] {
        training.set_drop_rates(rates);
        // One pass in a hundred may drop nothing.
        let differs = (0..8).any(|_| logits(&training) != whole);
        assert!(differs, "{rates:?}");
    }
    training.set_drop_rates(DropRates::default());
    assert_eq!(logits(&training), whole, "off again");

    let mut prepared = net(&cfg);
    prepared.prepare().unwrap();
    training.set_drop_rates(BackboneName::EfficientnetB1.drop_rates());
    training.prepare().unwrap();
    assert_eq!(logits(&training), logits(&prepared));
    training.set_drop_rates(BackboneName::EfficientnetB1.drop_rates());
    assert_eq!(logits(&training), logits(&prepared), "a prepared net does not train");
}

/// Dropped values are made up for: the mean over many passes is the last map itself.
#[test]
fn dropout_keeps_the_expected_last_map() {
    let mut net = net(&small(Preset::CamvidS));
    let xs = noise(1, 64, 64);
    let last_map = |net: &HyperSegNet| {
        let mut last = None;
        net.forward_probed(&xs, &mut |name, map| {
            if name == "feature.5" {
                last = Some(values(map));
            }
            Ok(())
        })
        .unwrap();
        last.unwrap()
    };
    let whole = last_map(&net);
    net.set_drop_rates(DropRates { drop_connect: 0.0, dropout: 0.2 });
    let dropped = last_map(&net);
    let mut zeros = 0;
    for (value, whole) in dropped.iter().zip(&whole) {
        let scaled = whole / 0.8;
        assert!(*value == 0.0 || (value - scaled).abs() <= 1e-5 * scaled.abs(), "{value} of {whole}");
        zeros += usize::from(*value == 0.0 && *whole != 0.0);
    }
    let nonzero = whole.iter().filter(|value| **value != 0.0).count();
    let share = zeros as f64 / nonzero as f64;
    // Eight standard deviations.
    let tolerance = 8.0 * (0.2 * 0.8 / nonzero as f64).sqrt();
    assert!((share - 0.2).abs() < tolerance, "{zeros} of {nonzero}");
}
