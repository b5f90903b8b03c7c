//! Every preset builds, odd sizes run, the folded net and the plain one agree, names are torchvision's.

use candle_core::{DType, Device, Tensor};
use candle_nn::{VarBuilder, VarMap};
use patchwork_det::anchors::level_sizes;
use patchwork_det::config::{Config, Preset};
use patchwork_det::detector::pyramid_channels;
use patchwork_det::reference::PlainDetector;
use patchwork_det::{DetectorConfig, DetectorNet, FrameSize, SegmenterConfig, SegmenterNet, WindowedNet};

use crate::support::{
    noise, relative_l2, seeded_weights, small_detector, small_detector_config, small_segmenter,
};

#[test]
fn every_preset_builds_and_asks_for_the_recorded_number_of_tensors() {
    for preset in Preset::ALL {
        let map = VarMap::new();
        let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
        let expected = match preset.config() {
            Config::Detector(cfg) => {
                DetectorNet::new(&cfg, vb).unwrap();
                // 52 backbone layers, 12 of the pyramid, 12 predictor depthwise ones: 5 tensors each,
                // and 12 outputs of 2.
                (52 + 12 + 12) * 5 + 12 * 2
            }
            Config::Segmenter(cfg) => {
                SegmenterNet::new(&cfg, vb).unwrap();
                (52 + 4) * 5 + 2
            }
        };
        assert_eq!(map.data().lock().unwrap().len(), expected, "{}", preset.name());
    }
}

#[test]
fn pyramids_of_every_depth_keep_whole_channels_and_no_fewer_than_sixteen() {
    for (depth, expected) in [
        (1.0, [512, 256, 256, 128]),
        (0.5, [256, 128, 128, 64]),
        (1.4, [716, 358, 358, 179]),
        (0.1, [51, 25, 25, 16]),
    ] {
        assert_eq!(pyramid_channels(depth), expected, "depth {depth}");
    }
}

#[test]
fn single_frames_of_odd_and_tiny_sizes_run() {
    let net = small_detector(FrameSize::new(64, 64), None, DType::F32);
    for (height, width) in [(1, 1), (33, 65), (47, 129), (300, 64), (32, 32)] {
        let frame = FrameSize::new(height, width);
        let raw = net.single_frame(&noise("frame", frame, DType::F32)).unwrap();
        let expected: usize =
            raw.levels.iter().enumerate().map(|(i, l)| l.area() * if i == 0 { 3 } else { 6 }).sum();
        assert_eq!(raw.logits.dims(), [1, expected, 31], "{frame}");
        assert_eq!(raw.levels, level_sizes(frame), "{frame}");
    }
}

#[test]
fn a_batch_equals_its_members() {
    let net = small_detector(FrameSize::new(64, 96), None, DType::F32);
    let frames: Vec<Tensor> =
        (0..3).map(|i| noise(&format!("frame.{i}"), FrameSize::new(64, 96), DType::F32)).collect();
    let batch = net.single_frame(&Tensor::cat(&frames, 0).unwrap()).unwrap();
    for (i, frame) in frames.iter().enumerate() {
        let alone = net.single_frame(frame).unwrap();
        let of_batch = batch.logits.narrow(0, i, 1).unwrap();
        assert!(relative_l2(&of_batch, &alone.logits) < 1e-5, "image {i}");
    }
}

#[test]
fn the_folded_net_the_plain_net_and_candle_nn_alone_agree() {
    let frame = FrameSize::new(96, 160);
    let cfg: DetectorConfig = small_detector_config(frame, None);
    let xs = noise("frame", frame, DType::F32);
    let mut net = small_detector(frame, None, DType::F32);
    let graph = net.single_frame(&xs).unwrap();
    let (logits, boxes) = PlainDetector::new(&cfg, seeded_weights(DType::F32)).unwrap().forward(&xs).unwrap();
    assert!(relative_l2(&graph.logits, &logits) < 1e-4);
    assert!(relative_l2(&graph.boxes, &boxes) < 1e-4);
    net.prepare().unwrap();
    let folded = net.single_frame(&xs).unwrap();
    assert!(relative_l2(&folded.logits, &logits) < 1e-4);
    assert!(relative_l2(&folded.boxes, &boxes) < 1e-4);
}

#[test]
fn half_precision_stays_near_single() {
    let frame = FrameSize::new(64, 64);
    let single =
        small_detector(frame, None, DType::F32).single_frame(&noise("frame", frame, DType::F32)).unwrap();
    let half =
        small_detector(frame, None, DType::F16).single_frame(&noise("frame", frame, DType::F16)).unwrap();
    assert_eq!(half.logits.dtype(), DType::F16);
    let apart = relative_l2(&half.logits, &single.logits);
    assert!(apart < 0.05, "{apart}");
    // candle multiplies no bf16 matrices on a CPU, and says so.
    let brain = small_detector(frame, None, DType::BF16);
    let error = brain.single_frame(&noise("frame", frame, DType::BF16)).unwrap_err().to_string();
    assert!(error.contains("unsupported dtype BF16"), "{error}");
}

#[test]
fn gradients_reach_every_weight_through_a_windowed_step() {
    let frame = FrameSize::new(64, 64);
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let net = DetectorNet::new(&small_detector_config(frame, None), vb).unwrap();
    let mut memories = patchwork_det::Memories::new();
    let window = patchwork_det::Grid::new(2, 1).unwrap().window(1, frame).unwrap();
    let xs = crate::support::crop(&noise("frame", frame, DType::F32), window);
    let raw = net.step(&xs, frame, window, &mut memories, false).unwrap();
    let loss =
        (raw.logits.sqr().unwrap().sum_all().unwrap() + raw.boxes.sqr().unwrap().sum_all().unwrap()).unwrap();
    let grads = loss.backward().unwrap();
    for (name, var) in map.data().lock().unwrap().iter() {
        if !name.contains("running_") {
            assert!(grads.get(var).is_some(), "{name} has no gradient");
        }
    }
    // The memory is detached: a second step's graph does not reach back into the first.
    assert!(!memories.get("features.0").unwrap().track_op());
}

#[test]
fn segmenters_keep_a_quarter_of_the_resolution() {
    let net = small_segmenter(FrameSize::new(64, 96));
    let raw = net.single_frame(&noise("frame", FrameSize::new(64, 96), DType::F32)).unwrap();
    assert_eq!(raw.logits.dims(), [1, 1, 16, 24]);
    let cfg = SegmenterConfig { frame: FrameSize::new(100, 96), ..SegmenterConfig::davis(0.5) };
    assert!(cfg.validate().unwrap_err().to_string().contains("the nearest size is 96×96"));
}
