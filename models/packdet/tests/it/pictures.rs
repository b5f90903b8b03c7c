//! Pictures in, boxes out: sizes, padding, batches, looks, configurations, faults.

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use packdet::{
    BackboneConfig, Config, Detector as _, FrameSize, HeadConfig, Image, LongHeadConfig, ModelConfig,
    PackDet, Padding, PictureConfig, Preset, ResizeRule, Resizing, Views, weights,
};
use zoo_core::Detections;
use zoo_parity::seeded;

/// The narrow net with pictures that are quick: a short side of 64.
fn config() -> ModelConfig {
    let mut config = ModelConfig::from(Preset::Mnv2Tiny);
    config.net.head = match config.net.head {
        HeadConfig::PackDet { long, points } => {
            HeadConfig::PackDet { long: LongHeadConfig { blocks: 2, channels: 32, ..long }, points }
        }
        other => other,
    };
    config.pictures.resizing = Resizing { short: 64, long: 160, rule: ResizeRule::MaskrcnnBenchmark };
    config
}

fn model(config: &ModelConfig) -> PackDet {
    let mut model = PackDet::new(config, seeded::var_builder(Some(3), DType::F32, &Device::Cpu)).unwrap();
    model.prepare().unwrap();
    model
}

fn picture(name: &str, height: usize, width: usize) -> Image {
    let values = seeded::input(name, &[height * width * 3]).unwrap();
    let pixels = values.iter().map(|x| ((x + 1.0) * 127.0) as u8).collect();
    Image::new(FrameSize::new(height, width), pixels).unwrap()
}

fn inside(found: &Detections) -> bool {
    let (width, height) = (found.size.width as f32, found.size.height as f32);
    found
        .items
        .iter()
        .all(|d| d.bbox.x0 >= 0.0 && d.bbox.y0 >= 0.0 && d.bbox.x1 <= width && d.bbox.y1 <= height)
}

#[test]
fn boxes_are_in_pixels_of_each_original_best_first() {
    let model = model(&config());
    let images = [picture("a", 90, 150), picture("b", 150, 90), picture("c", 64, 64), picture("d", 7, 300)];
    let found = model.detect(&images).unwrap();
    assert_eq!(found.len(), images.len());
    for (found, image) in found.iter().zip(&images) {
        assert_eq!(found.size, image.size());
        assert!(!found.is_empty() && found.len() <= 100, "{}", found.len());
        assert!(found.items.is_sorted_by(|a, b| a.score >= b.score));
        assert!(inside(found), "{found:?}");
        assert!(found.items.iter().all(|d| zoo_core::labels::COCO.get(d.class_id) == Some(&*d.label)));
    }
    assert!(model.detect(&[]).unwrap().is_empty());
}

/// By default an image's boxes do not depend on the others; with shared padding they may.
#[test]
fn a_batch_gives_what_single_pictures_give_unless_padding_is_shared() {
    // The norm of a single cell would turn rounding into another sign, so that P7 has more than one.
    let mut config = config();
    (config.pictures.resizing.short, config.pictures.resizing.long) = (160, 320);
    let model = model(&config);
    let images = [picture("a", 90, 150), picture("b", 60, 100), picture("c", 90, 150), picture("d", 150, 90)];
    let single: Vec<Detections> =
        images.iter().map(|image| model.detect(std::slice::from_ref(image)).unwrap().remove(0)).collect();
    let batch = model.detect(&images).unwrap();
    for (a, b) in batch.iter().zip(&single) {
        assert_eq!(a.len(), b.len());
        for (a, b) in a.items.iter().zip(&b.items) {
            assert_eq!(a.class_id, b.class_id);
            assert!((a.score - b.score).abs() < 1e-4 && (a.bbox.x0 - b.bbox.x0).abs() < 0.1, "{a:?} {b:?}");
        }
    }
    let shared = model.clone().with_padding(Padding::Shared).detect(&images).unwrap();
    assert_ne!(shared[0], batch[0], "the plane has grown with the tallest and the widest");
    assert!(shared.iter().all(inside));
}

#[test]
fn inputs_are_filled_up_with_zeros_behind_the_picture() {
    let model = model(&config());
    let (xs, shown) = model.input(&picture("a", 70, 97)).unwrap();
    assert_eq!((xs.dims(), shown), (&[1, 3, 64, 96][..], FrameSize::new(64, 88)));
    let right = xs.narrow(3, 88, 8).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
    assert_eq!(right, 0.0);
    // A strip is too low for a plane by itself.
    let (xs, shown) = model.input(&picture("strip", 4, 400)).unwrap();
    // The authors' rule rounds the short side first, and the long one follows.
    assert_eq!((xs.dims(), shown), (&[1, 3, 64, 224][..], FrameSize::new(2, 200)));
}

#[test]
fn further_looks_add_boxes_in_the_pictures_own_pixels() {
    let image = picture("a", 90, 150);
    let plain = model(&config());
    let once = plain.detect(std::slice::from_ref(&image)).unwrap().remove(0);
    for views in [
        Views { mirrored: true, ..Views::default() },
        Views { mirrored: false, short_sides: vec![96], long_side: 200 },
    ] {
        let model = plain.clone().with_views(views).unwrap();
        let found = model.detect(std::slice::from_ref(&image)).unwrap().remove(0);
        assert!(inside(&found) && found.len() <= 100);
        assert!(found != once);
    }
    let error = plain.with_views(Views { short_sides: vec![0], ..Views::paper() }).unwrap_err().to_string();
    assert!(error.contains("a further look") && error.contains("a short side of 0"), "{error}");
}

/// A mirrored picture shows mirrored boxes where looks are mirrored as well: both looks have swapped places.
#[test]
fn mirrored_looks_are_symmetric() {
    let image = picture("a", 64, 128);
    let pixels =
        image.pixels().chunks_exact(3 * 128).flat_map(|row| row.chunks_exact(3).rev().flatten().copied());
    let mirrored = Image::new(image.size(), pixels.collect()).unwrap();
    let model = model(&config()).with_views(Views { mirrored: true, ..Views::default() }).unwrap();
    let found = model.detect(&[image, mirrored]).unwrap();
    let [plain, mirrored] = found.as_slice() else { panic!() };
    assert_eq!(plain.len(), mirrored.len());
    let key = |d: &zoo_core::Detection, flip: bool| {
        let (x0, x1) = if flip { (128.0 - d.bbox.x1, 128.0 - d.bbox.x0) } else { (d.bbox.x0, d.bbox.x1) };
        (d.class_id, [d.score * 1e3, x0 * 10.0, x1 * 10.0, d.bbox.y0 * 10.0].map(|v| v.round() as i64))
    };
    let sorted = |found: &Detections, flip: bool| {
        let mut keys: Vec<_> = found.items.iter().map(|d| key(d, flip)).collect();
        keys.sort_unstable();
        keys
    };
    let (a, b) = (sorted(plain, false), sorted(mirrored, true));
    let alike = a.iter().zip(&b).filter(|(a, b)| a == b).count();
    assert!(alike * 10 >= a.len() * 9, "{alike} of {}", a.len());
}

#[test]
fn weights_that_overflow_are_an_error() {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let model = PackDet::new(&config(), vb).unwrap();
    let image = picture("a", 64, 64);
    assert!(model.detect(std::slice::from_ref(&image)).is_ok());
    let vars = map.data().lock().unwrap();
    let bias = vars.get("rpn.head.predictor.cls_logits.bias").unwrap();
    bias.set(&(bias.as_tensor() * f64::NAN).unwrap()).unwrap();
    let error = model.detect(&[image]).unwrap_err().to_string();
    assert!(
        error.starts_with("the scores of a picture of 64×64 (rows × columns) are not all numbers"),
        "{error}"
    );
}

#[test]
fn configurations_survive_json_and_faults_are_named() {
    for preset in Preset::ALL {
        let ModelConfig { net, pictures } = preset.into();
        pictures.validate(&net).unwrap();
        let text = serde_json::to_string(&pictures).unwrap();
        assert_eq!(serde_json::from_str::<PictureConfig>(&text).unwrap(), pictures, "{}", preset.name());
    }
    let ModelConfig { net, pictures } = Preset::R50M4.into();
    let said = |pictures: PictureConfig| pictures.validate(&net).unwrap_err().to_string();
    let few = PictureConfig { classes: pictures.classes[..3].to_vec(), ..pictures.clone() };
    assert!(said(few).starts_with("3 classes are named, but the net scores 80"));
    let anchors = PictureConfig { boxes: packdet::PostProcess::RETINANET, ..pictures.clone() };
    assert!(said(anchors).contains("decoded as DetectronAnchors, which is not what the head's maps hold"));
    let mut wild = pictures.clone();
    wild.resizing.short = 9000;
    assert!(said(wild).contains("a short side of 9000 and a long one of 1333"));
    let mut wild = pictures;
    wild.boxes.nms_iou = f32::NAN;
    assert!(said(wild).contains("expected both in 0 to 1"));
}

#[test]
fn a_config_beside_weights_decides() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    let none = weights::config_of(&file, None).unwrap_err().to_string();
    assert!(none.contains("no config.json beside") && none.contains("r50-m4"), "{none}");
    assert_eq!(weights::config_of(&file, Some(Preset::FcosR50)).unwrap(), Preset::FcosR50.into());
    let own = config();
    let text = serde_json::json!({ "architecture": "packdet/mnv2-tiny", "config": own.net, "pictures": own.pictures });
    std::fs::write(folder.path().join("config.json"), text.to_string()).unwrap();
    assert_eq!(weights::config_of(&file, None).unwrap(), own);
    let other = weights::config_of(&file, Some(Preset::R50M4)).unwrap_err().to_string();
    assert!(other.contains("is of another net than preset r50-m4"), "{other}");
}

#[test]
fn backbones_of_presets_are_what_their_names_say() {
    let is_mobile = |preset: Preset| matches!(Config::from(preset).backbone, BackboneConfig::MobilenetV2(_));
    for preset in Preset::ALL {
        assert_eq!(is_mobile(preset), preset.name().contains("mnv2"), "{}", preset.name());
    }
}
