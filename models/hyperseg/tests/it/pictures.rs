//! Pictures in, class maps out. Weights are seeded, so classes mean nothing: what is held together is each step
//! and the same step by hand.

use std::path::Path;

use candle_core::{Device, Tensor};
use hyperseg::vision::{self, Fit, Normalization, Preprocess};
use hyperseg::weights::{config_beside, config_of};
use hyperseg::{
    FrameSize, HyperSeg, Image, LoadOptions, MergeViews, ModelConfig, PictureConfig, Preset, Pretrained,
    SegMap, Segmenter, Views,
};
use zoo_kernels::{Interpolation, resize2d};
use zoo_layers::{Tiles, pyramid_scores};
use zoo_parity::seeded;

use crate::support::{small, tensors, weights};

/// A picture of large, smooth spots: what a resize makes of it hardly depends on rounding.
fn spots(height: usize, width: usize) -> Image {
    let noise = seeded::input(&format!("spots.{height}.{width}"), &[6, 8, 3]).unwrap();
    let small: Vec<u8> = noise.iter().map(|v| (128.0 + 60.0 * v).clamp(0.0, 255.0) as u8).collect();
    let small = Image::new(FrameSize::new(6, 8), small).unwrap();
    vision::resize(&small, FrameSize::new(height, width), vision::Resize::PilBicubic).unwrap()
}

fn config(preset: Preset, size: (usize, usize)) -> ModelConfig {
    let pictures = preset.pictures().with_size(FrameSize::new(size.0, size.1)).unwrap();
    ModelConfig { net: small(preset), pictures }
}

fn model(config: &ModelConfig) -> HyperSeg {
    let mut model = HyperSeg::new(config, weights(tensors(&config.net))).unwrap();
    model.prepare().unwrap();
    model
}

fn one(model: &HyperSeg, image: &Image) -> SegMap {
    model.segment(std::slice::from_ref(image)).unwrap().remove(0)
}

/// The share of pixels that have the same class.
fn agreement(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64
}

/// Labels of logits, in two steps.
fn labels(logits: &Tensor, size: FrameSize) -> Vec<u8> {
    let scores = resize2d(logits, (size.height, size.width), Interpolation::Bilinear).unwrap();
    let classes = scores.argmax(1).unwrap().flatten_all().unwrap().to_vec1::<u32>().unwrap();
    classes.into_iter().map(|class| class as u8).collect()
}

fn assert_same(map: &SegMap, expected: &[u8], what: &str) {
    let classes: std::collections::BTreeSet<&u8> = map.classes.iter().collect();
    assert!(classes.len() > 1, "{what}: one class everywhere shows nothing");
    let shared = agreement(&map.classes, expected);
    assert!(shared > 0.999, "{what}: {shared}");
}

#[test]
fn labels_are_the_largest_logits_at_the_pictures_own_size() {
    for preset in [Preset::CityscapesS, Preset::CityscapesM, Preset::CamvidS, Preset::CamvidL] {
        let config = config(preset, (64, 128));
        let (model, image) = (model(&config), spots(75, 140));
        let fit = Fit::Stretch { size: FrameSize::new(64, 128) };
        let how = Preprocess { fit, resize: vision::Resize::Pil, normalization: Normalization::IMAGENET };
        let xs = how.tensor(&image, &Device::Cpu).unwrap().0;
        let map = one(&model, &image);
        assert_eq!((map.size, map.legend.len()), (image.size(), config.net.num_classes), "{}", preset.name());
        let expected = labels(&model.net().forward(&xs).unwrap(), image.size());
        assert_same(&map, &expected, preset.name());
    }
}

#[test]
fn vocs_pictures_are_padded_and_only_shrunk_if_they_must_be() {
    let config = config(Preset::VocL, (128, 128));
    let model = model(&config);
    for (height, width, shown) in [
        (128, 128, (128, 128)),
        (70, 101, (70, 101)),
        (1, 9, (1, 9)),
        // Larger ones keep their shape.
        (140, 100, (128, 91)),
        (100, 256, (50, 128)),
        (3, 700, (1, 128)),
    ] {
        let (image, shown) = (spots(height, width), FrameSize::new(shown.0, shown.1));
        let resized = vision::resize(&image, shown, vision::Resize::Pil).unwrap();
        let fit = Fit::Pad { size: FrameSize::new(128, 128), fill: [0; 3] };
        let how = Preprocess { fit, resize: vision::Resize::Pil, normalization: Normalization::HALF };
        let logits = model.net().forward(&how.tensor(&resized, &Device::Cpu).unwrap().0).unwrap();
        let logits = logits.narrow(2, 0, shown.height).unwrap().narrow(3, 0, shown.width).unwrap();
        let expected = labels(&logits.contiguous().unwrap(), image.size());
        let map = one(&model, &image);
        assert_eq!(map.size, image.size());
        let shared = agreement(&map.classes, &expected);
        assert!(shared > 0.999, "{height}×{width}: {shared}");
    }
}

#[test]
fn the_normalisation_is_a_fields_value() {
    let half = config(Preset::VocL, (128, 128));
    let mut imagenet = half.clone();
    imagenet.pictures.preprocess.normalization = Normalization::IMAGENET;
    let image = spots(128, 128);
    let (a, b) = (one(&model(&half), &image), one(&model(&imagenet), &image));
    assert!(agreement(&a.classes, &b.classes) < 0.999, "it makes a difference");
}

#[test]
fn a_batch_gives_what_its_pictures_give_alone_whatever_their_sizes() {
    let images = [spots(75, 140), spots(64, 128), spots(75, 140), spots(30, 20)];
    for preset in [Preset::CamvidS, Preset::VocL] {
        let model = model(&config(preset, (128, 128)));
        for views in [Views::default(), Views { windows: Some(0.25), mirrored: true, ..Views::default() }] {
            let model = model.clone().with_views(views).unwrap();
            let together = model.segment(&images).unwrap();
            assert_eq!(together.len(), images.len());
            for (map, image) in together.iter().zip(&images) {
                assert_eq!(map.size, image.size());
                let shared = agreement(&map.classes, &one(&model, image).classes);
                assert!(shared > 0.999, "{} {}: {shared}", preset.name(), image.size());
            }
        }
    }
    assert!(model(&config(Preset::CamvidS, (64, 64))).segment(&[]).unwrap().is_empty());
}

#[test]
fn several_sizes_and_mirror_images_merge_by_their_rule() {
    let config = config(Preset::CamvidS, (64, 128));
    let (model, image) = (model(&config), spots(90, 170));
    let input = |height, width| {
        let fit = Fit::Stretch { size: FrameSize::new(height, width) };
        Preprocess { fit, ..config.pictures.preprocess }.tensor(&image, &Device::Cpu).unwrap().0
    };
    for merge in [MergeViews::RunningMean, MergeViews::Max] {
        let views = Views { scales: vec![1.0, 0.5, 1.6], mirrored: true, merge, ..Views::default() };
        // 1.6 · 64×128 is nearest to 96×192 of what the prepared net takes.
        let inputs = [input(64, 128), input(32, 64), input(96, 192)];
        let scores = pyramid_scores(&inputs, true, merge, |xs| model.net().forward(xs)).unwrap();
        let map = one(&model.clone().with_views(views).unwrap(), &image);
        assert_same(&map, &labels(&scores, image.size()), &format!("{merge:?}"));
    }
}

/// The larger of two mirrored views' logits does not know left from right.
#[test]
fn mirrored_pictures_give_mirrored_maps_if_both_are_looked_at() {
    let model = model(&config(Preset::CamvidS, (64, 128)));
    let image = spots(64, 128);
    let flipped = |values: &[u8], bytes: usize| -> Vec<u8> {
        let rows = values.chunks_exact(128 * bytes);
        rows.flat_map(|row| row.chunks_exact(bytes).rev().flatten().copied()).collect()
    };
    let mirror = Image::new(image.size(), flipped(image.pixels(), 3)).unwrap();
    let both = model.clone().with_views(Views { mirrored: true, ..Views::default() }).unwrap();
    let shared =
        |model: &HyperSeg| agreement(&flipped(&one(model, &mirror).classes, 1), &one(model, &image).classes);
    assert!(shared(&both) > 0.999, "{}", shared(&both));
    assert!(shared(&model) < 0.999, "one view alone does: {}", shared(&model));
}

#[test]
fn padded_pictures_keep_their_place_at_every_scale() {
    let config = config(Preset::VocL, (256, 256));
    let views = Views { scales: vec![0.5, 1.0], ..Views::default() };
    let model = model(&config).with_views(views).unwrap();
    let image = spots(200, 150);
    let input = |size: usize, shown: (usize, usize)| {
        let shown = FrameSize::new(shown.0, shown.1);
        let resized = vision::resize(&image, shown, vision::Resize::Pil).unwrap();
        let fit = Fit::Pad { size: FrameSize::new(size, size), fill: [0; 3] };
        Preprocess { fit, ..config.pictures.preprocess }.tensor(&resized, &Device::Cpu).unwrap().0
    };
    let inputs = [input(128, (100, 75)), input(256, (200, 150))];
    let scores =
        pyramid_scores(&inputs, false, MergeViews::RunningMean, |xs| model.net().forward(xs)).unwrap();
    let scores = scores.narrow(2, 0, 100).unwrap().narrow(3, 0, 75).unwrap().contiguous().unwrap();
    assert_same(&one(&model, &image), &labels(&scores, image.size()), "two scales");
}

#[test]
fn windows_take_pictures_at_their_own_size() {
    let config = config(Preset::CamvidS, (64, 128));
    let whole = model(&config);
    let model = whole.clone().with_views(Views { windows: Some(0.25), ..Views::default() }).unwrap();
    let image = spots(100, 200);
    let xs = Normalization::IMAGENET.tensor(&image, &Device::Cpu).unwrap();
    let tiles = Tiles { size: (64, 128), overlap: (16, 32) };
    let scores = tiles.scores(&xs, |xs| model.net().forward(xs)).unwrap();
    assert_same(&one(&model, &image), &labels(&scores, image.size()), "windows");
    // One window is the picture itself.
    let image = spots(64, 128);
    assert_same(&one(&model, &image), &one(&whole, &image).classes, "one window");
}

#[test]
fn what_cannot_be_is_said() {
    let config = config(Preset::CamvidS, (64, 128));
    let camvid = model(&config);
    let error = camvid.clone().with_size(FrameSize::new(100, 128)).unwrap_err().to_string();
    assert!(error.contains("images of 100×128") && error.contains("the nearest size is 96×128"), "{error}");
    assert!(camvid.clone().with_size(FrameSize::new(0, 32)).is_err());
    let odd = config.pictures.clone().with_size(FrameSize::new(64, 130)).unwrap();
    let odd = model(&ModelConfig { pictures: odd, ..config.clone() });
    let error = odd.segment(&[spots(9, 9)]).unwrap_err().to_string();
    assert!(error.contains("the nearest size is 64×128"), "{error}");

    for (views, expected) in [
        (Views { scales: vec![], ..Views::default() }, "no scale is given"),
        (Views { scales: vec![1.0, 0.0], ..Views::default() }, "the scale 0 is out of range"),
        (Views { scales: vec![f64::NAN], ..Views::default() }, "the scale NaN is out of range"),
        (Views { scales: vec![9.0], ..Views::default() }, "at most 8"),
        (Views { windows: Some(1.0), ..Views::default() }, "never advance"),
        (Views { windows: Some(f64::NAN), ..Views::default() }, "never advance"),
    ] {
        let error = camvid.clone().with_views(views).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    let vocs = ModelConfig { pictures: Preset::VocL.pictures(), ..config.clone() };
    let error = HyperSeg::new(&vocs, weights(tensors(&vocs.net))).err().unwrap().to_string();
    assert!(error.contains("21 classes are named, but the net predicts 12"), "{error}");
    let mut cropped = config.clone();
    cropped.pictures.preprocess = Preprocess::IMAGENET;
    let error = HyperSeg::new(&cropped, weights(tensors(&cropped.net))).err().unwrap().to_string();
    assert!(error.contains("expected stretch or pad"), "{error}");
    let mut flat = config;
    flat.pictures.preprocess.normalization = Normalization::MeanStd { mean: [0.0; 3], std: [1.0, 0.0, 1.0] };
    let error = HyperSeg::new(&flat, weights(tensors(&flat.net))).err().unwrap().to_string();
    assert!(error.contains("no std of 0"), "{error}");
}

#[test]
fn weights_that_are_no_numbers_give_an_error_and_no_mask() {
    let config = config(Preset::CamvidS, (64, 64));
    for name in ["decoder.level_4.0.bn3.bias", "backbone._conv_stem.weight", "decoder.level_0.0.1.weight"] {
        let mut tensors = tensors(&config.net);
        let shape = tensors[name].dims().to_vec();
        let mut values = tensors[name].flatten_all().unwrap().to_vec1::<f32>().unwrap();
        *values.last_mut().unwrap() = f32::NAN;
        tensors.insert(name.to_owned(), Tensor::from_vec(values, shape, &Device::Cpu).unwrap());

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.safetensors");
        candle_core::safetensors::save(&tensors, &file).unwrap();
        let error = HyperSeg::from_file(&config, &file, &LoadOptions::default()).err().unwrap().to_string();
        assert!(error.contains(name), "the loader names it: {error}");

        let mut model = HyperSeg::new(&config, weights(tensors)).unwrap();
        for _ in 0..2 {
            let error = model.segment(&[spots(50, 60)]).unwrap_err().to_string();
            assert!(
                error.contains("the logits of a picture of 50×60") && error.contains("not all numbers"),
                "{name}: {error}"
            );
            model.prepare().unwrap();
        }
    }
}

#[test]
fn presets_say_what_their_pictures_need_and_others_are_like_them() {
    for preset in Preset::ALL {
        let (cfg, pictures) = (preset.config(), preset.pictures());
        pictures.validate(cfg.num_classes).unwrap();
        assert_eq!(pictures.size().unwrap(), preset.size());
        assert_eq!(Preset::most_like(&cfg), preset);
        assert_eq!(PictureConfig::for_net(&cfg), pictures, "{}", preset.name());
        let text = serde_json::to_string(&pictures).unwrap();
        assert_eq!(serde_json::from_str::<PictureConfig>(&text).unwrap(), pictures, "{text}");
    }
    // A released HyperSeg-M may have r_1 = 1/4 (supplement, Table S3), a HyperSeg-S no unified levels.
    let quarter = hyperseg::Config { out_feat_scale: [0.25; 5], ..Preset::CityscapesM.config() };
    assert_eq!(Preset::most_like(&quarter), Preset::CityscapesM);
    let version = hyperseg::Version::V1_0;
    let plain = hyperseg::Config { version, unify_level: None, ..Preset::CityscapesS.config() };
    assert_eq!(Preset::most_like(&plain), Preset::CityscapesS);
    let seven = PictureConfig::for_net(&hyperseg::Config { num_classes: 7, ..Preset::CamvidL.config() });
    assert_eq!((seven.size().unwrap(), seven.labels[6].name.as_ref()), (Preset::CamvidL.size(), "class 6"));
    seven.validate(7).unwrap();
}

fn write_config(folder: &Path, config: &serde_json::Value) {
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn the_configuration_beside_the_weights_decides() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let error = config_of(&file, None).unwrap_err().to_string();
    assert!(error.contains("no config.json beside") && error.contains("voc-l, cityscapes-s"), "{error}");
    assert_eq!(config_of(&file, Some(Preset::CamvidL)).unwrap(), Preset::CamvidL.into());

    // What was converted without being known.
    write_config(folder.path(), &serde_json::json!({ "architecture": null }));
    assert!(config_of(&file, None).is_err());
    assert_eq!(config_of(&file, Some(Preset::CamvidL)).unwrap(), Preset::CamvidL.into());

    let quarter = hyperseg::Config { out_feat_scale: [0.25; 5], ..Preset::CityscapesM.config() };
    write_config(folder.path(), &serde_json::json!({ "config": quarter }));
    for preset in [None, Some(Preset::CityscapesM), Some(Preset::CityscapesS)] {
        let config = config_of(&file, preset).unwrap();
        assert_eq!(config, ModelConfig { net: quarter.clone(), pictures: Preset::CityscapesM.pictures() });
    }
    let error = config_of(&file, Some(Preset::VocL)).unwrap_err().to_string();
    assert!(
        error.contains("says 19 classes (road, sidewalk, building, …), and preset voc-l is of 21"),
        "{error}"
    );

    let mut pictures = Preset::CityscapesM.pictures().with_size(FrameSize::new(64, 64)).unwrap();
    pictures.preprocess.normalization = Normalization::HALF;
    write_config(folder.path(), &serde_json::json!({ "config": quarter, "pictures": pictures }));
    assert_eq!(config_beside(&file).unwrap().unwrap().pictures, pictures);
    for (pictures, expected) in [
        (serde_json::json!(Preset::CamvidS.pictures()), "config.json: 12 classes are named"),
        (serde_json::json!({ "preprocess": 3 }), "config.json: pictures: invalid type"),
    ] {
        write_config(folder.path(), &serde_json::json!({ "config": quarter, "pictures": pictures }));
        let error = config_beside(&file).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
