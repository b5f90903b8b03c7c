//! Still pictures: every format and kind of sample, orientation, limits, and files that are none.

use std::time::{Duration, Instant};

use image::{ExtendedColorType, ImageEncoder, ImageFormat};
use zoo_core::FrameSize;
use zoo_vision::{Error, Limits, decode, read};

use crate::pictures::{encode, pattern, png};

const LOSSLESS: [(&str, ImageFormat); 6] = [
    ("PNG", ImageFormat::Png),
    ("BMP", ImageFormat::Bmp),
    ("GIF", ImageFormat::Gif),
    ("PNM", ImageFormat::Pnm),
    ("TIFF", ImageFormat::Tiff),
    ("WebP", ImageFormat::WebP),
];

fn decoded(bytes: &[u8]) -> zoo_core::Image {
    decode(bytes, "test", &Limits::default()).unwrap()
}

fn message(bytes: &[u8], limits: &Limits) -> String {
    decode(bytes, "a.jpg", limits).unwrap_err().to_string()
}

#[test]
fn lossless_formats_give_the_pixels_whatever_the_file_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let image = pattern(5, 7);
    for (name, format) in LOSSLESS {
        let path = folder.path().join(format!("{name}.txt"));
        std::fs::write(&path, encode(&image, format)).unwrap();
        assert_eq!(read(&path).unwrap(), image, "{name}");
    }
}

#[test]
fn jpeg_comes_close() {
    let image = zoo_core::Image::filled(FrameSize::new(9, 12), [200, 90, 30]).unwrap();
    let got = decoded(&encode(&image, ImageFormat::Jpeg));
    assert_eq!(got.size(), image.size());
    for (a, b) in got.pixels().iter().zip(image.pixels()) {
        assert!(a.abs_diff(*b) <= 3, "{a} against {b}");
    }
}

#[test]
fn every_kind_of_sample_becomes_rgb() {
    let cases: [(&str, &[u8], ExtendedColorType, [u8; 3]); 8] = [
        ("gray", &[77], ExtendedColorType::L8, [77; 3]),
        ("gray and alpha, over white", &[100, 51], ExtendedColorType::La8, [224; 3]),
        ("16-bit gray, rounded down", &[0x81, 0x00], ExtendedColorType::L16, [0x80; 3]),
        ("16-bit gray, rounded up", &[0x81, 0x01], ExtendedColorType::L16, [0x81; 3]),
        ("clear is white", &[10, 20, 30, 0], ExtendedColorType::Rgba8, [255; 3]),
        ("a fifth of red", &[255, 0, 0, 51], ExtendedColorType::Rgba8, [255, 204, 204]),
        ("opaque", &[10, 20, 30, 255], ExtendedColorType::Rgba8, [10, 20, 30]),
        ("16-bit", &[1, 0x82, 0x80, 0x7f, 0xff, 0xff], ExtendedColorType::Rgb16, [2, 128, 255]),
    ];
    for (name, samples, kind, expected) in cases {
        // The table is big-endian; the encoder takes 16-bit samples in the machine's order.
        let wide = matches!(kind, ExtendedColorType::L16 | ExtendedColorType::Rgb16);
        let swap = wide && cfg!(target_endian = "little");
        let samples: Vec<u8> = match swap {
            true => samples.chunks(2).flat_map(|pair| [pair[1], pair[0]]).collect(),
            false => samples.to_vec(),
        };
        let image = decoded(&png(1, 1, &samples, kind));
        assert_eq!(image.pixels(), expected, "{name}");
    }
}

#[test]
fn palettes_and_single_bits_are_expanded() {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 3, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_depth(png::BitDepth::Two);
    encoder.set_palette(vec![1, 2, 3, 40, 50, 60, 255, 0, 0]);
    encoder.set_trns(vec![255, 255, 0]);
    encoder.write_header().unwrap().write_image_data(&[0b0001_1000]).unwrap();
    assert_eq!(decoded(&bytes).pixels(), [1, 2, 3, 40, 50, 60, 255, 255, 255]);

    assert_eq!(decoded(b"P4\n4 1\n\x50").pixels(), [255, 255, 255, 0, 0, 0, 255, 255, 255, 0, 0, 0]);
    assert_eq!(decoded(b"P2\n2 1\n15\n0 15\n").pixels(), [0, 0, 0, 255, 255, 255]);
}

/// Colours as Pillow reads them; see `scripts/goldens/pictures.py`.
#[test]
fn cmyk_jpeg_becomes_rgb() {
    let image = decoded(include_bytes!("../data/cmyk.jpg"));
    assert_eq!(image.size(), FrameSize::new(16, 64));
    for (i, expected) in [[0, 255, 255], [255, 0, 255], [255, 255, 0], [127, 127, 127]].iter().enumerate() {
        let got = image.get(8, 16 * i + 8).unwrap();
        for (a, b) in got.iter().zip(expected) {
            assert!(a.abs_diff(*b) <= 2, "block {i}: {got:?}, expected {expected:?}");
        }
    }
}

/// One RGBA pixel as TIFF; the tag `ExtraSamples` says whether the colours hold alpha already.
fn rgba_tiff(pixel: [u8; 4], extra_samples: u16) -> Vec<u8> {
    let entries: [(u16, u16, u32, u32); 10] = [
        (256, 3, 1, 1),
        (257, 3, 1, 1),
        (258, 3, 4, 8 + 2 + 10 * 12 + 4 + 4),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 1, 8 + 2 + 10 * 12 + 4),
        (277, 3, 1, 4),
        (278, 3, 1, 1),
        (279, 4, 1, 4),
        (338, 3, 1, u32::from(extra_samples)),
    ];
    let mut bytes = b"II*\0\x08\0\0\0\x0a\0".to_vec();
    for (tag, kind, count, value) in entries {
        bytes.extend(tag.to_le_bytes());
        bytes.extend(kind.to_le_bytes());
        bytes.extend(count.to_le_bytes());
        bytes.extend(value.to_le_bytes());
    }
    bytes.extend([0; 4]);
    bytes.extend(pixel);
    bytes.extend([8, 0, 8, 0, 8, 0, 8, 0]);
    bytes
}

#[test]
fn alpha_that_is_multiplied_in_already_is_not_multiplied_again() {
    let half_red = [128, 0, 0, 128];
    assert_eq!(decoded(&rgba_tiff(half_red, 1)).pixels(), [255, 127, 127], "associated");
    assert_eq!(decoded(&rgba_tiff(half_red, 2)).pixels(), [191, 127, 127], "unassociated");
}

/// A block of EXIF data with nothing but an orientation.
fn exif(orientation: u16) -> Vec<u8> {
    let mut bytes = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    bytes.extend(orientation.to_le_bytes());
    bytes.extend([0; 6]);
    bytes
}

#[test]
fn all_eight_orientations_are_applied() {
    // Blocks of 8 pixels, so that JPEG keeps them apart: A B over C D.
    let corner = |y: usize, x: usize| [[10, 90], [170, 250]][y][x];
    let samples: Vec<u8> = (0..16 * 32).flat_map(|i| [corner(i / 32 / 8, i % 32 / 16); 3]).collect();
    // What stands top left, top right, bottom left, bottom right once it is upright.
    let upright = [
        (1, [10, 90, 170, 250]),
        (2, [90, 10, 250, 170]),
        (3, [250, 170, 90, 10]),
        (4, [170, 250, 10, 90]),
        (5, [10, 170, 90, 250]),
        (6, [170, 10, 250, 90]),
        (7, [250, 90, 170, 10]),
        (8, [90, 250, 10, 170]),
    ];
    for (orientation, expected) in upright {
        let mut files = [("PNG", Vec::new()), ("JPEG", Vec::new()), ("WebP", Vec::new())];
        for (name, bytes) in &mut files {
            let (block, kind) = (exif(orientation), ExtendedColorType::Rgb8);
            match *name {
                "PNG" => {
                    let mut encoder = image::codecs::png::PngEncoder::new(bytes);
                    encoder.set_exif_metadata(block).unwrap();
                    encoder.write_image(&samples, 32, 16, kind).unwrap();
                }
                "JPEG" => {
                    let mut encoder = image::codecs::jpeg::JpegEncoder::new_with_quality(bytes, 100);
                    encoder.set_exif_metadata(block).unwrap();
                    encoder.write_image(&samples, 32, 16, kind).unwrap();
                }
                _ => {
                    let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(bytes);
                    encoder.set_exif_metadata(block).unwrap();
                    encoder.write_image(&samples, 32, 16, kind).unwrap();
                }
            }
        }
        for (name, bytes) in files {
            let image = decoded(&bytes);
            let (height, width) = if orientation < 5 { (16, 32) } else { (32, 16) };
            assert_eq!(image.size(), FrameSize::new(height, width), "{name}, orientation {orientation}");
            let places = [(0, 0), (0, width - 1), (height - 1, 0), (height - 1, width - 1)];
            for ((y, x), expected) in places.into_iter().zip(expected) {
                let got = image.get(y, x).unwrap()[0];
                assert!(got.abs_diff(expected) <= 3, "{name}, orientation {orientation}: {got}, {expected}");
            }
        }
    }
}

/// A PNG whose header claims another size, with the checksum to match, and an orientation.
fn png_claiming(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = image::codecs::png::PngEncoder::new(&mut bytes);
    encoder.set_exif_metadata(exif(6)).unwrap();
    encoder.write_image(&[0; 12], 2, 2, ExtendedColorType::Rgb8).unwrap();
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32fast::hash(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

#[test]
fn headers_that_ask_for_too_much_are_refused_before_anything_is_allocated() {
    let mut bmp = encode(&pattern(2, 2), ImageFormat::Bmp);
    bmp[18..22].copy_from_slice(&30_000u32.to_le_bytes());
    bmp[22..26].copy_from_slice(&30_000u32.to_le_bytes());
    let mut gif = encode(&pattern(2, 2), ImageFormat::Gif);
    gif[6..10].copy_from_slice(&[0xff; 4]);
    let cases = [
        ("PNG with EXIF", png_claiming(60_000, 60_000), "60000×60000"),
        ("PNG, wide", png_claiming(1 << 30, 1), "memory"),
        ("BMP", bmp, "30000×30000"),
        ("GIF", gif, "65535×65535"),
        ("PNM", b"P6 30000 30000 255\n123".to_vec(), "30000×30000"),
        ("PNM, overflowing", b"P6 4294967295 4294967295 255\n".to_vec(), ""),
    ];
    for (name, bytes, expected) in cases {
        let begun = Instant::now();
        let error = decode(&bytes, "bomb.png", &Limits::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("bomb.png") && text.contains(expected), "{name}: {text}");
        assert!(begun.elapsed() < Duration::from_secs(1), "{name} took {:?}", begun.elapsed());
    }
    let error = decode(&png_claiming(20_000, 20_000), "bomb.png", &Limits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bomb.png has 20000×20000 (rows × columns) pixels, expected at most 67108864 in all and 32768 a side; \
         raise the Limits if the file can be trusted"
    );
}

#[test]
fn memory_limits_hold_for_pixels_and_for_the_file_itself() {
    let image = encode(&pattern(64, 64), ImageFormat::Bmp);
    let limits = Limits { max_bytes: 5_000, ..Limits::default() };
    assert_eq!(
        message(&image, &limits),
        "a.jpg needs more than 5000 bytes of memory (12288 for its pixels); \
         raise Limits::max_bytes if the file can be trusted"
    );
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.bmp");
    std::fs::write(&path, &image).unwrap();
    let text = zoo_vision::read_with(&path, &limits).unwrap_err().to_string();
    assert!(text.contains("(the file itself is larger)"), "{text}");
}

#[test]
fn exif_that_lies_about_its_length_costs_nothing() {
    let mut webp = Vec::new();
    let mut encoder = image::codecs::webp::WebPEncoder::new_lossless(&mut webp);
    encoder.set_exif_metadata(exif(6)).unwrap();
    encoder.write_image(&[9; 12], 2, 2, ExtendedColorType::Rgb8).unwrap();
    let at = webp.windows(4).position(|name| name == b"EXIF").unwrap();
    webp[at + 4..at + 8].copy_from_slice(&0xffff_fff0u32.to_le_bytes());
    let begun = Instant::now();
    // Whether the decoder takes the rest is its own business.
    let _ = decode(&webp, "lies.webp", &Limits { max_bytes: 1 << 20, ..Limits::default() });

    let mut tiff = rgba_tiff([1, 2, 3, 255], 2);
    // The last tag becomes an orientation with 2³⁰ values.
    let tag = 8 + 2 + 9 * 12;
    tiff[tag..tag + 2].copy_from_slice(&274u16.to_le_bytes());
    tiff[tag + 4..tag + 8].copy_from_slice(&(1u32 << 30).to_le_bytes());
    let _ = decode(&tiff, "lies.tiff", &Limits { max_bytes: 1 << 20, ..Limits::default() });
    assert!(begun.elapsed() < Duration::from_secs(1));
}

#[test]
fn what_is_no_picture_is_named_for_what_it_is() {
    let limits = Limits::default();
    for (bytes, expected) in [
        (&b""[..], "a.jpg is empty (0 bytes), expected a picture or a video; copy or download it again"),
        (
            b"<!DOCTYPE html><html><body>404</body></html>",
            "a.jpg is not a picture: expected PNG, JPEG, WebP, BMP, GIF, PNM or TIFF, \
             got an HTML page (a download that failed?)",
        ),
        (b"\n  <html lang=en>", "got an HTML page (a download that failed?)"),
        (b"<?xml version='1.0'?><svg/>", "got an SVG drawing; render it to PNG first"),
        (b"YUV4MPEG2 W2 H2\n", "got a Y4M video; read it with Source::parse"),
        (b"version https://git-lfs.github.com/spec/v1\n", "got a Git LFS pointer; run `git lfs pull`"),
        (b"\0\0\0\x1cftypheic\0\0\0\0", "got an HEIC file; convert it first"),
        (b"\x7fELF\x02\x01\x01\0\0\0", "got bytes 7f 45 4c 46 02 01 01 00"),
    ] {
        let text = message(bytes, &limits);
        assert!(text.ends_with(expected), "{text}");
    }
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let text = read(folder.path()).unwrap_err().to_string();
    assert!(
        text.ends_with("is a folder, expected a picture; name a file in it, or read all with Source::parse")
    );
    let text = read(folder.path().join("missing.png")).unwrap_err().to_string();
    assert!(text.contains("missing.png: No such file") && text.contains("check the path"), "{text}");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let path = folder.path().join("secret.png");
        std::fs::write(&path, b"x").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
        match read(&path).unwrap_err() {
            Error::Read { source, .. } => assert_eq!(source.kind(), std::io::ErrorKind::PermissionDenied),
            // Root reads everything.
            Error::UnknownFormat { .. } => println!("skipped: running as a user who may read any file"),
            other => panic!("{other}"),
        }
    }
}

/// Cut at every 37th byte: an error, or the very picture where nothing but an end mark is missing.
#[test]
fn a_file_cut_short_is_never_a_damaged_picture() {
    let image = pattern(24, 40);
    let jpeg = [("JPEG", ImageFormat::Jpeg)];
    for (name, format) in LOSSLESS.into_iter().chain(jpeg) {
        let whole = encode(&image, format);
        let intact = decoded(&whole);
        for length in (1..whole.len()).step_by(37).chain([whole.len() - 1]) {
            match decode(&whole[..length], "cut", &Limits::default()) {
                Ok(got) => assert_eq!(got, intact, "{name} cut at {length} of {}", whole.len()),
                Err(error) => assert!(error.to_string().contains("cut"), "{name}: {error}"),
            }
        }
        if name != "GIF" {
            let half = decode(&whole[..whole.len() / 2], "half.png", &Limits::default()).unwrap_err();
            let expected = format!("cannot decode half.png as {name}: ");
            let text = half.to_string();
            assert!(text.starts_with(&expected) && text.contains("cut short"), "{text}");
            assert!(text.ends_with(&format!("save it anew as {name}")), "{text}");
        }
    }
}

#[test]
fn of_an_animation_the_first_frame_is_taken() {
    let mut bytes = Vec::new();
    let mut encoder = gif::Encoder::new(&mut bytes, 1, 1, &[10, 20, 30, 40, 50, 60]).unwrap();
    for index in 0..2u8 {
        encoder
            .write_frame(&gif::Frame {
                width: 1,
                height: 1,
                buffer: vec![index].into(),
                ..Default::default()
            })
            .unwrap();
    }
    drop(encoder);
    assert_eq!(decoded(&bytes).pixels(), [10, 20, 30]);
}
