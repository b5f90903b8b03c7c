//! Streams of frames on the net without its wrapper.

use candle_core::Tensor;
use gsvnet_seg::{FrameSize, GsvNet, KeyReason, KeyframeScale, PropagationConfig, Schedule, Way};

use crate::support::{Colors, difference, frame, net, values};

const SIZE: FrameSize = FrameSize::new(96, 136);

fn plain(schedule: Schedule) -> GsvNet<Colors> {
    net(5, &PropagationConfig::default(), schedule)
}

fn frames(count: usize) -> Vec<Tensor> {
    (0..count).map(|i| frame(i, SIZE)).collect()
}

fn scores(net: &GsvNet<Colors>, frames: &[Tensor]) -> Vec<Tensor> {
    let mut state = net.start(SIZE).unwrap();
    frames.iter().map(|frame| net.push(frame, &mut state).unwrap().scores).collect()
}

#[test]
fn key_frames_come_at_the_interval_and_carry_on() {
    let net = plain(Schedule::every(3));
    let mut state = net.start(SIZE).unwrap();
    assert_eq!((state.frame_size(), state.since_key()), (SIZE, None));
    let mut before: Option<(Tensor, Tensor)> = None;
    for (i, frame) in frames(7).iter().enumerate() {
        let step = net.push(frame, &mut state).unwrap();
        let reason = [KeyReason::First, KeyReason::Interval][usize::from(i > 0)];
        assert_eq!(step.key(), (i % 3 == 0).then_some(reason), "frame {i}");
        assert_eq!(state.since_key(), Some(i % 3));
        assert_eq!(step.scores.dims(), [1, 5, 12, 17]);
        assert_eq!(step.labels(SIZE).unwrap().dims(), [1, 96, 136]);
        // By hand: BGR to flow and intra-frame nets.
        let low =
            zoo_kernels::resize2d(frame, (12, 17), zoo_kernels::Interpolation::BilinearCorners).unwrap();
        let bgr: Vec<Tensor> = (0..3).rev().map(|c| low.narrow(1, c, 1).unwrap()).collect();
        let low = Tensor::cat(&bgr, 1).unwrap();
        if let (Way::Propagated { .. }, Some((low_before, scores))) = (&step.way, &before) {
            let want = net.propagate(&low, low_before, scores).unwrap().scores;
            assert!(difference(&step.scores, &want) < 1e-6, "frame {i}");
        }
        before = Some((low, step.scores));
    }
}

#[test]
fn with_interval_1_every_frame_is_segmented_by_itself() {
    let net = plain(Schedule { interval: 1, ..Schedule::default() });
    let frames = frames(3);
    for (frame, got) in frames.iter().zip(scores(&net, &frames)) {
        let FrameSize { height, width } = KeyframeScale::ThreeQuarters.of(SIZE);
        let key = zoo_kernels::resize2d(frame, (height, width), zoo_kernels::Interpolation::BilinearCorners)
            .unwrap();
        let want = net.key_scores(&key, FrameSize::new(12, 17)).unwrap();
        assert_eq!(values(&got), values(&want));
    }
}

#[test]
fn streams_do_not_see_each_other_and_clones_and_resets_behave() {
    let net = plain(Schedule::every(4));
    let (a, mut b) = (frames(6), frames(9).split_off(3));
    b.reverse();
    let (alone_a, alone_b) = (scores(&net, &a), scores(&net, &b));
    let (mut state_a, mut state_b) = (net.start(SIZE).unwrap(), net.start(SIZE).unwrap());
    for i in 0..6 {
        let got = net.push(&a[i], &mut state_a).unwrap().scores;
        assert_eq!(values(&got), values(&alone_a[i]));
        let got = net.push(&b[i], &mut state_b).unwrap().scores;
        assert_eq!(values(&got), values(&alone_b[i]));
    }
    let mut clone = state_a.clone();
    let [first, second] = [&mut state_a, &mut clone].map(|state| net.push(&b[0], state).unwrap().scores);
    assert_eq!(values(&first), values(&second));
    clone.reset();
    assert_eq!(net.push(&b[0], &mut clone).unwrap().key(), Some(KeyReason::First));
    assert_eq!(state_a.since_key(), Some(2), "the original goes on");
}

#[test]
fn a_scene_change_makes_a_key_frame_and_starts_the_interval_anew() {
    let net = plain(Schedule { interval: 5, scene_change: Some(0.8), ..Schedule::default() });
    let mut state = net.start(SIZE).unwrap();
    let scene = |i: usize| {
        let frame = frame(i, SIZE);
        if i < 3 { frame } else { (frame * -1.0).unwrap() }
    };
    let keys: Vec<_> = (0..9).map(|i| net.push(&scene(i), &mut state).unwrap().key()).collect();
    assert_eq!(keys[0], Some(KeyReason::First));
    assert_eq!(keys[3], Some(KeyReason::SceneChange));
    assert_eq!(keys[8], Some(KeyReason::Interval));
    assert!([1, 2, 4, 5, 6, 7].iter().all(|&i| keys[i].is_none()), "{keys:?}");
}

#[test]
fn frames_that_do_not_fit_are_errors_and_leave_the_stream_as_it_was() {
    let net = plain(Schedule::every(3));
    let mut state = net.start(SIZE).unwrap();
    net.push(&frame(0, SIZE), &mut state).unwrap();
    let other = frame(1, FrameSize::new(96, 128));
    let error = net.push(&other, &mut state).unwrap_err().to_string();
    assert!(error.contains("[B, 3, 96, 136]") && error.contains("start another stream"), "{error}");
    assert_eq!(state.since_key(), Some(0));
    assert_eq!(net.push(&frame(1, SIZE), &mut state).unwrap().key(), None);

    let error = net.start(FrameSize::new(31, 400)).unwrap_err().to_string();
    assert!(error.contains("31×400") && error.contains("at least 32×32"), "{error}");
    for schedule in [
        Schedule { interval: 0, ..Schedule::default() },
        Schedule { scene_change: Some(f32::NAN), ..Schedule::default() },
    ] {
        assert!(net.clone().with_schedule(schedule).is_err(), "{schedule:?}");
    }
}

#[test]
fn key_frames_are_whole_quarters_of_the_frame() {
    let size = FrameSize::new(1023, 2050);
    assert_eq!(KeyframeScale::Half.of(size), FrameSize::new(510, 1024));
    assert_eq!(KeyframeScale::ThreeQuarters.of(size), FrameSize::new(765, 1536));
    assert_eq!(KeyframeScale::Full.of(size), size);
    for scale in KeyframeScale::ALL {
        let net = plain(Schedule { scale, ..Schedule::default() });
        assert_eq!(scores(&net, &frames(2))[1].dims(), [1, 5, 12, 17]);
    }
}
