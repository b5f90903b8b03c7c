//! Group norm of one map and of several together: the definition, difference quotients, instruction sets, layouts.

use candle_core::{DType, Tensor};
use zoo_kernels::{Activation, GroupNormOptions, group_norm, group_norm_jointly};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients, layouts, map};
use crate::support::{largest_difference, noise};

const EPS: f64 = 1e-3;
const ACTS: [Activation; 4] =
    [Activation::None, Activation::Relu, Activation::Relu6, Activation::LeakyRelu(0.2)];
/// Shapes and groups: one channel a group, one group, one value a group, odd sizes, more pixels than a task has.
const CASES: [([usize; 4], usize); 6] = [
    ([2, 6, 5, 7], 3),
    ([1, 4, 3, 3], 4),
    ([3, 64, 2, 3], 32),
    ([1, 5, 9, 4], 1),
    ([2, 4, 1, 1], 2),
    ([1, 32, 70, 61], 8),
];

fn options(groups: usize, act: Activation) -> GroupNormOptions {
    GroupNormOptions { groups, eps: EPS, act }
}

/// Off zero, so that a careless sum of squares would show.
fn noisy(seed: u64, shape: &[usize]) -> Tensor {
    ((noise(seed, shape, DType::F64) * 2.0).unwrap() + 3.0).unwrap()
}

fn vectors(channels: usize) -> [Tensor; 2] {
    let weight = (noise(71, &[channels], DType::F64) + 1.5).unwrap();
    [weight, noise(72, &[channels], DType::F64)]
}

/// By the definition, over the places of all maps.
fn define(
    maps: &[&Tensor],
    [weight, bias]: &[Tensor; 2],
    groups: usize,
    act: Activation,
    addends: &[&Tensor],
) -> Vec<Tensor> {
    let values: Vec<Values> = maps.iter().map(|map| Values::of(map)).collect();
    let (weight, bias) = (Values::of(weight).values, Values::of(bias).values);
    let of_group = maps[0].dims()[1] / groups;
    let moments = |image: usize, group: usize| {
        let mut all = vec![];
        for map in &values {
            for channel in group * of_group..(group + 1) * of_group {
                for y in 0..map.dims[2] {
                    all.extend((0..map.dims[3]).map(|x| map.at([image, channel, y, x])));
                }
            }
        }
        let mean = all.iter().sum::<f64>() / all.len() as f64;
        (mean, all.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / all.len() as f64)
    };
    let table: Vec<Vec<(f64, f64)>> =
        (0..maps[0].dims()[0]).map(|b| (0..groups).map(|g| moments(b, g)).collect()).collect();
    let norm = |i: usize| {
        let dims: [usize; 4] = values[i].dims.clone().try_into().unwrap();
        let ys = map(dims, |image, channel, y, x| {
            let (mean, variance) = table[image][channel / of_group];
            let normal = (values[i].at([image, channel, y, x]) - mean) / (variance + EPS).sqrt();
            normal * weight[channel] + bias[channel]
        });
        let ys = act.apply(&ys).unwrap();
        addends.get(i).map_or(ys.clone(), |&addend| (ys + addend).unwrap())
    };
    (0..maps.len()).map(norm).collect()
}

#[test]
fn a_norm_equals_its_definition_in_every_layout_on_each_instruction_set() {
    for (i, (shape, groups)) in CASES.into_iter().enumerate() {
        let (xs, addend) = (noisy(i as u64 + 1, &shape), noise(i as u64 + 40, &shape, DType::F64));
        let vectors = vectors(shape[1]);
        for act in ACTS {
            for addend in [None, Some(&addend)] {
                let want = define(&[&xs], &vectors, groups, act, addend.as_slice()).remove(0);
                for (dtype, tolerance) in [(DType::F64, 1e-11), (DType::F32, 5e-5)] {
                    let typed = |xs: &Tensor| xs.to_dtype(dtype).unwrap();
                    let [weight, bias] = vectors.each_ref().map(typed);
                    let addend = addend.map(typed);
                    on_each_isa(|isa| {
                        for xs in layouts(&typed(&xs)) {
                            let got = group_norm(&xs, &weight, &bias, options(groups, act), addend.as_ref());
                            let d = largest_difference(&got.unwrap(), &want);
                            assert!(d < tolerance, "{shape:?} in {groups}, {act:?}, {dtype:?} on {isa}: {d}");
                        }
                    });
                }
            }
        }
    }
}

#[test]
fn several_maps_are_normalised_as_one() {
    let maps = [noisy(1, &[2, 6, 5, 7]), noisy(2, &[2, 6, 3, 3]), noisy(3, &[2, 6, 1, 1])];
    let addends = maps.each_ref().map(|map| noise(9, map.dims(), DType::F64));
    let (maps, vectors) = (maps.each_ref(), vectors(6));
    for addends in [&[][..], &addends.each_ref()[..]] {
        let want = define(&maps, &vectors, 3, Activation::Relu, addends);
        let typed = |xs: &Tensor| xs.to_dtype(DType::F32).unwrap();
        let (singles, [weight, bias]) = (maps.map(typed), vectors.each_ref().map(typed));
        let addends: Vec<Tensor> = addends.iter().map(|xs| typed(xs)).collect();
        on_each_isa(|isa| {
            let addends: Vec<&Tensor> = addends.iter().collect();
            let options = options(3, Activation::Relu);
            let got = group_norm_jointly(&singles.each_ref(), &weight, &bias, options, &addends).unwrap();
            assert_eq!(got.len(), want.len());
            for (got, want) in got.iter().zip(&want) {
                let d = largest_difference(got, want);
                assert!(d < 2e-5, "on {isa}: {d}");
            }
        });
    }
}

#[test]
fn a_norm_has_gradients() {
    for (i, (shape, groups)) in CASES.into_iter().take(5).enumerate() {
        let [weight, bias] = vectors(shape[1]);
        let (xs, addend) = (noisy(i as u64 + 1, &shape), noise(i as u64 + 40, &shape, DType::F64));
        for act in ACTS {
            let operands = [&xs, &weight, &bias, &addend];
            for n in [3, 4] {
                let name = format!("{shape:?} in {groups}, {act:?}, {n} operands");
                assert_gradients(&name, &operands[..n], |t| {
                    group_norm(&t[0], &t[1], &t[2], options(groups, act), t.get(3)).unwrap()
                });
            }
        }
    }
}

#[test]
fn a_common_norm_has_gradients_through_the_common_statistics() {
    let maps = [noisy(1, &[2, 6, 3, 4]), noisy(2, &[2, 6, 2, 2])];
    let addends = maps.each_ref().map(|map| noise(9, map.dims(), DType::F64));
    let [weight, bias] = vectors(6);
    let operands = [&maps[0], &maps[1], &weight, &bias, &addends[0], &addends[1]];
    assert_gradients("jointly", &operands, |t| {
        let (maps, addends) = ([&t[0], &t[1]], [&t[4], &t[5]]);
        let ys = group_norm_jointly(&maps, &t[2], &t[3], options(3, Activation::Relu), &addends).unwrap();
        let flat: Vec<Tensor> = ys.iter().map(|y| y.flatten_all().unwrap()).collect();
        Tensor::cat(&flat, 0).unwrap()
    });
}

#[test]
fn short_floats_are_normalised_by_wide_statistics() {
    // The squares alone are beyond an f16.
    let xs = (noise(1, &[1, 8, 20, 20], DType::F64) * 500.0).unwrap();
    let short = |xs: &Tensor| xs.to_dtype(DType::F16).unwrap();
    let vectors = vectors(8);
    let [weight, bias] = vectors.each_ref().map(short);
    let got = group_norm(&short(&xs), &weight, &bias, options(2, Activation::Relu), None).unwrap();
    assert_eq!(got.dtype(), DType::F16);
    let want = define(&[&xs], &vectors, 2, Activation::Relu, &[]).remove(0);
    assert!(largest_difference(&got, &want) < 1e-2);
}

#[test]
fn what_does_not_fit_is_refused() {
    let xs = noise(1, &[2, 4, 3, 3], DType::F32);
    let vector = |n: usize| noise(2, &[n], DType::F32);
    let norm = |groups: usize, n: usize, addend: Option<&Tensor>| {
        let error = group_norm(&xs, &vector(n), &vector(4), options(groups, Activation::None), addend);
        error.unwrap_err().to_string()
    };
    let narrow = noise(3, &[2, 4, 3, 2], DType::F32);
    let other = noise(3, &[1, 4, 3, 2], DType::F32);
    let jointly = |maps: &[&Tensor], addends: &[&Tensor]| {
        let options = options(2, Activation::None);
        group_norm_jointly(maps, &vector(4), &vector(4), options, addends).unwrap_err().to_string()
    };
    for (error, expected) in [
        (norm(3, 4, None), "3 groups do not divide 4 channels"),
        (norm(0, 4, None), "0 groups do not divide 4 channels"),
        (norm(2, 3, None), "expected weight and bias of [4] in F32, got [3] in F32"),
        (norm(2, 4, Some(&narrow)), "expected an addend of [2, 4, 3, 3] in F32, got [2, 4, 3, 2] in F32"),
        (jointly(&[], &[]), "expected at least one map, got none"),
        (jointly(&[&xs, &other], &[]), "[2, 4, 3, 3] and [1, 4, 3, 2] have no statistics in common"),
        (jointly(&[&xs, &narrow], &[&xs]), "an addend for each of 2 maps, got 1"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}
