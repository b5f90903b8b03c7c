//! Segmentation data sets: where files lie, what labels mean, and what is said of faults.

use std::fs;
use std::path::Path;

use image::ImageFormat;
use png::{BitDepth, ColorType};
use zoo_core::labels::{CAMVID_11, CAMVID_12, CITYSCAPES_19, VOC_21};
use zoo_core::{FrameSize, Image, SegMap};
use zoo_vision::{LabelledSet, Layout, Limits, write};

use crate::pictures::{encode, pattern};

/// Height and width of the pictures here.
const SIZE: (u32, u32) = (2, 3);

fn put(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

fn picture() -> Vec<u8> {
    encode(&pattern(SIZE.0 as usize, SIZE.1 as usize), ImageFormat::Png)
}

/// A PNG whose samples are as given, bits packed and all.
fn png_of((height, width): (u32, u32), color: ColorType, depth: BitDepth, samples: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(color);
    encoder.set_depth(depth);
    if color == ColorType::Indexed {
        encoder.set_palette((0..=255u8).flat_map(|i| [i, 255 - i, 7]).collect::<Vec<u8>>());
    }
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(samples).unwrap();
    writer.finish().unwrap();
    bytes
}

fn gray(samples: &[u8]) -> Vec<u8> {
    png_of(SIZE, ColorType::Grayscale, BitDepth::Eight, samples)
}

/// The SegNet tutorial's folder with one picture of these labels.
fn segnet(labels: &[u8]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    put(&root.path().join("test/x.png"), &picture());
    put(&root.path().join("testannot/x.png"), labels);
    root
}

fn truth(root: &Path, layout: Layout) -> Vec<u8> {
    let set = LabelledSet::open(root, layout, layout.default_split(), layout.classes()).unwrap();
    let labelled = set.iter().next().unwrap().unwrap();
    assert_eq!(labelled.truth.size, labelled.image.size());
    assert_eq!(labelled.truth.legend, layout.classes().legend());
    labelled.truth.classes
}

fn error_of(root: &Path, layout: Layout) -> String {
    let split = layout.default_split();
    match LabelledSet::open(root, layout, split, layout.classes()) {
        Ok(set) => set.iter().next().unwrap().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn camvids_colours_are_classes_and_finer_ones_do_not_count() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    // Sky, void, bicyclist, a bus (one of the finer classes), road, one off road.
    let colors = [[128, 128, 128], [0, 0, 0], [0, 128, 192], [192, 128, 192], [128, 64, 128], [129, 64, 128]];
    let labels = Image::new(FrameSize::new(2, 3), colors.concat()).unwrap();
    for name in ["0001TP_10", "0001TP_9"] {
        put(&root.join(format!("test/{name}.png")), &picture());
        put(&root.join(format!("test_labels/{name}_L.png")), &encode(&labels, ImageFormat::Png));
    }
    assert_eq!(Layout::detect(root).unwrap(), Layout::CamVid);
    assert_eq!(truth(root, Layout::CamVid), [0, 11, 10, 255, 3, 255]);
    let eleven = LabelledSet::open(root, Layout::CamVid, "test", CAMVID_11).unwrap();
    let names: Vec<_> = eleven.pairs().iter().map(|pair| pair.name.as_str()).collect();
    assert_eq!(names, ["0001TP_9", "0001TP_10"]);
    assert_eq!(eleven.truth(&eleven.pairs()[0]).unwrap().classes, [0, 255, 10, 255, 3, 255]);

    put(&root.join("test_labels/0001TP_9_L.png"), &encode(&pattern(2, 3), ImageFormat::Jpeg));
    let error = eleven.iter().next().unwrap().unwrap_err().to_string();
    assert!(error.contains("0001TP_9_L.png: expected pixels in the colours of CamVid, got none"), "{error}");
    assert!(eleven.iter().nth(1).unwrap().is_ok(), "one fault does not end the others");
}

#[test]
fn the_tutorials_camvid_has_numbers_and_void_counts_if_asked() {
    let root = segnet(&gray(&[0, 11, 10, 3, 4, 5]));
    assert_eq!(Layout::detect(root.path()).unwrap(), Layout::SegNet);
    assert_eq!(truth(root.path(), Layout::SegNet), [0, 255, 10, 3, 4, 5]);
    let twelve = LabelledSet::open(root.path(), Layout::SegNet, "test", CAMVID_12).unwrap();
    assert_eq!(twelve.iter().next().unwrap().unwrap().truth.classes, [0, 11, 10, 3, 4, 5]);
    assert_eq!((twelve.len(), twelve.is_empty(), twelve.classes()), (1, false, CAMVID_12));
}

#[test]
fn cityscapes_label_ids_become_train_ids() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    for (city, name) in [("lindau", "lindau_000000_000019"), ("bochum", "bochum_000000_000313")] {
        let picture_at = root.join(format!("leftImg8bit/val/{city}/{name}_leftImg8bit.png"));
        put(&picture_at, &picture());
        let labels = root.join(format!("gtFine/val/{city}/{name}_gtFine_"));
        put(Path::new(&format!("{}labelIds.png", labels.display())), &gray(&[7, 0, 33, 255, 26, 29]));
        put(Path::new(&format!("{}color.png", labels.display())), &picture());
        put(Path::new(&format!("{}instanceIds.png", labels.display())), &picture());
    }
    assert_eq!(Layout::detect(root).unwrap(), Layout::Cityscapes);
    assert_eq!(truth(root, Layout::Cityscapes), [0, 255, 18, 255, 13, 255]);
    let set = LabelledSet::open(root, Layout::Cityscapes, "val", CITYSCAPES_19).unwrap();
    let names: Vec<_> = set.pairs().iter().map(|pair| pair.name.as_str()).collect();
    assert_eq!(names, ["bochum_000000_000313", "lindau_000000_000019"]);

    // What a prediction is written as can be read again.
    let map = set.iter().next().unwrap().unwrap().truth;
    write::mask_of_ids(&set.pairs()[0].labels, &map).unwrap();
    assert_eq!(set.truth(&set.pairs()[0]).unwrap(), map);
}

#[test]
fn voc_reads_what_its_list_names() {
    let root = tempfile::tempdir().unwrap();
    let root = root.path();
    put(&root.join("ImageSets/Segmentation/val.txt"), b"2007_000033\n2007_000042\r\n\n");
    for name in ["2007_000033", "2007_000042", "2007_000061"] {
        put(&root.join(format!("JPEGImages/{name}.jpg")), &encode(&pattern(2, 3), ImageFormat::Jpeg));
        let labels = png_of(SIZE, ColorType::Indexed, BitDepth::Eight, &[0, 20, 255, 1, 15, 255]);
        put(&root.join(format!("SegmentationClass/{name}.png")), &labels);
    }
    assert_eq!(Layout::detect(root).unwrap(), Layout::Voc);
    assert_eq!(truth(root, Layout::Voc), [0, 20, 255, 1, 15, 255]);
    assert_eq!(LabelledSet::open(root, Layout::Voc, "val", VOC_21).unwrap().len(), 2);

    fs::remove_file(root.join("SegmentationClass/2007_000042.png")).unwrap();
    let error = error_of(root, Layout::Voc);
    assert!(
        error.contains("names 1 files that are not there") && error.contains("2007_000042.png"),
        "{error}"
    );
    put(&root.join("ImageSets/Segmentation/val.txt"), b"../../secret\n");
    assert!(
        error_of(root, Layout::Voc).contains("expected one name of a picture a line, got `../../secret`")
    );
    put(&root.join("ImageSets/Segmentation/val.txt"), b"\n");
    assert!(error_of(root, Layout::Voc).contains("val.txt is empty"));
}

#[test]
fn numbers_of_fewer_bits_are_unpacked() {
    // Rows begin at whole bytes.
    for (depth, samples) in [
        (BitDepth::Four, &[0x3a, 0x40, 0x05, 0xb0][..]),
        (BitDepth::Two, &[0b11_10_01_00, 0b00_01_10_11]),
        (BitDepth::One, &[0b1010_0000, 0b0110_0000]),
    ] {
        let expected: [u8; 6] = match depth {
            BitDepth::Four => [3, 10, 4, 0, 5, 255],
            BitDepth::Two => [3, 2, 1, 0, 1, 2],
            _ => [1, 0, 1, 0, 1, 1],
        };
        for color in [ColorType::Grayscale, ColorType::Indexed] {
            let mut labels = png_of(SIZE, color, depth, samples);
            if color == ColorType::Indexed {
                // A palette has no more colours than its numbers can name.
                labels = indexed(depth, samples);
            }
            assert_eq!(truth(segnet(&labels).path(), Layout::SegNet), expected, "{color:?} {depth:?}");
        }
    }
}

fn indexed(depth: BitDepth, samples: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, SIZE.1, SIZE.0);
    encoder.set_color(ColorType::Indexed);
    encoder.set_depth(depth);
    encoder.set_palette(vec![9; 3 << depth as usize]);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(samples).unwrap();
    writer.finish().unwrap();
    bytes
}

#[test]
fn faults_are_named() {
    let (labels, layout) = (gray(&[0, 1, 2, 3, 4, 12]), Layout::SegNet);
    let error = error_of(segnet(&labels).path(), layout);
    assert!(
        error.contains(
            "testannot/x.png holds 12 at row 1, column 2, which is no label of CamVid (11 classes)"
        ),
        "{error}"
    );
    let wide = png_of((2, 4), ColorType::Grayscale, BitDepth::Eight, &[0; 8]);
    let error = error_of(segnet(&wide).path(), layout);
    assert!(
        error.contains("x.png are 2×4 (rows × columns), their picture") && error.contains("is 2×3;"),
        "{error}"
    );
    let error = error_of(segnet(&picture()).path(), layout);
    assert!(
        error.contains("expected one number a pixel (gray or indexed, up to 8 bits), got Rgb of 8 bits"),
        "{error}"
    );
    let sixteen = png_of(SIZE, ColorType::Grayscale, BitDepth::Sixteen, &[0; 12]);
    assert!(error_of(segnet(&sixteen).path(), layout).contains("got Grayscale of 16 bits"));
    for cut in (0..gray(&[0; 6]).len() - 12).step_by(7) {
        let error = error_of(segnet(&gray(&[0; 6])[..cut]).path(), layout);
        assert!(error.starts_with("cannot read labels from "), "cut after {cut}: {error}");
    }

    let root = segnet(&gray(&[0; 6]));
    let set = LabelledSet::open(root.path(), layout, "test", CAMVID_11).unwrap();
    let small = set.clone().with_limits(Limits { max_pixels: 5, ..Limits::default() });
    let error = small.truth(&set.pairs()[0]).unwrap_err().to_string();
    assert!(error.contains("expected at most 5 in all"), "{error}");

    put(&root.path().join("test/y.png"), &picture());
    put(&root.path().join("testannot/z.png"), &gray(&[0; 6]));
    let error = error_of(root.path(), layout);
    assert!(error.starts_with("2 of 3 files have no partner in ") && error.contains("test/y.png"), "{error}");
    let error = LabelledSet::open(root.path(), layout, "train", CAMVID_11).unwrap_err().to_string();
    assert!(error.starts_with("cannot read ") && error.contains("train"), "{error}");
    let empty = tempfile::tempdir().unwrap();
    let error = Layout::detect(empty.path()).unwrap_err().to_string();
    assert!(error.contains("expected the folders `gtFine` (Cityscapes)"), "{error}");
}

#[test]
fn a_prediction_is_scored_as_it_was_written() {
    let root = segnet(&gray(&[0, 1, 2, 3, 4, 5]));
    let set = LabelledSet::open(root.path(), Layout::SegNet, "test", CAMVID_11).unwrap();
    let map = SegMap::new(FrameSize::new(2, 3), vec![5, 4, 3, 2, 1, 0], CAMVID_11.legend()).unwrap();
    write::mask(&set.pairs()[0].labels, &map).unwrap();
    assert_eq!(set.truth(&set.pairs()[0]).unwrap(), map);
}
