use candle_core::{DType, Device, Tensor};
use gsvnet_seg::FrameSize;
use gsvnet_seg::training::{Augmentation, View};
use zoo_kernels::{Interpolation, resize2d};

use crate::support::{noise, values};

const CITYSCAPES: FrameSize = FrameSize::new(1024, 2048);

fn view(of: &Augmentation, frame: FrameSize, draws: [f64; 4]) -> View {
    let mut draws = draws.into_iter();
    of.view(frame, || draws.next().unwrap()).unwrap()
}

#[test]
fn scales_crops_and_mirrors_are_the_authors() {
    let authors = Augmentation::default();
    for (draws, scaled, top, left, is_mirrored) in [
        ([0.0, 0.9, 0.9, 0.4], (768, 1536), 0, 0, false),
        ([0.25, 0.0, 0.5, 0.399], (1024, 2048), 0, 256, true),
        ([0.5, 0.5, 0.999_999, 0.0], (1536, 3072), 384, 1536, true),
        ([0.999, 0.0, 0.0, 0.9], (1792, 3584), 0, 0, false),
    ] {
        let want = View {
            scaled: FrameSize::new(scaled.0, scaled.1),
            top,
            left,
            crop: FrameSize::new(768, 1536),
            is_mirrored,
        };
        assert_eq!(view(&authors, CITYSCAPES, draws), want, "{draws:?}");
    }
    let small = Augmentation { crop: FrameSize::new(64, 64), ..Augmentation::default() };
    let odd = view(&small, FrameSize::new(100, 205), [0.7, 0.0, 0.0, 0.9]);
    assert_eq!(odd.scaled, FrameSize::new(128, 288), "150×307.5, down to multiples of 32");
}

#[test]
fn frames_and_labels_are_seen_alike() {
    let (rows, columns) = (6, 8);
    let small =
        Augmentation { scales: vec![2.0], unit: 4, crop: FrameSize::new(4, 8), ..Augmentation::default() };
    let view = view(&small, FrameSize::new(rows, columns), [0.0, 0.5, 0.99, 0.0]);
    assert_eq!((view.scaled, view.top, view.left), (FrameSize::new(12, 16), 4, 8));
    let frame = noise("frame", &[2, 3, rows, columns]);
    let got = view.frame(&frame).unwrap();
    assert_eq!(got.dims(), [2, 3, 4, 8]);
    let large = resize2d(&frame, (12, 16), Interpolation::BilinearCorners).unwrap();
    let at = |map: &Tensor, y: usize, x: usize| {
        map.narrow(2, y, 1).unwrap().narrow(3, x, 1).map(|pixel| values(&pixel)).unwrap()
    };
    for (y, x) in [(0, 0), (1, 5), (3, 7)] {
        assert_eq!(at(&got, y, x), at(&large, 4 + y, 8 + 7 - x), "({y}, {x})");
    }
    let numbers: Vec<u8> = (0..96).collect();
    let labels = Tensor::from_vec(numbers, (2, rows, columns), &Device::Cpu).unwrap();
    let seen = view.labels(&labels).unwrap();
    assert_eq!((seen.dtype(), seen.dims()), (DType::U8, &[2, 4, 8][..]));
    let seen = seen.to_vec3::<u8>().unwrap();
    for (y, x) in [(0, 0), (1, 5), (3, 7)] {
        // Each label four times, from row 2 and column 4 on, turned round.
        let want = (2 + y / 2) * columns + 4 + (7 - x) / 2;
        assert_eq!([seen[0][y][x], seen[1][y][x]], [want as u8, (want + 48) as u8], "({y}, {x})");
    }
}

#[test]
fn what_cannot_be_cut_out_is_named() {
    let error = Augmentation::default().view(FrameSize::new(720, 960), || 0.0).unwrap_err().to_string();
    assert!(error.contains("at least the crop's 768×1536, got 720×960"), "{error}");
    let none = Augmentation { scales: vec![], ..Augmentation::default() };
    let error = none.view(CITYSCAPES, || 0.0).unwrap_err().to_string();
    assert!(error.contains("at least one scale"), "{error}");
}
