//! Filters that differ from pixel to pixel, and shares of a sum.

use candle_core::DType;
use zoo_kernels::{Candidate, add_maps, channel_shares, varying_conv2d};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients, layouts, map};
use crate::support::{largest_difference, noise};

const MAPS: [[usize; 4]; 5] = [[1, 19, 7, 9], [2, 3, 4, 5], [1, 33, 1, 6], [3, 1, 5, 1], [1, 16, 20, 24]];

/// Near and far, more than the small maps have, twice the same, and the other two kinds.
fn candidates() -> Vec<Candidate> {
    let shifts = [(0, 0), (-1, -1), (0, 2), (1, 0), (-2, 1), (3, -3), (0, 0), (-30, 0)];
    let shifts = shifts.map(|(down, right)| Candidate::Shift { down, right });
    [&shifts[..5], &[Candidate::Nothing, Candidate::Other], &shifts[5..]].concat()
}

#[test]
fn a_varying_filter_equals_its_definition_on_each_instruction_set() {
    let candidates = candidates();
    for (seed, dims) in MAPS.into_iter().enumerate() {
        let [b, _, h, w] = dims;
        let xs = noise(seed as u64 + 1, &dims, DType::F32);
        let other = noise(seed as u64 + 20, &dims, DType::F32);
        let weights = noise(seed as u64 + 40, &[b, candidates.len(), h, w], DType::F32);
        let [of_xs, of_other, of_weights] = [&xs, &other, &weights].map(Values::of);
        let want = map(dims, |image, channel, y, x| {
            let values = candidates.iter().map(|candidate| match *candidate {
                Candidate::Nothing => 0.0,
                Candidate::Other => of_other.at([image, channel, y, x]),
                Candidate::Shift { down, right } => {
                    of_xs.at_or(image, channel, y as isize + down, x as isize + right, 0.0)
                }
            });
            values.enumerate().map(|(n, value)| of_weights.at([image, n, y, x]) * value).sum()
        });
        on_each_isa(|isa| {
            for ((xs, weights), other) in layouts(&xs).iter().zip(layouts(&weights)).zip(layouts(&other)) {
                let ys = varying_conv2d(xs, &weights, &other, &candidates).unwrap();
                let d = largest_difference(&ys, &want);
                assert!(d < 1e-6, "{dims:?} on {isa}: off by {d}");
            }
        });
    }
}

#[test]
fn a_varying_filter_has_gradients() {
    let candidates = candidates();
    for (seed, dims) in MAPS.into_iter().enumerate() {
        let [b, _, h, w] = dims;
        let xs = noise(seed as u64 + 1, &dims, DType::F64);
        let other = noise(seed as u64 + 20, &dims, DType::F64);
        let weights = noise(seed as u64 + 40, &[b, candidates.len(), h, w], DType::F64);
        assert_gradients(&format!("{dims:?}"), &[&xs, &weights, &other], |inputs| {
            varying_conv2d(&inputs[0], &inputs[1], &inputs[2], &candidates).unwrap()
        });
    }
}

#[test]
fn without_a_kernel_the_same_comes_out() {
    let candidates = candidates();
    let xs = noise(1, &[2, 5, 6, 7], DType::F32);
    let weights = noise(2, &[2, candidates.len(), 6, 7], DType::F32);
    let other = noise(3, &[2, 5, 6, 7], DType::F32);
    let half = |xs: &candle_core::Tensor| xs.to_dtype(DType::BF16).unwrap();
    let want = varying_conv2d(&xs, &weights, &other, &candidates).unwrap();
    let ys = varying_conv2d(&half(&xs), &half(&weights), &half(&other), &candidates).unwrap();
    // Numbers of eight bits.
    assert!(largest_difference(&ys.to_dtype(DType::F32).unwrap(), &want) < 0.05);
    let shares = channel_shares(&half(&xs.abs().unwrap()), 1e-9).unwrap().to_dtype(DType::F32).unwrap();
    assert!(largest_difference(&shares, &channel_shares(&xs.abs().unwrap(), 1e-9).unwrap()) < 0.01);
}

#[test]
fn shares_sum_to_one_and_have_gradients() {
    for (seed, dims) in MAPS.into_iter().enumerate() {
        let xs = noise(seed as u64 + 1, &dims, DType::F64).abs().unwrap();
        let values = Values::of(&xs);
        let want = map(dims, |image, channel, y, x| {
            let sum: f64 = (0..dims[1]).map(|c| values.at([image, c, y, x])).sum();
            values.at([image, channel, y, x]) / (sum + 0.01)
        });
        on_each_isa(|isa| {
            for xs in layouts(&xs.to_dtype(DType::F32).unwrap()) {
                let d = largest_difference(&channel_shares(&xs, 0.01).unwrap(), &want);
                assert!(d < 1e-6, "{dims:?} on {isa}: off by {d}");
            }
        });
        assert_gradients(&format!("{dims:?}"), &[&xs], |inputs| channel_shares(&inputs[0], 0.01).unwrap());
        let nothing = channel_shares(&xs.zeros_like().unwrap(), 1e-9).unwrap();
        assert!(Values::of(&nothing).values.iter().all(|&y| y == 0.0));
    }
}

#[test]
fn maps_are_added_in_any_order_of_memory_and_have_gradients() {
    for (seed, dims) in MAPS.into_iter().enumerate() {
        let [a, b] = [1, 20].map(|first| noise(seed as u64 + first, &dims, DType::F64));
        let want = (&a + &b).unwrap();
        for (a, b) in layouts(&a).iter().zip(layouts(&b).iter().rev()) {
            assert_eq!(largest_difference(&add_maps(a, b).unwrap(), &want), 0.0);
        }
        assert_gradients(&format!("{dims:?}"), &[&a, &b], |inputs| add_maps(&inputs[0], &inputs[1]).unwrap());
    }
    let (a, b) = (noise(1, &[1, 2, 3, 4], DType::F32), noise(1, &[1, 2, 4, 3], DType::F32));
    assert!(add_maps(&a, &b).unwrap_err().to_string().contains("one shape"));
}

#[test]
fn shapes_that_do_not_fit_are_errors() {
    let xs = noise(1, &[1, 2, 4, 4], DType::F32);
    let weights = noise(1, &[1, 3, 4, 4], DType::F32);
    let error = |weights, other, n| {
        varying_conv2d(&xs, weights, other, &vec![Candidate::Other; n]).unwrap_err().to_string()
    };
    assert!(error(&weights, &xs, 2).contains("expected weights of [1, 2, 4, 4]"));
    assert!(error(&weights, &weights, 3).contains("[1, 3, 4, 4]"));
    assert!(error(&weights.to_dtype(DType::F64).unwrap(), &xs, 3).contains("one type"));
    assert!(channel_shares(&xs.squeeze(0).unwrap(), 0.0).is_err());
}
