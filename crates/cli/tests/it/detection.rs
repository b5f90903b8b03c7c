//! `zoo run | eval | bench packdet` and the demo binary. All weights are random: what is shown is that pictures go in, and
//! boxes come out where they are.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use packdet::{HeadConfig, LongHeadConfig, ModelConfig, PackDetNet, Preset, ResizeRule, Resizing};
use serde_json::{Value as Json, json};
use zoo_core::FrameSize;
use zoo_testing::{Py, TorchWriter};

use crate::support::{command, photo, plain, zoo, zoo_in};

/// A narrow net's weights and the `config.json` beside them, pictures of a short side of 64.
fn weights(folder: &Path) -> String {
    let mut config = ModelConfig::from(Preset::Mnv2Tiny);
    if let HeadConfig::PackDet { long, points } = config.net.head {
        let long = LongHeadConfig { blocks: 1, channels: 32, tower: 1, ..long };
        config.net.head = HeadConfig::PackDet { long, points };
    }
    config.pictures.resizing = Resizing { short: 64, long: 128, rule: ResizeRule::MaskrcnnBenchmark };
    let map = VarMap::new();
    PackDetNet::new(&config.net, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)).unwrap();
    fs::create_dir(folder.join("own")).unwrap();
    map.save(folder.join("own/model.safetensors")).unwrap();
    let text =
        json!({ "architecture": "packdet/mnv2-tiny", "config": config.net, "pictures": config.pictures });
    fs::write(folder.join("own/config.json"), text.to_string()).unwrap();
    "--weights own/model.safetensors".to_owned()
}

#[test]
fn a_picture_gets_boxes_and_the_plane_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let photo = photo("coffee.png");
    let size = zoo_vision::read(&photo).unwrap().size();
    let line = format!("run packdet/mnv2-tiny {} --random --size 64x128 --score 0", photo.display());
    let ran = zoo(folder.path(), &line).expect_code(0);
    assert!(ran.stdout.contains("[random weights]"), "{}", ran.stdout);
    assert!(ran.stderr.contains("a short side of 64, or a long one of 128"), "{}", ran.stderr);
    let drawn = zoo_vision::read(folder.path().join("out/coffee.png")).unwrap();
    assert_eq!(drawn.width(), size.width);
    zoo(folder.path(), &format!("{line} --show-plane -o plane")).expect_code(0);
    let beside = zoo_vision::read(folder.path().join("plane/coffee.png")).unwrap();
    assert!(beside.width() > 3 * size.width, "the picture and two planes: {:?}", beside.size());
    let record = zoo(folder.path(), &format!("{line} --json --flip")).expect_code(0).json();
    assert_eq!(
        (record["width"].as_u64(), record["height"].as_u64()),
        (Some(size.width as u64), Some(size.height as u64))
    );
    assert!(!record["detections"].as_array().unwrap().is_empty());
}

#[test]
fn the_demo_binary_is_zoo_run_under_its_own_name() {
    let folder = tempfile::tempdir().unwrap();
    plain(&folder.path().join("a.png"), FrameSize::new(80, 120));
    let binary = env!("CARGO_BIN_EXE_packdet");
    let args = ["a.png", "--preset", "mnv2-tiny", "--random", "--size", "64", "--json"];
    let output = command(binary, folder.path()).args(args).output().unwrap();
    let ran = crate::support::Ran::from(output).expect_code(0);
    assert_eq!(ran.json()["weights"], "random weights");
}

/// What a run finds is taken for the truth; then a measurement finds all of it.
#[test]
fn truth_that_is_found_scores_1_in_both_formats() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let weights = weights(at);
    let (pictures, voc) = (at.join("COCO/val2017"), at.join("VOC"));
    fs::create_dir_all(&pictures).unwrap();
    for part in ["JPEGImages", "Annotations", "ImageSets/Main"] {
        fs::create_dir_all(voc.join(part)).unwrap();
    }
    for name in ["chelsea.png", "coffee.png"] {
        fs::copy(photo(name), pictures.join(name)).unwrap();
        fs::copy(photo(name), voc.join("JPEGImages").join(name)).unwrap();
    }
    let ran =
        zoo(at, &format!("run packdet COCO/val2017 --stills {weights} --score 0 --json")).expect_code(0);
    let records = ran.json_lines();
    let mut categories: Vec<Json> =
        zoo_core::labels::COCO.iter().map(|(id, name)| json!({ "id": id, "name": name })).collect();
    categories.push(json!({ "id": 99, "name": "unicorn" }));
    let (mut images, mut annotations) = (Vec::new(), Vec::new());
    for (i, record) in records.iter().enumerate() {
        let file = format!("{}.png", record["name"].as_str().unwrap());
        images.push(json!({ "id": i, "file_name": file }));
        let found = record["detections"].as_array().unwrap();
        assert!(!found.is_empty());
        let mut objects = String::new();
        for d in found {
            let [x0, y0, x1, y1] = ["x0", "y0", "x1", "y1"].map(|side| d["bbox"][side].as_f64().unwrap());
            annotations.push(json!({
                "id": annotations.len() + 1, "image_id": i, "category_id": d["class_id"], "iscrowd": 0,
                "bbox": [x0, y0, x1 - x0, y1 - y0], "area": (x1 - x0) * (y1 - y0),
            }));
            let name = d["label"].as_str().unwrap().replace("airplane", "aeroplane");
            objects += &format!(
                "<object><name>{name}</name><bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{x1}</xmax><ymax>{y1}</ymax>\
                 </bndbox></object>",
                x0 + 1.0,
                y0 + 1.0
            );
        }
        let text = format!("<annotation><filename>{file}</filename>{objects}</annotation>");
        fs::write(voc.join("Annotations").join(format!("{i}.xml")), text).unwrap();
    }
    fs::create_dir(at.join("COCO/annotations")).unwrap();
    let truth = json!({ "images": images, "categories": categories, "annotations": annotations });
    fs::write(at.join("COCO/annotations/instances_val2017.json"), truth.to_string()).unwrap();
    fs::write(voc.join("ImageSets/Main/val.txt"), "chelsea\ncoffee\n").unwrap();
    for data in ["COCO", "VOC"] {
        let line = format!("eval packdet --data {data} {weights} --json");
        let ran = zoo(at, &line).expect_code(0);
        let report = ran.json();
        assert_eq!(report["pictures"], 2, "{data}");
        assert!(report["ap50"].as_f64().unwrap() > 0.99, "{data}: {report}");
        assert_eq!(ran.stderr.contains("unicorn"), data == "COCO", "{}", ran.stderr);
        assert!(!report["per_class"].as_object().unwrap().is_empty());
    }
    fs::write(voc.join("ImageSets/Main/val.txt"), "coffee  1\n").unwrap();
    let report = zoo(at, &format!("eval packdet --data VOC {weights} --json")).expect_code(0).json();
    assert_eq!(report["pictures"], 1);
    let text = zoo(at, &format!("eval packdet --data COCO {weights}")).expect_code(0).stdout;
    assert!(text.contains("AP75") && text.contains("2 pictures"), "{text}");
}

#[test]
fn faults_are_usage_errors() {
    let folder = tempfile::tempdir().unwrap();
    plain(&folder.path().join("a.png"), FrameSize::new(64, 64));
    fs::create_dir(folder.path().join("empty")).unwrap();
    for (line, parts) in [
        (
            "run packdet/fcos-r50-torchvision a.png",
            &["fcos_resnet50_fpn_coco", "zoo convert", "--random"][..],
        ),
        ("run packdet/mnv2-tiny a.png", &["nobody has published weights for packdet/mnv2-tiny"]),
        ("run packdet/mnv2-tiny a.png --random --size 9000", &["neither above 8192"]),
        ("run packdet/mnv2-tiny a.png --random --tta --flip", &["--flip"]),
        ("run packdet/mnv2-tiny a.png --random --scales 1", &["packdet has no option --scales"]),
        ("run hyperseg/camvid-s a.png --random --show-plane", &["hyperseg has no option --show-plane"]),
        ("run patchwork-det a.png --tta", &["patchwork-det has no option --tta"]),
        ("eval packdet --data empty --random", &["there is nothing to measure"]),
        ("eval packdet --data empty", &["has neither Annotations (PASCAL VOC) nor"]),
        ("eval packdet", &["expected --data DIR, or --coco FILE --images DIR"]),
    ] {
        let ran = zoo(folder.path(), line).expect_code(2);
        for part in parts {
            assert!(ran.stderr.contains(part), "zoo {line}: no '{part}' in {}", ran.stderr);
        }
    }
}

#[test]
fn times_and_costs() {
    let folder = tempfile::tempdir().unwrap();
    let line = "bench packdet/mnv2-tiny --size 64x64 --runs 1 --warmup 1 --layers --json";
    let report = zoo(folder.path(), line).expect_code(0).json();
    assert!(report["mmacs"].as_f64().unwrap() > 1.0 && !report["layers"].as_array().unwrap().is_empty());
    let refused = zoo(folder.path(), "bench packdet/mnv2-tiny --size 32x64").expect_code(2);
    assert!(refused.stderr.contains("at least 64"), "{}", refused.stderr);
    let text = zoo_in(folder.path(), ["info", "packdet"]).expect_code(0).stdout;
    for expected in ["packdet/r50-m4", "31591962", "163.266", "36493364", "878.1", "RetinaPack on ResNet-50"]
    {
        assert!(text.contains(expected), "no {expected} in {text}");
    }
}

/// A checkpoint as maskrcnn-benchmark leaves it: a legacy container, the optimiser's state, DDP's prefix, counters.
#[test]
fn a_training_checkpoint_is_converted() {
    let folder = tempfile::tempdir().unwrap();
    let map = VarMap::new();
    let net = Preset::Mnv2Tiny.config();
    PackDetNet::new(&net, VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu)).unwrap();
    let mut writer = TorchWriter::new();
    let mut entries: Vec<(Py, Py)> = Vec::new();
    for (name, var) in map.data().lock().unwrap().iter() {
        let storage = writer.floats(&var.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let tensor = Py::tensor(&storage, 0, var.dims(), var.as_tensor().stride());
        entries.push((Py::text(&format!("module.{name}")), tensor));
    }
    let storage = writer.floats(&[7.0]);
    let one = || Py::tensor(&storage, 0, &[1], &[1]);
    for extra in ["backbone.body.features.0.1.num_batches_tracked", "rpn.anchor_generator.cell_anchors.0"] {
        entries.push((Py::text(&format!("module.{extra}")), one()));
    }
    let momentum = Py::dict([("0", Py::dict([("momentum_buffer", one())]))]);
    let root = Py::dict([
        ("model", Py::OrderedDict(entries)),
        ("optimizer", Py::dict([("state", momentum)])),
        ("iteration", Py::Int(90_000)),
    ]);
    fs::write(folder.path().join("model_final.pth"), writer.legacy(&root)).unwrap();
    let ran = zoo(folder.path(), "convert model_final.pth --arch packdet/mnv2-tiny -o own").expect_code(0);
    assert!(ran.stdout.contains("tensors of packdet/mnv2-tiny are in model_final.pth"), "{}", ran.stdout);
    for left in
        ["num_batches_tracked: a counter of training", "cell_anchors.0: anchors, which are drawn anew"]
    {
        assert!(ran.stderr.contains(left), "{}", ran.stderr);
    }
    let config: Json =
        serde_json::from_slice(&fs::read(folder.path().join("own/config.json")).unwrap()).unwrap();
    assert_eq!(
        config["pictures"]["resizing"],
        json!({ "short": 800, "long": 1333, "rule": "maskrcnn-benchmark" })
    );
    assert_eq!(config["pictures"]["classes"][79], json!({ "id": 90, "name": "toothbrush" }));
    plain(&folder.path().join("a.png"), FrameSize::new(64, 64));
    let line = "run packdet a.png --weights own/model.safetensors --size 64x96 --json";
    zoo(folder.path(), line).expect_code(0).json();
    let wrong = zoo(folder.path(), "convert model_final.pth --arch packdet/r50-m4 -o other").expect_code(1);
    assert!(wrong.stderr.contains("missing"), "{}", wrong.stderr);
}
