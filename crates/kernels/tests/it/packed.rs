//! Packed convolutions.

use candle_core::{DType, Tensor, Var};
use zoo_kernels::{
    Activation, ConvOptions, Isa, PackedBlock, PackedConv, PackedDepthwise, Pads, Region, conv2d,
    global_avg_pool2d, inverted_residual,
};

use crate::support::{largest_difference, noise};

/// Runs `check` on each instruction set that this processor has.
pub fn on_each_isa(check: impl Fn(Isa)) {
    for isa in Isa::available() {
        isa.scoped(|| check(isa)).unwrap();
    }
}

/// A convolution by its definition, summed in f64.
fn naive(
    region: &Region,
    weight: &Tensor,
    bias: &Tensor,
    residual: Option<&Tensor>,
    options: ConvOptions,
    pads: Pads,
    act: Activation,
) -> Tensor {
    let f64s = |t: &Tensor| t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
    let (batch, channels, plane_h, plane_w) = region.plane.dims4().unwrap();
    let (outputs, per_group, kh, kw) = weight.dims4().unwrap();
    let (xs, w, b) = (f64s(&region.plane), f64s(weight), f64s(bias));
    let ConvOptions { stride, dilation, groups, .. } = options;
    let size = |n: usize, pads: usize, k: usize| (n + pads - (k - 1) * dilation - 1) / stride + 1;
    let out_h = size(region.height, pads.top + pads.bottom, kh);
    let out_w = size(region.width, pads.left + pads.right, kw);
    let mut ys = Vec::new();
    for image in 0..batch {
        for output in 0..outputs {
            let group = output / (outputs / groups);
            for y in 0..out_h {
                for x in 0..out_w {
                    let mut sum = b[output];
                    for input in 0..per_group {
                        for i in 0..kh {
                            for j in 0..kw {
                                let row =
                                    (region.top + y * stride + i * dilation) as isize - pads.top as isize;
                                let column =
                                    (region.left + x * stride + j * dilation) as isize - pads.left as isize;
                                if (0..plane_h as isize).contains(&row)
                                    && (0..plane_w as isize).contains(&column)
                                {
                                    let channel = image * channels + group * per_group + input;
                                    let at = (channel * plane_h + row as usize) * plane_w + column as usize;
                                    sum += xs[at] * w[((output * per_group + input) * kh + i) * kw + j];
                                }
                            }
                        }
                    }
                    ys.push(sum);
                }
            }
        }
    }
    let mut ys = Tensor::from_vec(ys, (batch, outputs, out_h, out_w), region.plane.device()).unwrap();
    if let Some(residual) = residual {
        ys = (ys + residual.to_dtype(DType::F64).unwrap()).unwrap();
    }
    act.apply(&ys).unwrap()
}

struct Case {
    batch: usize,
    channels: (usize, usize),
    size: (usize, usize),
    kernel: (usize, usize),
    options: ConvOptions,
    pads: Pads,
    act: Activation,
}

fn case(
    batch: usize,
    channels: (usize, usize),
    size: (usize, usize),
    kernel: (usize, usize),
    (stride, dilation, groups): (usize, usize, usize),
    pads: Pads,
    act: Activation,
) -> Case {
    Case {
        batch,
        channels,
        size,
        kernel,
        options: ConvOptions { stride, dilation, groups, winograd: false },
        pads,
        act,
    }
}

fn cases() -> Vec<Case> {
    use Activation::{Gelu, LeakyRelu, None, Relu, Relu6, Silu};
    let uneven = Pads { top: 0, bottom: 1, left: 0, right: 1 };
    vec![
        case(1, (16, 16), (6, 5), (1, 1), (1, 1, 1), Pads::default(), None),
        case(2, (7, 19), (5, 9), (1, 1), (1, 1, 1), Pads::default(), Relu6),
        case(1, (33, 144), (7, 7), (1, 1), (1, 1, 1), Pads::default(), Silu),
        case(1, (24, 100), (9, 4), (1, 1), (2, 1, 1), Pads::default(), Gelu),
        case(1, (3, 32), (17, 15), (3, 3), (2, 1, 1), uneven, Relu6),
        case(2, (3, 24), (16, 18), (7, 7), (2, 1, 1), Pads::all(3), Relu),
        case(2, (1, 5), (6, 6), (3, 3), (1, 1, 1), Pads::all(1), None),
        case(1, (20, 70), (8, 11), (3, 3), (1, 1, 1), Pads::all(1), LeakyRelu(0.1)),
        case(2, (16, 40), (9, 8), (3, 3), (2, 1, 1), Pads::all(1), Relu),
        case(1, (8, 17), (12, 12), (3, 3), (1, 2, 1), Pads::all(2), None),
        case(1, (8, 9), (10, 13), (5, 3), (1, 1, 1), Pads { top: 2, bottom: 2, left: 1, right: 1 }, Relu),
        case(1, (12, 18), (7, 6), (3, 3), (1, 1, 3), Pads::all(1), None),
        case(2, (32, 32), (6, 7), (3, 3), (2, 1, 8), Pads::all(1), Relu),
        case(1, (64, 128), (5, 5), (3, 3), (1, 1, 2), Pads::all(1), None),
        case(1, (4, 4), (5, 5), (3, 3), (1, 1, 4), Pads::all(1), None),
        case(1, (40, 200), (3, 3), (1, 1), (1, 1, 1), Pads::default(), Relu6),
        case(3, (5, 3), (1, 1), (3, 3), (1, 1, 1), Pads::all(1), None),
        case(1, (3, 9), (9, 10), (3, 3), (1, 2, 1), Pads::all(1), Relu),
        case(2, (6, 20), (11, 7), (5, 3), (2, 1, 1), Pads { top: 2, bottom: 1, left: 0, right: 2 }, None),
        case(2, (35, 2), (9, 7), (3, 3), (1, 1, 1), Pads::all(1), LeakyRelu(0.1)),
        case(1, (64, 5), (6, 11), (3, 3), (2, 1, 1), Pads::all(1), Relu),
        case(1, (16, 1), (5, 5), (1, 1), (1, 1, 1), Pads::default(), Silu),
        case(1, (40, 3), (8, 3), (3, 3), (1, 2, 1), Pads::all(2), Relu6),
        case(2, (130, 4), (4, 5), (1, 3), (1, 1, 1), Pads::default(), None),
    ]
}

#[test]
fn a_packed_convolution_equals_the_definition_on_each_instruction_set() {
    for (i, c) in cases().into_iter().enumerate() {
        let (inputs, outputs) = c.channels;
        let plane = noise(i as u64 + 1, &[c.batch, inputs, c.size.0, c.size.1], DType::F32);
        let shape = [outputs, inputs / c.options.groups, c.kernel.0, c.kernel.1];
        let weight = noise(i as u64 + 50, &shape, DType::F32);
        let bias = noise(i as u64 + 90, &[outputs], DType::F32);
        let region = Region::whole(&plane).unwrap();
        let plain = naive(&region, &weight, &bias, None, c.options, c.pads, c.act);
        let residual = noise(i as u64 + 130, plain.dims(), DType::F32);
        let added = naive(&region, &weight, &bias, Some(&residual), c.options, c.pads, c.act);
        on_each_isa(|isa| {
            let packed = PackedConv::new(&weight, Some(&bias), c.options, c.act).unwrap();
            let ys = packed.forward(&region, c.pads, None).unwrap();
            assert!(largest_difference(&ys, &plain) < 2e-5, "case {i} on {isa}");
            // The same through channels-last memory, and with something added.
            let last = plane.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            let last = Region::whole(&last.permute((0, 3, 1, 2)).unwrap()).unwrap();
            let ys = packed.forward(&last, c.pads, Some(&residual)).unwrap();
            assert!(largest_difference(&ys, &added) < 2e-5, "case {i} with a residual on {isa}");
        });
    }
}

#[test]
fn a_packed_convolution_reads_its_border_from_the_plane() {
    let plane = noise(3, &[2, 20, 12, 14], DType::F32);
    let weight = noise(4, &[24, 20, 3, 3], DType::F32);
    let (bias, options) =
        (noise(5, &[24], DType::F32), ConvOptions { winograd: false, ..Default::default() });
    for (top, left) in [(0, 0), (4, 5), (6, 8), (0, 8)] {
        let region = Region::new(&plane, top, left, 6, 6).unwrap();
        let expected = naive(&region, &weight, &bias, None, options, Pads::all(1), Activation::Relu);
        on_each_isa(|isa| {
            let packed = PackedConv::new(&weight, Some(&bias), options, Activation::Relu).unwrap();
            let ys = packed.forward(&region, Pads::all(1), None).unwrap();
            assert!(largest_difference(&ys, &expected) < 2e-5, "at {top}, {left} on {isa}");
        });
    }
}

#[test]
fn winograds_filtering_equals_the_definition_on_each_instruction_set() {
    for (i, (batch, inputs, outputs, (h, w), pads, dilation, act)) in [
        (1, 32, 32, (8, 8), Pads::all(1), 1, Activation::None),
        (2, 40, 70, (9, 7), Pads::all(1), 1, Activation::Relu),
        (1, 64, 33, (5, 22), Pads::default(), 1, Activation::Silu),
        (1, 40, 64, (3, 3), Pads::all(1), 1, Activation::Relu6),
        (1, 32, 32, (10, 11), Pads { top: 0, bottom: 2, left: 1, right: 0 }, 1, Activation::None),
        (1, 8, 8, (12, 9), Pads::all(1), 1, Activation::LeakyRelu(0.1)),
        (2, 20, 11, (8, 10), Pads::all(1), 1, Activation::Relu),
        (2, 16, 24, (17, 19), Pads::all(2), 2, Activation::Relu),
        (1, 32, 16, (24, 26), Pads { top: 4, bottom: 1, left: 0, right: 3 }, 3, Activation::None),
        (1, 20, 40, (32, 37), Pads::all(8), 8, Activation::LeakyRelu(0.1)),
    ]
    .into_iter()
    .enumerate()
    {
        let plane = noise(i as u64 + 1, &[batch, inputs, h, w], DType::F32);
        let weight = noise(i as u64 + 20, &[outputs, inputs, 3, 3], DType::F32);
        let bias = noise(i as u64 + 40, &[outputs], DType::F32);
        let options = ConvOptions { dilation, ..ConvOptions::default() };
        assert!(options.winograd);
        let mut regions = vec![Region::whole(&plane).unwrap()];
        if h > 7 {
            regions.push(Region::new(&plane, 1, 2, h - 3, w - 3).unwrap());
        }
        for region in regions {
            let plain = naive(&region, &weight, &bias, None, options, pads, act);
            let residual = noise(i as u64 + 60, plain.dims(), DType::F32);
            let added = naive(&region, &weight, &bias, Some(&residual), options, pads, act);
            let largest =
                plain.abs().unwrap().flatten_all().unwrap().max(0).unwrap().to_scalar::<f64>().unwrap();
            on_each_isa(|isa| {
                let packed = PackedConv::new(&weight, Some(&bias), options, act).unwrap();
                let ys = packed.forward(&region, pads, None).unwrap();
                assert!(largest_difference(&ys, &plain) < 3e-5 * largest.max(1.0), "case {i} on {isa}");
                let without = ConvOptions { winograd: false, ..options };
                let direct = PackedConv::new(&weight, Some(&bias), without, act).unwrap();
                let direct = direct.forward(&region, pads, None).unwrap();
                assert!(largest_difference(&ys, &direct) > 0.0, "case {i} on {isa} was not transformed");
                let ys = packed.forward(&region, pads, Some(&residual)).unwrap();
                assert!(
                    largest_difference(&ys, &added) < 3e-5 * largest.max(1.0),
                    "case {i} with a residual on {isa}"
                );
            });
        }
    }
}

#[test]
fn a_packed_depthwise_convolution_equals_the_definition_on_each_instruction_set() {
    let uneven = Pads { top: 0, bottom: 1, left: 0, right: 1 };
    for (i, (batch, channels, (h, w), k, stride, pads, act)) in [
        (1, 16, (6, 9), 3, 1, Pads::all(1), Activation::Relu6),
        (2, 37, (7, 5), 3, 1, Pads::all(1), Activation::None),
        (1, 96, (16, 17), 3, 2, uneven, Activation::Relu6),
        (2, 20, (3, 3), 3, 1, Pads::all(1), Activation::Relu),
        (1, 50, (13, 11), 5, 1, Pads::all(2), Activation::Silu),
        (1, 33, (14, 15), 5, 2, Pads::all(2), Activation::Gelu),
        (1, 17, (12, 18), 7, 1, Pads::all(3), Activation::None),
        (1, 17, (15, 30), 7, 2, Pads::all(3), Activation::None),
        (1, 9, (20, 33), 3, 3, Pads::all(1), Activation::None),
        (1, 3, (8, 8), 2, 2, Pads::default(), Activation::LeakyRelu(0.2)),
        (2, 4, (1, 1), 3, 1, Pads::all(1), Activation::None),
    ]
    .into_iter()
    .enumerate()
    {
        let plane = noise(i as u64 + 1, &[batch, channels, h, w], DType::F32);
        let weight = noise(i as u64 + 60, &[channels, 1, k, k], DType::F32);
        let bias = noise(i as u64 + 90, &[channels], DType::F32);
        let options = ConvOptions { stride, groups: channels, ..ConvOptions::default() };
        let regions = if h > 4 && w > 4 {
            vec![Region::whole(&plane).unwrap(), Region::new(&plane, 1, 2, h - 2, w - 3).unwrap()]
        } else {
            vec![Region::whole(&plane).unwrap()]
        };
        for region in regions {
            let expected = naive(&region, &weight, &bias, None, options, pads, act);
            on_each_isa(|isa| {
                let packed = PackedDepthwise::new(&weight, Some(&bias), stride, act).unwrap();
                let ys = packed.forward(&region, pads).unwrap();
                assert!(largest_difference(&ys, &expected) < 1e-5, "case {i} on {isa}");
            });
        }
    }
}

#[test]
fn packed_convolutions_refuse_what_does_not_fit() {
    let weight = noise(1, &[8, 4, 3, 3], DType::F32);
    let bias = noise(2, &[8], DType::F32);
    let options = ConvOptions::default();
    let packed = PackedConv::new(&weight, Some(&bias), options, Activation::None).unwrap();
    let plane = |shape: &[usize]| Region::whole(&noise(3, shape, DType::F32)).unwrap();
    let said = |result: candle_core::Result<Tensor>| result.unwrap_err().to_string();
    for (message, expected) in [
        (said(packed.forward(&plane(&[1, 5, 6, 6]), Pads::all(1), None)), "expected 4 channels, got 5"),
        (
            said(packed.forward(&plane(&[1, 4, 2, 9]), Pads::default(), None)),
            "a 3×3 filter of dilation 1 does not fit a padded input of 2×9",
        ),
        (
            said(packed.forward(
                &plane(&[1, 4, 6, 6]),
                Pads::all(1),
                Some(&noise(4, &[1, 8, 5, 6], DType::F32)),
            )),
            "expected a residual of [1, 8, 6, 6], got [1, 8, 5, 6]",
        ),
        (
            said(packed.forward(
                &Region::whole(&noise(3, &[1, 4, 6, 6], DType::F64)).unwrap(),
                Pads::all(1),
                None,
            )),
            "packed weights take f32 tensors on the CPU, got F64",
        ),
    ] {
        assert!(message.contains(expected), "{message}");
    }
    let groups = ConvOptions { groups: 3, ..options };
    let message = PackedConv::new(&weight, None, groups, Activation::None).unwrap_err().to_string();
    assert!(message.contains("groups must divide the outputs"), "{message}");
    let message = PackedDepthwise::new(&weight, None, 1, Activation::None).unwrap_err().to_string();
    assert!(message.contains("expected a weight of [8, 1, k, k]"), "{message}");
}

#[test]
fn a_nan_stays_visible_through_every_activation() {
    use Activation::{Gelu, LeakyRelu, None, Relu, Relu6, Silu};
    let plane = Tensor::full(f32::NAN, (1, 16, 4, 4), &candle_core::Device::Cpu).unwrap();
    let region = Region::whole(&plane).unwrap();
    for act in [None, Relu, Relu6, LeakyRelu(0.1), Silu, Gelu] {
        on_each_isa(|isa| {
            let dense = PackedConv::new(
                &noise(1, &[16, 16, 1, 1], DType::F32),
                Option::None,
                ConvOptions::default(),
                act,
            );
            let depthwise = PackedDepthwise::new(&noise(1, &[16, 1, 3, 3], DType::F32), Option::None, 1, act);
            for ys in [
                dense.unwrap().forward(&region, Pads::default(), Option::None).unwrap(),
                depthwise.unwrap().forward(&region, Pads::all(1)).unwrap(),
            ] {
                let ys = ys.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                assert!(ys.iter().all(|y| y.is_nan()), "{act:?} on {isa}");
            }
        });
    }
}

#[test]
fn an_inverted_residual_equals_its_layers() {
    /// Fewer channels than any case has.
    const SQUEEZED: usize = 3;
    for (i, (batch, inputs, hidden, outputs, (h, w), k, stride, pads)) in [
        (1, 16, 96, 24, (20, 33), 3, 2, Pads { top: 0, bottom: 1, left: 0, right: 1 }),
        (2, 24, 50, 24, (9, 7), 3, 1, Pads::all(1)),
        (1, 8, 40, 8, (31, 60), 5, 1, Pads::all(2)),
        (1, 10, 20, 12, (70, 5), 5, 2, Pads::all(2)),
        (3, 4, 8, 4, (1, 1), 3, 1, Pads::all(1)),
    ]
    .into_iter()
    .enumerate()
    {
        let seed = 10 * i as u64;
        let xs = noise(seed + 1, &[batch, inputs, h, w], DType::F32);
        let weights = [
            noise(seed + 2, &[hidden, inputs, 1, 1], DType::F32),
            noise(seed + 3, &[hidden, 1, k, k], DType::F32),
            noise(seed + 4, &[outputs, hidden, 1, 1], DType::F32),
            noise(seed + 6, &[SQUEEZED, hidden, 1, 1], DType::F32),
            noise(seed + 7, &[hidden, SQUEEZED, 1, 1], DType::F32),
        ];
        let biases = [hidden, hidden, outputs, SQUEEZED].map(|c| noise(seed + c as u64, &[c], DType::F32));
        let options = ConvOptions::default();
        on_each_isa(|isa| {
            let dense = |i: usize, act| PackedConv::new(&weights[i], Some(&biases[i]), options, act).unwrap();
            let (expand, project) = (dense(0, Activation::Relu6), dense(2, Activation::None));
            let depthwise =
                PackedDepthwise::new(&weights[1], Some(&biases[1]), stride, Activation::Silu).unwrap();
            let whole = |xs: &Tensor| Region::whole(xs).unwrap();
            let expanded = expand.forward(&whole(&xs), Pads::default(), None).unwrap();
            let filtered = depthwise.forward(&whole(&expanded), pads).unwrap();
            let plain = project.forward(&whole(&filtered), Pads::default(), None).unwrap();
            let residual = noise(seed + 5, plain.dims(), DType::F32);
            let added = (&plain + &residual).unwrap();

            let block = |expand| PackedBlock {
                expand,
                depthwise: &depthwise,
                squeeze_excite: None,
                project: &project,
            };
            let fused = |region: &Region, expand, residual: Option<&Tensor>| {
                inverted_residual(region, block(expand), pads, residual).unwrap()
            };
            let ys = fused(&whole(&xs), Some(&expand), None);
            assert!(largest_difference(&ys, &plain) < 1e-5, "case {i} on {isa}");
            let ys = fused(&whole(&xs), Some(&expand), Some(&residual));
            assert!(largest_difference(&ys, &added) < 1e-5, "case {i} with a residual on {isa}");
            let ys = fused(&whole(&expanded), None, Some(&residual));
            assert!(largest_difference(&ys, &added) < 1e-5, "case {i} of an expanded map on {isa}");
            if h > 8 && w > 6 {
                let window = Region::new(&expanded, 2, 1, h - 5, w - 3).unwrap();
                let filtered = depthwise.forward(&window, pads).unwrap();
                let plain = project.forward(&whole(&filtered), Pads::default(), None).unwrap();
                let ys = fused(&window, None, None);
                assert!(largest_difference(&ys, &plain) < 1e-5, "case {i} of a window on {isa}");
            }
            let message = inverted_residual(&whole(&xs), block(None), pads, None).unwrap_err();
            assert!(message.to_string().contains("channels, got"), "{message}");

            let reduce = PackedConv::new(&weights[3], Some(&biases[3]), options, Activation::Silu).unwrap();
            let excite = PackedConv::new(&weights[4], Some(&biases[1]), options, Activation::None).unwrap();
            let means = global_avg_pool2d(&filtered).unwrap();
            let gates = reduce.forward(&whole(&means), Pads::default(), None).unwrap();
            let gates = excite.forward(&whole(&gates), Pads::default(), None).unwrap();
            let gated = filtered.broadcast_mul(&candle_nn::ops::sigmoid(&gates).unwrap()).unwrap();
            let plain = project.forward(&whole(&gated), Pads::default(), Some(&residual)).unwrap();
            for expanded_before in [false, true] {
                let (xs, expand) = if expanded_before { (&expanded, None) } else { (&xs, Some(&expand)) };
                let block = PackedBlock { squeeze_excite: Some([&reduce, &excite]), ..block(expand) };
                let ys = inverted_residual(&whole(xs), block, pads, Some(&residual)).unwrap();
                assert!(largest_difference(&ys, &plain) < 1e-5, "case {i} with gates on {isa}");
                let block = PackedBlock { squeeze_excite: Some([&excite, &reduce]), ..block };
                let message = inverted_residual(&whole(xs), block, pads, None).unwrap_err().to_string();
                assert!(message.contains("gates for"), "{message}");
            }
        });
    }
}

/// The convolution is linear in each operand, so a difference quotient of its definition in f64 is its
/// derivative, whatever the step.
#[test]
fn convolution_has_both_gradients_on_each_instruction_set() {
    let none = Activation::None;
    for (i, c) in [
        case(2, (5, 7), (6, 5), (1, 1), (1, 1, 1), Pads::default(), none),
        case(2, (3, 20), (9, 8), (3, 3), (1, 1, 1), Pads::all(1), none),
        case(2, (18, 5), (9, 8), (3, 3), (2, 1, 1), Pads::all(1), none),
        case(1, (4, 9), (8, 11), (3, 3), (2, 1, 1), Pads { top: 0, bottom: 1, left: 0, right: 1 }, none),
        case(1, (4, 6), (7, 10), (1, 1), (2, 1, 1), Pads::default(), none),
        case(1, (2, 3), (13, 9), (7, 7), (2, 1, 1), Pads::all(3), none),
        case(1, (3, 4), (9, 10), (3, 3), (1, 2, 1), Pads::all(2), none),
        case(2, (6, 9), (7, 6), (3, 3), (2, 1, 3), Pads::all(1), none),
        case(1, (4, 4), (6, 7), (5, 3), (3, 1, 1), Pads { top: 2, bottom: 2, left: 1, right: 1 }, none),
        case(1, (40, 36), (7, 6), (3, 3), (1, 1, 1), Pads::all(1), none),
    ]
    .into_iter()
    .enumerate()
    {
        let (inputs, outputs) = c.channels;
        let options = ConvOptions { winograd: true, ..c.options };
        let xs = noise(i as u64 + 1, &[c.batch, inputs, c.size.0, c.size.1], DType::F32);
        let shape = [outputs, inputs / options.groups, c.kernel.0, c.kernel.1];
        let weight = noise(i as u64 + 30, &shape, DType::F32);
        let zero = Tensor::zeros(outputs, DType::F32, xs.device()).unwrap();
        let define = |xs: &Tensor, weight: &Tensor| {
            naive(&Region::whole(xs).unwrap(), weight, &zero, None, options, c.pads, none)
        };
        let ys = define(&xs, &weight);
        let direction = noise(i as u64 + 60, ys.dims(), DType::F64);
        let loss = |xs: &Tensor, weight: &Tensor| {
            (define(xs, weight) * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        on_each_isa(|isa| {
            let (x, w) = (Var::from_tensor(&xs).unwrap(), Var::from_tensor(&weight).unwrap());
            let got = conv2d(&Region::whole(&x).unwrap(), &w, c.pads, options).unwrap();
            let largest = ys.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
            assert!(largest_difference(&got, &ys) < 3e-5 * largest.max(1.0), "case {i} forward on {isa}");
            let weighted = (got * direction.to_dtype(DType::F32).unwrap()).unwrap().sum_all().unwrap();
            let gradients = weighted.backward().unwrap();
            for (name, var) in [("input", &x), ("weight", &w)] {
                let gradient = gradients.get(var).unwrap();
                assert_eq!(gradient.dims(), var.dims(), "case {i}, {name}");
                let gradient: Vec<f32> = gradient.flatten_all().unwrap().to_vec1().unwrap();
                let largest = gradient.iter().fold(1f32, |largest, g| largest.max(g.abs()));
                let values: Vec<f32> = var.flatten_all().unwrap().to_vec1().unwrap();
                for at in (0..values.len()).step_by(values.len().div_ceil(12)) {
                    let moved = |by: f32| {
                        let mut values = values.clone();
                        values[at] += by;
                        let moved = Tensor::from_vec(values, var.dims(), var.device()).unwrap();
                        if name == "input" { loss(&moved, &weight) } else { loss(&xs, &moved) }
                    };
                    let quotient = (moved(1.0) - moved(-1.0)) / 2.0;
                    let difference = (f64::from(gradient[at]) - quotient).abs();
                    assert!(
                        difference < 3e-5 * f64::from(largest),
                        "case {i}, {name} {at} on {isa}: {} instead of {quotient}",
                        gradient[at]
                    );
                }
            }
        });
    }
    let xs = Var::from_tensor(&noise(1, &[1, 2, 9, 9], DType::F32)).unwrap();
    let options = ConvOptions { stride: 2, dilation: 2, ..ConvOptions::default() };
    let region = Region::whole(&xs).unwrap();
    let ys = conv2d(&region, &noise(2, &[2, 2, 3, 3], DType::F32), Pads::all(2), options).unwrap();
    let message = ys.sum_all().unwrap().backward().unwrap_err().to_string();
    assert!(message.contains("no gradient for stride 2 with dilation 2"), "{message}");
}
