//! `zoo run | eval | bench hyperseg` and the demo binary. All weights are random: what is shown is that pictures go
//! in and maps come out, and that what cannot be is said.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use hyperseg::{Config, HyperSegNet, Preset};
use serde_json::{Value as Json, json};
use zoo_core::labels::{CAMVID_12, CITYSCAPES_19};
use zoo_core::{FrameSize, Image, SegMap};
use zoo_vision::write;

use crate::support::{Ran, command, frames, photo, plain, zoo, zoo_in};

fn shares(record: &Json) -> f64 {
    record["coverage"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum()
}

/// Pixel values of an indexed or gray PNG.
fn indices(path: &Path) -> Vec<u8> {
    let file = std::io::BufReader::new(fs::File::open(path).unwrap());
    let mut reader = png::Decoder::new(file).read_info().unwrap();
    let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
    reader.next_frame(&mut bytes).unwrap();
    bytes
}

#[test]
fn pictures_become_masks_overlays_and_coverage() {
    let folder = tempfile::tempdir().unwrap();
    let photo = photo("chelsea.png");
    let size = zoo_vision::read(&photo).unwrap().size();
    let run = |options: &str| {
        let line = format!("run hyperseg/cityscapes-m {} --random --size 64x128 {options}", photo.display());
        zoo(folder.path(), &line).expect_code(0)
    };
    let record = run("--json -o shown").json();
    assert_eq!(record["weights"], "random weights");
    assert_eq!(record["coverage"].as_object().unwrap().len(), 19);
    assert!((shares(&record) - 1.0).abs() < 1e-4, "{record}");
    let drawn = zoo_vision::read(folder.path().join("shown/chelsea.png")).unwrap();
    assert!(drawn.height() > size.height && drawn.width() == size.width, "a legend below the picture");
    let mask = indices(&folder.path().join("shown/chelsea_mask.png"));
    assert_eq!(mask.len(), size.area());
    assert!(mask.iter().all(|class| *class < 19));

    run("--json -o ids --ids");
    let ids = indices(&folder.path().join("ids/chelsea_mask.png"));
    for (class, id) in mask.iter().zip(&ids) {
        assert_eq!(*id, CITYSCAPES_19.classes()[usize::from(*class)].id);
    }

    let text = run("--no-draw --timings");
    assert!(text.stdout.contains("[random weights]") && text.stdout.contains(" %"), "{}", text.stdout);
    assert!(text.stderr.contains("pictures are fitted to 64×128"), "{}", text.stderr);
    assert!(!folder.path().join("out").exists());
    for views in ["--scales 1,0.5 --merge max --flip", "--slide --limit 1", "--slide=0.5 --flip"] {
        let record = run(&format!("--json {views}")).json();
        assert!((shares(&record) - 1.0).abs() < 1e-4, "{views}: {record}");
    }
}

#[test]
fn vocs_model_is_the_default_and_clips_go_frame_by_frame() {
    let folder = tempfile::tempdir().unwrap();
    frames(folder.path(), 3);
    let line = "run hyperseg clip --random --size 128x128 --batch 2 --json -o shown";
    let records = zoo(folder.path(), line).expect_code(0).json_lines();
    assert_eq!(records.len(), 3);
    assert!(records.iter().all(|record| record["coverage"]["aeroplane"].is_number()), "{records:?}");
    let sizes: Vec<FrameSize> = (0..3)
        .map(|t| zoo_vision::read(folder.path().join(format!("shown/frame{t}.png"))).unwrap().size())
        .collect();
    assert!(sizes.iter().all(|size| *size == sizes[0]), "frames of a clip stay alike: {sizes:?}");
    let binary = env!("CARGO_BIN_EXE_hyperseg");
    let args = ["clip", "--stills", "--limit", "1", "--random", "--size", "128x128", "--json"];
    let ran: Ran = command(binary, folder.path()).args(args).output().unwrap().into();
    let alone = ran.expect_code(0).json();
    for (class, share) in alone["coverage"].as_object().unwrap() {
        let apart = share.as_f64().unwrap() - records[0]["coverage"][class].as_f64().unwrap();
        assert!(apart.abs() < 1e-3, "the same model, {class}: {apart}");
    }
}

/// A folder as `zoo convert` writes it, of untrained weights.
fn converted(folder: &Path, cfg: &Config, config: &Json) {
    let vars = VarMap::new();
    HyperSegNet::new(cfg, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu)).unwrap();
    let data = vars.data().lock().unwrap();
    let tensors: HashMap<String, Tensor> =
        data.iter().map(|(name, var)| (name.clone(), var.as_detached_tensor())).collect();
    fs::create_dir_all(folder).unwrap();
    candle_core::safetensors::save(&tensors, folder.join("model.safetensors")).unwrap();
    fs::write(folder.join("config.json"), config.to_string()).unwrap();
}

#[test]
fn the_configuration_beside_weights_says_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let cfg = Config { backbone: hyperseg::BackboneName::EfficientnetLite0, ..Preset::CamvidS.config() };
    converted(&folder.path().join("own"), &cfg, &json!({ "config": cfg }));
    plain(&folder.path().join("a.png"), FrameSize::new(50, 70));
    let line = "run hyperseg a.png --weights own/model.safetensors --size 64x64 --json";
    let record = zoo(folder.path(), line).expect_code(0).json();
    assert!(record["coverage"]["Bicyclist"].is_number() && record["weights"].is_null(), "{record}");

    let other = zoo(folder.path(), &line.replace("hyperseg", "hyperseg/camvid-l")).expect_code(0);
    assert!(
        other.stderr.contains("is of another net than hyperseg/camvid-l: it decides"),
        "{}",
        other.stderr
    );

    let fails = |line: &str, code: i32, parts: &[&str]| {
        let ran = zoo(folder.path(), line).expect_code(code);
        for part in parts {
            assert!(ran.stderr.contains(part), "zoo {line}: no '{part}' in {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("panicked"), "zoo {line}: {}", ran.stderr);
    };
    let weights = "--weights own/model.safetensors";
    fails(
        &format!("run hyperseg/voc-l a.png {weights}"),
        2,
        &["12 classes (Sky, Building, Column-Pole, …)", "preset voc-l is of 21", "leave the preset out"],
    );
    // Without its description a file is held against the preset.
    fs::remove_file(folder.path().join("own/config.json")).unwrap();
    fails(&format!("run hyperseg a.png {weights}"), 2, &["no config.json beside", "name a preset"]);
    fails(&format!("run hyperseg/voc-l a.png {weights}"), 1, &["by version v1_0", "is of v0_1"]);
    fails(
        &format!("run hyperseg/cityscapes-m a.png {weights}"),
        1,
        &["predicts 12 classes", "configuration 19"],
    );
    fails(
        "run hyperseg/camvid-s a.png",
        2,
        &["zoo convert camvid_efficientnet_b1_hyperseg-s.pth", "--weights FILE takes them", "--random"],
    );
    fails("run hyperseg/camvid-l a.png", 2, &["nobody has published weights for hyperseg/camvid-l"]);
    fails(
        "run hyperseg/voc-l a.png --random --size 130x200",
        2,
        &["multiples of 128", "--size 128x256 (rows x columns)"],
    );
    fails("run hyperseg a.png --random --scales 1,0", 2, &["the scale 0 is out of range"]);
    fails("run hyperseg a.png --random --slide=1", 2, &["never advance"]);
    fails("run hyperseg a.png --random --merge max", 2, &["--scales"]);
    fails("run hyperseg a.png --random --policy motion", 2, &["hyperseg has no option --policy"]);
    fails("run patchwork-det a.png --slide", 2, &["patchwork-det has no option --slide"]);
    fails("run layers/resnet18 a.png --random --size 64", 2, &["layers/resnet18 has no option --size"]);
    fails("run patchwork-det a.png --ids --no-draw", 2, &["no masks, which --ids is for"]);
    fails("run hyperseg/camvid-s a.png --random --size 64 --csv x.csv", 2, &["no place to say"]);

    fs::write(folder.path().join("torn.png"), &fs::read(photo("coffee.png")).unwrap()[..5000]).unwrap();
    let line = "run hyperseg/camvid-s torn.png a.png --random --size 64x64 --json";
    let ran = zoo(folder.path(), line).expect_code(3);
    assert!(ran.stderr.contains("cannot decode torn.png") && ran.json_lines().len() == 1, "{ran:?}");
}

/// CamVid with two tiny pictures.
fn camvid(root: &Path) {
    for (i, name) in ["x_1", "x_2"].into_iter().enumerate() {
        let size = FrameSize::new(30, 40 + i);
        let photo = zoo_vision::read(photo("coffee.png")).unwrap().crop(90, 150, size).unwrap();
        let classes: Vec<u8> = (0..size.area()).map(|pixel| (pixel % 12) as u8).collect();
        let colors = classes.iter().flat_map(|class| CAMVID_12.classes()[usize::from(*class)].color);
        for folder in ["test", "test_labels"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        write::image(root.join(format!("test/{name}.png")), &photo).unwrap();
        let labels = Image::new(size, colors.collect()).unwrap();
        write::image(root.join(format!("test_labels/{name}_L.png")), &labels).unwrap();
    }
}

#[test]
fn a_data_set_is_measured_by_class() {
    let folder = tempfile::tempdir().unwrap();
    camvid(&folder.path().join("CamVid"));
    let line = "eval hyperseg/camvid-s --data CamVid --random --size 64x64";
    let report = zoo(folder.path(), &format!("{line} --json")).expect_code(0).json();
    assert_eq!(
        (&report["layout"], &report["split"], &report["pictures"]),
        (&json!("camvid"), &json!("test"), &json!(2))
    );
    assert_eq!((&report["weights"], &report["pixels"]), (&json!("random weights"), &json!(30 * (40 + 41))));
    let classes = report["classes"].as_array().unwrap();
    assert_eq!((classes.len(), &classes[11]["label"]), (12, &json!("Void")));
    let mean = classes.iter().map(|class| class["iou"].as_f64().unwrap()).sum::<f64>() / 12.0;
    assert!((mean - report["mean_iou"].as_f64().unwrap()).abs() < 1e-9, "{report}");
    assert!((0.0..0.5).contains(&mean), "what random weights find is nothing: {mean}");

    // The matrix of the maps that `run` writes is the same.
    let run = "run hyperseg/camvid-s CamVid/test --stills --random --size 64x64 --json -o maps";
    zoo(folder.path(), run).expect_code(0);
    let (mut right, mut all) = (0, 0);
    for name in ["x_1", "x_2"] {
        let map = indices(&folder.path().join(format!("maps/{name}_mask.png")));
        right += map.iter().enumerate().filter(|(pixel, class)| pixel % 12 == usize::from(**class)).count();
        all += map.len();
    }
    let accuracy = report["pixel_accuracy"].as_f64().unwrap();
    assert!((accuracy - right as f64 / all as f64).abs() < 1e-9, "{accuracy}: {right} of {all}");

    let text = zoo(folder.path(), &format!("{line} --limit 1 --flip --scales 1,0.5")).expect_code(0).stdout;
    for part in ["Sign-Symbol", "mean", "CamVid, test: 1 pictures", "random weights"] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn data_that_does_not_fit_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    camvid(&at.join("CamVid"));
    fs::create_dir(at.join("nothing")).unwrap();
    // The tutorial's numbers, one of which is none.
    for name in ["test", "testannot"] {
        fs::create_dir_all(at.join("numbers").join(name)).unwrap();
    }
    plain(&at.join("numbers/test/x.png"), FrameSize::new(4, 4));
    let map = SegMap::new(FrameSize::new(4, 4), vec![77; 16], CAMVID_12.legend()).unwrap();
    write::mask(at.join("numbers/testannot/x.png"), &map).unwrap();
    let fails = |line: &str, code: i32, parts: &[&str]| {
        let ran = zoo_in(at, format!("eval {line}").split_whitespace()).expect_code(code);
        for part in parts {
            assert!(ran.stderr.contains(part), "zoo eval {line}: no '{part}' in {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("panicked"), "zoo eval {line}: {}", ran.stderr);
    };
    let random = "--random --size 128x128";
    fails(
        &format!("hyperseg/voc-l --data CamVid {random}"),
        1,
        &[
            "the data is CamVid, 12 classes (Sky, Building, Column-Pole, …), but the model labels 21 classes (background",
        ],
    );
    fails(&format!("hyperseg/camvid-s --data CamVid --layout voc {random}"), 1, &["the data is PASCAL VOC"]);
    fails(
        &format!("hyperseg/camvid-s --data CamVid --layout segnet {random}"),
        1,
        &["as CamVid (SegNet tutorial)", "testannot"],
    );
    fails(
        &format!("hyperseg/camvid-s --data CamVid --layout camvid --split val {random}"),
        1,
        &["part val", "CamVid/val"],
    );
    fails(
        &format!("hyperseg/camvid-s --data CamVid --layout kitti {random}"),
        2,
        &["expected one of camvid, segnet, cityscapes, voc"],
    );
    fails(&format!("hyperseg/camvid-s --data nothing {random}"), 1, &["nothing"]);
    fails(&format!("hyperseg/camvid-s --data numbers {random}"), 1, &["holds 77 at row 0, column 0"]);
    fails(&format!("hyperseg/camvid-s {random}"), 2, &["expected --data DIR"]);
    fails(&format!("hyperseg/camvid-s clip {random}"), 2, &["hyperseg has no option CLIP"]);
    fails("patchwork-det --data CamVid", 2, &["patchwork-det has no option --data"]);
    fails("patchwork-det clip --slide", 2, &["patchwork-det has no option --slide"]);
    fails("hyperseg/camvid-l --data CamVid", 2, &["nobody has published weights"]);

    fs::write(at.join("CamVid/test/x_2.png"), b"torn").unwrap();
    fails(&format!("hyperseg/camvid-s --data CamVid {random}"), 1, &["x_2.png"]);
}

#[test]
fn the_layers_of_a_bench_are_all_of_the_net() {
    let folder = tempfile::tempdir().unwrap();
    for (preset, size) in [("camvid-s", "64x64"), ("cityscapes-s", "64x64"), ("voc-l", "128x128")] {
        let line = format!("bench hyperseg/{preset} --size {size} --runs 2 --warmup 1 --layers --json");
        let report = zoo(folder.path(), &line).expect_code(0).json();
        assert_eq!(report["net"], format!("hyperseg/{preset}"));
        let layers = report["layers"].as_array().unwrap();
        let sum = |field: &str| layers.iter().map(|layer| layer[field].as_f64().unwrap()).sum::<f64>();
        let (macs, all) = (sum("mmacs"), report["mmacs"].as_f64().unwrap());
        assert!((macs - all).abs() < 1e-6 * all, "{preset}: {macs} of {all} MMACs");
        assert!(report["peak_memory_mib"].as_f64().unwrap() > 0.0, "{preset}");
    }
    let ran = zoo(folder.path(), "bench hyperseg/camvid-s --size 100x64").expect_code(2);
    assert!(ran.stderr.contains("--size 96x64"), "{}", ran.stderr);
}
