//! Deformable convolution.

use candle_core::{DType, Device, Result, Tensor};
use zoo_kernels::{Activation, ConvOptions, PackedDeformConv, Pads, deform_conv2d};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients, layouts, map};
use crate::support::{largest_difference, noise};

struct Case {
    map: [usize; 4],
    outputs: usize,
    kernel: (usize, usize),
    /// Stride, dilation, groups, parts with offsets of their own.
    moves: (usize, usize, usize, usize),
    pads: Pads,
    masked: bool,
    reach: f64,
}

fn cases() -> Vec<Case> {
    let uneven = Pads { top: 0, bottom: 2, left: 1, right: 0 };
    let case = |map, outputs, kernel, moves, pads, masked, reach| Case {
        map,
        outputs,
        kernel,
        moves,
        pads,
        masked,
        reach,
    };
    vec![
        case([1, 16, 6, 7], 16, (3, 3), (1, 1, 1, 1), Pads::all(1), true, 2.0),
        case([2, 5, 9, 8], 19, (3, 3), (2, 1, 1, 1), Pads::all(1), false, 4.0),
        case([1, 12, 7, 5], 6, (3, 3), (1, 1, 3, 2), Pads::all(1), true, 1.0),
        case([1, 8, 9, 9], 4, (3, 2), (1, 2, 2, 4), uneven, true, 9.0),
        case([2, 4, 3, 3], 33, (1, 1), (1, 1, 1, 2), Pads::default(), true, 3.0),
        case([1, 32, 5, 6], 32, (3, 3), (1, 1, 8, 1), Pads::all(1), true, 1.0),
    ]
}

struct Operands {
    xs: Tensor,
    offset: Tensor,
    mask: Option<Tensor>,
    weight: Tensor,
    bias: Tensor,
}

impl Case {
    fn options(&self) -> ConvOptions {
        let (stride, dilation, groups, _) = self.moves;
        ConvOptions { stride, dilation, groups, ..ConvOptions::default() }
    }

    fn size(&self) -> (usize, usize) {
        let (stride, dilation, _, _) = self.moves;
        let out = |n: usize, pads: usize, k: usize| (n + pads - (k - 1) * dilation - 1) / stride + 1;
        let Pads { top, bottom, left, right } = self.pads;
        (out(self.map[2], top + bottom, self.kernel.0), out(self.map[3], left + right, self.kernel.1))
    }

    fn operands(&self, seed: u64, dtype: DType) -> Operands {
        let [b, c, _, _] = self.map;
        let ((h, w), (_, _, groups, parts)) = (self.size(), self.moves);
        let taps = self.kernel.0 * self.kernel.1;
        // Off the pixels, where the derivative jumps.
        let offset = noise(seed + 1, &[b, 2 * parts * taps, h, w], dtype).affine(self.reach, 0.317).unwrap();
        Operands {
            xs: noise(seed, &self.map, dtype),
            offset,
            mask: self.masked.then(|| noise(seed + 2, &[b, parts * taps, h, w], dtype)),
            weight: noise(seed + 3, &[self.outputs, c / groups, self.kernel.0, self.kernel.1], dtype),
            bias: noise(seed + 4, &[self.outputs], dtype),
        }
    }
}

fn naive(case: &Case, o: &Operands) -> Tensor {
    let [b, c, _, _] = case.map;
    let ((h, w), (stride, dilation, groups, parts)) = (case.size(), case.moves);
    let (kh, kw) = case.kernel;
    let (xs, offset, weight) = (Values::of(&o.xs), Values::of(&o.offset), Values::of(&o.weight));
    let (mask, bias) = (o.mask.as_ref().map(Values::of), Values::of(&o.bias).values);
    map([b, case.outputs, h, w], |image, output, y, x| {
        let mut sum = bias[output];
        for input in 0..c / groups {
            let channel = output / (case.outputs / groups) * (c / groups) + input;
            let part = channel / (c / parts);
            for k in 0..kh * kw {
                let place = part * kh * kw + k;
                let at = |index: usize, tap: usize, pad: usize, which: usize| {
                    (index * stride + tap * dilation) as f64 - pad as f64
                        + offset.at([image, 2 * place + which, y, x])
                };
                let (row, column) = (at(y, k / kw, case.pads.top, 0), at(x, k % kw, case.pads.left, 1));
                let mut sample = 0.0;
                for (i, wy) in [(0, 1.0 - (row - row.floor())), (1, row - row.floor())] {
                    for (j, wx) in [(0, 1.0 - (column - column.floor())), (1, column - column.floor())] {
                        let (row, column) = (row.floor() as isize + i, column.floor() as isize + j);
                        sample += wy * wx * xs.at_or(image, channel, row, column, 0.0);
                    }
                }
                let mask = mask.as_ref().map_or(1.0, |mask| mask.at([image, place, y, x]));
                sum += weight.at([output, input, k / kw, k % kw]) * mask * sample;
            }
        }
        sum
    })
}

#[test]
fn a_deformable_convolution_equals_its_definition_on_each_instruction_set() {
    for (i, case) in cases().iter().enumerate() {
        let o = case.operands(10 * i as u64 + 1, DType::F32);
        let want = naive(case, &o);
        on_each_isa(|isa| {
            for (xs, offset) in layouts(&o.xs).iter().zip(layouts(&o.offset)) {
                let (mask, bias) = (o.mask.as_ref(), Some(&o.bias));
                let ys =
                    deform_conv2d(xs, &offset, mask, &o.weight, bias, case.options(), case.pads).unwrap();
                let d = largest_difference(&ys, &want);
                assert!(d < 1e-5, "case {i} on {isa}: off by {d}");
            }
        });
        let relu =
            PackedDeformConv::new(&o.weight, Some(&o.bias), case.options(), case.pads, Activation::Relu);
        let ys = relu.unwrap().forward(&o.xs, &o.offset, o.mask.as_ref()).unwrap();
        assert!(largest_difference(&ys, &want.relu().unwrap()) < 1e-5, "case {i} with ReLU");
    }
}

#[test]
fn a_large_map_goes_through_in_parts() {
    let case = Case {
        map: [2, 64, 40, 30],
        outputs: 8,
        kernel: (3, 3),
        moves: (1, 1, 1, 1),
        pads: Pads::all(1),
        masked: true,
        reach: 3.0,
    };
    let o = case.operands(5, DType::F32);
    let (mask, bias) = (o.mask.as_ref(), Some(&o.bias));
    let ys = deform_conv2d(&o.xs, &o.offset, mask, &o.weight, bias, case.options(), case.pads).unwrap();
    assert!(largest_difference(&ys, &naive(&case, &o)) < 3e-5);
}

#[test]
fn a_deformable_convolution_has_gradients() {
    for (i, case) in cases().iter().enumerate() {
        let o = case.operands(10 * i as u64 + 1, DType::F64);
        let mut inputs = vec![&o.xs, &o.offset, &o.weight, &o.bias];
        inputs.extend(&o.mask);
        assert_gradients(&format!("case {i}"), &inputs, |inputs| {
            let (xs, offset, weight, bias) = (&inputs[0], &inputs[1], &inputs[2], &inputs[3]);
            deform_conv2d(xs, offset, inputs.get(4), weight, Some(bias), case.options(), case.pads).unwrap()
        });
    }
}

/// `torchvision.ops.deform_conv2d` of torchvision 0.29.2 on `torch.arange` ramps: the sine of the index for
/// the map (2×3×4), its cosine, times 1.5, for the offsets, index mod 5 / 4 for the mask, index mod 7 − 3
/// for the weight (3×2×2×2); stride 1, padding 1, two parts.
#[test]
fn a_deformable_convolution_equals_torchvisions() {
    let ramp = |shape: &[usize], f: fn(f64) -> f64| {
        let values: Vec<f32> = (0..shape.iter().product::<usize>()).map(|i| f(i as f64) as f32).collect();
        Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
    };
    let xs = ramp(&[1, 2, 3, 4], f64::sin);
    let offset = ramp(&[1, 16, 4, 5], |i| 1.5 * i.cos());
    let mask = ramp(&[1, 8, 4, 5], |i| i % 5.0 / 4.0);
    let weight = ramp(&[3, 2, 2, 2], |i| i % 7.0 - 3.0);
    let ys = deform_conv2d(&xs, &offset, Some(&mask), &weight, None, ConvOptions::default(), Pads::all(1));
    let ys = Values::of(&ys.unwrap()).values;
    for (at, want) in GOLDEN {
        assert!((ys[at] - want).abs() < 1e-4, "{at}: {} {want}", ys[at]);
    }
}

const GOLDEN: [(usize, f64); 6] =
    [(1, -0.35398), (8, 0.00742), (17, 0.32133), (29, 1.29793), (43, 0.86982), (59, 0.58989)];

#[test]
fn wild_offsets_read_zeros() {
    let xs = noise(1, &[1, 17, 4, 4], DType::F32);
    let weight = noise(2, &[5, 17, 3, 3], DType::F32);
    for wild in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e30, -1e30, f32::MAX] {
        let offset = Tensor::full(wild, (1, 18, 4, 4), &Device::Cpu).unwrap();
        let ys = deform_conv2d(&xs, &offset, None, &weight, None, ConvOptions::default(), Pads::all(1));
        assert!(Values::of(&ys.unwrap()).values.iter().all(|&y| y == 0.0), "{wild}");
    }
}

#[test]
fn a_deformable_convolution_refuses_what_does_not_fit() {
    let case = &cases()[2];
    let o = case.operands(1, DType::F32);
    let run = |offset: &[usize], mask: &[usize], weight: &[usize], options: ConvOptions| -> Result<Tensor> {
        let part = |shape: &[usize]| noise(2, shape, DType::F32);
        deform_conv2d(&o.xs, &part(offset), Some(&part(mask)), &part(weight), None, options, case.pads)
    };
    let (offset, mask, weight) = ([1, 36, 7, 5], [1, 18, 7, 5], [6, 4, 3, 3]);
    let options = case.options();
    for (result, expected) in [
        (
            run(&[1, 35, 7, 5], &mask, &weight, options),
            "expected an offset of [1, 18 · D, 7, 5] where D divides 12",
        ),
        (run(&[1, 90, 7, 5], &mask, &weight, options), "got [1, 90, 7, 5]"),
        (run(&[1, 36, 6, 5], &mask, &weight, options), "got [1, 36, 6, 5]"),
        (run(&offset, &[1, 9, 7, 5], &weight, options), "expected a mask of [1, 18, 7, 5], got [1, 9, 7, 5]"),
        (run(&offset, &mask, &[6, 5, 3, 3], options), "expected 15 channels, got 12"),
        (run(&offset, &mask, &weight, ConvOptions { stride: 0, ..options }), "must be at least 1"),
        (run(&offset, &mask, &[6, 4, 3, 12], options), "does not fit a padded map of 7×5"),
    ] {
        let error = result.unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
