//! Values, shapes and the way back to the picture's own pixels.

use candle_core::{Device, Tensor};
use zoo_core::{BBox, FrameSize, Image};
use zoo_vision::{Fit, Mapping, Normalization, Preprocess, Resize, Resizer};

use crate::pictures::pattern;

fn values(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn values_are_those_of_the_frameworks() {
    let image = Image::new(FrameSize::new(1, 2), vec![0, 127, 255, 128, 1, 64]).unwrap();
    let imagenet = |c: usize, v: f32| (v / 255.0 - [0.485, 0.456, 0.406][c]) / [0.229, 0.224, 0.225][c];
    // Planes: red 0 128, green 127 1, blue 255 64.
    let planes = [(0, 0.0), (0, 128.0), (1, 127.0), (1, 1.0), (2, 255.0), (2, 64.0f32)];
    for (name, normalization, expected) in [
        ("unit", Normalization::Unit, planes.map(|(_, v)| v / 255.0)),
        ("tf", Normalization::Tf, planes.map(|(_, v)| v * f32::from_bits(0x3c00_8081) - 1.0)),
        ("imagenet", Normalization::IMAGENET, planes.map(|(c, v)| imagenet(c, v))),
        (
            "own",
            Normalization::MeanStd { mean: [0.5; 3], std: [0.25, 0.5, 1.0] },
            planes.map(|(c, v)| (v / 255.0 - 0.5) / [0.25, 0.5, 1.0][c]),
        ),
        (
            "caffe",
            Normalization::Caffe { mean: [100.0, 90.5, 80.0] },
            [255.0 - 100.0, 64.0 - 100.0, 127.0 - 90.5, 1.0 - 90.5, 0.0 - 80.0, 128.0 - 80.0],
        ),
    ] {
        let tensor = normalization.tensor(&image, &Device::Cpu).unwrap();
        assert_eq!(tensor.dims(), [1, 3, 1, 2], "{name}");
        assert_eq!(values(&tensor), expected, "{name}");
    }
    let white = Image::filled(FrameSize::new(1, 1), [255; 3]).unwrap();
    let top = values(&Normalization::Tf.tensor(&white, &Device::Cpu).unwrap())[0];
    assert!((top - 1.0).abs() < 2e-7, "{top}");
}

#[test]
fn imagenet_classifiers_get_the_middle_of_the_shorter_side() {
    // As torchvision: Resize(256) gives 341×256, CenterCrop(224) begins at row 16, column 58.
    let image = pattern(300, 400);
    let (tensor, mapping) = Preprocess::IMAGENET.tensor(&image, &Device::Cpu).unwrap();
    assert_eq!(tensor.dims(), [1, 3, 224, 224]);
    let resized = Resizer::new(image.size(), FrameSize::new(256, 341), Resize::Pil).unwrap();
    let cropped = resized.image(&image).unwrap().crop(16, 58, FrameSize::new(224, 224)).unwrap();
    assert_eq!(values(&tensor), values(&Normalization::IMAGENET.tensor(&cropped, &Device::Cpu).unwrap()));
    let corner = mapping.to_original(BBox::new(0.0, 0.0, 224.0, 224.0));
    assert!((corner.x0 - 58.0 * 400.0 / 341.0).abs() < 1e-3, "{corner}");
    assert!((corner.y1 - 240.0 * 300.0 / 256.0).abs() < 1e-3, "{corner}");
}

#[test]
fn a_letterbox_keeps_the_shape_and_fills_the_rest() {
    let image = Image::filled(FrameSize::new(30, 60), [10, 20, 30]).unwrap();
    let fit = Fit::Letterbox { size: FrameSize::new(40, 40), fill: [1, 2, 3] };
    let preprocess = Preprocess { fit, resize: Resize::HalfPixel, normalization: Normalization::Unit };
    let (tensor, mapping) = preprocess.tensor(&image, &Device::Cpu).unwrap();
    assert_eq!((tensor.dims(), mapping.input()), (&[1, 3, 40, 40][..], FrameSize::new(40, 40)));
    let got = values(&tensor);
    for c in 0..3 {
        for y in 0..40 {
            let expected = if (10..30).contains(&y) { 10.0 * (c + 1) as f32 } else { (c + 1) as f32 };
            for x in 0..40 {
                let value = got[(c * 40 + y) * 40 + x] * 255.0;
                assert!((value - expected).abs() < 1e-4, "channel {c}, row {y}: {value}, {expected}");
            }
        }
    }
    let whole = mapping.to_input(BBox::new(0.0, 0.0, 60.0, 30.0));
    assert_eq!(whole, BBox::new(0.0, 10.0, 40.0, 30.0));
}

#[test]
fn padding_leaves_the_picture_at_the_top_left() {
    let image = pattern(5, 7);
    let fit = Fit::Pad { size: FrameSize::new(8, 10), fill: [0; 3] };
    let preprocess = Preprocess { fit, resize: Resize::Pil, normalization: Normalization::Unit };
    let (tensor, mapping) = preprocess.tensor(&image, &Device::Cpu).unwrap();
    assert_eq!(tensor.dims(), [1, 3, 8, 10]);
    assert_eq!(mapping.picture(), (0, 0, image.size()));
    let inside = tensor.narrow(2, 0, 5).unwrap().narrow(3, 0, 7).unwrap();
    assert_eq!(values(&inside), values(&Normalization::Unit.tensor(&image, &Device::Cpu).unwrap()));
    let sum = |tensor: &Tensor| values(tensor).iter().map(|&x| f64::from(x)).sum::<f64>();
    assert_eq!(sum(&tensor), sum(&inside), "the rest is black");
    let error = Mapping::new(FrameSize::new(9, 10), fit).unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot pad a picture of 9×10 (rows × columns) to 8×10: it is larger; resize or cut it first"
    );
}

#[test]
fn boxes_come_back_whatever_the_shapes() {
    let bbox = BBox::new(3.25, 1.5, 17.0, 9.75);
    for original in [(1, 1), (7, 300), (300, 7), (480, 640), (641, 359), (224, 224)] {
        let original = FrameSize::new(original.0, original.1);
        for fit in [
            Fit::Stretch { size: FrameSize::new(300, 300) },
            Fit::Letterbox { size: FrameSize::new(320, 640), fill: [0; 3] },
            Fit::Letterbox { size: FrameSize::new(33, 31), fill: [0; 3] },
            Fit::CenterCrop { shorter: 256, size: FrameSize::new(224, 224) },
            Fit::CenterCrop { shorter: 64, size: FrameSize::new(1, 64) },
        ] {
            let mapping = Mapping::new(original, fit).unwrap();
            let back = mapping.to_original(mapping.to_input(bbox));
            for (a, b) in [(back.x0, bbox.x0), (back.y0, bbox.y0), (back.x1, bbox.x1), (back.y1, bbox.y1)] {
                assert!((a - b).abs() < 2e-3, "{original}, {fit:?}: {back}");
            }
        }
    }
}

#[test]
fn impossible_sizes_are_refused() {
    let image = pattern(10, 12);
    let cut = |shorter, side| {
        let fit = Fit::CenterCrop { shorter, size: FrameSize::new(side, side) };
        Preprocess { fit, ..Preprocess::IMAGENET }.tensor(&image, &Device::Cpu).unwrap_err().to_string()
    };
    assert_eq!(
        cut(20, 21),
        "cannot cut 21×21 out of a picture whose shorter side was resized to 20; crop less"
    );
    assert!(cut(20, 0).contains("at least one row and one column, got 0×0 (rows × columns)"));
    let wrong = Normalization::Unit.tensor_of(vec![0.0; 5], FrameSize::new(1, 2), &Device::Cpu);
    assert!(wrong.unwrap_err().to_string().starts_with("cannot turn the picture into a tensor: "));
}

#[test]
fn settings_survive_json() {
    let text = serde_json::to_string(&Preprocess::IMAGENET).unwrap();
    assert_eq!(serde_json::from_str::<Preprocess>(&text).unwrap(), Preprocess::IMAGENET);
    assert!(serde_json::from_str::<Preprocess>(&text.replace("resize", "reside")).is_err());
}
