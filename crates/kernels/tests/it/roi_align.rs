//! RoIAlign.

use candle_core::{DType, Device, Result, Tensor};
use zoo_kernels::{RoiAlign, roi_align};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients, layouts, map};
use crate::support::{largest_difference, noise};

/// Image, corners: inside, across the border, outside, thin, inside out.
const BOXES: [[f32; 5]; 7] = [
    [0.0, 1.3, 2.1, 9.7, 8.4],
    [1.0, -3.0, -2.5, 4.0, 30.0],
    [1.0, 0.0, 0.0, 15.0, 11.0],
    [0.0, 40.0, 50.0, 60.0, 55.0],
    [1.0, 5.0, 5.0, 5.0, 5.2],
    [0.0, 9.0, 8.0, 3.0, 2.0],
    [0.0, -1e9, -1.0, 1e9, 4.0],
];

fn boxes(dtype: DType) -> Tensor {
    Tensor::new(&BOXES, &Device::Cpu).unwrap().to_dtype(dtype).unwrap()
}

fn options() -> Vec<RoiAlign> {
    let mut all = vec![];
    for (size, scale) in [((7, 7), 0.5), ((2, 3), 1.0), ((1, 1), 0.25)] {
        for samples in [None, Some(2), Some(3)] {
            for aligned in [false, true] {
                all.push(RoiAlign { size, scale, samples, aligned });
            }
        }
    }
    all
}

/// A sample of torchvision's: zero more than a pixel outside, moved to the border nearer than that.
fn sampled(xs: &Values, image: usize, channel: usize, y: f64, x: f64) -> f64 {
    let (h, w) = (xs.dims[2] as f64, xs.dims[3] as f64);
    if y < -1.0 || y > h || x < -1.0 || x > w {
        return 0.0;
    }
    let (y, x) = (y.clamp(0.0, h - 1.0), x.clamp(0.0, w - 1.0));
    let pixel = |y: f64, x: f64| xs.at_or(image, channel, y as isize, x as isize, 0.0);
    let row = |y: f64| pixel(y, x) * (1.0 - x.fract()) + pixel(y, x + 1.0) * x.fract();
    row(y) * (1.0 - y.fract()) + row(y + 1.0) * y.fract()
}

fn naive(xs: &Tensor, boxes: &[[f32; 5]], o: RoiAlign) -> Tensor {
    let values = Values::of(xs);
    map([boxes.len(), xs.dim(1).unwrap(), o.size.0, o.size.1], |roi, channel, i, j| {
        let [image, x0, y0, x1, y1] = boxes[roi].map(f64::from);
        let axis = |from: f64, to: f64, cells: usize, cell: usize| {
            let (offset, least) = if o.aligned { (0.5, f64::NEG_INFINITY) } else { (0.0, 1.0) };
            let size = ((to - from) * o.scale).max(least) / cells as f64;
            let count = o.samples.unwrap_or(size.ceil().max(0.0) as usize);
            let start = from * o.scale - offset + cell as f64 * size;
            (0..count).map(move |n| start + (n as f64 + 0.5) * size / count as f64)
        };
        let (rows, columns) = (axis(y0, y1, o.size.0, i), axis(x0, x1, o.size.1, j));
        let count = rows.len() * columns.len();
        let mut sum = 0.0;
        for y in rows {
            sum += columns.clone().map(|x| sampled(&values, image as usize, channel, y, x)).sum::<f64>();
        }
        sum / count.max(1) as f64
    })
}

#[test]
fn roi_align_equals_its_definition_on_each_instruction_set() {
    // The definition would take a week for the box of 2e9 columns.
    let tame = &BOXES[..6];
    for (seed, channels) in [16, 5, 33].into_iter().enumerate() {
        let xs = noise(seed as u64 + 1, &[2, channels, 8, 11], DType::F32);
        for o in options() {
            let want = naive(&xs, tame, o);
            on_each_isa(|isa| {
                for xs in layouts(&xs) {
                    let ys = roi_align(&xs, &boxes(DType::F32).narrow(0, 0, 6).unwrap(), o).unwrap();
                    let d = largest_difference(&ys, &want);
                    assert!(d < 1e-5, "{channels} channels, {o:?} on {isa}: off by {d}");
                }
            });
        }
    }
}

#[test]
fn roi_align_has_a_gradient() {
    let xs = noise(1, &[2, 3, 8, 11], DType::F64);
    for o in options() {
        let boxes = boxes(DType::F64);
        assert_gradients(&format!("{o:?}"), &[&xs], |xs| roi_align(&xs[0], &boxes, o).unwrap());
    }
}

/// `torchvision.ops.roi_align(torch.arange(20.).reshape(1, 1, 4, 5).square(), boxes, 2, 0.5, …)` of
/// torchvision 0.29.2, one box (0, 1, 1, 8.2, 5.5).
#[test]
fn roi_align_equals_torchvisions() {
    let xs = Tensor::arange(0f32, 20.0, &Device::Cpu).unwrap().sqr().unwrap().reshape((1, 1, 4, 5)).unwrap();
    let roi = Tensor::new(&[[0f32, 1.0, 1.0, 8.2, 5.5]], &Device::Cpu).unwrap();
    for (samples, aligned, want) in GOLDEN {
        let o = RoiAlign { size: (2, 2), scale: 0.5, samples, aligned };
        let ys = Values::of(&roi_align(&xs, &roi, o).unwrap()).values;
        for (y, want) in ys.iter().zip(want) {
            assert!((y - want).abs() < 1e-3, "{samples:?} {aligned}: {ys:?} {want}");
        }
    }
}

const GOLDEN: [(Option<usize>, bool, [f64; 4]); 4] = [
    (None, false, [52.2812, 79.8062, 158.6562, 206.4312]),
    (None, true, [20.3750, 36.9000, 93.0000, 129.7750]),
    (Some(2), false, [52.2812, 79.8062, 158.6562, 206.4312]),
    (Some(2), true, [20.3750, 36.9000, 93.0000, 129.7750]),
];

#[test]
fn wild_boxes_neither_panic_nor_read_beyond_the_map() {
    let xs = (noise(1, &[1, 17, 6, 6], DType::F32) + 5.0).unwrap();
    let wild = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, f32::MAX, 3.0];
    for samples in [None, Some(2)] {
        for aligned in [false, true] {
            let o = RoiAlign { size: (3, 3), scale: 1.0, samples, aligned };
            for x in wild {
                for y in wild {
                    let roi = Tensor::new(&[[0.0, x, 1.0, y, 4.0]], &Device::Cpu).unwrap();
                    let ys = Values::of(&roi_align(&xs, &roi, o).unwrap()).values;
                    assert!(ys.iter().all(|y| (0.0..=6.0).contains(y)), "{x} {y} {o:?}: {ys:?}");
                    if !x.is_finite() || !y.is_finite() {
                        assert!(ys.iter().all(|&y| y == 0.0), "{x} {y} {o:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn no_boxes_give_no_maps() {
    let none = Tensor::zeros((0, 5), DType::F32, &Device::Cpu).unwrap();
    let o = RoiAlign { size: (7, 7), scale: 1.0, samples: None, aligned: true };
    assert_eq!(roi_align(&noise(1, &[1, 4, 3, 3], DType::F32), &none, o).unwrap().dims(), [0, 4, 7, 7]);
}

#[test]
fn roi_align_refuses_what_does_not_fit() {
    let xs = noise(1, &[2, 3, 4, 5], DType::F32);
    let o = RoiAlign { size: (2, 2), scale: 1.0, samples: None, aligned: true };
    let run = |roi: [f32; 5], o: RoiAlign| -> Result<Tensor> {
        roi_align(&xs, &Tensor::new(&[roi], &Device::Cpu).unwrap(), o)
    };
    let roi = [0.0, 1.0, 1.0, 2.0, 2.0];
    for (result, expected) in [
        (run([2.0, 0.0, 0.0, 1.0, 1.0], o), "a box of image 2, but there are 2 images"),
        (run([0.5, 0.0, 0.0, 1.0, 1.0], o), "a box of image 0.5"),
        (run([f32::NAN, 0.0, 0.0, 1.0, 1.0], o), "a box of image NaN"),
        (run(roi, RoiAlign { size: (0, 2), ..o }), "expected at least one cell and one sample"),
        (run(roi, RoiAlign { samples: Some(0), ..o }), "expected at least one cell and one sample"),
        (roi_align(&xs, &noise(1, &[3, 4], DType::F32), o), "expected boxes of [K, 5], got [3, 4]"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
