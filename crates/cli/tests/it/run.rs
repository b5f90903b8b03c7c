//! `zoo run` and `patchwork-det` on good input.

use std::fs;

use serde_json::Value as Json;
use zoo_vision::write::Animation;

use crate::support::{Ran, command, frames, photo, zoo, zoo_in};

fn labels(record: &Json) -> Vec<&str> {
    let detections = record["detections"].as_array().unwrap();
    detections.iter().map(|found| found["label"].as_str().unwrap()).collect()
}

#[test]
fn each_photograph_shows_what_it_shows() {
    let folder = tempfile::tempdir().unwrap();
    for (name, expected) in [
        ("astronaut.png", vec!["person"]),
        ("chelsea.png", vec!["cat"]),
        ("coffee.png", vec!["cup", "dining table"]),
    ] {
        let photo = photo(name);
        let ran =
            zoo_in(folder.path(), ["run", "patchwork-det", photo.to_str().unwrap(), "--json", "-o", "shown"]);
        let record = ran.expect_code(0).json();
        assert_eq!(labels(&record), expected, "{name}");
        let score = record["detections"][0]["score"].as_f64().unwrap();
        assert!((0.5..1.0).contains(&score), "{name}: {score}");
        let drawn = zoo_vision::read(folder.path().join("shown").join(name)).unwrap();
        assert_eq!(drawn.size(), zoo_vision::read(&photo).unwrap().size(), "{name}");
    }
}

#[test]
fn all_outputs_of_several_inputs_in_batches() {
    let folder = tempfile::tempdir().unwrap();
    let photos = ["astronaut.png", "chelsea.png", "coffee.png"].map(|name| photo(name).display().to_string());
    let mut args =
        vec!["run", "patchwork-det/coco", "--no-draw", "--csv", "boxes.csv", "--coco", "boxes.json"];
    args.extend(["--batch", "2", "--timings", "--threads", "1", "--score", "0.6"]);
    args.extend(photos.iter().map(String::as_str));
    let ran = zoo_in(folder.path(), args).expect_code(0);
    assert!(ran.stdout.contains("person         0.68"), "{}", ran.stdout);
    assert!(ran.stderr.contains("time a picture"), "{}", ran.stderr);
    let size = "pictures are resized to 300×300 (rows × columns); --size takes another\n";
    assert_eq!(ran.stderr.matches(size).count(), 1, "{}", ran.stderr);
    let csv = fs::read_to_string(folder.path().join("boxes.csv")).unwrap();
    assert_eq!(csv.lines().count(), 5, "a head and four boxes: {csv}");
    let coco: Json = serde_json::from_slice(&fs::read(folder.path().join("boxes.json")).unwrap()).unwrap();
    let pairs: Vec<_> = coco
        .as_array()
        .unwrap()
        .iter()
        .map(|b| (b["image_id"].as_u64(), b["category_id"].as_u64()))
        .collect();
    assert_eq!(pairs, [(0, 1), (1, 17), (2, 47), (2, 67)].map(|(i, c)| (Some(i), Some(c))));
    assert!(!folder.path().join("out").exists(), "--no-draw");
}

fn windows(ran: &Ran) -> Vec<bool> {
    ran.json_lines().iter().map(|record| record.get("window").is_some()).collect()
}

#[test]
fn clips_stream_in_the_mode_that_was_asked_for() {
    let folder = tempfile::tempdir().unwrap();
    let clip = frames(folder.path(), 5);
    let run = |options: &str| {
        zoo(folder.path(), &format!("run patchwork-det clip --json {options}")).expect_code(0)
    };

    let usual = run("--limit 4 --size 256x256 --timings -o shown");
    assert_eq!(windows(&usual), [false, true, true, true], "a whole first frame, then windows");
    assert!(usual.stderr.contains("M=4 N=2 motion"), "{}", usual.stderr);
    assert!(usual.stderr.contains("mean ± std ms") && usual.stderr.contains("of SF"), "{}", usual.stderr);
    assert!(usual.json_lines().iter().all(|record| labels(record).contains(&"cat")), "{}", usual.stdout);
    assert!(folder.path().join("shown/frame3.png").exists());

    let held = run("--mode interval=2 --size 300x300");
    assert!(!held.stderr.contains("mean ± std ms"), "no times unasked: {}", held.stderr);
    let boxes: Vec<Json> = held.json_lines().iter().map(|record| record["detections"].clone()).collect();
    assert_eq!(boxes[0], boxes[1], "the second frame holds the first one's boxes");
    assert_ne!(boxes[1], boxes[2]);
    let stills = run("--stills --limit 2");
    assert_eq!(windows(&stills), [false, false]);
    assert!(!stills.stderr.contains("resized"), "{}", stills.stderr);
    assert!(!folder.path().join("out").exists(), "--json draws only where -o says so");

    let mut gif = Animation::create(folder.path().join("clip.gif"), 10.0).unwrap();
    for frame in zoo_vision::Source::Folder(clip).frames().unwrap() {
        gif.push(&frame.unwrap().image).unwrap();
    }
    gif.finish().unwrap();
    let line = "run patchwork-det clip.gif --json --m 2 --n 1 --policy raster --size 128x128 --start zeros";
    let gif = zoo(folder.path(), line).expect_code(0);
    let lefts: Vec<_> =
        gif.json_lines().iter().map(|record| record["window"]["x0"].as_f64().unwrap()).collect();
    assert_eq!(lefts, [0.0, 200.0, 0.0, 200.0, 0.0], "raster order, in the picture's pixels");
    assert_eq!(gif.json_lines()[1]["name"], "clip_00001");
}

#[test]
fn random_weights_are_said_on_every_result() {
    let folder = tempfile::tempdir().unwrap();
    frames(folder.path(), 3);
    let line = "run patchwork-det --task segment clip --random --depth 0.5 --size 128x128 --json -o shown";
    let ran = zoo(folder.path(), line).expect_code(0);
    for record in ran.json_lines() {
        assert_eq!(record["weights"], "random weights", "{record}");
        assert!(record["coverage"]["object"].is_number(), "{record}");
    }
    assert!(folder.path().join("shown/frame0_mask.png").exists());
    let text = zoo(folder.path(), &line.replace("--json -o shown", "--limit 1")).expect_code(0);
    assert!(text.stdout.contains("[random weights]"), "{}", text.stdout);
    assert!(folder.path().join("out/frame0.png").exists(), "where pictures are unless -o says otherwise");
    let learned = "run patchwork-det/vid-depth0.5 clip --random --policy learned --size 128x128 --json";
    assert_eq!(windows(&zoo(folder.path(), learned).expect_code(0)), [false, true, true]);
}

#[test]
fn no_input_is_ever_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().join("chelsea.png");
    fs::copy(photo("chelsea.png"), &here).unwrap();
    let before = fs::read(&here).unwrap();
    zoo(folder.path(), "run patchwork-det chelsea.png -o .").expect_code(0);
    assert_eq!(fs::read(&here).unwrap(), before);
    assert!(folder.path().join("chelsea-2.png").exists());
    let ran = zoo(folder.path(), "run patchwork-det chelsea.png --csv chelsea.png").expect_code(2);
    assert!(ran.stderr.contains("chelsea.png is an input, it would be overwritten"), "{}", ran.stderr);
    assert_eq!(fs::read(&here).unwrap(), before);
}

#[test]
fn the_demo_binary_runs_the_same_and_the_selftest_holds() {
    let folder = tempfile::tempdir().unwrap();
    let binary = env!("CARGO_BIN_EXE_patchwork-det");
    let photo = photo("chelsea.png");
    let run = |args: &[&str]| Ran::from(command(binary, folder.path()).args(args).output().unwrap());
    let ran = run(&[photo.to_str().unwrap(), "--json", "-v"]).expect_code(0);
    assert_eq!(labels(&ran.json()), ["cat"]);
    assert!(ran.stderr.contains("patchwork-det/coco-ssdlite"), "{}", ran.stderr);
    let ran = run(&["--selftest"]).expect_code(0);
    assert!(ran.stdout.contains("4 of 4 properties hold"), "{}", ran.stdout);
    assert!(ran.stdout.contains("E1  a window as large as the frame gives what"), "{}", ran.stdout);
    let ran = run(&["x.png", "--preset", "cocoa"]).expect_code(2);
    assert!(ran.stderr.contains("a similar value exists: 'coco'"), "{}", ran.stderr);
}
