//! Frames in, class maps out.

use candle_core::{DType, Device};
use candle_nn::VarBuilder;
use gsvnet_seg::weights::{config_beside, config_of};
use gsvnet_seg::{
    Error, FrameSize, GsvNetSeg, Image, KeyReason, ModelConfig, Preset, PropagationConfig, Schedule,
    Segmenter as _, Streaming as _,
};
use zoo_core::labels::CAMVID_11;
use zoo_testing::memory::{alone, growth};

use crate::support::{Colors, net, values, weights};

const SIZE: FrameSize = FrameSize::new(90, 132);

/// Colours that drift to the right.
fn frame(index: usize, size: FrameSize) -> Image {
    let pixel = |y: usize, x: usize| {
        let x = x + 2 * index;
        [(x * 3 % 256) as u8, (y * 2 % 256) as u8, ((x / 20 + y / 15) * 60 % 256) as u8]
    };
    let pixels = (0..size.height).flat_map(|y| (0..size.width).flat_map(move |x| pixel(y, x)));
    Image::new(size, pixels.collect()).unwrap()
}

/// The quick net of colours with a preset's pictures of CamVid.
fn colors(schedule: Schedule) -> GsvNetSeg<Colors> {
    let mut net = net(CAMVID_11.len(), &PropagationConfig::default(), schedule);
    net.prepare_propagation().unwrap();
    GsvNetSeg::around(net, Preset::CamvidSwiftnetR18.pictures(), Device::Cpu).unwrap()
}

#[test]
fn frames_become_class_maps_of_their_size() {
    let model = colors(Schedule::every(3));
    let mut stream = model.start(SIZE).unwrap();
    for i in 0..5 {
        let segmented = model.step(&frame(i, SIZE), &mut stream).unwrap();
        assert_eq!((segmented.map.size, segmented.map.classes.len()), (SIZE, SIZE.area()));
        assert_eq!(segmented.map.legend.len(), 11);
        let reason = [KeyReason::First, KeyReason::Interval][usize::from(i > 0)];
        assert_eq!(segmented.key(), (i % 3 == 0).then_some(reason));
        let first = usize::from(segmented.map.classes[0]);
        assert_eq!(
            values(&segmented.step.labels(SIZE).unwrap().to_dtype(DType::F32).unwrap())[0] as usize,
            first
        );
    }
}

#[test]
fn a_key_frame_is_the_picture_by_itself() {
    let model = colors(Schedule::every(2));
    let mut stream = model.start(SIZE).unwrap();
    let images = [frame(0, SIZE), frame(7, FrameSize::new(64, 80))];
    let maps = model.segment(&images).unwrap();
    assert_eq!(model.step(&images[0], &mut stream).unwrap().map, maps[0]);
    assert_eq!(maps[1].size, images[1].size());
}

#[test]
fn frames_of_another_size_are_errors_and_leave_the_stream_as_it_was() {
    let model = colors(Schedule::every(3));
    let mut stream = model.start(SIZE).unwrap();
    model.step(&frame(0, SIZE), &mut stream).unwrap();
    let error = model.step(&frame(1, FrameSize::new(90, 130)), &mut stream).unwrap_err();
    assert!(matches!(error, Error::OtherSize { .. }), "{error}");
    assert!(error.to_string().contains("90×130") && error.to_string().contains("90×132"), "{error}");
    assert_eq!(stream.since_key(), Some(0));
    let mut clone = stream.clone();
    let [a, b] = [&mut stream, &mut clone].map(|stream| model.step(&frame(1, SIZE), stream).unwrap().map);
    assert_eq!(a, b);
    assert!(matches!(model.start(FrameSize::new(16, 400)), Err(Error::FrameSize { .. })));
}

#[test]
fn weights_that_are_no_numbers_are_an_error_and_no_map() {
    let mut colors = Colors::new(11);
    colors.spoil();
    let net =
        gsvnet_seg::GsvNet::around(colors, &PropagationConfig::default(), Schedule::default(), weights());
    let model = GsvNetSeg::around(net.unwrap(), Preset::CamvidSwiftnetR18.pictures(), Device::Cpu).unwrap();
    let mut stream = model.start(SIZE).unwrap();
    let error = model.step(&frame(0, SIZE), &mut stream).unwrap_err();
    assert!(matches!(error, Error::NotFinite { .. }), "{error}");
    assert_eq!(stream.since_key(), None, "nothing has happened to the stream");
}

#[test]
fn labels_must_be_as_many_as_the_nets_classes() {
    let net = net(5, &PropagationConfig::default(), Schedule::default());
    let error = GsvNetSeg::around(net, Preset::SwiftnetR18.pictures(), Device::Cpu).unwrap_err();
    assert!(error.to_string().starts_with("19 classes are named, but the net scores 5"), "{error}");
}

#[test]
fn a_thousand_frames_keep_nothing() {
    alone("pictures::a_thousand_frames_keep_nothing", || {
        let size = FrameSize::new(64, 96);
        let model = colors(Schedule::every(4));
        let mut stream = model.start(size).unwrap();
        let mut images = (0..4).map(|i| frame(i, size)).collect::<Vec<Image>>().into_iter().cycle();
        let grown = growth(1_000, || drop(model.step(&images.next().unwrap(), &mut stream).unwrap()));
        let Some(grown) = grown else {
            eprintln!("SKIPPED: this system does not tell a process's memory");
            return;
        };
        // A kept map of scores would be four times as much.
        assert!(grown < 1_000 * 1_000, "1,000 frames keep {grown} bytes");
    });
}

#[test]
fn presets_build_and_say_what_they_are() {
    for preset in Preset::ALL {
        assert_eq!(Preset::parse(preset.name()).unwrap(), preset);
        let config = ModelConfig::from(preset);
        let text = serde_json::to_string(&config.net).unwrap();
        assert_eq!(serde_json::from_str::<gsvnet_seg::Config>(&text).unwrap(), config.net);
        let model = GsvNetSeg::new(&config, VarBuilder::zeros(DType::F32, &Device::Cpu)).unwrap();
        assert_eq!(model.pictures().labels.len(), config.net.keyframe.classes);
    }
    let error = Preset::parse("swiftnet").unwrap_err().to_string();
    assert!(error.contains("unknown preset 'swiftnet'") && error.contains("camvid-bisenet-r18"), "{error}");
}

#[test]
fn the_config_beside_a_file_decides() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("model.safetensors");
    assert_eq!(config_beside(&file).unwrap(), None);
    let missing = config_of(&file, None).unwrap_err().to_string();
    assert!(missing.contains("no config.json beside") && missing.contains("swiftnet-r18"), "{missing}");
    assert_eq!(config_of(&file, Some(Preset::BisenetR18)).unwrap(), Preset::BisenetR18.into());
    let own = ModelConfig::from(Preset::BisenetR18);
    let write = |value: serde_json::Value| {
        std::fs::write(folder.path().join("config.json"), value.to_string()).unwrap();
    };
    write(serde_json::json!({ "architecture": "x", "config": own.net, "pictures": own.pictures }));
    assert_eq!(config_of(&file, None).unwrap(), own);
    let error = config_of(&file, Some(Preset::SwiftnetR18)).unwrap_err().to_string();
    assert!(error.contains("is of bisenet-r18 for 19 classes, not of preset swiftnet-r18"), "{error}");
    write(serde_json::json!({ "architecture": null }));
    assert_eq!(config_beside(&file).unwrap(), None);
    for (broken, says) in [
        (serde_json::json!({ "architecture": "x" }), "no entry 'config'"),
        (serde_json::json!({ "config": { "keyframe": {} }, "pictures": own.pictures }), "missing field"),
    ] {
        write(broken);
        let error = config_beside(&file).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("config.json"), "{error}");
    }
}

#[test]
fn frames_are_seen_as_tensors_of_them_would_be() {
    // The wrapper resizes pixels before it normalises them; the net alone resizes what is normalised.
    let model = colors(Schedule::every(2));
    let mut stream = model.start(SIZE).unwrap();
    let mut state = model.net().start(SIZE).unwrap();
    for i in 0..3 {
        let image = frame(i, SIZE);
        let tensor = model.pictures().normalization.tensor(&image, &Device::Cpu).unwrap();
        let a = model.step(&image, &mut stream).unwrap().step.scores;
        let b = model.net().push(&tensor, &mut state).unwrap().scores;
        let d = crate::support::difference(&a, &b);
        assert!(d < 1e-3, "frame {i}: {d}");
    }
}
