//! Nets of all presets: prepared against plain, batches against singles, gradients, what is refused.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use packdet::{BoxUnits, Config, HeadConfig, PackDetNet, Packing, Preset, RawMaps};
use zoo_parity::seeded;

use crate::support::{difference, net, noise, prepared, presets, weights, zeros};

/// All maps, by name.
fn maps(raw: &RawMaps) -> Vec<(String, &Tensor)> {
    let mut all = vec![];
    for (i, map) in raw.maps.iter().enumerate() {
        all.extend([(format!("scores.{i}"), &map.scores), (format!("boxes.{i}"), &map.boxes)]);
        all.extend(map.centerness.as_ref().map(|xs| (format!("centerness.{i}"), xs)));
    }
    all
}

#[test]
fn prepared_nets_do_the_same_on_odd_sizes() {
    for preset in presets() {
        let config = preset.config();
        let xs = noise("odd", &[1, 3, 96, 160]);
        let plain = net(&config).forward(&xs).unwrap();
        let fast = prepared(&config).forward(&xs).unwrap();
        assert_eq!(plain.places, fast.places);
        assert_eq!(plain.maps.len(), plain.places.grids.len());
        for ((name, plain), (_, fast)) in maps(&plain).into_iter().zip(maps(&fast)) {
            let d = difference(fast, plain);
            assert!(d < 1e-3, "{}, {name}: {d}", preset.name());
        }
    }
}

#[test]
fn outputs_have_the_shapes_of_their_places() {
    for preset in presets() {
        let config = preset.config();
        let raw = prepared(&config).forward(&noise("shape", &[1, 3, 64, 96])).unwrap();
        let anchors = if config.head.has_anchors() { packdet::config::ANCHORS } else { 1 };
        for (map, grid) in raw.maps.iter().zip(&raw.places.grids) {
            let (h, w) = (grid.size.height, grid.size.width);
            assert_eq!(map.scores.dims(), [1, anchors * config.classes, h, w], "{}", preset.name());
            assert_eq!(map.boxes.dims(), [1, 4 * anchors, h, w]);
            assert_eq!(
                map.centerness.as_ref().map(|xs| xs.dims()),
                (anchors == 1).then_some(&[1, 1, h, w][..])
            );
        }
    }
}

#[test]
fn a_batch_of_two_is_two_singles_of_equal_size() {
    for preset in [Preset::Mnv2M4, Preset::Mnv2Tiny, Preset::R50M4Nsp, Preset::RetinaPackR50, Preset::FcosR50]
    {
        let net = prepared(&preset.config());
        let singles = ["a", "b"].map(|name| noise(name, &[1, 3, 64, 96]));
        let both = net.forward(&Tensor::cat(&singles, 0).unwrap()).unwrap();
        for (i, single) in singles.iter().enumerate() {
            let single = net.forward(single).unwrap();
            for ((name, both), (_, single)) in maps(&both).into_iter().zip(maps(&single)) {
                let d = difference(&both.narrow(0, i, 1).unwrap(), single);
                assert!(d < 2e-4, "{}, {name} of image {i}: {d}", preset.name());
            }
        }
    }
}

#[test]
fn distances_are_told_in_strides_too() {
    for preset in [Preset::Mnv2Tiny, Preset::Mnv2M4] {
        let (net, xs) = (prepared(&preset.config()), noise("units", &[1, 3, 64, 64]));
        let pixels = net.forward(&xs).unwrap();
        let strides = net.forward_probed(&xs, BoxUnits::Strides, &mut |_, _| Ok(())).unwrap();
        let grid = &pixels.places.grids[0];
        let factor: Vec<f32> = grid.cells.iter().map(|cell| cell.stride()).collect();
        let factor =
            Tensor::from_vec(factor, (1, 1, grid.size.height, grid.size.width), &Device::Cpu).unwrap();
        let scaled = strides.maps[0].boxes.broadcast_mul(&factor).unwrap();
        assert!(difference(&scaled, &pixels.maps[0].boxes) < 1e-6, "{}", preset.name());
    }
}

/// Gives every variable its seeded value.
fn seed(vars: &VarMap) {
    for (name, var) in vars.data().lock().unwrap().iter() {
        let gain = if var.rank() >= 2 { 0.75 } else { 1.0 };
        let values = seeded::value(name, var.dims()).unwrap();
        let values = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
        var.set(&(values * gain).unwrap()).unwrap();
    }
}

#[test]
fn gradients_reach_every_weight_that_is_learned() {
    let cross_head = {
        let mut config = Preset::Mnv2Tiny.config();
        if let HeadConfig::PackDet { long, .. } = &mut config.head {
            long.packing = Packing::CrossHead;
        }
        config
    };
    let deformable = {
        let mut config = Preset::Mnv2Tiny.config();
        if let HeadConfig::PackDet { points, .. } = &mut config.head {
            points.deformable = true;
        }
        config
    };
    let mut retinapack = Preset::RetinaPackR50.config();
    retinapack.backbone = Preset::Mnv2Tiny.config().backbone;
    for config in [Preset::Mnv2M4.config(), cross_head, deformable, retinapack, Preset::FcosMnv2.config()] {
        let vars = VarMap::new();
        let net = PackDetNet::new(&config, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
        seed(&vars);
        let raw = net.forward(&noise("learn", &[1, 3, 64, 96])).unwrap();
        let sum = |xs: &Tensor| (xs * noise("direction", xs.dims())).unwrap().sum_all().unwrap();
        let loss = maps(&raw).into_iter().map(|(_, xs)| sum(xs)).reduce(|a, b| (a + b).unwrap()).unwrap();
        let grads = loss.backward().unwrap();
        let mut missing = vec![];
        for (name, var) in vars.data().lock().unwrap().iter() {
            let is_learned = !name.contains("running_");
            let largest = grads.get(var).map_or(0.0, |grad| difference(grad, &grad.zeros_like().unwrap()));
            // Relative to nothing, the difference is the largest value over 1e-12.
            if is_learned && largest == 0.0 {
                missing.push(name.clone());
            }
        }
        assert!(missing.is_empty(), "{:?}: {missing:?}", config.head);
    }
}

#[test]
fn inputs_that_do_not_fit_are_refused_before_anything_runs() {
    for (preset, size, expected) in [
        (
            Preset::Mnv2Tiny,
            [32, 64],
            "32×64 does not fit: both sides must be multiples of 32 and at least 64",
        ),
        (Preset::Mnv2Tiny, [96, 100], "pad it to 96×128"),
        (Preset::FcosMnv2, [40, 32], "multiples of 32 and at least 32: pad it to 64×32"),
    ] {
        let net = PackDetNet::new(&preset.config(), zeros()).unwrap();
        let mut seen = 0;
        let error =
            net.forward_probed(&noise("x", &[1, 3, size[0], size[1]]), BoxUnits::Pixels, &mut |_, _| {
                seen += 1;
                Ok(())
            });
        let error = error.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(seen, 0);
    }
}

#[test]
fn a_missing_tensor_is_named() {
    let config = Preset::Mnv2Tiny.config();
    let vars = VarMap::new();
    PackDetNet::new(&config, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
    let names: Vec<String> = vars.data().lock().unwrap().keys().cloned().collect();
    assert!(names.len() > 200);
    for gone in ["rpn.head.predictor.scale_layer.scales", "rpn.head.fe.conv_blocks.3.gn.weight"] {
        let all = vars.data().lock().unwrap();
        let left = all.iter().filter(|(name, _)| *name != gone);
        let left = left.map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
        let vb = VarBuilder::from_tensors(left, DType::F32, &Device::Cpu);
        let error = PackDetNet::new(&config, vb).unwrap_err().to_string();
        assert!(error.contains(gone), "{error}");
    }
}

/// torchvision's published files were written before its names became what they are now.
#[test]
fn torchvisions_older_names_serve_as_well() {
    let old = |name: &str| {
        let mut name = name.to_owned();
        for block in ["inner_blocks", "layer_blocks"] {
            for level in 0..3 {
                name = name.replace(&format!("{block}.{level}.0."), &format!("{block}.{level}."));
            }
        }
        // From the front: what was renamed must not look like a later one.
        for conv in 0..4 {
            let new = format!("_head.conv.{conv}.0.");
            if name.contains(&new) {
                return name.replace(&new, &format!("_head.conv.{}.", 2 * conv));
            }
        }
        name
    };
    let (config, vars) = (Preset::RetinaNetR50Torchvision.config(), VarMap::new());
    let net = PackDetNet::new(&config, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
    seed(&vars);
    let all = vars.data().lock().unwrap();
    let renamed = all.iter().map(|(name, var)| (old(name), var.as_detached_tensor())).collect();
    let other =
        PackDetNet::new(&config, VarBuilder::from_tensors(renamed, DType::F32, &Device::Cpu)).unwrap();
    let xs = noise("names", &[1, 3, 64, 64]);
    let (a, b) = (net.forward(&xs).unwrap(), other.forward(&xs).unwrap());
    for ((name, a), (_, b)) in maps(&a).into_iter().zip(maps(&b)) {
        assert_eq!(difference(a, b), 0.0, "{name}");
    }
}

#[test]
fn one_net_serves_inputs_of_many_sizes_and_threads() {
    let net = prepared(&Preset::Mnv2Tiny.config());
    let inputs = [[64, 64], [96, 64], [64, 96]].map(|[h, w]| noise("sizes", &[1, 3, h, w]));
    let alone = inputs.each_ref().map(|xs| net.forward(xs).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                for (xs, alone) in inputs.iter().zip(&alone) {
                    let again = net.forward(xs).unwrap();
                    for ((name, a), (_, b)) in maps(&again).into_iter().zip(maps(alone)) {
                        assert!(difference(a, b) < 1e-6, "{name}");
                    }
                }
            });
        }
    });
}

#[test]
fn all_presets_build_from_weights_of_any_name() {
    for preset in Preset::ALL {
        let config: Config = preset.into();
        assert_eq!(PackDetNet::new(&config, weights()).unwrap().config(), &config);
    }
}
