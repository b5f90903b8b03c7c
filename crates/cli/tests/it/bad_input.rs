//! Everything that can be wrong with a command line and its files: the message and the exit code.

use std::fs;
use std::path::Path;

use zoo_core::FrameSize;

use crate::support::{Ran, frames, photo, plain, zoo};

struct Case {
    line: &'static str,
    code: i32,
    /// Parts of standard error.
    parts: &'static [&'static str],
}

fn check(folder: &Path, cases: &[Case]) {
    for Case { line, code, parts } in cases {
        let ran: Ran = zoo(folder, line);
        assert_eq!(ran.code, Some(*code), "zoo {line}: {ran:#?}");
        for part in *parts {
            assert!(ran.stderr.contains(part), "zoo {line}: no '{part}' in {}", ran.stderr);
        }
        assert!(!ran.stderr.contains("panicked"), "zoo {line}: {}", ran.stderr);
    }
}

#[test]
fn command_lines_that_ask_for_what_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    frames(folder.path(), 2);
    plain(&folder.path().join("a.png"), FrameSize::new(64, 64));
    let case = |line, parts| Case { line, code: 2, parts };
    check(
        folder.path(),
        &[
            case(
                "run patchwork-dett a.png",
                &["unknown model 'patchwork-dett'", "did you mean patchwork-det?"],
            ),
            case(
                "run patchwork-det/cocoa a.png",
                &["did you mean patchwork-det/coco?", "`zoo info` lists them"],
            ),
            case("run patchwork-det a.png --policy rastr", &["unknown policy 'rastr'", "raster-all"]),
            case("run patchwork-det a.png --device gpu", &["expected cpu, cuda, cuda:N or auto"]),
            case("run patchwork-det a.png --limit 0", &["'--limit <N>'", "at least 1"]),
            case("run patchwork-det a.png --score 2", &["expected a number from 0 to 1"]),
            case("run patchwork-det a.png --m 2 --n 3", &["M=2", "N=3", "1 ≤ N ≤ M"]),
            case("run patchwork-det a.png --m 5 --n 2 --policy raster", &["N=2 does not divide M=5"]),
            case("run patchwork-det a.png --mode sf --policy motion", &["--policy is for windows"]),
            case("run patchwork-det a.png --mode single", &["m4n2-motion"]),
            case(
                "run patchwork-det a.png --mode m4n2-motion",
                &["--mode needs a clip, and a.png is taken as"],
            ),
            case("run patchwork-det a.png --policy raster", &["--policy needs a clip", "folder of frames"]),
            case(
                "run patchwork-det clip --stills -m 2 -n 1",
                &["--m needs a clip, and clip", "without --stills"],
            ),
            case("run patchwork-det/coco a.png --task segment", &["preset coco detects"]),
            case("run patchwork-det a.png --depth 0.5", &["--depth changes the net"]),
            case(
                "run patchwork-det clip --policy learned",
                &["needs a trained attention network", "use motion"],
            ),
            case("run patchwork-det clip --size 300x300", &["32·4 = 128", "--size 256x256"]),
            case("run patchwork-det clip --m 3 --n 1 --size 128x128", &["32·3 = 96", "--size 96x96"]),
            case("run patchwork-det/vid a.png", &["nobody has trained weights", "--random"]),
            case("run patchwork-det/vid a.png --random --csv x.csv", &["no place to say 'random weights'"]),
            case("run patchwork-det", &["INPUT"]),
            case(
                "run patchwork-det a.png --no-draw -o x",
                &["'--no-draw' cannot be used with '--out <DIR>'"],
            ),
            case("eval patchwork-det", &["expected one of CLIP"]),
            case("eval layers/mobilenet-v2 clip", &["layers/mobilenet-v2 has no evaluation"]),
            case("eval patchwork-det/davis clip", &["preset davis segments"]),
            case("eval patchwork-det/vid --coco x --images .", &["COCO's classes"]),
            case("eval patchwork-det clip --random", &["nothing to measure"]),
            case("bench patchwork-det/vid", &["patchwork-det/vid has no benchmark"]),
            case("bench op conv", &["unknown operation 'conv'", "depthwise"]),
            case("bench op depthwise --layers", &["--layers is for models"]),
        ],
    );
    if cfg!(not(feature = "cuda")) {
        check(folder.path(), &[case("run patchwork-det a.png --device cuda:0", &["--features cuda"])]);
    }
}

#[test]
fn bad_pictures_are_named_and_do_not_stop_the_good_ones() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    let whole = fs::read(photo("chelsea.png")).unwrap();
    fs::write(at.join("good.png"), &whole).unwrap();
    fs::write(at.join("cut.png"), &whole[..whole.len() / 2]).unwrap();
    fs::write(at.join("empty.png"), b"").unwrap();
    fs::write(at.join("page.jpg"), b"<!DOCTYPE html><html></html>").unwrap();
    fs::create_dir(at.join("nothing")).unwrap();
    frames(at, 3);
    plain(&at.join("clip/frame1.png"), FrameSize::new(200, 400));
    let case = |line, code, parts| Case { line, code, parts };
    check(
        at,
        &[
            case("run patchwork-det nothere.png", 1, &["1 failed, 0 done", "cannot read nothere.png"]),
            case("run patchwork-det cut.png", 1, &["cannot decode cut.png as PNG"]),
            case("run patchwork-det empty.png", 1, &["empty.png is empty"]),
            case("run patchwork-det page.jpg", 1, &["page.jpg is not a picture"]),
            case("run patchwork-det nothing", 1, &["no pictures in nothing"]),
            case("run patchwork-det *.gif", 1, &["no pictures in *.gif"]),
            case(
                "run patchwork-det nothere.png cut.png good.png page.jpg --batch 2",
                3,
                &["3 failed, 1 done", "nothere.png", "cut.png", "page.jpg"],
            ),
            case(
                "run patchwork-det clip --size 128x128",
                3,
                &[
                    "1 failed, 2 done",
                    "frame frame1",
                    "--stills",
                    "started for frames of 300×400, got one of 200×400",
                ],
            ),
            case("eval patchwork-det clip --size 128x128", 1, &["started for frames of 300×400"]),
            case(
                "eval patchwork-det good.png",
                1,
                &["cannot compare modes on good.png", "expected a clip of at least 2 frames, got 1"],
            ),
            case("eval patchwork-det clip --skip 3", 1, &["at least 2 frames, got 0"]),
            case("eval patchwork-det nothere.y4m", 1, &["cannot read nothere.y4m"]),
            case("eval patchwork-det --coco nothere.json --images .", 1, &["reading nothere.json"]),
            case("eval patchwork-det --davis nothing --random", 1, &["nothing is no DAVIS folder"]),
        ],
    );
}

#[test]
fn bad_weights_and_outputs() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    plain(&at.join("a.png"), FrameSize::new(64, 64));
    let weights = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../models/patchwork-det/weights/coco-ssdlite-mobilenet-v2.safetensors");
    let whole = fs::read(weights).unwrap();
    fs::write(at.join("cut.safetensors"), &whole[..whole.len() / 2]).unwrap();
    fs::write(at.join("model.pth"), b"PK\x03\x04rest").unwrap();
    fs::write(at.join("coco.safetensors"), whole).unwrap();
    fs::write(at.join("file"), b"").unwrap();
    let case = |line, code, parts| Case { line, code, parts };
    check(
        at,
        &[
            case(
                "run patchwork-det a.png --weights nothere",
                1,
                &["cannot open the weights nothere", "No such file"],
            ),
            case(
                "run patchwork-det a.png --weights cut.safetensors",
                1,
                &["cut.safetensors", "not a usable"],
            ),
            case(
                "run patchwork-det a.png --weights model.pth",
                2,
                &["is a PyTorch checkpoint", "zoo convert"],
            ),
            case(
                "run patchwork-det/vid a.png --weights coco.safetensors",
                1,
                &["do not fit PatchworkDet", "wrong shape", "file has [273, 576, 1, 1]"],
            ),
            case("run patchwork-det a.png -o file", 1, &["cannot write file"]),
            case("run patchwork-det a.png --no-draw --csv no/where.csv", 1, &["cannot write no/where.csv"]),
            case("demo -o file", 1, &["cannot make the folder file/frames", "-o"]),
            case("convert model.pth -o out", 1, &["model.pth is not a usable PyTorch checkpoint"]),
            case("convert nothere.pth -o out", 1, &["nothere.pth"]),
            case("convert model.pth -o out --arch nothing", 2, &["unknown model 'nothing'"]),
        ],
    );
    // Permissions do not bind a root user, a kernel's folder does.
    if cfg!(target_os = "linux") {
        check(at, &[case("run patchwork-det a.png -o /proc/out", 1, &["cannot write /proc/out"])]);
    }
}
