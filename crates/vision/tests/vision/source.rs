//! Frames from files, folders, patterns, streams and clips.

use std::io::{Cursor, Read};
use std::path::Path;
use std::time::Duration;

use image::ImageFormat;
use zoo_core::{FrameSize, Image};
use zoo_vision::{Frame, FrameRate, Frames, Limits, Source};

use crate::pictures::{encode, pattern, y4m};

fn names(frames: Frames) -> Vec<String> {
    frames.map(|frame| frame.map_or_else(|_| "broken".to_owned(), |frame| frame.name)).collect()
}

fn source(path: impl AsRef<Path>) -> Source {
    Source::parse(path.as_ref().to_str().unwrap()).unwrap()
}

fn stream(bytes: Vec<u8>) -> zoo_vision::Result<Frames> {
    Frames::from_reader(Cursor::new(bytes), "stdin", &Limits::default())
}

#[test]
fn a_folder_is_read_in_natural_order_and_goes_on_after_a_broken_picture() {
    let folder = tempfile::tempdir().unwrap();
    let png = encode(&pattern(3, 4), ImageFormat::Png);
    for name in ["frame10.png", "frame2.PNG", "frame1.png", ".hidden.png"] {
        std::fs::write(folder.path().join(name), &png).unwrap();
    }
    std::fs::write(folder.path().join("frame3.jpg"), b"<html>not found</html>").unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"no picture").unwrap();
    std::fs::create_dir(folder.path().join("more.png")).unwrap();

    let frames = source(folder.path()).frames().unwrap();
    assert_eq!(frames.count_hint(), Some(4));
    assert_eq!((frames.size(), frames.rate()), (None, None));
    let frames: Vec<_> = frames.collect();
    let error = frames[2].as_ref().unwrap_err().to_string();
    assert!(error.contains("frame3.jpg is not a picture") && error.contains("HTML"), "{error}");
    let good: Vec<&Frame> = frames.iter().flatten().collect();
    let found: Vec<_> = good.iter().map(|frame| (frame.index, frame.name.as_str())).collect();
    assert_eq!(found, [(0, "frame1"), (1, "frame2"), (3, "frame10")]);
    assert_eq!(good[1].path, Some(folder.path().join("frame2.PNG")));
    assert_eq!(good[0].timestamp, None);
}

#[test]
fn a_pattern_takes_what_it_names() {
    let folder = tempfile::tempdir().unwrap();
    let png = encode(&pattern(3, 4), ImageFormat::Png);
    for name in ["b2.png", "b10.png", "c.png", ".b.png"] {
        std::fs::write(folder.path().join(name), &png).unwrap();
    }
    assert_eq!(names(source(folder.path().join("b*.png")).frames().unwrap()), ["b2", "b10"]);
    assert_eq!(names(source(folder.path().join("[bc]?*.png")).frames().unwrap()), ["b2", "b10"]);

    let nothing = source(folder.path().join("z*.png"));
    let error = nothing.frames().unwrap_err().to_string();
    assert!(error.starts_with("no pictures in ") && error.contains("png, apng, jpg"), "{error}");
    let error = Source::parse("photos/[a.png").unwrap_err().to_string();
    assert!(error.contains("photos/[a.png is not a valid pattern") && error.contains("[*]"), "{error}");
}

#[test]
fn what_is_not_there_is_said_at_once() {
    let error = Source::parse("nowhere/street.jpg").unwrap_err().to_string();
    assert!(error.starts_with("cannot read nowhere/street.jpg: No such file"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = source(empty.path()).frames().unwrap_err().to_string();
    assert!(error.starts_with("no pictures in "), "{error}");
    assert_eq!(Source::parse("-").unwrap(), Source::Stdin);
    assert_eq!(Source::Stdin.files().unwrap(), [] as [&Path; 0]);
}

#[test]
fn standard_input_may_be_a_picture_a_clip_or_neither() {
    let image = pattern(3, 4);
    let frames: Vec<_> = stream(encode(&image, ImageFormat::Png)).unwrap().map(Result::unwrap).collect();
    assert_eq!((frames.len(), frames[0].name.as_str(), &frames[0].path), (1, "stdin", &None));
    assert_eq!(frames[0].image, image);
    assert_eq!(names(stream(animated_gif()).unwrap()), ["stdin_00000", "stdin_00001", "stdin_00002"]);
    let clip = y4m("W1 H1 F25:1 Cmono", &[&[16], &[235]]);
    assert_eq!(names(stream(clip).unwrap()), ["stdin_00000", "stdin_00001"]);
    assert_eq!(
        stream(Vec::new()).unwrap_err().to_string(),
        "stdin is empty (0 bytes), expected a picture or a video; copy or download it again"
    );
    let small = Limits { max_bytes: 20, ..Limits::default() };
    let error = Frames::from_reader(std::io::repeat(0), "stdin", &small).unwrap_err().to_string();
    assert!(error.starts_with("stdin needs more than 20 bytes of memory"), "{error}");
    let forever = Cursor::new(y4m("W1 H1 Cmono", &[])).chain(Repeated { bytes: b"FRAME\n\x10", at: 0 });
    let frames = Frames::from_reader(forever, "stdin", &small).unwrap();
    assert_eq!(
        frames.take(100).filter(Result::is_ok).count(),
        100,
        "Y4M is not held, so it has no end to wait for"
    );
}

struct Repeated {
    bytes: &'static [u8],
    at: usize,
}

impl Read for Repeated {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        for byte in into.iter_mut() {
            *byte = self.bytes[self.at % self.bytes.len()];
            self.at += 1;
        }
        Ok(into.len())
    }
}

/// Three frames of 2×2: all red; a green pixel that is taken back; a blue one.
fn animated_gif() -> Vec<u8> {
    let palette = [255, 0, 0, 0, 255, 0, 0, 0, 255];
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 2, 2, &palette).unwrap();
    let mut frame =
        gif::Frame { width: 2, height: 2, delay: 10, buffer: vec![0; 4].into(), ..Default::default() };
    encoder.write_frame(&frame).unwrap();
    (frame.width, frame.height, frame.buffer) = (1, 1, vec![1].into());
    (frame.left, frame.top, frame.dispose) = (1, 0, gif::DisposalMethod::Previous);
    frame.delay = 20;
    encoder.write_frame(&frame).unwrap();
    (frame.left, frame.top, frame.dispose) = (0, 1, gif::DisposalMethod::Keep);
    frame.buffer = vec![2].into();
    encoder.write_frame(&frame).unwrap();
    drop(encoder);
    bytes
}

fn pixels(image: &Image) -> Vec<[u8; 3]> {
    image.pixels().chunks_exact(3).map(|rgb| rgb.try_into().unwrap()).collect()
}

const RED: [u8; 3] = [255, 0, 0];
const GREEN: [u8; 3] = [0, 255, 0];
const BLUE: [u8; 3] = [0, 0, 255];

#[test]
fn gif_frames_are_composited_and_disposed_of() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dot.gif");
    std::fs::write(&path, animated_gif()).unwrap();
    let frames = source(&path).frames().unwrap();
    assert_eq!((frames.count_hint(), frames.size()), (Some(3), Some(FrameSize::new(2, 2))));
    let frames: Vec<_> = frames.map(Result::unwrap).collect();
    let shown: Vec<_> = frames.iter().map(|frame| pixels(&frame.image)).collect();
    assert_eq!(shown, [[RED; 4], [RED, GREEN, RED, RED], [RED, RED, BLUE, RED]]);
    let times: Vec<_> = frames.iter().filter_map(|frame| frame.timestamp).collect();
    assert_eq!(times, [0, 100, 300].map(Duration::from_millis));
    assert_eq!(frames[2].name, "dot_00002");

    // Cut in the third frame: two frames, an error, and the end.
    let bytes = animated_gif();
    std::fs::write(&path, &bytes[..bytes.len() - 4]).unwrap();
    let frames: Vec<_> = source(&path).frames().unwrap().take(10).collect();
    assert_eq!(frames.iter().filter(|frame| frame.is_ok()).count(), 2);
    let error = frames.last().unwrap().as_ref().unwrap_err().to_string();
    assert!(frames.len() == 3 && error.contains("frame 2 of ") && error.contains("as GIF"), "{error}");
}

#[test]
fn apng_frames_are_composited_and_disposed_of() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 2, 1);
    encoder.set_color(png::ColorType::Rgba);
    encoder.set_animated(3, 0).unwrap();
    encoder.set_frame_delay(1, 4).unwrap();
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[255, 0, 0, 255, 255, 0, 0, 255]).unwrap();
    writer.set_frame_dimension(1, 1).unwrap();
    writer.set_frame_position(1, 0).unwrap();
    writer.set_blend_op(png::BlendOp::Over).unwrap();
    writer.set_dispose_op(png::DisposeOp::Previous).unwrap();
    writer.write_image_data(&[0, 255, 0, 255]).unwrap();
    writer.set_frame_position(0, 0).unwrap();
    writer.write_image_data(&[0, 0, 255, 255]).unwrap();
    writer.finish().unwrap();

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("dot.png");
    std::fs::write(&path, &bytes).unwrap();
    let frames = source(&path).frames().unwrap();
    assert_eq!((frames.count_hint(), frames.size()), (Some(3), Some(FrameSize::new(1, 2))));
    let frames: Vec<_> = frames.map(Result::unwrap).collect();
    let shown: Vec<_> = frames.iter().map(|frame| pixels(&frame.image)).collect();
    assert_eq!(shown, [[RED, RED], [RED, GREEN], [BLUE, RED]]);
    assert_eq!(frames[2].timestamp, Some(Duration::from_millis(500)));
}

/// See `scripts/goldens/pictures.py`.
#[test]
fn webp_frames_are_composited() {
    let frames = stream(include_bytes!("../data/dot.webp").to_vec()).unwrap();
    assert_eq!(frames.size(), Some(FrameSize::new(1, 2)));
    let frames: Vec<_> = frames.map(Result::unwrap).collect();
    assert_eq!(frames.len(), 3);
    for (i, (frame, expected)) in frames.iter().zip([[RED, RED], [RED, GREEN], [BLUE, RED]]).enumerate() {
        // The decoder's blending loses a level where it need not blend at all.
        for (got, expected) in frame.image.pixels().iter().zip(expected.as_flattened()) {
            assert!(got.abs_diff(*expected) <= 1, "frame {i}: {:?}", frame.image.pixels());
        }
    }
    assert_eq!(frames[2].timestamp, Some(Duration::from_millis(500)));
}

#[test]
fn limits_hold_for_clips() {
    let mut gif = animated_gif();
    gif[6..10].copy_from_slice(&[0xff; 4]);
    let error = stream(gif).unwrap_err().to_string();
    assert!(error.starts_with("stdin has 65535×65535 (rows × columns) pixels, expected at most"), "{error}");

    let limits = Limits { max_bytes: 1_000, ..Limits::default() };
    let clip = y4m("W40 H30 C444", &[]);
    let error = Frames::from_reader(Cursor::new(clip), "stdin", &limits).unwrap_err().to_string();
    assert!(error.contains("needs more than 1000 bytes of memory (3600 for a frame)"), "{error}");
}

#[test]
fn y4m_of_every_sampling() {
    // Luma 126 with neutral chroma is gray 128; Y 81, Cb 90, Cr 240 is red.
    let gray = [126u8; 12];
    let neutral = [128u8; 24];
    for (kind, chroma) in [
        ("C420jpeg", 2 * 2),
        ("C420mpeg2", 2 * 2),
        ("C420paldv", 2 * 2),
        ("C420", 2 * 2),
        ("", 2 * 2),
        ("C422", 2 * 4),
        ("C411", 4),
        ("C444", 3 * 4),
        ("Cmono", 0),
    ] {
        let planes = [&gray[..], &neutral[..2 * chroma]].concat();
        let bytes = y4m(&format!("W3 H4 F30000:1001 Ip A1:1 {kind}"), &[&planes, &planes]);
        let frames = stream(bytes).unwrap();
        assert_eq!(frames.size(), Some(FrameSize::new(4, 3)), "{kind}");
        assert_eq!(frames.rate(), Some(FrameRate { numerator: 30_000, denominator: 1001 }), "{kind}");
        assert_eq!(frames.count_hint(), None);
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        assert_eq!(frames.len(), 2, "{kind}");
        assert_eq!(pixels(&frames[1].image), [[128; 3]; 12], "{kind}");
        assert_eq!(frames[1].timestamp, Some(Duration::from_nanos(33_366_666)), "{kind}");
    }
}

#[test]
fn y4m_chroma_belongs_to_its_block() {
    let red = [254, 0, 0];
    let luma = [81u8; 6];
    // 3×2 pixels, 4:2:0: the second column of chroma is one pixel wide.
    let planes = [&luma[..], &[90, 128], &[240, 128]].concat();
    let frame = stream(y4m("W3 H2 F1:1 C420jpeg", &[&planes])).unwrap().next().unwrap().unwrap();
    assert_eq!(pixels(&frame.image), [red, red, [76; 3], red, red, [76; 3]]);
    // 4:2:2: each row has its own.
    let planes = [&luma[..], &[90, 90, 128, 128], &[240, 240, 128, 128]].concat();
    let frame = stream(y4m("W3 H2 F1:1 C422", &[&planes])).unwrap().next().unwrap().unwrap();
    assert_eq!(pixels(&frame.image), [red, red, red, [76; 3], [76; 3], [76; 3]]);
    let full = y4m("W1 H1 F1:1 C444 XCOLORRANGE=FULL", &[&[200, 128, 128]]);
    assert_eq!(pixels(&stream(full).unwrap().next().unwrap().unwrap().image), [[200; 3]]);
}

#[test]
fn y4m_that_cannot_be_read_says_why() {
    let gray = [126u8; 4];
    for (bytes, expected) in [
        (
            y4m("W2 H2 F1:1 C420p10", &[]),
            "expected 8-bit samples of kind 420, 420jpeg, 420mpeg2, 420paldv, 411, 422, 444, mono, got \
             C420p10; convert it with `ffmpeg -i IN -pix_fmt yuv420p OUT.y4m`",
        ),
        (y4m("H2 F1:1", &[]), "expected a width and a height in its header, got `YUV4MPEG2 H2 F1:1`"),
        (y4m("W-2 H2", &[]), "expected a width and a height in its header, got `YUV4MPEG2 W-2 H2`"),
        (
            y4m("W99999 H99999 F1:1", &[]),
            "stdin has 99999×99999 (rows × columns) pixels, expected at most 67108864 in all",
        ),
        (b"YUV4MPEG2 W2 H2".to_vec(), "expected a header line of at most 1024 bytes"),
        (
            y4m("W2 H2 Cmono", &[&gray[..3]]),
            "stdin is not a Y4M video that can be read: frame 0 is cut short, expected 4 bytes; \
             copy the file again",
        ),
        (
            [y4m("W2 H2 Cmono", &[&gray]), b"FRAMES\n1234".to_vec()].concat(),
            "expected FRAME before frame 1, got `FRAMES`",
        ),
    ] {
        let error = match stream(bytes) {
            Err(error) => error,
            Ok(frames) => frames.take(5).find_map(Result::err).expect("an error"),
        };
        assert!(error.to_string().contains(expected), "{error}, expected {expected}");
    }
    let mut frames = stream(y4m("W2 H2 Cmono", &[&gray, &gray[..1]])).unwrap();
    assert!(frames.next().unwrap().is_ok());
    assert!(frames.next().unwrap().is_err());
    assert!(frames.next().is_none(), "a clip ends with its first broken frame");
    assert_eq!(stream(y4m("W2 H2 Cmono", &[])).unwrap().count(), 0, "a clip may have no frame");
}

#[test]
fn a_clip_is_read_by_its_content_and_a_still_gif_is_a_picture() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mp4");
    std::fs::write(&path, y4m("W1 H1 F25:1 Cmono", &[&[16]])).unwrap();
    assert_eq!(names(source(&path).frames().unwrap()), ["clip_00000"]);
    let path = folder.path().join("still.gif");
    std::fs::write(&path, encode(&pattern(2, 2), ImageFormat::Gif)).unwrap();
    assert_eq!(names(source(&path).frames().unwrap()), ["still"]);
}

#[cfg(not(feature = "ffmpeg"))]
#[test]
fn other_video_needs_the_feature() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("clip.mp4");
    std::fs::write(&path, b"\0\0\0\x1cftypisom\0\0\0\0").unwrap();
    let error = source(&path).frames().unwrap_err().to_string();
    assert!(error.contains("build with `--features ffmpeg`, or convert it first"), "{error}");
}

#[cfg(feature = "ffmpeg")]
mod ffmpeg {
    use std::process::Command;

    use super::*;

    fn is_installed() -> bool {
        let found = Command::new("ffmpeg").arg("-version").output().is_ok();
        if !found {
            println!("skipped: no ffmpeg on the PATH");
        }
        found
    }

    #[test]
    fn a_video_comes_through_the_pipe() {
        if !is_installed() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("odd: name.avi");
        let made = Command::new("ffmpeg")
            .args(["-loglevel", "error", "-f", "lavfi", "-i", "color=c=0x3264c8:s=66x38:r=10:d=0.5"])
            .args(["-c:v", "ffv1", "-pix_fmt", "yuv444p"])
            .arg(format!("file:{}", path.display()))
            .status()
            .unwrap();
        assert!(made.success());
        let frames = source(&path).frames().unwrap();
        assert_eq!(frames.size(), Some(FrameSize::new(38, 66)));
        assert_eq!(frames.rate(), Some(FrameRate { numerator: 10, denominator: 1 }));
        let frames: Vec<_> = frames.map(Result::unwrap).collect();
        assert_eq!(frames.len(), 5);
        assert_eq!(frames[4].timestamp, Some(Duration::from_millis(400)));
        let pixel = frames[4].image.get(20, 30).unwrap();
        for (got, expected) in pixel.into_iter().zip([0x32, 0x64, 0xc8]) {
            assert!(got.abs_diff(expected) <= 2, "{pixel:?}");
        }
    }

    #[test]
    fn what_ffmpeg_says_is_passed_on() {
        if !is_installed() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("broken.mp4");
        std::fs::write(&path, b"\0\0\0\x1cftypisom\0\0\0\0 and then nothing of use").unwrap();
        let error = source(&path).frames().unwrap_err().to_string();
        assert!(error.starts_with("ffmpeg cannot read ") && error.contains("broken.mp4"), "{error}");
        assert!(error.to_lowercase().contains("invalid data"), "{error}");
    }
}
