//! Resizing.

use candle_core::{DType, Tensor};
use zoo_kernels::{Interpolation, resize2d};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients, layouts, map};
use crate::support::{largest_difference, noise};

const ALL: [Interpolation; 4] =
    [Interpolation::Nearest, Interpolation::Bilinear, Interpolation::BilinearCorners, Interpolation::Bicubic];

fn cases() -> Vec<([usize; 4], (usize, usize))> {
    vec![
        ([1, 16, 4, 6], (8, 12)),
        ([2, 7, 5, 9], (13, 4)),
        ([1, 33, 9, 7], (9, 20)),
        ([1, 19, 6, 5], (1, 1)),
        ([1, 3, 1, 1], (3, 5)),
        ([2, 1, 8, 8], (3, 3)),
        ([1, 4, 40, 31], (61, 97)),
    ]
}

/// Cubics through the four nearest pixels of each axis, by the four coefficients of each pixel's piece.
fn naive_bicubic(xs: &Tensor, (height, width): (usize, usize)) -> Tensor {
    let (b, c, h, w) = xs.dims4().unwrap();
    let values = Values::of(xs);
    let a = -0.75;
    let weights = |t: f64| {
        let (t2, t3) = (t * t, t * t * t);
        [
            a * (t - 2.0 * t2 + t3),
            1.0 - (a + 3.0) * t2 + (a + 2.0) * t3,
            -a * t + (2.0 * a + 3.0) * t2 - (a + 2.0) * t3,
            a * (t2 - t3),
        ]
    };
    let axis = |to: usize, from_n: usize, to_n: usize| {
        let position = (to as f64 + 0.5) * from_n as f64 / to_n as f64 - 0.5;
        let first = position.floor() as isize - 1;
        let inside = move |i: isize| (first + i).clamp(0, from_n as isize - 1) as usize;
        ([0, 1, 2, 3].map(inside), weights(position - position.floor()))
    };
    map([b, c, height, width], |image, channel, y, x| {
        let ((rows, down), (columns, right)) = (axis(y, h, height), axis(x, w, width));
        let row =
            |y: usize| -> f64 { (0..4).map(|j| right[j] * values.at([image, channel, y, columns[j]])).sum() };
        (0..4).map(|i| down[i] * row(rows[i])).sum()
    })
}

fn naive(xs: &Tensor, (height, width): (usize, usize), interpolation: Interpolation) -> Tensor {
    if interpolation == Interpolation::Bicubic {
        return naive_bicubic(xs, (height, width));
    }
    let (b, c, h, w) = xs.dims4().unwrap();
    let values = Values::of(xs);
    let position = |to: usize, from_n: usize, to_n: usize| match interpolation {
        Interpolation::Nearest => (to * from_n / to_n) as f64,
        Interpolation::Bilinear => ((to as f64 + 0.5) * from_n as f64 / to_n as f64 - 0.5).max(0.0),
        Interpolation::BilinearCorners if to_n == 1 => 0.0,
        Interpolation::BilinearCorners => to as f64 * (from_n - 1) as f64 / (to_n - 1) as f64,
        Interpolation::Bicubic => unreachable!("it has a definition of its own"),
    };
    map([b, c, height, width], |image, channel, y, x| {
        let (y, x) = (position(y, h, height), position(x, w, width));
        let pixel =
            |y: f64, x: f64| values.at([image, channel, (y as usize).min(h - 1), (x as usize).min(w - 1)]);
        let row = |y: f64| pixel(y, x) * (1.0 - x.fract()) + pixel(y, x + 1.0) * x.fract();
        row(y) * (1.0 - y.fract()) + row(y + 1.0) * y.fract()
    })
}

#[test]
fn resizing_equals_its_definition_on_each_instruction_set() {
    for (seed, (dims, size)) in cases().into_iter().enumerate() {
        let xs = noise(seed as u64 + 1, &dims, DType::F32);
        for interpolation in ALL {
            let want = naive(&xs, size, interpolation);
            on_each_isa(|isa| {
                for (order, xs) in layouts(&xs).into_iter().enumerate() {
                    let ys = resize2d(&xs, size, interpolation).unwrap();
                    let d = largest_difference(&ys, &want);
                    assert!(d < 1e-6, "{dims:?} {size:?} {interpolation:?} order {order} on {isa}: {d}");
                }
            });
        }
    }
}

#[test]
fn resizing_has_a_gradient() {
    for (seed, (dims, size)) in cases().into_iter().enumerate() {
        let xs = noise(seed as u64 + 20, &dims, DType::F64);
        for interpolation in ALL {
            let name = format!("{dims:?} {size:?} {interpolation:?}");
            assert_gradients(&name, &[&xs], |xs| resize2d(&xs[0], size, interpolation).unwrap());
        }
    }
}

/// `torch.nn.functional.interpolate(torch.arange(4.)[None, None, None].square(), size=(1, 7), …)` of
/// PyTorch 2.15.
#[test]
fn resizing_equals_pytorchs() {
    let xs = Tensor::new(&[0f32, 1.0, 4.0, 9.0], &candle_core::Device::Cpu).unwrap();
    let xs = xs.reshape((1, 1, 1, 4)).unwrap();
    for (interpolation, want) in [
        (Interpolation::Nearest, [0.0, 0.0, 1.0, 1.0, 4.0, 4.0, 9.0]),
        (Interpolation::Bilinear, [0.0, 0.357_142_9, 0.928_571_5, 2.5, 4.357_142_9, 7.214_286_8, 9.0]),
        (Interpolation::BilinearCorners, [0.0, 0.5, 1.0, 2.5, 4.0, 6.5, 9.0]),
    ] {
        let ys = Values::of(&resize2d(&xs, (1, 7), interpolation).unwrap()).values;
        for (y, want) in ys.into_iter().zip(want) {
            assert!((y - want).abs() < 1e-5, "{interpolation:?}: {y} {want}");
        }
    }
}

#[test]
fn resizing_refuses_no_size() {
    let xs = noise(1, &[1, 2, 4, 5], DType::F32);
    let error = resize2d(&xs, (3, 0), Interpolation::Nearest).unwrap_err().to_string();
    assert!(error.starts_with("resize: expected a size of at least 1×1, got 3×0"), "{error}");
}
