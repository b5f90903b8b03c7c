//! Streams as a user runs them: modes, policies, start-up, state, errors.

use candle_core::DType;
use patchwork_det::{
    Detections, FrameSize, Grid, Image, LoadOptions, Mode, PatchworkDet, PatchworkSeg, PolicyKind,
    Pretrained, SegmenterConfig, Start, Step, Stream, Streaming,
};
use zoo_core::Detector;
use zoo_testing::memory::{alone, growth};

use crate::support::{picture, seeded_weights, small_detector_config};

const FRAME: FrameSize = FrameSize::new(128, 128);
const SOURCE: FrameSize = FrameSize::new(90, 160);

fn model() -> PatchworkDet {
    PatchworkDet::new(
        &small_detector_config(FRAME, Some(Grid::new(2, 1).unwrap())),
        seeded_weights(DType::F32),
    )
    .unwrap()
}

fn windows(m: usize, n: usize, policy: PolicyKind, start: Start) -> Mode {
    Mode::Windows { grid: Grid::new(m, n).unwrap(), policy, start, flip: false }
}

fn frames(n: usize) -> Vec<Image> {
    (0..n).map(|i| picture(&format!("frame.{i}"), SOURCE)).collect()
}

fn run(model: &PatchworkDet, stream: &mut Stream<Detections>, frames: &[Image]) -> Vec<Step<Detections>> {
    frames.iter().map(|frame| model.step(frame, stream).unwrap()).collect()
}

fn outputs(steps: &[Step<Detections>]) -> Vec<&Detections> {
    steps.iter().map(|s| &s.output).collect()
}

#[test]
fn a_window_prepared_alone_equals_the_crop_of_the_prepared_frame() {
    // M=N=1 sees the whole frame through the same path as single-frame mode.
    let model = model();
    let frames = frames(2);
    let mut whole = model.start_with(SOURCE, &windows(1, 1, PolicyKind::Raster, Start::Zeros)).unwrap();
    let single = model.detect(&frames).unwrap();
    assert_eq!(outputs(&run(&model, &mut whole, &frames)), single.iter().collect::<Vec<_>>());
}

#[test]
fn interval_modes_hold_and_delay() {
    let model = model();
    let frames = frames(8);
    let single = model.detect(&frames).unwrap();
    let mut held = model.start_with(SOURCE, &Mode::Interval { every: 3, delay: 0 }).unwrap();
    let steps = run(&model, &mut held, &frames);
    for (t, key) in [0, 0, 0, 3, 3, 3, 6, 6].into_iter().enumerate() {
        assert_eq!(steps[t].output, single[key], "frame {t}");
        assert_eq!(steps[t].window.is_some(), t == key, "frame {t}");
    }
    let mut delayed = model.start_with(SOURCE, &Mode::Interval { every: 3, delay: 2 }).unwrap();
    let steps = run(&model, &mut delayed, &frames);
    for (t, key) in [None, None, Some(0), Some(0), Some(0), Some(3), Some(3), Some(3)].into_iter().enumerate()
    {
        match key {
            Some(key) => assert_eq!(steps[t].output, single[key], "frame {t}"),
            None => assert!(steps[t].output.is_empty(), "frame {t}"),
        }
    }
}

#[test]
fn starts_differ_as_they_say() {
    let model = model();
    let frames = frames(6);
    for (start, expected) in [
        (Start::Full, [None, Some(3), Some(3), Some(3), Some(3), Some(3)]),
        (Start::Tiles, [Some(0), Some(1), Some(2), Some(3), Some(3), Some(3)]),
        (Start::Zeros, [Some(3); 6]),
    ] {
        let mut stream = model.start_with(SOURCE, &windows(2, 1, PolicyKind::Fixed(vec![3]), start)).unwrap();
        let steps = run(&model, &mut stream, &frames);
        assert_eq!(steps.iter().map(|s| s.action).collect::<Vec<_>>(), expected, "{start:?}");
    }
}

#[test]
fn motion_looks_where_something_moves() {
    let model = model();
    let still = picture("still", SOURCE);
    let mut stream = model.start_with(SOURCE, &windows(2, 1, PolicyKind::Motion, Start::Full)).unwrap();
    model.step(&still, &mut stream).unwrap();
    for (expected, y, x) in [(3, 80, 150), (0, 3, 3), (1, 5, 120), (2, 70, 20)] {
        let mut moved = still.clone();
        for dy in 0..8 {
            for dx in 0..8 {
                moved.put(y + dy, x + dx, [255, 0, 255]);
            }
        }
        let step = model.step(&moved, &mut stream).unwrap();
        assert_eq!(step.action, Some(expected));
        // What was seen is no longer news; the next change lies elsewhere.
        let back = model.step(&still, &mut stream).unwrap();
        assert_eq!(back.action, Some(expected), "the patch vanished from the same window");
    }
}

#[test]
fn a_clone_replays_a_reset_starts_over_and_two_streams_do_not_mix() {
    let model = model();
    let frames = frames(6);
    for policy in [PolicyKind::Motion, PolicyKind::Random(5), PolicyKind::Raster, PolicyKind::Learned] {
        let mode = windows(2, 1, policy.clone(), Start::Full);
        let mut stream = model.start_with(SOURCE, &mode).unwrap();
        let first = run(&model, &mut stream, &frames[..3]);
        let mut copy = stream.clone();
        let on = run(&model, &mut stream, &frames[3..]);
        let again = run(&model, &mut copy, &frames[3..]);
        assert_eq!(outputs(&on), outputs(&again), "{policy:?}: clone");
        assert_eq!(
            on.iter().map(|s| s.action).collect::<Vec<_>>(),
            again.iter().map(|s| s.action).collect::<Vec<_>>()
        );

        stream.reset();
        assert_eq!(outputs(&run(&model, &mut stream, &frames[..3])), outputs(&first), "{policy:?}: reset");

        let reversed: Vec<Image> = frames.iter().rev().cloned().collect();
        let mut alone = [model.start_with(SOURCE, &mode).unwrap(), model.start_with(SOURCE, &mode).unwrap()];
        let a = run(&model, &mut alone[0], &frames);
        let b = run(&model, &mut alone[1], &reversed);
        let mut both = [model.start_with(SOURCE, &mode).unwrap(), model.start_with(SOURCE, &mode).unwrap()];
        for t in 0..frames.len() {
            assert_eq!(
                model.step(&frames[t], &mut both[0]).unwrap().output,
                a[t].output,
                "{policy:?}: frame {t}"
            );
            assert_eq!(
                model.step(&reversed[t], &mut both[1]).unwrap().output,
                b[t].output,
                "{policy:?}: frame {t}"
            );
        }
    }
}

#[test]
fn flip_merges_both_views() {
    let model = model();
    let frames = frames(2);
    let mode = |flip| Mode::Windows {
        grid: Grid::new(2, 1).unwrap(),
        policy: PolicyKind::Raster,
        start: Start::Full,
        flip,
    };
    let mut plain = model.start_with(SOURCE, &mode(false)).unwrap();
    let mut flipped = model.start_with(SOURCE, &mode(true)).unwrap();
    let one = run(&model, &mut plain, &frames);
    let two = run(&model, &mut flipped, &frames);
    for (one, two) in one.iter().zip(&two) {
        assert_ne!(one.output, two.output);
        // The best box of either view survives.
        let best = |s: &Step<Detections>| s.output.items.first().map_or(0.0, |d| d.score);
        assert!(best(two) >= best(one));
    }
    // A picture that is its own mirror image gives the same boxes from both views.
    let picture = Image::filled(SOURCE, [90, 120, 30]).unwrap();
    let mut stream = model.start_with(SOURCE, &mode(true)).unwrap();
    assert!(model.step(&picture, &mut stream).is_ok());
}

#[test]
fn the_composite_image_is_the_latest_pixels_of_every_window() {
    let model = model();
    let frames = frames(5);
    let mut stream = model.start_with(SOURCE, &windows(2, 1, PolicyKind::Raster, Start::Zeros)).unwrap();
    assert!(model.composite(&stream).unwrap().is_none());
    // Of a still picture, one sweep completes the image memory.
    let still = vec![frames[0].clone(); 4];
    run(&model, &mut stream, &still);
    assert_eq!(model.composite(&stream).unwrap().unwrap(), model.detect(&frames[..1]).unwrap()[0]);
}

#[test]
fn errors_say_what_fits() {
    let model = model();
    let mut stream = model.start_with(SOURCE, &windows(2, 1, PolicyKind::Motion, Start::Full)).unwrap();
    let before = run(&model, &mut stream.clone(), &frames(2));
    let other = picture("other", FrameSize::new(160, 90));
    let error = model.step(&other, &mut stream).unwrap_err().to_string();
    assert_eq!(
        error,
        "the stream was started for frames of 90×160, got one of 160×90: resize it, or start a new stream"
    );
    assert_eq!(
        outputs(&run(&model, &mut stream, &frames(2))),
        outputs(&before),
        "the state is as before the call"
    );

    let other = model.clone().with_frame(FrameSize::new(192, 192)).unwrap();
    let error = other.step(&frames(1)[0], &mut stream).unwrap_err().to_string();
    assert!(error.contains("resizes frames to 128×128, this one resizes them to 192×192"), "{error}");
    assert_eq!(other.composite(&stream).unwrap_err().to_string(), error);

    let fault = |m, n, policy, start| {
        model.start_with(SOURCE, &windows(m, n, policy, start)).err().unwrap().to_string()
    };
    assert!(
        fault(3, 1, PolicyKind::Motion, Start::Full)
            .contains("multiples of 32·3 = 96, the nearest size is 96×96")
    );
    assert!(fault(4, 3, PolicyKind::Raster, Start::Full).contains("N=3 does not divide M=4"));
    assert!(fault(4, 3, PolicyKind::Motion, Start::Tiles).contains("cannot start by tiles"));
    let learned = fault(4, 2, PolicyKind::Learned, Start::Full);
    assert!(learned.contains("needs a trained attention network for M=4 N=2 at 128×128"), "{learned}");
    assert!(learned.contains("the model has one for M=2 N=1"), "{learned}");
    let zero = model.start_with(SOURCE, &Mode::Interval { every: 0, delay: 0 }).err().unwrap().to_string();
    assert!(zero.contains("interval = 0"), "{zero}");
}

#[test]
fn frames_that_suit_no_stream_are_refused_at_once() {
    let fault = |error: Option<patchwork_det::Error>| error.unwrap().to_string();
    let detector = |height, width| model().with_frame(FrameSize::new(height, width)).err();
    assert!(fault(detector(0, 64)).contains("a frame of 0×64 has no pixels"));
    assert!(fault(detector(1 << 14, 1 << 14)).contains("choose a smaller one"));
    assert!(fault(detector(160, 128)).contains("multiples of 32·2 = 64"), "the attention network's grid");
    let cfg = SegmenterConfig { frame: FRAME, ..SegmenterConfig::davis(0.5) };
    let segmenter = PatchworkSeg::new(&cfg, seeded_weights(DType::F32)).unwrap();
    let error = segmenter.with_frame(FrameSize::new(100, 128)).err();
    assert!(fault(error).contains("the nearest size is 96×128"));
}

#[test]
fn weights_that_nobody_trained_are_not_pretended() {
    let options = LoadOptions::default();
    let error =
        PatchworkDet::from_pretrained(patchwork_det::DetectorWeights::ImagenetVid, &options).unwrap_err();
    assert!(error.to_string().contains("patchwork-det/vid"), "{error}");
    let error = PatchworkSeg::from_pretrained(patchwork_det::SegmenterWeights::Davis, &options).unwrap_err();
    assert!(error.to_string().contains("patchwork-det/davis"), "{error}");
}

#[test]
fn segmenter_streams_cover_what_they_have_seen() {
    let cfg = SegmenterConfig { frame: FRAME, ..SegmenterConfig::davis(0.5) };
    let model = PatchworkSeg::new(&cfg, seeded_weights(DType::F32)).unwrap();
    let mode = windows(2, 1, PolicyKind::Fixed(vec![0]), Start::Zeros);
    let mut stream = model.start_with(SOURCE, &mode).unwrap();
    let map = model.step(&picture("frame", SOURCE), &mut stream).unwrap().output;
    assert_eq!((map.size, map.classes.len()), (SOURCE, SOURCE.area()));
    for (i, class) in map.classes.iter().enumerate() {
        let (y, x) = (i / SOURCE.width, i % SOURCE.width);
        assert!(*class == 0 || (y < 45 && x < 80), "object at row {y}, column {x}, never seen");
    }
}

#[test]
fn a_thousand_steps_leave_memory_flat() {
    const STEPS: usize = 1000;
    // Pages that the allocator moves about. 256 bytes that stay behind at each step are as much.
    const NOISE: i64 = 256 << 10;
    alone("streams::a_thousand_steps_leave_memory_flat", || {
        let frame = FrameSize::new(64, 64);
        let cfg = small_detector_config(frame, None);
        let mut model = PatchworkDet::new(&cfg, seeded_weights(DType::F32)).unwrap();
        model.prepare().unwrap();
        let frames: Vec<Image> = (0..4).map(|i| picture(&format!("frame.{i}"), frame)).collect();
        for mode in [
            windows(2, 1, PolicyKind::Motion, Start::Full),
            windows(2, 1, PolicyKind::RasterAll, Start::Tiles),
            Mode::Interval { every: 2, delay: 3 },
        ] {
            let mut stream = model.start_with(frame, &mode).unwrap();
            let mut frames = frames.iter().cycle();
            match growth(STEPS, || drop(model.step(frames.next().unwrap(), &mut stream).unwrap())) {
                Some(bytes) => assert!(bytes < NOISE, "{mode:?}: {bytes} bytes more"),
                None => eprintln!("SKIPPED: this system does not tell a process's memory"),
            }
        }
    });
}
