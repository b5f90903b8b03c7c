//! Pools.

use candle_core::{DType, Device, Result, Tensor, Var};
use zoo_kernels::{Pads, Pool, adaptive_avg_pool2d, avg_pool2d, global_avg_pool2d, max_pool2d};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients, layouts, map};
use crate::support::{largest_difference, noise};

fn cases() -> Vec<([usize; 4], Pool)> {
    let uneven = Pads { top: 0, bottom: 1, left: 1, right: 2 };
    vec![
        ([1, 16, 6, 8], Pool::square(2, 2, 0)),
        ([2, 7, 9, 11], Pool::square(3, 2, 1)),
        ([1, 33, 8, 5], Pool { ceil: true, ..Pool::square(3, 2, 1) }),
        ([1, 5, 6, 7], Pool { ceil: true, ..Pool::square(2, 3, 1) }),
        ([2, 20, 7, 7], Pool::square(5, 1, 2)),
        ([1, 3, 10, 6], Pool { kernel: (3, 4), stride: (1, 2), pads: uneven, ceil: false }),
        ([1, 3, 10, 7], Pool { kernel: (4, 3), stride: (3, 2), pads: uneven, ceil: true }),
        ([3, 1, 1, 1], Pool::square(3, 2, 1)),
        ([1, 2, 3, 50], Pool::square(1, 1, 0)),
        ([1, 40, 2, 3], Pool { kernel: (2, 3), stride: (9, 9), pads: Pads::default(), ceil: false }),
    ]
}

/// Outputs along an axis: PyTorch's rule.
fn outputs(n: usize, kernel: usize, stride: usize, before: usize, after: usize, ceil: bool) -> usize {
    let room = n + before + after - kernel;
    let outputs = if ceil { room.div_ceil(stride) } else { room / stride } + 1;
    if ceil && (outputs - 1) * stride >= n + before { outputs - 1 } else { outputs }
}

/// Calls `f` with the values of each window, NaN for the border, and what of the window is padded map.
fn naive(xs: &Tensor, pool: Pool, f: impl Fn(&[f64], usize) -> f64) -> Tensor {
    let (b, c, h, w) = xs.dims4().unwrap();
    let Pool { kernel, stride, pads, ceil } = pool;
    let out_h = outputs(h, kernel.0, stride.0, pads.top, pads.bottom, ceil);
    let out_w = outputs(w, kernel.1, stride.1, pads.left, pads.right, ceil);
    let values = Values::of(xs);
    map([b, c, out_h, out_w], |image, channel, y, x| {
        let (mut window, mut whole) = (vec![], 0);
        for i in y * stride.0..y * stride.0 + kernel.0 {
            for j in x * stride.1..x * stride.1 + kernel.1 {
                let (row, column) = (i as isize - pads.top as isize, j as isize - pads.left as isize);
                whole += usize::from(i < pads.top + h + pads.bottom && j < pads.left + w + pads.right);
                let value = values.at_or(image, channel, row, column, f64::INFINITY);
                window.extend(value.is_finite().then_some(value));
            }
        }
        f(&window, whole)
    })
}

#[test]
fn pools_equal_their_definitions_on_each_instruction_set() {
    for (seed, (dims, pool)) in cases().into_iter().enumerate() {
        // Below zero, where a border of zeros would win.
        let xs = (noise(seed as u64 + 1, &dims, DType::F32) - 2.0).unwrap();
        let largest = naive(&xs, pool, |window, _| window.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        let inside = naive(&xs, pool, |window, _| window.iter().sum::<f64>() / window.len() as f64);
        let padded = naive(&xs, pool, |window, whole| window.iter().sum::<f64>() / whole as f64);
        on_each_isa(|isa| {
            for (order, xs) in layouts(&xs).into_iter().enumerate() {
                let name = format!("{dims:?} {pool:?} in order {order} on {isa}");
                assert_eq!(largest_difference(&max_pool2d(&xs, pool).unwrap(), &largest), 0.0, "{name}");
                let ys = avg_pool2d(&xs, pool, false).unwrap();
                assert!(largest_difference(&ys, &inside) < 1e-6, "{name}");
                let ys = avg_pool2d(&xs, pool, true).unwrap();
                assert!(largest_difference(&ys, &padded) < 1e-6, "{name}");
            }
        });
    }
}

#[test]
fn adaptive_and_global_pools_equal_their_definitions() {
    for (seed, (dims, cells)) in [
        ([1, 16, 8, 8], (4, 4)),
        ([2, 5, 7, 11], (3, 4)),
        ([1, 128, 4, 8], (8, 16)),
        ([1, 3, 1, 5], (3, 2)),
        ([2, 19, 13, 6], (1, 1)),
        ([1, 2, 200, 301], (1, 1)),
    ]
    .into_iter()
    .enumerate()
    {
        let xs = noise(seed as u64 + 30, &dims, DType::F32);
        let values = Values::of(&xs);
        let [b, c, h, w] = dims;
        let want = map([b, c, cells.0, cells.1], |image, channel, y, x| {
            let rows = y * h / cells.0..((y + 1) * h).div_ceil(cells.0);
            let columns = x * w / cells.1..((x + 1) * w).div_ceil(cells.1);
            let count = rows.len() * columns.len();
            let sum: f64 = rows
                .flat_map(|y| columns.clone().map(move |x| (y, x)))
                .map(|(y, x)| values.at([image, channel, y, x]))
                .sum();
            sum / count as f64
        });
        on_each_isa(|isa| {
            for xs in layouts(&xs) {
                let ys = adaptive_avg_pool2d(&xs, cells).unwrap();
                assert!(largest_difference(&ys, &want) < 1e-6, "{dims:?} to {cells:?} on {isa}");
                if cells == (1, 1) {
                    let ys = global_avg_pool2d(&xs).unwrap();
                    assert!(largest_difference(&ys, &want) < 1e-6, "{dims:?} on {isa}");
                }
            }
        });
    }
}

#[test]
fn pools_have_gradients() {
    for (seed, (dims, pool)) in cases().into_iter().enumerate() {
        let xs = &noise(seed as u64 + 60, &dims, DType::F64);
        let name = format!("{dims:?} {pool:?}");
        assert_gradients(&name, &[xs], |xs| max_pool2d(&xs[0], pool).unwrap());
        assert_gradients(&name, &[xs], |xs| avg_pool2d(&xs[0], pool, false).unwrap());
        assert_gradients(&name, &[xs], |xs| avg_pool2d(&xs[0], pool, true).unwrap());
        assert_gradients(&name, &[xs], |xs| adaptive_avg_pool2d(&xs[0], (3, 4)).unwrap());
        assert_gradients(&name, &[xs], |xs| global_avg_pool2d(&xs[0]).unwrap());
    }
}

#[test]
fn of_equal_values_the_first_gets_the_gradient() {
    let xs = Var::from_tensor(&Tensor::ones((1, 1, 3, 3), DType::F32, &Device::Cpu).unwrap()).unwrap();
    let grads = max_pool2d(&xs, Pool::square(2, 1, 0)).unwrap().sum_all().unwrap().backward().unwrap();
    let grad: Vec<f32> = grads.get(&xs).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    assert_eq!(grad, [1.0, 1.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_nan_wins_and_minus_infinity_can() {
    let mut values = vec![f32::NEG_INFINITY; 25];
    values[12] = f32::NAN;
    let xs = Tensor::from_vec(values, (1, 1, 5, 5), &Device::Cpu).unwrap();
    on_each_isa(|isa| {
        let ys = Values::of(&max_pool2d(&xs, Pool::square(2, 1, 0)).unwrap()).values;
        for (at, y) in ys.into_iter().enumerate() {
            let touches = matches!((at / 4, at % 4), (1 | 2, 1 | 2));
            assert!(if touches { y.is_nan() } else { y == f64::NEG_INFINITY }, "{at} on {isa}: {y}");
        }
    });
}

#[test]
fn short_floats_are_pooled_in_f32() {
    let xs = noise(8, &[1, 3, 6, 6], DType::BF16);
    let ys = avg_pool2d(&xs, Pool::square(3, 2, 1), true).unwrap();
    let want = avg_pool2d(&xs.to_dtype(DType::F32).unwrap(), Pool::square(3, 2, 1), true).unwrap();
    assert_eq!(ys.dtype(), DType::BF16);
    assert!(largest_difference(&ys, &want) < 4e-3);
}

#[test]
fn pools_refuse_what_does_not_fit() {
    let xs = noise(1, &[1, 2, 4, 5], DType::F32);
    let message = |ys: Result<Tensor>| ys.unwrap_err().to_string();
    for pool in [
        Pool::square(0, 1, 0),
        Pool::square(2, 0, 0),
        Pool::square(2, 1, 2),
        Pool::square(5, 1, 0),
        Pool { kernel: (1, 6), ..Pool::square(1, 1, 0) },
    ] {
        for (name, error) in
            [("max-pool", message(max_pool2d(&xs, pool))), ("avg-pool", message(avg_pool2d(&xs, pool, true)))]
        {
            assert!(error.starts_with(&format!("{name}: Pool {{")), "{pool:?}: {error}");
            assert!(error.contains("does not fit a map of 4×5"), "{pool:?}: {error}");
        }
    }
    let pool = Pool::square(1, 1, 0);
    let empty = Tensor::zeros((1, 0, 4, 4), DType::F32, &Device::Cpu).unwrap();
    for (error, expected) in [
        (message(adaptive_avg_pool2d(&xs, (0, 3))), "expected at least one cell, got 0×3"),
        (message(global_avg_pool2d(&empty)), "global-avg-pool: expected a map [B, C, H, W] without an empty"),
        (message(max_pool2d(&empty, pool)), "dimension, got [1, 0, 4, 4]"),
        (message(max_pool2d(&xs.flatten_all().unwrap(), pool)), "got [40]"),
        (message(max_pool2d(&xs.to_dtype(DType::U32).unwrap(), pool)), "max-pool: no kernel for U32 on Cpu"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
