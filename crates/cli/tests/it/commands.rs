//! `zoo info | bench | eval | convert | fetch | parity`.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use hyperseg::{HyperSegNet, Preset};
use serde_json::{Value as Json, json};
use zoo_layers::{Classifier, MobileNetV2Config};
use zoo_testing::{Py, TorchWriter};

use crate::support::{command, frames, golden, photo, plain, zoo, zoo_in};

#[test]
fn info_lists_every_preset_with_the_reconstructions_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let infos = zoo(folder.path(), "info --json").expect_code(0).json();
    // Of the COCO net's values, 4,475,167 remain when its 25,376 batch norm channels are folded.
    for (name, mflops, params, status) in [
        ("patchwork-det/coco", 1499.59, 4_475_167 + 25_376, json!("bundled")),
        ("patchwork-det/vid", 2046.99, 0, json!("random")),
        ("patchwork-det/vid-depth0.5", 602.31, 0, json!("random")),
        ("patchwork-det/davis", 3313.21, 0, json!("random")),
        ("layers/mobilenet-v2", 601.77, 3_504_872, Json::Null),
    ] {
        let info = infos.as_array().unwrap().iter().find(|info| info["name"] == name).unwrap();
        let got = info["mflops"].as_f64().unwrap();
        assert!((got - mflops).abs() < 0.01, "{name}: {got} MFLOPs, expected {mflops}");
        if params > 0 {
            assert_eq!(info["cost"]["params"], params, "{name}");
        }
        if !status.is_null() {
            assert_eq!(info["weights"][0]["status"], status, "{name}");
        }
    }
    let one = zoo(folder.path(), "info patchwork-det/davis --json").expect_code(0).json();
    assert_eq!(one.as_array().unwrap().len(), 1);
    let text = zoo(folder.path(), "info patchwork-det").expect_code(0).stdout;
    for part in ["Table 4", "Table 5", "542.49", "988.36", "221.03", "averages SF/K"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = command(env!("CARGO_BIN_EXE_zoo"), folder.path())
        .args(["info", "patchwork-det"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn benches_report_every_variant() {
    let folder = tempfile::tempdir().unwrap();
    let report = zoo(folder.path(), "bench op depthwise --runs 1 --warmup 1 --json").expect_code(0).json();
    assert_eq!(report["rows"].as_array().unwrap().len(), 5);
    let line = "bench patchwork-det --size 128x128 --runs 2 --warmup 1 --threads 1 --json";
    let report = zoo(folder.path(), line).expect_code(0).json();
    let variants: Vec<_> =
        report["rows"].as_array().unwrap().iter().map(|row| row["variant"].as_str().unwrap()).collect();
    assert_eq!(variants.first(), Some(&"single frame"));
    assert_eq!(variants.last(), Some(&"single frame, plain candle"));
    assert_eq!(variants.len(), 6);
    assert_eq!(report["host"]["threads"], 1);
    assert_eq!(report["rows"][0]["step_ms"]["n"], 2);
    assert_eq!(report["rows"][0]["ratio"], 1.0);
}

#[test]
fn the_layers_of_a_bench_hold_all_of_its_operations() {
    let folder = tempfile::tempdir().unwrap();
    for (net, input, first) in [
        ("layers/mobilenet-v2", "96x64", "features.0.0"),
        ("layers/efficientnet-b0", "64x64", "features.0.0"),
        ("layers/resnet18", "64x96", "conv1"),
        ("patchwork-det", "128x128", "backbone.features.0.0"),
    ] {
        let line = format!("bench {net} --size {input} --runs 3 --warmup 1 --layers --json");
        let report = zoo(folder.path(), &line).expect_code(0).json();
        let layers = report["layers"].as_array().unwrap();
        assert_eq!(layers[0]["name"], first, "{net}");
        let sum = |field: &str| layers.iter().map(|layer| layer[field].as_f64().unwrap()).sum::<f64>();
        let (macs, all) = (sum("mmacs"), report["mmacs"].as_f64().unwrap());
        assert!((macs - all).abs() < 1e-6 * all, "{net}: {macs} of {all} MMACs");
        assert!(layers.iter().all(|layer| layer["ms"].as_f64().unwrap() > 0.0), "{net}: {layers:?}");
    }
    let report =
        zoo(folder.path(), "bench layers/resnet18 --size 64x64 --runs 1 --json").expect_code(0).json();
    assert_eq!(report.get("layers"), None);
    let ran = zoo(folder.path(), "bench layers/mobilenet-v2 --size 64x64 --runs 1 --layers").expect_code(0);
    assert!(ran.stdout.contains("between the layers: "), "{}", ran.stdout);
}

#[test]
fn parity_passes_fails_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["cell", "metrics", "postprocess", "sf", "stream_m2n1", "stream_seg_m2n1"];
    let files = names.map(|name| golden(&format!("patchwork_{name}.safetensors")).display().to_string());
    let all = ["parity".to_owned()].into_iter().chain(files.clone());
    let ran = zoo_in(folder.path(), all).expect_code(0);
    assert!(ran.stdout.ends_with("6 of 6 files passed\n"), "{}", ran.stdout);
    assert_eq!(ran.stdout.lines().count(), 7, "a line a file and one for all: {}", ran.stdout);
    let ran = zoo_in(folder.path(), ["parity", &files[0], "-v"]).expect_code(0);
    assert!(ran.stdout.contains("mean rel") && ran.stdout.contains("  ok\n"), "{}", ran.stdout);

    let ran = zoo_in(folder.path(), ["parity", &files[0], "nothere.safetensors", "--json"]).expect_code(3);
    assert_eq!((&ran.json()["passed"], &ran.json()["files"]), (&json!(1), &json!(2)));
    assert!(ran.stderr.contains("nothere.safetensors"), "{}", ran.stderr);
    let ran = zoo(folder.path(), "parity nothere.safetensors").expect_code(1);
    assert!(ran.stdout.contains("0 of 1"), "{}", ran.stdout);

    let mut bytes = fs::read(&files[0]).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x40;
    fs::write(folder.path().join("changed.safetensors"), bytes).unwrap();
    let ran = zoo(folder.path(), "parity changed.safetensors").expect_code(1);
    assert!(ran.stdout.contains("  FAIL: value "), "{}", ran.stdout);
    assert!(!ran.stdout.contains("  ok\n"), "only what differs: {}", ran.stdout);
}

#[test]
fn parity_of_hyperseg() {
    let folder = tempfile::tempdir().unwrap();
    let names = [
        "camvid_s_128x192.safetensors",
        "city_m_128x256.safetensors",
        "divide_channels.json",
        "effnet_b1_features_96x160.safetensors",
        "layers.safetensors",
        "losses.safetensors",
        "preprocess.safetensors",
        "voc_l_128x128.safetensors",
    ];
    let files = names
        .map(|name| golden(&format!("../../../hyperseg/tests/golden/hyperseg_{name}")).display().to_string());
    let ran = zoo_in(folder.path(), ["parity".to_owned()].into_iter().chain(files)).expect_code(0);
    assert!(ran.stdout.ends_with("8 of 8 files passed\n"), "{}", ran.stdout);
}

#[test]
fn parity_holds_the_weights_against_their_original_graph() {
    let folder = tempfile::tempdir().unwrap();
    let files = ["astronaut", "chelsea", "coffee"]
        .map(|name| golden(&format!("../fixtures/coco_ssdlite_{name}.safetensors")).display().to_string());
    let ran = zoo_in(folder.path(), ["parity".to_owned()].into_iter().chain(files)).expect_code(0);
    assert!(ran.stdout.ends_with("3 of 3 files passed\n"), "{}", ran.stdout);
    assert!(ran.stdout.contains("(patchwork-det/coco) on cpu: passed, 8 rows"), "{}", ran.stdout);
}

#[test]
fn agreement_on_a_clip_has_the_single_frame_first() {
    let folder = tempfile::tempdir().unwrap();
    frames(folder.path(), 6);
    let line =
        "eval patchwork-det clip --size 256x256 --modes interval=2 m4n2-motion --skip 1 --limit 4 --json";
    let report = zoo(folder.path(), line).expect_code(0).json();
    assert_eq!(report["frames"], 4);
    let modes: Vec<_> =
        report["rows"].as_array().unwrap().iter().map(|row| row["mode"].as_str().unwrap()).collect();
    assert_eq!(modes, ["single frame", "interval=2", "M=4 N=2 motion"]);
    assert_eq!(report["rows"][0]["agreement"]["ap50"], 1.0);
    assert!(report["rows"][2]["startup_ms"].as_f64().unwrap() > 0.0);
}

#[test]
fn coco_ap_of_boxes_where_the_objects_are() {
    let folder = tempfile::tempdir().unwrap();
    let images = [("astronaut.png", 1), ("chelsea.png", 17), ("coffee.png", 47)];
    let boxes = [[24.0, 8.0, 344.0, 482.0], [1.0, 3.0, 402.0, 295.0], [174.0, 22.0, 238.0, 227.0]];
    let annotations = json!({
        "images": images.iter().zip(10..).map(|((file, _), id)| json!({ "id": id, "file_name": file })).collect::<Vec<_>>(),
        "categories": images.iter().map(|(_, class)| json!({ "id": class, "name": class.to_string() })).collect::<Vec<_>>(),
        "annotations": images.iter().zip(boxes).zip(10..).map(|(((_, class), bbox), id)| json!({
            "id": id, "image_id": id, "category_id": class, "bbox": bbox, "area": bbox[2] * bbox[3], "iscrowd": 0,
        })).collect::<Vec<_>>(),
    });
    fs::write(folder.path().join("truth.json"), annotations.to_string()).unwrap();
    let photos = photo("");
    let args =
        ["eval", "patchwork-det", "--coco", "truth.json", "--images", photos.to_str().unwrap(), "--json"];
    let report = zoo_in(folder.path(), args).expect_code(0).json();
    assert!(report["ap50"].as_f64().unwrap() > 0.999, "{report}");
    assert!(report["ap"].as_f64().unwrap() > 0.9, "{report}");
}

#[test]
fn davis_measures_every_sequence() {
    let folder = tempfile::tempdir().unwrap();
    let clip = frames(folder.path(), 3);
    let images = folder.path().join("JPEGImages/480p");
    let masks = folder.path().join("Annotations/480p/cat");
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&masks).unwrap();
    fs::rename(clip, images.join("cat")).unwrap();
    for t in 0..3 {
        plain(&masks.join(format!("frame{t}.png")), zoo_core::FrameSize::new(300, 400));
    }
    let line = "eval patchwork-det --davis . --random --size 128x128 --json";
    let report = zoo(folder.path(), line).expect_code(0).json();
    assert_eq!(report["weights"], "random weights");
    assert_eq!(report["sequences"][0]["frames"], 3);
    let j = report["mean"]["j"].as_f64().unwrap();
    assert!((0.0..=1.0).contains(&j), "{report}");
    let ran = zoo(folder.path(), "eval patchwork-det --davis . --size 128x128").expect_code(2);
    assert!(ran.stderr.contains("nobody has trained weights for patchwork-det/davis"), "{}", ran.stderr);
}

fn checkpoint(path: &Path, tensors: &[(String, Vec<usize>, Vec<f32>)], legacy: bool) {
    let mut writer = TorchWriter::new();
    let entries: Vec<(String, Py)> = tensors
        .iter()
        .map(|(name, shape, values)| {
            let strides: Vec<usize> = (1..=shape.len()).map(|from| shape[from..].iter().product()).collect();
            let storage = writer.floats(values);
            (name.clone(), Py::tensor(&storage, 0, shape, &strides))
        })
        .collect();
    let root = Py::OrderedDict(entries.into_iter().map(|(name, tensor)| (Py::text(&name), tensor)).collect());
    fs::write(path, if legacy { writer.legacy(&root) } else { writer.zip(&root) }).unwrap();
}

#[test]
fn info_of_hyperseg_has_table_s3_beside_its_own_counts() {
    let folder = tempfile::tempdir().unwrap();
    let text = zoo(folder.path(), "info hyperseg").expect_code(0).stdout;
    for expected in ["hyperseg/voc-l", "39680458", "10041398", "Table S3", "4 8 16 16 32", "16.934"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn a_small_checkpoint_of_either_container_converts() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = [("head.weight".to_owned(), vec![2, 3], vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0])];
    for legacy in [false, true] {
        checkpoint(&folder.path().join("tiny.pth"), &tensors, legacy);
        let report =
            zoo(folder.path(), "convert tiny.pth -o tiny --licence MIT --json").expect_code(0).json();
        assert_eq!(
            (&report["tensors"], &report["values"], &report["fits"]),
            (&json!(1), &json!(6), &json!(false))
        );
        let stored = zoo_hub::Checkpoint::open(&folder.path().join("tiny/model.safetensors")).unwrap();
        let weight = stored.tensor("head.weight", DType::F32, &Device::Cpu, false).unwrap();
        assert_eq!(weight.to_vec2::<f32>().unwrap(), [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], "legacy: {legacy}");
        assert!(
            fs::read_to_string(folder.path().join("tiny/README.md")).unwrap().contains("license: \"MIT\"")
        );
    }
    let ran = zoo(folder.path(), "convert tiny.pth -o wrong --arch patchwork-det/coco").expect_code(1);
    assert!(ran.stderr.contains("missing, 1 unexpected, 0 wrong shape"), "{}", ran.stderr);
    assert!(ran.stderr.contains("head.weight"), "{}", ran.stderr);
    assert!(!folder.path().join("wrong").exists(), "nothing is written that does not fit");
    let ran = zoo(folder.path(), "run layers/mobilenet-v2 x.png --weights tiny.pth").expect_code(2);
    assert!(ran.stderr.contains("`zoo convert tiny.pth -o DIR`"), "{}", ran.stderr);
}

#[test]
fn a_torchvision_checkpoint_converts_and_names_five_classes() {
    let folder = tempfile::tempdir().unwrap();
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    Classifier::new(&MobileNetV2Config::default(), 1000, vb).unwrap();
    let tensors: Vec<_> = map
        .data()
        .lock()
        .unwrap()
        .iter()
        .map(|(name, var)| (name.clone(), var.dims().to_vec(), var.flatten_all().unwrap().to_vec1().unwrap()))
        .collect();
    checkpoint(&folder.path().join("mobilenet_v2.pth"), &tensors, true);
    let line =
        "convert mobilenet_v2.pth --arch layers/mobilenet-v2 --licence BSD-3-Clause --f16 -o mobilenet";
    let ran = zoo(folder.path(), line).expect_code(0);
    assert!(ran.stdout.contains("all 262 tensors of layers/mobilenet-v2 are in"), "{}", ran.stdout);
    let config = fs::read_to_string(folder.path().join("mobilenet/config.json")).unwrap();
    assert!(config.contains("layers/mobilenet-v2") && config.contains("center_crop"), "{config}");

    let photo = photo("chelsea.png");
    let args = [
        "run",
        "layers/mobilenet-v2",
        photo.to_str().unwrap(),
        "--weights",
        "mobilenet/model.safetensors",
        "--json",
    ];
    let record = zoo_in(folder.path(), args).expect_code(0).json();
    let classes = record["classes"].as_array().unwrap();
    assert_eq!(classes.len(), 5);
    assert!(classes.is_sorted_by(|a, b| a["score"].as_f64() >= b["score"].as_f64()), "{record}");
    let ran =
        zoo_in(folder.path(), ["run", "layers/mobilenet-v2", "x.png", "--random", "--m", "2"]).expect_code(2);
    assert!(ran.stderr.contains("layers/mobilenet-v2 has no option --m"), "{}", ran.stderr);
}

#[test]
fn a_checkpoint_that_describes_itself_needs_no_architecture() {
    let folder = tempfile::tempdir().unwrap();
    let map = VarMap::new();
    HyperSegNet::new(&Preset::CamvidS.config(), VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu))
        .unwrap();
    let mut writer = TorchWriter::new();
    let mut entries: Vec<(Py, Py)> = Vec::new();
    for (name, var) in map.data().lock().unwrap().iter() {
        let storage = writer.floats(&var.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        entries.push((Py::text(name), Py::tensor(&storage, 0, var.dims(), var.as_tensor().stride())));
    }
    let storage = writer.floats(&[-1.0; 8]);
    entries.push((Py::text("decoder.coord2_2"), Py::tensor(&storage, 0, &[1, 2, 2, 2], &[8, 4, 2, 1])));
    let arch = "hyperseg.models.hyperseg_v1_0.hyperseg_efficientnet('efficientnet-b1',pretrained=True,levels=2,\
                kernel_sizes=[1,1,1,3,3],level_channels=[64,32,16,16,16],expand_ratio=2,\
                weight_groups=[64,32,32,16,8],num_classes=12)";
    let root = Py::dict([("state_dict", Py::OrderedDict(entries)), ("arch", Py::text(arch))]);
    fs::write(folder.path().join("camvid.pth"), writer.zip(&root)).unwrap();

    let ran = zoo(folder.path(), "convert camvid.pth -o camvid").expect_code(0);
    assert!(ran.stdout.contains("tensors of hyperseg/camvid-s are in camvid.pth"), "{}", ran.stdout);
    assert!(ran.stderr.contains("left out decoder.coord2_2: a cached position map"), "{}", ran.stderr);
    let config: Json =
        serde_json::from_slice(&fs::read(folder.path().join("camvid/config.json")).unwrap()).unwrap();
    assert_eq!(config["architecture"], "hyperseg/camvid-s");
    assert_eq!(config["config"], serde_json::to_value(Preset::CamvidS.config()).unwrap());
    let pictures = &config["pictures"];
    assert_eq!(pictures["preprocess"]["fit"]["stretch"]["size"], json!({ "height": 576, "width": 768 }));
    assert_eq!(pictures["labels"][11]["name"], "Void");
    let ran = zoo(folder.path(), "convert camvid.pth -o voc --arch hyperseg/voc-l").expect_code(2);
    let expected = "the file's own description is of another net than hyperseg/voc-l: leave --arch out";
    assert!(ran.stderr.contains(expected), "{}", ran.stderr);
    assert!(!folder.path().join("voc").exists(), "nothing is written that does not fit");
    zoo(folder.path(), "convert camvid.pth -o same --arch hyperseg/camvid-s").expect_code(0);
}

#[test]
fn fetch_says_what_is_wrong_without_a_network() {
    let folder = tempfile::tempdir().unwrap();
    let ran = zoo(folder.path(), "fetch timm/resnet50 model.safetensors").expect_code(2);
    assert!(ran.stderr.contains("OWNER/NAME@REV"), "{}", ran.stderr);
    let ran = zoo(folder.path(), "fetch timm/resnet50@main model.safetensors").expect_code(1);
    assert!(ran.stderr.contains("HF_HUB_OFFLINE"), "{}", ran.stderr);
}
