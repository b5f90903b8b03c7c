//! What the golden files do not show: the other presets, batches, sizes, the ablations, and that a
//! prepared net does what the plain one does.

use candle_core::Tensor;
use hyperseg::{BackboneName, Config, DeadHead, HyperSegNet, Preset, Version};

use crate::support::{difference, net, noise, small, state, values};

/// Folding and packing round: the references of the golden files differ from f64 runs as much.
const ROUNDING: f32 = 1e-4;

fn prepared(cfg: &Config) -> HyperSegNet {
    let mut net = net(cfg);
    net.prepare().unwrap();
    net
}

#[test]
fn prepared_nets_do_what_plain_ones_do() {
    for preset in Preset::ALL {
        let (cfg, xs) = (preset.config(), noise(1, 128, 256));
        let plain = net(&cfg).forward(&xs).unwrap();
        assert_eq!(plain.dims(), [1, cfg.num_classes, 128, 256], "{}", preset.name());
        let folded = prepared(&cfg).forward(&xs).unwrap();
        let apart = difference(&folded, &plain);
        assert!(apart < ROUNDING, "{}: {apart}", preset.name());
    }
}

#[test]
fn a_batch_is_what_its_images_are_alone() {
    for preset in Preset::ALL {
        let net = prepared(&small(preset));
        let xs = noise(2, 128, 128);
        let both = net.forward(&xs).unwrap();
        for i in 0..2 {
            let one = net.forward(&xs.narrow(0, i, 1).unwrap()).unwrap();
            let apart = difference(&both.narrow(0, i, 1).unwrap(), &one);
            assert!(apart < ROUNDING, "{} image {i}: {apart}", preset.name());
        }
    }
}

#[test]
fn odd_sizes_run_plain_and_prepared() {
    for (preset, height, width) in [
        (Preset::CamvidS, 64, 192),
        (Preset::CamvidL, 192, 64),
        (Preset::CityscapesM, 64, 64),
        (Preset::CityscapesS, 64, 128),
        (Preset::VocL, 256, 128),
    ] {
        let (cfg, xs) = (small(preset), noise(1, height, width));
        let plain = net(&cfg).forward(&xs).unwrap();
        let apart = difference(&prepared(&cfg).forward(&xs).unwrap(), &plain);
        assert!(apart < ROUNDING, "{} {height}×{width}: {apart}", preset.name());
    }
}

#[test]
fn what_has_no_effect_is_left_out_and_changes_nothing() {
    for (preset, is_dead) in [
        (Preset::VocL, false),
        (Preset::CityscapesS, false),
        (Preset::CityscapesM, true),
        (Preset::CamvidS, true),
        (Preset::CamvidL, true),
    ] {
        let cfg = small(preset);
        assert_eq!(cfg.head_is_dead().unwrap(), is_dead, "{}", preset.name());
        let xs = noise(1, 128, 128);
        let short = prepared(&cfg);
        let mut whole = net(&cfg);
        whole.prepare_with(DeadHead::Keep).unwrap();
        let (short_ys, whole_ys) = (short.forward(&xs).unwrap(), whole.forward(&xs).unwrap());
        assert_eq!(values(&short_ys), values(&whole_ys), "{}", preset.name());
        // Then nothing halves the signal any more.
        assert_eq!(short.size_unit() == 32, is_dead, "{}", preset.name());
        assert_eq!(short.forward(&noise(1, 96, 160)).is_ok(), is_dead, "{}", preset.name());
        assert!(whole.forward(&noise(1, 96, 160)).is_err(), "{}", preset.name());
    }
}

#[test]
fn sizes_that_do_not_fit_say_which_would() {
    for (preset, height, width, expected) in [
        (
            Preset::VocL,
            192,
            128,
            "multiples of 128 (the backbone's stride, 32, times 4 for the context head's 3 sizes); the nearest size is 256×128",
        ),
        (
            Preset::CamvidS,
            96,
            128,
            "multiples of 64 (the backbone's stride, 32, times 2 for the context head's 2 sizes); the nearest size is 128×128",
        ),
        (Preset::CityscapesS, 100, 128, "the nearest size is 128×128"),
        (Preset::CityscapesS, 3, 700, "images of 3×700 do not fit the net"),
    ] {
        let error = net(&small(preset)).forward(&noise(1, height, width)).unwrap_err().to_string();
        assert!(error.contains(expected), "{}: {error}", preset.name());
    }
    let prepared = prepared(&small(Preset::CamvidS));
    let error = prepared.forward(&noise(1, 100, 128)).unwrap_err().to_string();
    assert!(error.contains("multiples of 32 (the backbone's stride); the nearest size is 96×128"), "{error}");
    let error = prepared.forward(&noise(1, 64, 64).narrow(1, 0, 2).unwrap()).unwrap_err().to_string();
    assert!(error.contains("expected images of 3 channels"), "{error}");
}

#[test]
fn table_s2_grids_and_positions() {
    // What a mapping reads must be what it reads in the paper's own grid, pooled.
    for (grid, positions) in [(1, false), (2, false), (4, false), (4, true)] {
        let cfg = Config { signal_grid: Some(grid), positions, ..small(Preset::VocL) };
        let plain = net(&cfg);
        let xs = noise(1, 128 * grid.div_ceil(4), 128);
        let mut shapes = Vec::new();
        let ys = plain
            .forward_probed(&xs, &mut |name, map| {
                if name.starts_with("weights.") {
                    shapes.push(map.dims()[2..].to_vec());
                }
                Ok(())
            })
            .unwrap();
        assert_eq!(shapes, vec![vec![grid, grid]; 6], "grid {grid}");
        assert_eq!(ys.dims(), [1, 21, 128, 128], "grid {grid}");
        let apart = difference(&prepared(&cfg).forward(&xs).unwrap(), &ys);
        assert!(apart < ROUNDING, "grid {grid}: {apart}");
    }
    // Without a context head nothing but the stride limits the size; with a grid, it does.
    let without = Config { signal_grid: Some(1), ..small(Preset::VocL) };
    assert_eq!((without.size_unit(), without.has_head()), (32, false));
    assert_eq!(Config { signal_grid: Some(8), ..small(Preset::VocL) }.size_unit(), 256);
    assert_eq!(Config { signal_grid: Some(3), ..small(Preset::CamvidS) }.size_unit(), 192);
}

/// The full grid, asked for by its size, is the net without an ablation.
#[test]
fn the_signals_own_grid_changes_nothing() {
    let cfg = small(Preset::CamvidS);
    let xs = noise(1, 128, 128);
    let same = Config { signal_grid: Some(4), ..cfg.clone() };
    assert_eq!(values(&net(&same).forward(&xs).unwrap()), values(&net(&cfg).forward(&xs).unwrap()));
}

#[test]
fn all_versions_take_any_groups_and_levels() {
    let camvid = small(Preset::CamvidS);
    for (version, unify_level) in [
        (Version::V0_2, None),
        (Version::V1_0, None),
        (Version::V1_0Unify, Some(1)),
        (Version::V1_0Unify, Some(5)),
    ] {
        for groups in [[1, 1, 1, 1, 1], [8, 4, 4, 2, 1], [2, 4, 8, 16, 32]] {
            let cfg = Config { version, unify_level, weight_groups: groups.to_vec(), ..camvid.clone() };
            let ys = prepared(&cfg).forward(&noise(1, 64, 128)).unwrap();
            assert_eq!(ys.dims(), [1, 12, 64, 128], "{version} {groups:?}");
        }
    }
    // Three levels: logits at stride 8, resized.
    let cfg =
        Config { kernel_sizes: vec![1, 3, 3], level_channels: Some(vec![32, 16]), head_levels: 1, ..camvid };
    assert_eq!(prepared(&cfg).forward(&noise(1, 96, 64)).unwrap().dims(), [1, 12, 96, 64]);
}

#[test]
fn every_backbone_builds() {
    for name in
        ["efficientnet-b0", "efficientnet-b1", "efficientnet-b2", "efficientnet-b3", "efficientnet-lite0"]
    {
        let cfg = Config { backbone: BackboneName::parse(name).unwrap(), ..Preset::CamvidS.config() };
        // B2's 1408 channels are 22 units of 64.
        let ys = prepared(&cfg).forward(&noise(1, 64, 64)).unwrap();
        assert_eq!(ys.dims(), [1, 12, 64, 64], "{name}");
    }
}

#[test]
fn position_maps_are_those_of_the_size_whatever_came_before() {
    let net = prepared(&small(Preset::CamvidL));
    let sizes = [(64, 64), (128, 64), (64, 96), (96, 96), (64, 64)];
    let first: Vec<Vec<f32>> =
        sizes.iter().map(|&(h, w)| values(&net.forward(&noise(1, h, w)).unwrap())).collect();
    assert_eq!(first[0], first[4]);
    for (&(h, w), first) in sizes.iter().zip(&first) {
        let fresh = prepared(&small(Preset::CamvidL));
        assert_eq!(&values(&fresh.forward(&noise(1, h, w)).unwrap()), first, "{h}×{w}");
    }
}

#[test]
fn the_state_of_a_preset_is_the_checkpoints() {
    // Tensors of the authors' state dicts without position maps, counters of batches included.
    for (preset, expected) in [
        (Preset::VocL, 702),
        (Preset::CityscapesS, 597),
        (Preset::CityscapesM, 598),
        (Preset::CamvidS, 604),
        (Preset::CamvidL, 620),
    ] {
        let names = state(&preset.config());
        let norms = names.keys().filter(|name| name.ends_with("running_mean")).count();
        assert_eq!(names.len() + norms, expected, "{}", preset.name());
    }
}

#[test]
fn a_net_prepared_twice_is_prepared_once() {
    let cfg = small(Preset::CityscapesS);
    let xs = noise(1, 64, 64);
    let mut net = prepared(&cfg);
    let once = values(&net.forward(&xs).unwrap());
    net.prepare().unwrap();
    assert_eq!(values(&net.forward(&xs).unwrap()), once);
    assert!(net.prepare_with(DeadHead::Keep).unwrap().is_empty());
    let zero = Tensor::zeros((1, 3, 64, 64), candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
    assert!(values(&net.forward(&zero).unwrap()).iter().all(|v| v.is_finite()));
}
