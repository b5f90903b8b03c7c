//! Drawing: what is where, and that nothing odd breaks it.

use zoo_core::labels;
use zoo_core::{BBox, Detection, Detections, FrameSize, Image, SegClass, SegMap};
use zoo_vision::draw::{self, Style, class_color};

fn gray(height: usize, width: usize) -> Image {
    Image::filled(FrameSize::new(height, width), [128; 3]).unwrap()
}

fn one(size: FrameSize, bbox: BBox) -> Detections {
    Detections::new(size, vec![Detection::new(3, "car", 0.5, bbox)])
}

fn count(image: &Image, rgb: [u8; 3]) -> usize {
    image.pixels().chunks_exact(3).filter(|pixel| *pixel == rgb).count()
}

#[test]
fn a_box_has_a_frame_and_a_chip_in_its_colour_and_an_untouched_inside() {
    let mut image = gray(200, 300);
    let found = one(image.size(), BBox::new(60.0, 80.0, 280.0, 170.0));
    draw::detections(&mut image, &found, &Style::default().with_text_height(28.0));
    let color = class_color(3);
    for (name, y, x) in [("left", 120, 60), ("right", 120, 279), ("top", 80, 250), ("bottom", 169, 150)] {
        assert_eq!(image.get(y, x), Some(color), "{name} edge");
    }
    assert_eq!(image.get(120, 130), Some([128; 3]), "inside");
    assert_eq!(image.get(190, 290), Some([128; 3]), "outside");
    let chip = image.crop(44, 60, FrameSize::new(36, 90)).unwrap();
    assert!(count(&chip, color) > 1000, "the chip stands on the box");
    assert!(count(&chip, [16, 18, 22]) > 20, "with dark text");
}

#[test]
fn chips_stay_in_the_picture_and_off_each_other() {
    let size = FrameSize::new(240, 320);
    let style = Style::default().with_text_height(28.0);
    for (name, bbox) in [
        ("top left corner", BBox::new(0.0, 0.0, 50.0, 50.0)),
        ("right edge", BBox::new(310.0, 100.0, 320.0, 140.0)),
        ("bottom", BBox::new(100.0, 235.0, 140.0, 240.0)),
        ("everything", BBox::new(-50.0, -50.0, 400.0, 400.0)),
    ] {
        let mut image = gray(240, 320);
        draw::detections(&mut image, &one(size, bbox), &style);
        assert!(count(&image, [16, 18, 22]) > 20, "{name}: the text is there");
    }
    // The same box three times: three chips, each with its text.
    let text_of = |copies: usize| {
        let mut image = gray(240, 320);
        let item = Detection::new(3, "car", 0.5, BBox::new(100.0, 100.0, 180.0, 160.0));
        draw::detections(&mut image, &Detections::new(size, vec![item; copies]), &style);
        count(&image, [16, 18, 22])
    };
    assert_eq!((text_of(2), text_of(3)), (2 * text_of(1), 3 * text_of(1)));
}

#[test]
fn odd_boxes_are_clipped_or_left_out() {
    let (nan, inf) = (f32::NAN, f32::INFINITY);
    for (name, bbox, drawn) in [
        ("NaN", BBox::new(nan, 10.0, 50.0, 50.0), false),
        ("all NaN", BBox::new(nan, nan, nan, nan), false),
        ("no area", BBox::new(20.0, 20.0, 20.0, 40.0), false),
        ("inverted", BBox::new(50.0, 50.0, 10.0, 10.0), false),
        ("left of the picture", BBox::new(-50.0, 10.0, -10.0, 50.0), false),
        ("below", BBox::new(10.0, 100.0, 50.0, 150.0), false),
        ("infinite", BBox::new(-inf, -inf, inf, inf), true),
        ("huge", BBox::new(-1e30, -1e30, 1e30, 1e30), true),
        ("half inside", BBox::new(-50.0, -50.0, 40.0, 40.0), true),
        ("a tenth of a pixel", BBox::new(40.0, 40.0, 40.1, 40.1), true),
    ] {
        let mut image = gray(80, 90);
        let untouched = image.clone();
        let found = one(image.size(), bbox);
        draw::detections(&mut image, &found, &Style::default());
        assert_eq!(image != untouched, drawn, "{name}");
        draw::bbox(&mut image, bbox, Some("text"), [1, 2, 3], &Style::default());
        draw::bbox(&mut image, bbox, None, [1, 2, 3], &Style::default().with_text_height(nan));
        let mut image = untouched.clone();
        draw::window(&mut image, bbox, &Style::default());
        assert_eq!(image != untouched, drawn, "{name}, as a window");
    }
    let mut speck = gray(1, 1);
    let found = one(speck.size(), BBox::new(0.0, 0.0, 1.0, 1.0));
    draw::detections(&mut speck, &found, &Style::default().with_text_height(1e9));
    draw::caption(&speck, "a caption for a single pixel").unwrap();
}

#[test]
fn style_selects_what_is_drawn() {
    let size = FrameSize::new(100, 200);
    let found = one(size, BBox::new(20.0, 40.0, 150.0, 90.0));
    let drawn = |style: Style| {
        let mut image = gray(100, 200);
        draw::detections(&mut image, &found, &style);
        image
    };
    assert_eq!(drawn(Style::default().with_min_score(0.51)), gray(100, 200));
    let (with, without) = (drawn(Style::default()), drawn(Style::default().with_scores(false)));
    assert!(count(&with, class_color(3)) > count(&without, class_color(3)), "a shorter chip");
}

#[test]
fn a_window_dims_the_outside_only() {
    let mut image = gray(60, 80);
    let style = Style::default().with_outside(0.5);
    draw::window(&mut image, BBox::new(20.0, 20.0, 60.0, 50.0), &style);
    assert_eq!(image.get(35, 40), Some([128; 3]));
    assert_eq!(image.get(5, 5), Some([64; 3]));
    assert_eq!(image.get(20, 40), Some([255; 3]));
}

#[test]
fn a_mask_tints_by_class_with_firm_edges() {
    let size = FrameSize::new(4, 6);
    let classes = (0..24).map(|i| if i == 18 { 255 } else { u8::from(i % 6 >= 2) }).collect();
    let cat = SegClass::new("cat", 1, [20, 250, 90]);
    let legend = vec![SegClass::new("background", 0, [0; 3]), cat.clone()];
    let map = SegMap::new(size, classes, legend).unwrap();
    let mut image = gray(4, 6);
    draw::mask(&mut image, &map, &Style::default()).unwrap();
    let mixed = |alpha: f32| cat.color.map(|c| (128.0 * (1.0 - alpha) + f32::from(c) * alpha).round() as u8);
    assert_eq!(image.get(1, 0), Some([128; 3]), "background");
    assert_eq!(image.get(1, 1), Some([128; 3]), "background at the edge");
    assert_eq!(image.get(1, 2), Some(mixed(0.9)), "edge");
    assert_eq!(image.get(1, 4), Some(mixed(0.5)), "inside");
    assert_eq!(image.get(3, 0), Some([128; 3]), "does not count");

    let named = SegMap { legend: vec![SegClass::new("sky", 0, [9; 3]), cat].into(), ..map.clone() };
    let mut image = gray(4, 6);
    draw::mask(&mut image, &named, &Style::default()).unwrap();
    assert_ne!(image.get(1, 0), Some([128; 3]), "a class 0 that is no background is tinted");

    let error = draw::mask(&mut gray(4, 5), &map, &Style::default()).unwrap_err().to_string();
    assert_eq!(
        error,
        "this class map is for images of 4×6, got one of 4×5 (rows × columns); draw it on the frame that it was made from"
    );
}

#[test]
fn a_legend_shows_each_class_below_the_picture() {
    let image = gray(100, 160);
    let titled = draw::legend(&image, labels::CITYSCAPES_19.classes()).unwrap();
    assert_eq!(titled.crop(0, 0, image.size()).unwrap(), image);
    let strip = titled.crop(100, 0, FrameSize::new(titled.height() - 100, 160)).unwrap();
    for class in labels::CITYSCAPES_19.classes() {
        assert!(count(&strip, class.color) > 30, "{} is not there", class.name);
    }
    let two = draw::legend(&image, &labels::CITYSCAPES_19.classes()[..2]).unwrap();
    assert!(two.height() < titled.height() && two.height() > 100, "{}", two.size());
    let long = SegClass::new("a class whose name is much longer than the picture is wide", 0, [1, 2, 250]);
    assert!(count(&draw::legend(&gray(40, 60), &[long]).unwrap(), [1, 2, 250]) > 30);
    assert_eq!(draw::legend(&image, &[]).unwrap(), image);
}

#[test]
fn captions_and_montages_leave_the_pictures_as_they_are() {
    let image = gray(100, 160);
    let titled = draw::caption(&image, "M=4 N=2 Motion · frame 12 · window r1 c2").unwrap();
    assert_eq!(titled.width(), 160);
    assert_eq!(titled.crop(0, 0, image.size()).unwrap(), image);
    let strip = titled.crop(100, 0, FrameSize::new(titled.height() - 100, 160)).unwrap();
    assert!(strip.pixels().iter().any(|&value| value > 200), "there is text");
    assert_eq!(draw::caption(&image, "").unwrap().size(), titled.size());

    let small = Image::filled(FrameSize::new(50, 80), [9, 200, 9]).unwrap();
    let pair = [(&image, "left"), (&small, "a caption that is much too long for its picture"), (&image, "")];
    let panel = draw::montage(&pair, 2).unwrap();
    assert_eq!(panel.crop(0, 0, image.size()).unwrap(), image);
    assert_eq!(count(&panel, [9, 200, 9]), 50 * 80, "whole and centred");
    assert!(panel.width() > 320 && panel.width() < 350, "{:?}", panel.size());
    let bare = draw::montage(&[(&image, ""), (&image, "")], 9).unwrap();
    assert_eq!(bare.height(), 100);
    assert!(draw::montage(&[], 3).is_err());
}
