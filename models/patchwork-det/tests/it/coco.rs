//! The COCO weights against the original graph's own outputs on three photographs.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use patchwork_det::WindowedNet as _;
use patchwork_det::detector::RawDetections;
use patchwork_det::postprocess::Candidates;
use patchwork_det::vision::{self, Resizer};
use patchwork_det::{
    Detector as _, DetectorConfig, DetectorNet, LoadOptions, PatchworkDet, Pretrained, anchors,
};
use zoo_core::Image;
use zoo_hub::Checkpoint;
use zoo_parity::{Case, Outputs, Registry, Report, Tolerance};

const PHOTOS: [&str; 3] = ["astronaut", "chelsea", "coffee"];

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn photo(name: &str) -> Image {
    vision::read(here("../../crates/cli/assets/photos").join(format!("{name}.png"))).unwrap()
}

fn input(image: &Image, cfg: &DetectorConfig) -> Tensor {
    let resizer = Resizer::new(image.size(), cfg.frame, cfg.resize).unwrap();
    cfg.normalization.tensor_of(resizer.planes(image).unwrap(), cfg.frame, &Device::Cpu).unwrap()
}

fn net(cfg: &DetectorConfig, weights: &Path) -> DetectorNet {
    let checkpoint = Checkpoint::open(weights).unwrap();
    let mut net =
        zoo_hub::load("coco", checkpoint, &LoadOptions::default(), |vb| DetectorNet::new(cfg, vb)).unwrap();
    net.prepare().unwrap();
    net
}

fn decoded(raw: &RawDetections, cfg: &DetectorConfig) -> Tensor {
    let priors = anchors::anchors(&raw.levels, cfg.frame, &cfg.anchors, cfg.backbone.padding);
    let codes = raw.boxes.get(0).unwrap().to_vec2::<f32>().unwrap();
    let boxes: Vec<f32> = priors
        .iter()
        .zip(&codes)
        .flat_map(|(prior, code)| prior.decode(code.as_slice().try_into().unwrap()))
        .collect();
    Tensor::from_vec(boxes, (1, priors.len(), 4), &Device::Cpu).unwrap()
}

/// Compares everything stored of a photograph with what `cfg` and `weights` give.
fn compare(name: &'static str, cfg: DetectorConfig, weights: &Path, tolerance: Tolerance) -> Report {
    let net = net(&cfg, weights);
    let case = Case::new(["patchwork-det/coco"], tolerance, move |_, _| {
        let xs = input(&photo(name), &cfg);
        let raw = net.single_frame(&xs)?;
        let mut outputs = Outputs::new();
        outputs.push("input", &xs)?;
        outputs.push("logits", &raw.logits)?;
        outputs.push("boxes", &raw.boxes)?;
        outputs.push("scores", &candle_nn::ops::sigmoid(&raw.logits)?)?;
        outputs.push("decoded", &decoded(&raw, &cfg))?;
        Ok(outputs)
    });
    let fixture = here("tests/fixtures").join(format!("coco_ssdlite_{name}.safetensors"));
    Registry::new([case]).unwrap().run(fixture, &Device::Cpu).unwrap()
}

fn agrees(weights: &Path, share: f64) {
    let tolerance = Tolerance::Golden { max_rel_absmax: share, mean_rel_absmax: share / 10.0 };
    for name in PHOTOS {
        let report = compare(name, DetectorConfig::coco(), weights, tolerance);
        assert!(report.passed, "{name}\n{report}");
    }
}

#[test]
fn shipped_weights_agree_with_the_original_graph_to_half_precision() {
    agrees(&here("weights/coco-ssdlite-mobilenet-v2.safetensors"), 0.02);
}

/// `scripts/weights/coco_ssdlite.py --f32 FILE` makes the file; the gate does, where npm is at hand.
#[test]
fn full_precision_weights_equal_the_original_graph() {
    match std::env::var_os("ZOO_COCO_F32") {
        Some(path) => agrees(Path::new(&path), 1e-3),
        None => eprintln!("SKIPPED: ZOO_COCO_F32 does not name the f32 weights"),
    }
}

#[test]
fn the_photographs_show_what_they_show() {
    let model = PatchworkDet::from_file(
        &DetectorConfig::coco(),
        &here("weights/coco-ssdlite-mobilenet-v2.safetensors"),
        &LoadOptions::default(),
    )
    .unwrap();
    struct Case(&'static str, &'static [(&'static str, f32, [f32; 4])]);
    // Scores and boxes of the original graph, in pixels of the photograph.
    for Case(name, expected) in [
        Case("astronaut", &[("person", 0.6855, [24.2, 8.3, 368.2, 490.8])]),
        Case("chelsea", &[("cat", 0.9345, [0.7, 2.9, 403.8, 297.6])]),
        Case(
            "coffee",
            &[
                ("cup", 0.9613, [173.6, 21.6, 412.0, 249.3]),
                ("dining table", 0.8242, [2.1, 2.9, 599.0, 396.0]),
            ],
        ),
    ] {
        let found = model.detect(&[photo(name)]).unwrap().remove(0);
        let sure: Vec<_> = found.above(0.5).collect();
        let labels: Vec<_> = sure.iter().map(|d| d.label.as_ref()).collect();
        assert_eq!(labels, expected.iter().map(|e| e.0).collect::<Vec<_>>(), "{name}");
        for (d, (label, score, [x0, y0, x1, y1])) in sure.iter().zip(expected) {
            assert!((d.score - score).abs() < 0.01, "{name} {label}: {}", d.score);
            let iou = d.bbox.iou(&zoo_core::BBox::new(*x0, *y0, *x1, *y1));
            assert!(iou > 0.98, "{name} {label}: {} (IoU {iou})", d.bbox);
        }
    }
}

/// All its dense filters are 1×1, but for the stem's, which strides.
#[test]
fn detections_do_not_depend_on_winograds_filtering() {
    let weights = here("weights/coco-ssdlite-mobilenet-v2.safetensors");
    let photos = PHOTOS.map(photo);
    let detections = || {
        let model =
            PatchworkDet::from_file(&DetectorConfig::coco(), &weights, &LoadOptions::default()).unwrap();
        let larger = model.clone().with_frame(zoo_core::FrameSize::new(512, 512)).unwrap();
        [model, larger].map(|model| model.detect(&photos).unwrap())
    };
    let with = detections();
    assert!(with.iter().flatten().all(|found| !found.is_empty()));
    assert_eq!(with, zoo_kernels::without_winograd(detections));
}

#[test]
fn boxes_stay_in_place_at_other_frame_sizes() {
    let weights = here("weights/coco-ssdlite-mobilenet-v2.safetensors");
    let model =
        || PatchworkDet::from_file(&DetectorConfig::coco(), &weights, &LoadOptions::default()).unwrap();
    let coffee = photo("coffee");
    let cup = |frame: usize| {
        let model = model().with_frame(zoo_core::FrameSize::new(frame, frame)).unwrap();
        let found = model.detect(std::slice::from_ref(&coffee)).unwrap().remove(0);
        found.items.into_iter().find(|d| d.label == "cup").unwrap().bbox
    };
    let trained = cup(300);
    for frame in [289, 320, 352, 384] {
        let moved = cup(frame);
        // The lower edge is another matter: whether the saucer belongs to the cup depends on its size.
        for (edge, was, is) in
            [("left", trained.x0, moved.x0), ("top", trained.y0, moved.y0), ("right", trained.x1, moved.x1)]
        {
            // Cells looked up where the frame is cut evenly would be off by 12 to 20 pixels here.
            assert!((was - is).abs() < 9.0, "{frame}²: the cup's {edge} edge went from {was} to {is}");
        }
    }
}

#[test]
fn wrong_options_do_not_pass_for_the_real_net() {
    let weights = here("weights/coco-ssdlite-mobilenet-v2.safetensors");
    let mut padding = DetectorConfig::coco();
    padding.backbone.padding = zoo_layers::SamePadding::Torch;
    let mut epsilon = DetectorConfig::coco();
    epsilon.backbone.bn_eps = 1e-5;
    for (name, wrong) in [("padding", padding), ("epsilon", epsilon)] {
        let report = compare("coffee", wrong, &weights, Tolerance::Approx);
        let logits = report.rows.iter().find(|row| row.name.starts_with("logits@stride")).unwrap();
        assert!(logits.max_rel > 0.05, "wrong {name}: {report}");
    }
}

#[test]
fn classes_without_a_category_are_left_out() {
    let cfg = DetectorConfig::coco();
    let prior = anchors::Anchor { cx: 0.5, cy: 0.5, w: 0.5, h: 0.5 };
    let mut logits = vec![-9.0; 91];
    (logits[12], logits[1]) = (9.0, 5.0);
    let found = Candidates::from_rows(&[logits], &[[0.0; 4]], &[1.0], &[prior], &cfg.post);
    let size = zoo_core::FrameSize::new(100, 200);
    let found =
        patchwork_det::postprocess::to_detections(&found.suppress(&cfg.post), size, &zoo_core::labels::COCO);
    assert_eq!(found.items.iter().map(|d| d.label.as_ref()).collect::<Vec<_>>(), ["person"]);
    assert_eq!(found.items[0].bbox, zoo_core::BBox::new(50.0, 25.0, 150.0, 75.0));
}
