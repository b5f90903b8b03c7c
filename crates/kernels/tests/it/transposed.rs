//! Transposed convolution.

use candle_core::{DType, Result, Tensor};
use zoo_kernels::{Activation, PackedTransposedConv, TransposedOptions};

use crate::packed::on_each_isa;
use crate::reference::{Values, layouts};
use crate::support::{largest_difference, noise};

const fn options(stride: usize, padding: usize, output_padding: usize) -> TransposedOptions {
    TransposedOptions { stride, padding, output_padding }
}

/// Each input is written, times the filter, to where it belongs.
fn naive(xs: &Tensor, weight: &Tensor, bias: &Tensor, o: TransposedOptions) -> Tensor {
    let (b, inputs, h, w) = xs.dims4().unwrap();
    let (_, outputs, kh, kw) = weight.dims4().unwrap();
    let size = |n: usize, k: usize| (n - 1) * o.stride + k + o.output_padding - 2 * o.padding;
    let (out_h, out_w) = (size(h, kh), size(w, kw));
    let (xs, weight, bias) = (Values::of(xs), Values::of(weight), Values::of(bias).values);
    let mut ys = vec![0.0; b * outputs * out_h * out_w];
    for (i, y) in ys.iter_mut().enumerate() {
        *y = bias[i / (out_h * out_w) % outputs];
    }
    for image in 0..b {
        for input in 0..inputs {
            for (y, x) in (0..h).flat_map(|y| (0..w).map(move |x| (y, x))) {
                for output in 0..outputs {
                    for (i, j) in (0..kh).flat_map(|i| (0..kw).map(move |j| (i, j))) {
                        let (row, column) = (y * o.stride + i, x * o.stride + j);
                        let inside = |at: usize, n: usize| (o.padding..o.padding + n).contains(&at);
                        if inside(row, out_h) && inside(column, out_w) {
                            let at = (image * outputs + output) * out_h + row - o.padding;
                            ys[at * out_w + column - o.padding] +=
                                xs.at([image, input, y, x]) * weight.at([input, output, i, j]);
                        }
                    }
                }
            }
        }
    }
    Tensor::from_vec(ys, (b, outputs, out_h, out_w), &candle_core::Device::Cpu).unwrap()
}

#[test]
fn a_transposed_convolution_equals_its_definition_on_each_instruction_set() {
    for (i, (map, outputs, kernel, o)) in [
        ([1, 16, 4, 5], 16, (4, 4), options(2, 0, 0)),
        ([2, 7, 5, 3], 19, (4, 4), options(2, 1, 0)),
        ([1, 5, 6, 4], 33, (3, 3), options(2, 1, 1)),
        ([1, 3, 3, 3], 2, (2, 2), options(2, 0, 0)),
        ([1, 4, 5, 5], 6, (3, 3), options(1, 1, 0)),
        ([2, 4, 3, 4], 5, (1, 2), options(3, 0, 2)),
        ([1, 4, 1, 1], 5, (5, 3), options(3, 1, 0)),
        ([1, 20, 4, 4], 8, (16, 16), options(8, 4, 0)),
        ([1, 2, 7, 7], 3, (3, 3), options(2, 5, 0)),
        ([1, 2, 1, 2], 3, (2, 2), options(5, 0, 0)),
        ([2, 24, 2, 3], 140, (4, 4), options(2, 1, 0)),
    ]
    .into_iter()
    .enumerate()
    {
        let xs = noise(i as u64 + 1, &map, DType::F32);
        let weight = noise(i as u64 + 30, &[map[1], outputs, kernel.0, kernel.1], DType::F32);
        let bias = noise(i as u64 + 60, &[outputs], DType::F32);
        let want = Activation::LeakyRelu(0.1).apply(&naive(&xs, &weight, &bias, o)).unwrap();
        on_each_isa(|isa| {
            let act = Activation::LeakyRelu(0.1);
            let packed = PackedTransposedConv::new(&weight, Some(&bias), o, act).unwrap();
            for xs in layouts(&xs) {
                let d = largest_difference(&packed.forward(&xs).unwrap(), &want);
                assert!(d < 1e-5, "case {i} on {isa}: off by {d}");
            }
        });
    }
}

#[test]
fn a_transposed_convolution_equals_candles() {
    let (xs, weight) = (noise(1, &[2, 6, 5, 7], DType::F32), noise(2, &[6, 4, 4, 4], DType::F32));
    let packed = PackedTransposedConv::new(&weight, None, options(2, 1, 1), Activation::None).unwrap();
    let want = xs.conv_transpose2d(&weight, 1, 1, 2, 1).unwrap();
    assert!(largest_difference(&packed.forward(&xs).unwrap(), &want) < 1e-5);
}

#[test]
fn a_transposed_convolution_refuses_what_does_not_fit() {
    let weight = noise(1, &[4, 3, 2, 2], DType::F32);
    let new = |o| PackedTransposedConv::new(&weight, None, o, Activation::None);
    let message = |result: Result<Tensor>| result.unwrap_err().to_string();
    for o in [options(0, 0, 0), options(2, 0, 2)] {
        let error = new(o).unwrap_err().to_string();
        assert!(error.contains("stride must be at least 1, and output_padding less than that"), "{error}");
    }
    let packed = new(options(2, 0, 0)).unwrap();
    let error = message(packed.forward(&noise(1, &[1, 5, 2, 2], DType::F32)));
    assert!(error.contains("expected 4 channels, got 5"), "{error}");
    let error = message(packed.forward(&noise(1, &[1, 4, 2, 2], DType::F64)));
    assert!(error.contains("packed weights take f32 tensors on the CPU, got F64"), "{error}");
    let error = message(new(options(2, 3, 0)).unwrap().forward(&noise(1, &[1, 4, 2, 3], DType::F32)));
    assert!(error.contains("a padding of 3 leaves nothing of a map of 2×3"), "{error}");
}
