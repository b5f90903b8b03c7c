//! `zoo run | eval | bench | convert | info gsvnet-seg` and the demo binary. All weights are random or seeded: what is
//! shown is that frames go in and maps come out, and that what cannot be is said.

use std::fs;
use std::path::Path;

use candle_core::{DType, Device};
use candle_nn::{VarBuilder, VarMap};
use gsvnet_seg::{GsvNet, Preset, Schedule};
use serde_json::{Value as Json, json};
use zoo_core::labels::CITYSCAPES_19;
use zoo_core::{FrameSize, Image, SegMap};
use zoo_testing::{Py, TorchWriter};
use zoo_vision::write;

use crate::support::{Ran, command, frames, zoo};

#[test]
fn clips_have_key_frames_and_pictures_of_what_led_to_the_labels() {
    let folder = tempfile::tempdir().unwrap();
    frames(folder.path(), 4);
    let run = |options: &str| {
        zoo(folder.path(), &format!("run gsvnet-seg clip --random --json {options}")).expect_code(0)
    };
    let records = run("-o shown --show flow,edges,guide --interval 2").json_lines();
    assert_eq!(records.len(), 4);
    for record in &records {
        assert_eq!(record["weights"], "random weights");
        let shares = record["coverage"].as_object().unwrap();
        let sum: f64 = shares.values().map(|share| share.as_f64().unwrap()).sum();
        assert!(shares.len() == 19 && (sum - 1.0).abs() < 1e-4, "{record}");
    }
    let keys: Vec<&Json> = records.iter().map(|record| &record["key"]).collect();
    assert_eq!(keys, [&json!("first"), &Json::Null, &json!("interval"), &Json::Null]);
    let size = |name: &str| zoo_vision::read(folder.path().join(name)).unwrap().size();
    let first = size("shown/frame0.png");
    assert!((1..4).all(|i| size(&format!("shown/frame{i}.png")) == first), "frames of a clip stay alike");
    assert!(first.width > 2 * 400 && first.height > 3 * 300, "pictures beside the labels: {first}");
    assert_eq!(size("shown/frame0_mask.png"), FrameSize::new(300, 400));
    // A key frame has no motion: what stands in its place is black, which motion never is.
    let black = |name: &str| {
        let picture = zoo_vision::read(folder.path().join(name)).unwrap();
        let (y, x) = (150, first.width - 200);
        picture.pixels()[3 * (y * first.width + x)..][..3] == [0; 3]
    };
    assert!(black("shown/frame0.png") && !black("shown/frame1.png") && black("shown/frame2.png"));

    let with = |options: &str| run(options).json_lines();
    assert_eq!(with("--stills --limit 1")[0]["coverage"], with("--interval 1 --limit 1")[0]["coverage"]);
    assert_ne!(with("--limit 1")[0]["coverage"], with("--limit 1 --key-scale 0.5")[0]["coverage"]);
    let text = zoo(folder.path(), "run gsvnet-seg clip --random --no-draw --timings --scene-change 0.5");
    let text = text.expect_code(0);
    assert!(
        text.stderr.contains("between") && text.stderr.contains("labels of all pixels"),
        "{}",
        text.stderr
    );
    let ran: Ran = command(env!("CARGO_BIN_EXE_gsvnet-seg"), folder.path())
        .args(["clip", "--limit", "1", "--random", "--json", "--preset", "camvid-swiftnet-r18"])
        .output()
        .unwrap()
        .into();
    assert_eq!(ran.expect_code(0).json()["coverage"].as_object().unwrap().len(), 11);
}

#[test]
fn what_cannot_be_is_said() {
    let folder = tempfile::tempdir().unwrap();
    frames(folder.path(), 1);
    let fails = |line: &str, code: i32, says: &[&str]| {
        let ran = zoo(folder.path(), line).expect_code(code);
        assert!(says.iter().all(|text| ran.stderr.contains(text)), "{line}: {}", ran.stderr);
    };
    fails("run gsvnet-seg clip", 2, &["zoo convert KEYFRAME.pth --and GSVNET.tar", "--random"]);
    fails("run gsvnet-seg/camvid-swiftnet-r18 clip", 2, &["nobody has published weights", "--random"]);
    fails("run gsvnet-seg clip --random --scene-change 0", 2, &["expected a positive number"]);
    fails("run gsvnet-seg clip --random --key-scale 0.6", 2, &["expected one of 0.5, 0.75, 1.0"]);
    fails("run gsvnet-seg clip --random --interval 0", 2, &["at least 1"]);
    fails("run gsvnet-seg clip --random --size 64x64", 2, &["gsvnet-seg has no option --size"]);
    fails(
        "run gsvnet-seg clip --stills --random --show flow",
        2,
        &["--show is for clips", "name the folder"],
    );
    fails("run hyperseg clip --random --interval 2", 2, &["hyperseg has no option --interval"]);
    fails("run patchwork-det clip --show flow", 2, &["patchwork-det has no option --show"]);
    fails("eval patchwork-det clip --interval 2", 2, &["has no option --interval"]);
    write::image(folder.path().join("tiny.png"), &Image::filled(FrameSize::new(20, 90), [9; 3]).unwrap())
        .unwrap();
    fails("run gsvnet-seg tiny.png --random", 1, &["frames of 20×90", "at least 32×32"]);
}

/// Cityscapes' folders with one labelled frame, the fourth of a video of five.
fn cityscapes(root: &Path) {
    let size = FrameSize::new(64, 96);
    let write_to = |path: &str, image: &Image| {
        let path = root.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        write::image(path, image).unwrap();
    };
    let shade = |i: u8| Image::filled(size, [40 * i, 90, 200 - 30 * i]).unwrap();
    for i in 0..5 {
        write_to(&format!("leftImg8bit_sequence/val/a/a_000000_00000{i}_leftImg8bit.png"), &shade(i));
    }
    write_to("leftImg8bit/val/a/a_000000_000003_leftImg8bit.png", &shade(3));
    let labels = root.join("gtFine/val/a/a_000000_000003_gtFine_labelIds.png");
    fs::create_dir_all(labels.parent().unwrap()).unwrap();
    let classes = (0..size.area()).map(|i| (i % 19) as u8).collect();
    write::mask_of_ids(labels, &SegMap::new(size, classes, CITYSCAPES_19.legend()).unwrap()).unwrap();
}

#[test]
fn evaluation_begins_so_many_frames_before_the_labelled_one() {
    let folder = tempfile::tempdir().unwrap();
    cityscapes(&folder.path().join("data"));
    let eval = |options: &str| zoo(folder.path(), &format!("eval gsvnet-seg --data data --random {options}"));
    let report = eval("--interval 4 --json").expect_code(0).json();
    assert_eq!((report["pictures"].as_u64(), report["left_out"].as_u64()), (Some(1), Some(0)));
    let miou: Vec<f64> =
        report["miou_at"].as_array().unwrap().iter().map(|miou| miou.as_f64().unwrap()).collect();
    assert_eq!(miou.len(), 4);
    assert_eq!(report["min_miou"].as_f64(), Some(miou[3]), "of the last distance");
    assert!(report["avg_miou"].is_number() && report["temporal_consistency"].is_number(), "{report}");
    assert_eq!(report["weights"], "random weights");
    // One frame alone is the key frames' net.
    let alone = eval("--interval 1 --json").expect_code(0).json();
    assert_eq!(alone["miou_at"][0].as_f64(), Some(miou[0]));
    assert_eq!(alone["avg_miou"], alone["min_miou"]);
    let text = eval("--interval 2").expect_code(0).stdout;
    assert!(text.contains("1 frame before") && text.contains("random weights"), "{text}");

    let failed = eval("--interval 5").expect_code(2).stderr;
    assert!(failed.contains("has 4 frames before it") && failed.contains("--frame-step"), "{failed}");
    assert!(failed.contains("leftImg8bit_sequence/val/a"), "{failed}");
    fs::rename(folder.path().join("data/leftImg8bit_sequence/val/a"), folder.path().join("video")).unwrap();
    let elsewhere = eval("--interval 4 --frames video --json").expect_code(0).json();
    fs::remove_file(folder.path().join("video/a_000000_000002_leftImg8bit.png")).unwrap();
    assert!(eval("--interval 2 --frames video").expect_code(2).stderr.contains("numbers are 1 apart"));
    let stepped = eval("--interval 2 --frame-step 2 --frames video --json").expect_code(0).json();
    assert_eq!(stepped["frame_step"].as_u64(), Some(2));
    fs::remove_dir_all(folder.path().join("video")).unwrap();
    assert_eq!(eval("--interval 1 --json").expect_code(0).json()["avg_miou"], alone["avg_miou"]);
    let missing = eval("--interval 2").expect_code(1).stderr;
    assert!(missing.contains("--frames names their folder"), "{missing}");
    assert_eq!(elsewhere["avg_miou"], report["avg_miou"]);
}

/// A checkpoint of the tensors whose names `part` keeps, under the names that it gives them.
fn checkpoint(path: &Path, vars: &VarMap, entries: &[(&str, &str, &str)]) {
    let mut writer = TorchWriter::new();
    let mut dictionaries: Vec<(&str, Py)> = Vec::new();
    for &(key, prefix, own) in entries {
        let mut tensors: Vec<(Py, Py)> = Vec::new();
        for (name, var) in vars.data().lock().unwrap().iter() {
            let Some(rest) = name.strip_prefix(prefix) else { continue };
            let storage = writer.floats(&var.flatten_all().unwrap().to_vec1::<f32>().unwrap());
            let tensor = Py::tensor(&storage, 0, var.dims(), var.as_tensor().stride());
            tensors.push((Py::text(&format!("{own}{rest}")), tensor));
        }
        dictionaries.push((key, Py::OrderedDict(tensors)));
    }
    let root = match dictionaries.as_slice() {
        [("", _)] => dictionaries.remove(0).1,
        _ => Py::dict(dictionaries),
    };
    fs::write(path, writer.zip(&root)).unwrap();
}

#[test]
fn the_authors_two_files_make_one_net() {
    let folder = tempfile::tempdir().unwrap();
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    GsvNet::new(&Preset::SwiftnetR18.config(), Schedule::default(), vb).unwrap();
    checkpoint(&folder.path().join("swiftnet.pt"), &vars, &[("", "segnet.", "")]);
    let rest = [("state_dict", "grm.", "module.grm."), ("state_dict_of", "ofnet.", "module.")];
    checkpoint(&folder.path().join("gsvnet.tar"), &vars, &rest);

    let line = "convert swiftnet.pt --and gsvnet.tar --arch gsvnet-seg/swiftnet-r18 -o gsv";
    let ran = zoo(folder.path(), line).expect_code(0);
    assert!(ran.stdout.contains("tensors of gsvnet-seg/swiftnet-r18 are in swiftnet.pt"), "{}", ran.stdout);
    let config: Json =
        serde_json::from_slice(&fs::read(folder.path().join("gsv/config.json")).unwrap()).unwrap();
    assert_eq!(config["architecture"], "gsvnet-seg/swiftnet-r18");
    assert_eq!(config["config"]["keyframe"]["net"], "swiftnet-r18");
    assert_eq!(config["pictures"]["labels"][18]["name"], "bicycle");
    frames(folder.path(), 2);
    let records = zoo(folder.path(), "run gsvnet-seg clip --weights gsv/model.safetensors --json");
    assert_eq!(records.expect_code(0).json_lines().len(), 2);

    let fails = |line: &str, code: i32, says: &str| {
        let ran = zoo(folder.path(), line).expect_code(code);
        assert!(ran.stderr.contains(says), "{line}: {}", ran.stderr);
    };
    fails("convert swiftnet.pt --arch gsvnet-seg/swiftnet-r18 -o alone", 1, "missing");
    fails("convert swiftnet.pt --and swiftnet.pt --arch gsvnet-seg -o twice", 2, "is in two of the files");
    fails("convert swiftnet.pt --and gsvnet.tar --arch gsvnet-seg/bisenet-r18 -o other", 1, "do not fit");
    fails("convert swiftnet.pt --and gsvnet.tar --arch hyperseg/camvid-s -o other", 2, "has no option --and");
    assert!(!folder.path().join("other").exists() && !folder.path().join("alone").exists());
    fails("run gsvnet-seg/bisenet-r18 clip --weights gsv/model.safetensors", 2, "not of preset bisenet-r18");
}

#[test]
fn info_has_table_2_and_bench_the_steps() {
    let folder = tempfile::tempdir().unwrap();
    let text = zoo(folder.path(), "info gsvnet-seg").expect_code(0).stdout;
    for expected in
        ["11797071", "47.19", "58.52", "58.63", "396487", "2.78", "30.65", "21.36", "16.72", "13.93"]
    {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    let line = "bench gsvnet-seg/camvid-swiftnet-r18 --size 64x96 --runs 2 --warmup 1";
    let report = zoo(folder.path(), &format!("{line} --json")).expect_code(0).json();
    let variants = report["variants"].as_array().unwrap();
    assert_eq!(variants.len(), 2);
    for variant in variants {
        assert_eq!(variant["frames_per_second"].as_array().unwrap().len(), 5);
        let steps: Vec<&str> =
            variant["steps"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
        assert_eq!(steps, ["flow", "warp", "intra-frame net", "edges", "guiding net", "filtering", "labels"]);
    }
    let layers = zoo(folder.path(), &format!("{line} --layers")).expect_code(0).stdout;
    assert!(layers.contains("grm.guide.guide_deconv.5"), "{layers}");
}
