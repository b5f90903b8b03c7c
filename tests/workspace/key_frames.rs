//! A video model around another paper's net: GSVNet propagates what HyperSeg says of key frames.

use candle_core::{DType, Device, Tensor};
use gsvnet_seg::{FrameSize, GsvNet, KeyReason, KeyframeScale, PropagationConfig, Schedule, ScoreNet};
use hyperseg::{BackboneName, Config, HyperSegNet, Preset};
use zoo_core::Tally;
use zoo_kernels::{Interpolation, resize2d};
use zoo_parity::seeded;

/// At three quarters, a multiple of 32.
const SIZE: FrameSize = FrameSize::new(128, 256);

/// CamVid's smallest net on the smallest backbone, random.
fn hyperseg() -> HyperSegNet {
    let cfg = Config { backbone: BackboneName::EfficientnetLite0, ..Preset::CamvidS.config() };
    let mut net = HyperSegNet::new(&cfg, seeded::var_builder(None, DType::F32, &Device::Cpu)).unwrap();
    net.prepare().unwrap();
    net
}

fn gsvnet(schedule: Schedule) -> GsvNet<HyperSegNet> {
    let weights = seeded::var_builder(None, DType::F32, &Device::Cpu);
    GsvNet::around(hyperseg(), &PropagationConfig::default(), schedule, weights).unwrap()
}

fn frame(i: usize) -> Tensor {
    let shape = [1, 3, SIZE.height, SIZE.width];
    Tensor::from_vec(seeded::input(&format!("frame.{i}"), &shape).unwrap(), &shape, &Device::Cpu).unwrap()
}

fn values(xs: &Tensor) -> Vec<f32> {
    xs.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn hyperseg_labels_the_key_frames_of_gsvnet() {
    let net = gsvnet(Schedule::every(3));
    let classes = net.keyframe().config().num_classes;
    assert_eq!(net.keyframe().classes(), classes);
    let mut state = net.start(SIZE).unwrap();
    for i in 0..5 {
        let step = net.push(&frame(i), &mut state).unwrap();
        assert_eq!(step.scores.dims(), [1, classes, 16, 32], "frame {i}");
        assert!(values(&step.scores).iter().all(|score| score.is_finite()), "frame {i}");
        let labels = step.labels(SIZE).unwrap();
        assert_eq!(labels.dims(), [1, 128, 256]);
        assert!(
            labels.flatten_all().unwrap().to_vec1::<u8>().unwrap().iter().all(|&l| usize::from(l) < classes)
        );
        let key = [Some(KeyReason::First), None, None, Some(KeyReason::Interval), None][i];
        assert_eq!(step.key(), key, "frame {i}");
        if key.is_some() {
            let seen = resize2d(&frame(i), (96, 192), Interpolation::BilinearCorners).unwrap();
            let logits = hyperseg().forward(&seen).unwrap();
            let want = resize2d(&logits, (16, 32), Interpolation::BilinearCorners).unwrap();
            assert_eq!(values(&step.scores), values(&want), "frame {i}");
        }
    }
}

#[test]
fn its_costs_are_the_key_frames() {
    let net = gsvnet(Schedule::default());
    let mut tally = Tally::new();
    net.key_cost(SIZE, &mut tally);
    assert_eq!(tally.total(), net.keyframe().cost(FrameSize::new(96, 192)));
}

#[test]
fn frames_whose_key_frames_do_not_fit_hyperseg_are_refused() {
    let net = gsvnet(Schedule::default());
    let error = net.start(FrameSize::new(136, 256)).unwrap_err().to_string();
    for part in ["frames of 136×256 become key frames of 102×192", "multiples of 32", "96×192"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    // As they are, they need not be divisible into quarters.
    let whole = net.with_schedule(Schedule { scale: KeyframeScale::Full, ..Schedule::default() }).unwrap();
    assert!(whole.start(FrameSize::new(160, 96)).is_ok());
    let error = whole.start(FrameSize::new(136, 256)).unwrap_err().to_string();
    assert!(error.contains("the nearest size is 128×256"), "{error}");
}
