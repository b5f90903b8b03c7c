//! Grid sampling and warping.

use candle_core::{DType, Device, Result, Tensor};
use zoo_kernels::{Outside, grid_sample, warp};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients, layouts, map};
use crate::support::{largest_difference, noise};

const BOTH: [Outside; 2] = [Outside::Zeros, Outside::Border];

/// A map's bilinear sample at a position in pixels.
fn sampled(xs: &Values, image: usize, channel: usize, y: f64, x: f64, outside: Outside) -> f64 {
    let (h, w) = (xs.dims[2] as f64, xs.dims[3] as f64);
    let (y, x) = match outside {
        Outside::Zeros => (y, x),
        Outside::Border => (y.clamp(0.0, h - 1.0), x.clamp(0.0, w - 1.0)),
    };
    let mut sum = 0.0;
    for (row, wy) in [(y.floor(), 1.0 - (y - y.floor())), (y.floor() + 1.0, y - y.floor())] {
        for (column, wx) in [(x.floor(), 1.0 - (x - x.floor())), (x.floor() + 1.0, x - x.floor())] {
            sum += wy * wx * xs.at_or(image, channel, row as isize, column as isize, 0.0);
        }
    }
    sum
}

/// Map, output size and reach of the flow in pixels.
const CASES: [([usize; 4], (usize, usize), f64); 6] = [
    ([1, 16, 7, 9], (7, 9), 3.0),
    ([2, 19, 8, 5], (6, 11), 9.0),
    ([1, 1, 4, 4], (1, 1), 0.5),
    ([2, 33, 1, 6], (3, 4), 2.0),
    ([1, 5, 30, 40], (30, 40), 60.0),
    ([1, 2, 3, 3], (3, 3), 0.0),
];

#[test]
fn warping_equals_its_definition_on_each_instruction_set() {
    for (seed, (dims, (h, w), reach)) in CASES.into_iter().enumerate() {
        let xs = noise(seed as u64 + 1, &dims, DType::F32);
        let flow = (noise(seed as u64 + 20, &[dims[0], 2, h, w], DType::F32) * reach).unwrap();
        let (map_of, flow_of) = (Values::of(&xs), Values::of(&flow));
        for outside in BOTH {
            let want = map([dims[0], dims[1], h, w], |image, channel, y, x| {
                let down = y as f64 + flow_of.at([image, 1, y, x]);
                let right = x as f64 + flow_of.at([image, 0, y, x]);
                sampled(&map_of, image, channel, down, right, outside)
            });
            on_each_isa(|isa| {
                for (xs, flow) in layouts(&xs).into_iter().zip(layouts(&flow)) {
                    let ys = warp(&xs, &flow, outside).unwrap();
                    let d = largest_difference(&ys, &want);
                    assert!(d < 1e-6, "{dims:?} {outside:?} on {isa}: off by {d}");
                }
            });
        }
    }
}

#[test]
fn grid_sampling_equals_its_definition_on_each_instruction_set() {
    for (seed, (dims, (h, w), _)) in CASES.into_iter().enumerate() {
        let [batch, channels, height, width] = dims;
        let xs = noise(seed as u64 + 1, &dims, DType::F32);
        let grid = (noise(seed as u64 + 40, &[batch, h, w, 2], DType::F32) * 1.4).unwrap();
        let (map_of, grid_of) = (Values::of(&xs), Values::of(&grid));
        for (outside, align) in BOTH.into_iter().flat_map(|outside| [(outside, false), (outside, true)]) {
            let pixel = |given: f64, n: usize| {
                let n = n as f64;
                if align { (given + 1.0) / 2.0 * (n - 1.0) } else { ((given + 1.0) * n - 1.0) / 2.0 }
            };
            let want = map([batch, channels, h, w], |image, channel, y, x| {
                let down = pixel(grid_of.at([image, y, x, 1]), height);
                let right = pixel(grid_of.at([image, y, x, 0]), width);
                sampled(&map_of, image, channel, down, right, outside)
            });
            on_each_isa(|isa| {
                for xs in layouts(&xs) {
                    let ys = grid_sample(&xs, &grid, outside, align).unwrap();
                    let d = largest_difference(&ys, &want);
                    assert!(d < 1e-6, "{dims:?} {outside:?} {align} on {isa}: off by {d}");
                }
            });
        }
    }
}

#[test]
fn sampling_has_gradients() {
    for (seed, (dims, (h, w), reach)) in CASES.into_iter().enumerate() {
        let xs = noise(seed as u64 + 60, &dims, DType::F64);
        // Off the pixels, where the derivative jumps.
        let flow = noise(seed as u64 + 80, &[dims[0], 2, h, w], DType::F64).affine(reach, 0.31).unwrap();
        let grid = (noise(seed as u64 + 90, &[dims[0], h, w, 2], DType::F64) * 1.37).unwrap();
        for outside in BOTH {
            let name = format!("{dims:?} {outside:?}");
            assert_gradients(&name, &[&xs, &flow], |inputs| warp(&inputs[0], &inputs[1], outside).unwrap());
            for align in [false, true] {
                assert_gradients(&format!("{name} {align}"), &[&xs, &grid], |inputs| {
                    grid_sample(&inputs[0], &inputs[1], outside, align).unwrap()
                });
            }
        }
    }
}

/// `torch.nn.functional.grid_sample(torch.arange(12.).reshape(1, 1, 3, 4) + 1, grid, …)` of PyTorch 2.15.
#[test]
fn grid_sampling_equals_pytorchs() {
    let xs =
        (Tensor::arange(0f32, 12.0, &Device::Cpu).unwrap() + 1.0).unwrap().reshape((1, 1, 3, 4)).unwrap();
    let grid = Tensor::new(&GRID, &Device::Cpu).unwrap().reshape((1, 1, 4, 2)).unwrap();
    for (outside, align, want) in GOLDEN {
        let ys = Values::of(&grid_sample(&xs, &grid, outside, align).unwrap()).values;
        for (y, want) in ys.into_iter().zip(want) {
            assert!((y - want).abs() < 1e-5, "{outside:?} {align}: {y} {want}");
        }
    }
}

const GRID: [f32; 8] = [-1.0, -1.0, 0.3, -0.4, 1.1, 0.9, -2.0, 0.25];

const GOLDEN: [(Outside, bool, [f64; 4]); 4] = [
    (Outside::Zeros, false, [0.25, 4.7, 2.34, 0.0]),
    (Outside::Zeros, true, [1.0, 5.35, 9.86, 0.0]),
    (Outside::Border, false, [1.0, 4.7, 12.0, 6.5]),
    (Outside::Border, true, [1.0, 5.35, 11.6, 6.0]),
];

#[test]
fn wild_positions_are_outside() {
    let xs = (noise(1, &[1, 20, 4, 5], DType::F32) + 2.0).unwrap();
    let wild = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, f32::MAX, -1e9, 1e9];
    let flow: Vec<f32> = wild.iter().copied().chain([0.0; 8]).collect();
    let flow = Tensor::from_vec(flow, (1, 2, 1, 8), &Device::Cpu).unwrap();
    on_each_isa(|isa| {
        let zeros = Values::of(&warp(&xs, &flow, Outside::Zeros).unwrap());
        assert!(zeros.values.iter().all(|&y| y == 0.0), "{isa}");
        let border = Values::of(&warp(&xs, &flow, Outside::Border).unwrap());
        let pixels = Values::of(&xs);
        for (i, &at) in wild.iter().enumerate() {
            let column = if at > 0.0 { 4 } else { 0 };
            assert_eq!(border.at([0, 3, 0, i]), pixels.at([0, 3, 0, column]), "{at} on {isa}");
        }
    });
}

#[test]
fn what_is_not_read_cannot_spoil_a_sample() {
    let mut values = vec![1f32; 16];
    values[0] = f32::NAN;
    let xs = Tensor::from_vec(values, (1, 1, 4, 4), &Device::Cpu).unwrap();
    let flow = Tensor::full(2.5f32, (1, 2, 4, 4), &Device::Cpu).unwrap();
    for outside in BOTH {
        assert!(Values::of(&warp(&xs, &flow, outside).unwrap()).values.iter().all(|y| y.is_finite()));
    }
}

#[test]
fn sampling_refuses_what_does_not_fit() {
    let xs = noise(1, &[2, 3, 4, 5], DType::F32);
    let positions = |dims: &[usize]| noise(2, dims, DType::F32);
    let message = |ys: Result<Tensor>| ys.unwrap_err().to_string();
    for (error, expected) in [
        (
            message(warp(&xs, &positions(&[1, 2, 4, 5]), Outside::Zeros)),
            "warp: expected a flow of [2, 2, h, w], got [1, 2, 4, 5]",
        ),
        (
            message(grid_sample(&xs, &positions(&[2, 4, 5, 3]), Outside::Zeros, true)),
            "grid-sample: expected a grid of [2, h, w, 2], got [2, 4, 5, 3]",
        ),
        (
            message(warp(&xs, &noise(2, &[2, 2, 4, 5], DType::F64), Outside::Zeros)),
            "warp: expected operands of one type, got [F32, F64]",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
