//! Labels of resized scores, without the resized scores.

use candle_core::{DType, Device, Tensor};
use zoo_kernels::{Interpolation, resize_argmax, resize2d};

use crate::reference::layouts;
use crate::support::noise;

const ALL: [Interpolation; 4] =
    [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::BilinearCorners, Interpolation::Bicubic];

fn labels(tensor: &Tensor) -> Vec<u8> {
    tensor.flatten_all().unwrap().to_vec1().unwrap()
}

/// Scores in which the same class wins over whole areas, with a little noise, as a net's do.
fn areas([b, c, h, w]: [usize; 4]) -> Tensor {
    let best = |b: usize, y: usize, x: usize| (y / 3 + x / 4 + b) % c;
    let scores = (0..b * c * h * w).map(|i| {
        let (x, y, class, image) = (i % w, i / w % h, i / w / h % c, i / w / h / c);
        if best(image, y, x) == class { 1.0f32 } else { 0.0 }
    });
    let scores = Tensor::from_vec(scores.collect(), (b, c, h, w), &Device::Cpu).unwrap();
    (scores + (noise(4, &[b, c, h, w], DType::F32) * 0.2).unwrap()).unwrap()
}

#[test]
fn labels_are_those_of_the_resized_scores() {
    for (dims, size) in [
        ([1, 19, 8, 16], (64, 128)),
        ([2, 12, 9, 7], (18, 14)),
        ([1, 21, 16, 16], (16, 16)),
        ([2, 5, 13, 17], (6, 40)),
        ([1, 3, 1, 1], (4, 3)),
        ([1, 1, 4, 4], (7, 7)),
        ([1, 256, 5, 6], (9, 11)),
    ] {
        for scores in [areas(dims), noise(9, &dims, DType::F32)] {
            for interpolation in ALL {
                let want = resize2d(&scores, size, interpolation).unwrap().argmax(1).unwrap();
                let want = labels(&want.to_dtype(DType::U8).unwrap());
                for (order, scores) in layouts(&scores).into_iter().enumerate() {
                    let got = resize_argmax(&scores, size, interpolation).unwrap();
                    assert_eq!(got.dims(), [dims[0], size.0, size.1]);
                    assert_eq!(labels(&got), want, "{dims:?} to {size:?}, {interpolation:?}, order {order}");
                }
            }
        }
    }
}

#[test]
fn ties_go_to_the_first_class_and_nan_never_wins() {
    let scores = [[1.0, 2.0], [1.0, f32::NAN], [1.0, 3.0]];
    let scores = Tensor::new(&scores, &Device::Cpu).unwrap().reshape((1, 3, 1, 2)).unwrap();
    let got = resize_argmax(&scores, (1, 2), Interpolation::Bilinear).unwrap();
    assert_eq!(labels(&got), [0, 2]);
    let half = resize_argmax(&scores.to_dtype(DType::F16).unwrap(), (1, 2), Interpolation::Bilinear).unwrap();
    assert_eq!(labels(&half), [0, 2]);
}

#[test]
fn what_has_no_labels_is_refused() {
    let error = |dims: &[usize], size| {
        resize_argmax(&noise(1, dims, DType::F32), size, Interpolation::Bilinear).unwrap_err().to_string()
    };
    assert!(error(&[1, 257, 2, 2], (4, 4)).contains("at most 256 classes, got 257"));
    assert!(error(&[1, 3, 2, 2], (0, 4)).contains("at least 1×1, got 0×4"));
    assert!(error(&[3, 2, 2], (4, 4)).contains("expected a map"));
}
