//! Patch-wise dynamic convolution.

use candle_core::{DType, Result, Tensor};
use zoo_kernels::{
    Activation, Halo, LevelConvs, LevelStage, Patchwise, PatchwiseLevel, WeightOrder, patches_with_halo,
    patchwise_conv2d, patchwise_level,
};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients, layouts, map};
use crate::support::{largest_difference, noise};

struct Case {
    /// Batch, input channels, rows, columns.
    map: [usize; 4],
    grid: (usize, usize),
    options: Patchwise,
}

fn cases() -> Vec<Case> {
    let dense = Patchwise { kernel: 3, ..Patchwise::pointwise(6) };
    vec![
        Case { map: [1, 16, 8, 8], grid: (2, 4), options: Patchwise::pointwise(16) },
        Case { map: [2, 7, 6, 9], grid: (3, 3), options: Patchwise::pointwise(19) },
        Case { map: [1, 34, 4, 5], grid: (4, 5), options: Patchwise::pointwise(33) },
        Case { map: [1, 5, 30, 20], grid: (1, 1), options: Patchwise::pointwise(70) },
        Case {
            map: [1, 12, 6, 4],
            grid: (2, 2),
            options: Patchwise { groups: 3, ..Patchwise::pointwise(18) },
        },
        Case { map: [2, 20, 6, 8], grid: (3, 2), options: Patchwise::depthwise(20) },
        Case { map: [1, 3, 4, 4], grid: (4, 4), options: Patchwise::depthwise(3) },
        Case {
            map: [1, 33, 10, 5],
            grid: (2, 1),
            options: Patchwise { kernel: 5, ..Patchwise::depthwise(33) },
        },
        Case { map: [2, 4, 6, 6], grid: (2, 3), options: dense },
        Case { map: [1, 4, 6, 6], grid: (2, 3), options: Patchwise { groups: 2, ..dense } },
    ]
}

impl Case {
    fn name(&self) -> String {
        format!("{:?} in {:?}, {:?}", self.map, self.grid, self.options)
    }

    fn weights(&self, seed: u64, dtype: DType) -> Tensor {
        let Patchwise { outputs, kernel, groups, .. } = self.options;
        let count = outputs * self.map[1] / groups * kernel * kernel;
        noise(seed, &[self.map[0], count, self.grid.0, self.grid.1], dtype)
    }

    /// The same weights with the outputs last.
    fn outputs_last(&self, weights: &Tensor) -> Tensor {
        let Patchwise { outputs, kernel, groups, .. } = self.options;
        let (b, count, fh, fw) = weights.dims4().unwrap();
        let inputs = self.map[1] / groups;
        let weights = weights.permute((0, 2, 3, 1)).unwrap();
        let weights = weights.reshape((b * fh * fw, outputs, inputs, kernel * kernel)).unwrap();
        let weights = weights.permute((0, 3, 2, 1)).unwrap().reshape((b, fh, fw, count)).unwrap();
        weights.permute((0, 3, 1, 2)).unwrap()
    }
}

/// By the definition, with the map's border reflected.
fn naive(case: &Case, xs: &Tensor, weights: &Tensor, bias: &Tensor, act: Activation) -> Tensor {
    let [b, c, h, w] = case.map;
    let Patchwise { outputs, kernel: k, groups, .. } = case.options;
    let (xs, weights, bias) = (Values::of(xs), Values::of(weights), Values::of(bias).values);
    let (inputs, per_group) = (c / groups, outputs / groups);
    let reflected = |at: usize, tap: usize, n: usize| {
        let at = (at as isize + tap as isize - k as isize / 2).unsigned_abs();
        if at < n { at } else { 2 * (n - 1) - at }
    };
    let ys = map([b, outputs, h, w], |image, output, y, x| {
        let (m, n) = (y / (h / case.grid.0), x / (w / case.grid.1));
        let mut sum = bias[output];
        for input in 0..inputs {
            for tap in 0..k * k {
                let (row, column) = (reflected(y, tap / k, h), reflected(x, tap % k, w));
                let weight = weights.at([image, (output * inputs + input) * k * k + tap, m, n]);
                sum += weight * xs.at([image, output / per_group * inputs + input, row, column]);
            }
        }
        sum
    });
    act.apply(&ys).unwrap()
}

#[test]
fn a_patchwise_convolution_equals_its_definition_on_each_instruction_set() {
    for (seed, case) in cases().into_iter().enumerate() {
        let xs = noise(seed as u64 + 1, &case.map, DType::F32);
        let weights = case.weights(seed as u64 + 20, DType::F32);
        let bias = noise(seed as u64 + 40, &[case.options.outputs], DType::F32);
        let last = case.outputs_last(&weights);
        for act in [Activation::None, Activation::Relu6, Activation::Silu] {
            let want = naive(&case, &xs, &weights, &bias, act);
            on_each_isa(|isa| {
                for (order, weights) in
                    [(WeightOrder::OutputFirst, &weights), (WeightOrder::OutputLast, &last)]
                {
                    let options = Patchwise { order, ..case.options };
                    for (xs, weights) in layouts(&xs).iter().zip(layouts(weights)) {
                        let ys = patchwise_conv2d(xs, &weights, options, Some(&bias), act).unwrap();
                        let d = largest_difference(&ys, &want);
                        assert!(d < 1e-5, "{} {order:?} {act:?} on {isa}: off by {d}", case.name());
                    }
                }
            });
        }
    }
}

#[test]
fn a_part_of_a_wider_vector_serves_as_weights() {
    let case = &cases()[1];
    let xs = noise(1, &case.map, DType::F32);
    let weights = case.weights(2, DType::F32);
    let bias = noise(3, &[case.options.outputs], DType::F32);
    let want = naive(case, &xs, &weights, &bias, Activation::None);
    let wider = weights.pad_with_same(1, 3, 5).unwrap();
    for wider in layouts(&wider) {
        let part = wider.narrow(1, 3, weights.dim(1).unwrap()).unwrap();
        let ys = patchwise_conv2d(&xs, &part, case.options, Some(&bias), Activation::None).unwrap();
        assert!(largest_difference(&ys, &want) < 1e-5);
    }
}

#[test]
fn patches_that_bring_their_halo_give_the_same() {
    for (seed, case) in cases().into_iter().enumerate() {
        let xs = noise(seed as u64 + 1, &case.map, DType::F32);
        let weights = case.weights(seed as u64 + 20, DType::F32);
        let wide = patches_with_halo(&xs, case.grid, case.options.kernel / 2).unwrap();
        let own = Patchwise { halo: Halo::Own, ..case.options };
        let ys = patchwise_conv2d(&wide, &weights, own, None, Activation::None).unwrap();
        let want = patchwise_conv2d(&xs, &weights, case.options, None, Activation::None).unwrap();
        assert_eq!(largest_difference(&ys, &want), 0.0, "{}", case.name());
    }
}

#[test]
fn a_patchwise_convolution_has_gradients() {
    for (seed, case) in cases().into_iter().enumerate() {
        let xs = noise(seed as u64 + 1, &case.map, DType::F64);
        let weights = case.weights(seed as u64 + 20, DType::F64);
        let bias = noise(seed as u64 + 40, &[case.options.outputs], DType::F64);
        for order in [WeightOrder::OutputFirst, WeightOrder::OutputLast] {
            let options = Patchwise { order, ..case.options };
            assert_gradients(&format!("{} {order:?}", case.name()), &[&xs, &weights, &bias], |inputs| {
                let [xs, weights, bias] = inputs else { unreachable!("three inputs") };
                patchwise_conv2d(xs, weights, options, Some(bias), Activation::Silu).unwrap()
            });
        }
        assert_gradients(&case.name(), &[&xs, &weights], |inputs| {
            let wide = patches_with_halo(&inputs[0], case.grid, case.options.kernel / 2).unwrap();
            let own = Patchwise { halo: Halo::Own, ..case.options };
            patchwise_conv2d(&wide, &inputs[1], own, None, Activation::None).unwrap()
        });
    }
}

#[test]
fn a_patchwise_convolution_refuses_what_does_not_fit() {
    let xs = noise(1, &[1, 4, 6, 6], DType::F32);
    let run = |weights: &[usize], options: Patchwise, bias: usize| -> Result<Tensor> {
        let bias = noise(3, &[bias], DType::F32);
        patchwise_conv2d(&xs, &noise(2, weights, DType::F32), options, Some(&bias), Activation::None)
    };
    let depthwise = Patchwise::depthwise(4);
    let own = Patchwise { halo: Halo::Own, ..depthwise };
    for (result, expected) in [
        (
            run(&[1, 19, 2, 2], Patchwise::pointwise(5), 5),
            "expected weights of [1, 20, fh, fw], got [1, 19, 2, 2]",
        ),
        (
            run(&[1, 20, 4, 2], Patchwise::pointwise(5), 5),
            "4×2 patches with filters of 1×1 do not fit a map of 6×6",
        ),
        (run(&[1, 20, 2, 2], Patchwise::pointwise(5), 4), "expected a bias of [5], got [4]"),
        (run(&[1, 16, 2, 2], Patchwise { kernel: 2, ..depthwise }, 4), "the kernel must be odd"),
        (
            run(&[1, 20, 2, 2], Patchwise { groups: 3, ..Patchwise::pointwise(5) }, 5),
            "groups must divide inputs",
        ),
        (
            run(&[1, 20, 2, 2], Patchwise { groups: 0, ..Patchwise::pointwise(5) }, 5),
            "groups must divide inputs",
        ),
        (run(&[1, 36, 3, 3], own, 4), "large enough for the halo"),
        (run(&[1, 4 * 169, 1, 1], Patchwise { kernel: 13, ..depthwise }, 4), "large enough for the halo"),
        (patches_with_halo(&xs, (4, 2), 1), "expected a map that 4×2 patches divide, of more than 1 rows"),
        (patches_with_halo(&xs, (1, 1), 6), "of more than 6 rows and columns, got 6×6"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

/// Channels of a level: map, coarser map, and out of each convolution.
struct Level {
    /// Batch, channels, rows, columns.
    map: [usize; 4],
    coarser: Option<[usize; 3]>,
    grid: (usize, usize),
    positions: bool,
    /// Hidden channels and outputs, or only these.
    channels: &'static [usize],
    kind: Kind,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Pointwise,
    Block,
    Rest,
}

impl Level {
    fn inputs(&self) -> usize {
        let positions = if self.positions { 2 } else { 0 };
        positions + self.map[1] + self.coarser.map_or(0, |size| size[0])
    }

    fn params(&self) -> usize {
        match (self.kind, self.channels) {
            (Kind::Pointwise, [outputs]) => self.inputs() * outputs,
            (Kind::Block, [hidden, outputs]) => hidden * (self.inputs() + 9 + outputs),
            (Kind::Rest, [outputs]) => self.inputs() * (9 + outputs),
            _ => unreachable!("blocks alone have hidden channels"),
        }
    }

    /// What follows each convolution.
    fn stages(&self) -> Vec<LevelStage> {
        let stage = |seed, channels, act| {
            LevelStage::new(noise(seed, &[channels], DType::F32).to_vec1().unwrap(), act)
        };
        let outputs = *self.channels.last().unwrap();
        let hidden = if matches!(self.kind, Kind::Rest) { self.inputs() } else { self.channels[0] };
        let widen = stage(1, hidden, Activation::Relu6);
        let (filter, narrow) = (stage(2, hidden, Activation::Relu6), stage(3, outputs, Activation::None));
        match self.kind {
            Kind::Pointwise => vec![stage(1, outputs, Activation::Relu)],
            Kind::Block => vec![widen, filter, narrow],
            Kind::Rest => vec![filter, narrow],
        }
    }

    fn of<'a>(&self, stages: &'a [LevelStage]) -> PatchwiseLevel<'a> {
        let convs = match stages {
            [one] => LevelConvs::Pointwise(one),
            [filter, narrow] => LevelConvs::Rest([filter, narrow]),
            [widen, filter, narrow] => LevelConvs::Block([widen, filter, narrow]),
            _ => unreachable!("one to three"),
        };
        PatchwiseLevel { positions: self.positions, convs }
    }
}

#[test]
fn a_level_in_one_pass_equals_its_operations_on_each_instruction_set() {
    use Kind::{Block, Pointwise, Rest};
    let level = |kind, map, coarser, grid, positions, channels| Level {
        map,
        coarser,
        grid,
        positions,
        channels,
        kind,
    };
    let cases = [
        level(Pointwise, [1, 80, 3, 5], None, (3, 5), true, &[64]),
        level(Pointwise, [2, 6, 8, 12], Some([17, 4, 6]), (4, 3), true, &[33]),
        level(Pointwise, [1, 5, 9, 7], Some([3, 4, 2]), (3, 7), false, &[4]),
        level(Block, [2, 10, 16, 32], Some([16, 8, 16]), (2, 4), true, &[56, 19]),
        level(Block, [1, 3, 6, 10], Some([7, 6, 10]), (2, 2), true, &[24, 12]),
        level(Block, [1, 16, 5, 3], None, (1, 1), false, &[5, 70]),
        level(Block, [1, 4, 2, 2], Some([1, 1, 1]), (2, 2), true, &[9, 3]),
        level(Rest, [2, 22, 8, 12], None, (2, 3), false, &[21]),
        level(Rest, [1, 3, 4, 6], Some([2, 2, 3]), (4, 2), true, &[35]),
    ];
    for (seed, case) in cases.into_iter().enumerate() {
        let seed = 10 * seed as u64;
        let [b, ..] = case.map;
        let map = noise(seed + 5, &case.map, DType::F32);
        let coarser = case.coarser.map(|[c, h, w]| noise(seed + 6, &[b, c, h, w], DType::F32));
        let weights = noise(seed + 7, &[b, case.params(), case.grid.0, case.grid.1], DType::F32);
        let stages = case.stages();
        let level = case.of(&stages);
        let wide = |xs: &Tensor| xs.to_dtype(DType::F64).unwrap();
        let want = patchwise_level(&wide(&map), coarser.as_ref().map(wide).as_ref(), &wide(&weights), level)
            .unwrap();
        let want = want.to_dtype(DType::F32).unwrap();
        assert_eq!(want.dims(), [b, *case.channels.last().unwrap(), case.map[2], case.map[3]]);
        on_each_isa(|isa| {
            for (map, weights) in layouts(&map).iter().zip(layouts(&weights)) {
                let ys = patchwise_level(map, coarser.as_ref(), &weights, level).unwrap();
                let d = largest_difference(&ys, &want);
                assert!(
                    d < 2e-5,
                    "{:?} {:?} → {:?} on {isa}: off by {d}",
                    case.kind,
                    case.map,
                    case.channels
                );
            }
        });
    }
}

#[test]
fn a_level_refuses_what_does_not_fit() {
    let case = Level {
        map: [1, 4, 6, 6],
        coarser: Some([2, 3, 3]),
        grid: (2, 2),
        positions: true,
        channels: &[9, 3],
        kind: Kind::Block,
    };
    let stages = case.stages();
    let run = |map: &[usize], coarser: &[usize], weights: &[usize]| {
        let [map, coarser, weights] = [map, coarser, weights].map(|shape| noise(1, shape, DType::F32));
        patchwise_level(&map, Some(&coarser), &weights, case.of(&stages))
    };
    assert_eq!(case.params(), 180);
    for (result, expected) in [
        (run(&[1, 4, 6, 6], &[1, 2, 3, 3], &[1, 179, 2, 2]), "expected weights of [1, 180, fh, fw]"),
        (run(&[1, 4, 6, 6], &[1, 2, 3, 3], &[2, 180, 2, 2]), "expected weights of [1, 180, fh, fw]"),
        (run(&[1, 4, 6, 6], &[1, 2, 3, 3], &[1, 180, 4, 2]), "4×2 patches do not fit a map of 6×6"),
        (run(&[1, 4, 6, 1], &[1, 2, 3, 3], &[1, 180, 2, 1]), "more than 1 rows and columns"),
        (run(&[1, 4, 6, 6], &[2, 2, 3, 3], &[1, 180, 2, 2]), "a map of 1 images, a coarser one of 2"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
