//! Linear layers, norms, softmax, activations and attention.

use candle_core::{DType, Device, Tensor, Var};
use zoo_kernels::{
    Activation, PackedLinear, activate, activated, attention, channel_norm, layer_norm, softmax,
};

use crate::packed::on_each_isa;
use crate::reference::{Values, assert_gradients};
use crate::support::{largest_difference, noise};

const ACTIVATIONS: [Activation; 6] = [
    Activation::None,
    Activation::Relu,
    Activation::Relu6,
    Activation::LeakyRelu(0.1),
    Activation::Silu,
    Activation::Gelu,
];

/// A tensor of f64 from a function of row and column.
fn matrix(rows: usize, columns: usize, mut value: impl FnMut(usize, usize) -> f64) -> Vec<f64> {
    (0..rows * columns).map(|i| value(i / columns, i % columns)).collect()
}

fn tensor(values: Vec<f64>, shape: &[usize]) -> Tensor {
    Tensor::from_vec(values, shape, &Device::Cpu).unwrap()
}

fn said(result: candle_core::Result<Tensor>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn a_packed_linear_layer_equals_the_definition_on_each_instruction_set() {
    for (i, (outer, inputs, outputs)) in [
        (vec![], 5, 3),
        (vec![1], 1, 1),
        (vec![7], 96, 288),
        (vec![2, 49], 33, 17),
        (vec![1, 196], 64, 100),
        (vec![3, 2, 5], 16, 16),
        (vec![0, 4], 8, 6),
    ]
    .into_iter()
    .enumerate()
    {
        let seed = 10 * i as u64;
        let act = ACTIVATIONS[i % ACTIVATIONS.len()];
        let shape = |last: usize| [outer.as_slice(), &[last]].concat();
        let xs = noise(seed + 1, &shape(inputs), DType::F32);
        let weight = noise(seed + 2, &[outputs, inputs], DType::F32);
        let bias = noise(seed + 3, &[outputs], DType::F32);
        let residual = noise(seed + 4, &shape(outputs), DType::F32);
        let (x, w, b, r) = (Values::of(&xs), Values::of(&weight), Values::of(&bias), Values::of(&residual));
        let naive = |bias: bool, residual: bool| {
            let rows = outer.iter().product();
            let sums = matrix(rows, outputs, |row, column| {
                let product: f64 =
                    (0..inputs).map(|k| x.values[row * inputs + k] * w.values[column * inputs + k]).sum();
                product
                    + if bias { b.values[column] } else { 0.0 }
                    + if residual { r.values[row * outputs + column] } else { 0.0 }
            });
            act.apply(&tensor(sums, &shape(outputs))).unwrap()
        };
        on_each_isa(|isa| {
            let plain = PackedLinear::new(&weight, None, act).unwrap();
            let ys = plain.forward(&xs, None).unwrap();
            assert_eq!(ys.dims(), shape(outputs), "case {i}");
            if ys.elem_count() == 0 {
                return;
            }
            assert!(largest_difference(&ys, &naive(false, false)) < 2e-5, "case {i} on {isa}");
            let packed = PackedLinear::new(&weight, Some(&bias), act).unwrap();
            let ys = packed.forward(&xs, Some(&residual)).unwrap();
            assert!(largest_difference(&ys, &naive(true, true)) < 2e-5, "case {i} with a residual on {isa}");
            assert!(ys.is_contiguous(), "case {i}");
            // The same rows as one half of wider ones.
            let last = outer.len();
            let wide = Tensor::cat(&[&xs, &xs], last).unwrap().narrow(last, inputs, inputs).unwrap();
            let ys = packed.forward(&wide, Some(&residual)).unwrap();
            assert!(largest_difference(&ys, &naive(true, true)) < 2e-5, "case {i}, a view, on {isa}");
        });
    }
}

#[test]
fn linear_layers_refuse_what_does_not_fit() {
    let weight = noise(1, &[8, 4], DType::F32);
    let packed = PackedLinear::new(&weight, None, Activation::None).unwrap();
    let xs = |shape: &[usize], dtype| noise(2, shape, dtype);
    let new = |weight: &Tensor, bias: Option<&Tensor>| {
        PackedLinear::new(weight, bias, Activation::None).unwrap_err().to_string()
    };
    for (message, expected) in [
        (said(packed.forward(&xs(&[2, 5], DType::F32), None)), "linear: expected [.., 4], got [2, 5]"),
        (said(packed.forward(&xs(&[], DType::F32), None)), "linear: expected [.., 4], got []"),
        (
            said(packed.forward(&xs(&[2, 4], DType::F32), Some(&xs(&[2, 4], DType::F32)))),
            "linear: expected a residual of [2, 8], got [2, 4]",
        ),
        (
            said(packed.forward(&xs(&[2, 4], DType::F64), None)),
            "linear: packed weights take f32 tensors on the CPU, got F64",
        ),
        (
            new(&noise(1, &[8, 4, 1], DType::F32), None),
            "linear: expected a weight of [outputs, inputs], got [8, 4, 1]",
        ),
        (new(&weight, Some(&noise(1, &[4], DType::F32))), "linear: expected a bias of [8], got [4]"),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

/// Rows of the last dimension, normalised by the definition.
fn naive_norm(xs: &Tensor, weight: &Tensor, bias: &Tensor, eps: f64) -> Tensor {
    let (x, w, b) = (Values::of(xs).values, Values::of(weight).values, Values::of(bias).values);
    let n = w.len();
    let ys = x.chunks(n).flat_map(|row| {
        let mean = row.iter().sum::<f64>() / n as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
        let ys: Vec<f64> = (0..n).map(|i| (row[i] - mean) / (variance + eps).sqrt() * w[i] + b[i]).collect();
        ys
    });
    tensor(ys.collect(), xs.dims())
}

#[test]
fn layer_norm_equals_the_definition_on_each_instruction_set() {
    for (i, shape) in [vec![5], vec![3, 1], vec![2, 49, 96], vec![4, 33], vec![1, 300, 384], vec![0, 8]]
        .into_iter()
        .enumerate()
    {
        let n = shape[shape.len() - 1];
        // Far from zero, where a variance taken as a difference of sums would lose its digits.
        let xs = (noise(i as u64 + 1, &shape, DType::F32) + 30.0).unwrap();
        let (weight, bias) = (noise(2, &[n], DType::F32), noise(3, &[n], DType::F32));
        let expected = naive_norm(&xs, &weight, &bias, 1e-5);
        on_each_isa(|isa| {
            let ys = layer_norm(&xs, &weight, &bias, 1e-5).unwrap();
            assert_eq!(ys.dims(), shape);
            if ys.elem_count() > 0 {
                assert!(largest_difference(&ys, &expected) < 2e-5, "{shape:?} on {isa}");
            }
        });
    }
    let xs = noise(4, &[2, 9, 37], DType::F32).transpose(1, 2).unwrap();
    let (weight, bias) = (noise(5, &[9], DType::F32), noise(6, &[9], DType::F32));
    let expected = naive_norm(&xs, &weight, &bias, 1e-6);
    assert!(largest_difference(&layer_norm(&xs, &weight, &bias, 1e-6).unwrap(), &expected) < 1e-5);
    // Short floats go through candle's operations.
    let short = |xs: &Tensor| xs.to_dtype(DType::F16).unwrap();
    let ys = layer_norm(&short(&xs), &short(&weight), &short(&bias), 1e-6).unwrap();
    assert_eq!(ys.dtype(), DType::F16);
    assert!(largest_difference(&ys, &expected) < 1e-2);
}

#[test]
fn channel_norm_is_layer_norm_of_each_place() {
    let xs = noise(1, &[2, 19, 5, 7], DType::F32);
    let (weight, bias) = (noise(2, &[19], DType::F32), noise(3, &[19], DType::F32));
    let last = xs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    let expected = naive_norm(&last, &weight, &bias, 1e-6).permute((0, 3, 1, 2)).unwrap();
    for xs in [xs, last.permute((0, 3, 1, 2)).unwrap()] {
        let ys = channel_norm(&xs, &weight, &bias, 1e-6).unwrap();
        assert!(largest_difference(&ys, &expected) < 1e-5);
        assert!(ys.permute((0, 2, 3, 1)).unwrap().is_contiguous());
    }
}

#[test]
fn norms_refuse_what_does_not_fit() {
    let of = |shape: &[usize], dtype| noise(1, shape, dtype);
    let (four, five) = (of(&[4], DType::F32), of(&[5], DType::F32));
    for (message, expected) in [
        (
            said(layer_norm(&of(&[2, 4], DType::F32), &five, &four, 1e-5)),
            "layer-norm: expected [.., N] and a weight and a bias of [N], got [2, 4], [5] and [4]",
        ),
        (said(layer_norm(&of(&[], DType::F32), &four, &four, 1e-5)), "got [], [4] and [4]"),
        (
            said(layer_norm(&of(&[2, 4], DType::F64), &four, &four, 1e-5)),
            "layer-norm: expected values, weight and bias of one type, got [F64, F32, F32]",
        ),
        (said(channel_norm(&of(&[2, 4], DType::F32), &four, &four, 1e-5)), "unexpected rank, expected: 4"),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}

/// Softmax of rows by the definition; zeros where everything is −∞.
fn naive_softmax(scores: &[f64], n: usize) -> Vec<f64> {
    let rows = scores.chunks(n).flat_map(|row| {
        let largest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let weights: Vec<f64> = row.iter().map(|x| (x - largest).exp()).collect();
        let sum: f64 = weights.iter().sum();
        let masked = largest == f64::NEG_INFINITY;
        weights.into_iter().map(move |w| if masked { 0.0 } else { w / sum })
    });
    rows.collect()
}

#[test]
fn softmax_equals_the_definition_on_each_instruction_set() {
    for (i, shape) in
        [vec![1], vec![7], vec![3, 16], vec![2, 5, 49], vec![1, 40, 196], vec![3, 0], vec![0, 3]]
            .into_iter()
            .enumerate()
    {
        let n = shape[shape.len() - 1].max(1);
        for (dtype, within) in [(DType::F32, 1e-6), (DType::F64, 1e-14), (DType::F16, 2e-3)] {
            let xs = (noise(i as u64 + 1, &shape, dtype) * 20.0).unwrap();
            let scaled: Vec<f64> = Values::of(&xs).values.iter().map(|x| x * 0.5).collect();
            let expected = tensor(naive_softmax(&scaled, n), &shape);
            on_each_isa(|isa| {
                let ys = softmax(&xs, 0.5, None).unwrap();
                assert_eq!(ys.dims(), shape);
                if ys.elem_count() > 0 {
                    assert!(largest_difference(&ys, &expected) < within, "{shape:?} {dtype:?} on {isa}");
                }
            });
        }
    }
}

#[test]
fn softmax_takes_a_mask_and_defines_rows_without_anything() {
    let none = f64::NEG_INFINITY;
    let mask = tensor(vec![0.0, none, none, none, none, none], &[2, 3]);
    for dtype in [DType::F32, DType::F64, DType::F16] {
        let xs = noise(1, &[4, 2, 3], dtype);
        let ys = softmax(&xs, 3.0, Some(&mask.to_dtype(dtype).unwrap())).unwrap();
        for row in Values::of(&ys).values.chunks(6) {
            assert_eq!(row, [1.0, 0.0, 0.0, 0.0, 0.0, 0.0], "{dtype:?}");
        }
    }
    for dtype in [DType::F32, DType::F64] {
        let values = tensor(vec![1.0, f64::NAN, 0.0, 1e30, 1e30, -1e30], &[2, 3]).to_dtype(dtype).unwrap();
        let ys = Values::of(&softmax(&values, 1.0, None).unwrap()).values;
        assert!(ys[..3].iter().all(|y| y.is_nan()), "{dtype:?}: {ys:?}");
        assert_eq!(ys[3..], [0.5, 0.5, 0.0], "{dtype:?}");
    }
    assert!(said(softmax(&noise(1, &[], DType::F32), 1.0, None)).contains("expected at least one dimension"));
    assert!(softmax(&noise(1, &[2, 3], DType::F32), 1.0, Some(&noise(1, &[4], DType::F32))).is_err());
}

#[test]
fn gradients_equal_finite_differences() {
    let of = |seed: u64, shape: &[usize]| noise(seed, shape, DType::F64);
    on_each_isa(|isa| {
        let name = |what: &str| format!("{what} on {isa}");
        for shape in [[1, 5, 3], [2, 3, 37]] {
            let n = shape[2];
            assert_gradients(&name("layer norm"), &[&of(1, &shape), &of(2, &[n]), &of(3, &[n])], |xs| {
                layer_norm(&xs[0], &xs[1], &xs[2], 1e-5).unwrap()
            });
            assert_gradients(&name("softmax"), &[&of(4, &shape), &of(5, &[n])], |xs| {
                softmax(&xs[0], 1.7, Some(&xs[1])).unwrap()
            });
        }
        let map = [&of(6, &[2, 5, 3, 4]), &of(7, &[5]), &of(8, &[5])];
        assert_gradients(&name("channel norm"), &map, |xs| {
            channel_norm(&xs[0], &xs[1], &xs[2], 1e-5).unwrap()
        });
    });
    // Many rows: the tasks' parts of the weight's gradient are summed.
    let many = [&of(9, &[700, 41]), &of(10, &[41]), &of(11, &[41])];
    assert_gradients("layer norm of many rows", &many, |xs| {
        layer_norm(&xs[0], &xs[1], &xs[2], 1e-5).unwrap()
    });
    let (q, k, v) = (of(12, &[4, 2, 3, 5]), of(13, &[4, 2, 7, 5]), of(14, &[4, 2, 7, 6]));
    let (bias, mask) = (of(15, &[2, 3, 7]), of(16, &[2, 1, 1, 7]));
    assert_gradients("attention", &[&q, &k, &v, &bias, &mask], |xs| {
        attention(&xs[0], &xs[1], &xs[2], 0.6, &[&xs[3], &xs[4]]).unwrap()
    });
    assert_gradients("silu", &[&of(17, &[3, 7])], |xs| activate(xs[0].clone(), Activation::Silu).unwrap());
}

#[test]
fn single_precision_gradients_equal_those_in_double() {
    let xs = noise(1, &[6, 50], DType::F64);
    let (weight, bias) = (noise(2, &[50], DType::F64), noise(3, &[50], DType::F64));
    let grads = |dtype: DType| {
        let vars = [&xs, &weight, &bias].map(|xs| Var::from_tensor(&xs.to_dtype(dtype).unwrap()).unwrap());
        let ys = layer_norm(&vars[0], &vars[1], &vars[2], 1e-5).unwrap();
        let ys = softmax(&ys, 2.0, None).unwrap();
        let grads = (&ys * noise(4, ys.dims(), dtype)).unwrap().sum_all().unwrap().backward().unwrap();
        vars.map(|var| grads.get(&var).unwrap().clone())
    };
    for (single, double) in grads(DType::F32).iter().zip(&grads(DType::F64)) {
        assert!(largest_difference(single, double) < 1e-5);
    }
}

#[test]
fn activations_equal_candles_operations_in_place_and_in_a_graph() {
    let xs = (noise(1, &[2, 5, 7, 9], DType::F32) * 8.0).unwrap();
    let last = xs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().permute((0, 3, 1, 2)).unwrap();
    let cut = xs.narrow(3, 2, 6).unwrap();
    for act in ACTIVATIONS {
        on_each_isa(|isa| {
            for (name, xs) in [("planar", &xs), ("channels last", &last), ("cut", &cut)] {
                let expected = act.apply(xs).unwrap();
                let in_place = if name == "cut" { xs.clone() } else { copy(xs) };
                let ys = activate(in_place.clone(), act).unwrap();
                assert!(largest_difference(&ys, &expected) < 2e-6, "{act:?} of {name} on {isa}");
                if name == "cut" {
                    assert_eq!(largest_difference(&in_place, xs), 0.0, "others read the rest of it");
                } else {
                    assert_eq!(largest_difference(&in_place, &ys), 0.0, "{name} is changed in place");
                    assert_eq!(ys.stride(), xs.stride());
                }
            }
        });
        for (name, xs) in [("planar", &xs), ("channels last", &last), ("cut", &cut)] {
            let before = copy(xs);
            let ys = activated(xs, act).unwrap();
            assert!(largest_difference(&ys, &act.apply(xs).unwrap()) < 2e-6, "{act:?} of {name}, anew");
            assert_eq!(largest_difference(xs, &before), 0.0, "{name} is left alone");
            assert_eq!(name == "channels last", ys.stride() == last.stride(), "{name}");
        }
        let var = Var::from_tensor(&xs).unwrap();
        let ys = activate(var.as_tensor().clone(), act).unwrap();
        assert_eq!(largest_difference(&ys, &act.apply(&xs).unwrap()), 0.0, "{act:?} in a graph");
        assert_eq!(largest_difference(&var, &xs), 0.0, "{act:?}: a variable is left alone");
    }
}

/// A copy in the same order of memory.
fn copy(xs: &Tensor) -> Tensor {
    if xs.is_contiguous() {
        return xs.copy().unwrap();
    }
    xs.permute((0, 2, 3, 1)).unwrap().copy().unwrap().permute((0, 3, 1, 2)).unwrap()
}

/// Attention by its definition, in f64.
fn naive_attention(q: &Tensor, k: &Tensor, v: &Tensor, scale: f64, biases: &[&Tensor]) -> Tensor {
    let (b, h, n, d) = q.dims4().unwrap();
    let (_, _, m, e) = v.dims4().unwrap();
    let (q, k, v) = (Values::of(q), Values::of(k), Values::of(v));
    let biases: Vec<Values> = biases
        .iter()
        .map(|bias| {
            let mut values = Values::of(bias);
            while values.dims.len() < 4 {
                values.dims.insert(0, 1);
            }
            values
        })
        .collect();
    let mut ys = Vec::new();
    for image in 0..b {
        for head in 0..h {
            for i in 0..n {
                let scores: Vec<f64> = (0..m)
                    .map(|j| {
                        let product: f64 =
                            (0..d).map(|x| q.at([image, head, i, x]) * k.at([image, head, j, x])).sum();
                        let bias: f64 = biases
                            .iter()
                            .map(|b| b.at([image % b.dims[0], head % b.dims[1], i % b.dims[2], j]))
                            .sum();
                        scale * product + bias
                    })
                    .collect();
                let weights = naive_softmax(&scores, m);
                ys.extend((0..e).map(|x| {
                    weights.iter().enumerate().map(|(j, w)| w * v.at([image, head, j, x])).sum::<f64>()
                }));
            }
        }
    }
    tensor(ys, &[b, h, n, e])
}

#[test]
fn attention_equals_the_definition_on_each_instruction_set() {
    // Images, heads, queries, keys, values a key, values a value, and the shapes of biases.
    type Case = (usize, usize, usize, usize, usize, usize, &'static [&'static [usize]]);
    let cases: [Case; 11] = [
        (1, 1, 1, 1, 1, 1, &[]),
        (4, 3, 49, 49, 32, 32, &[&[3, 49, 49]]),
        (4, 3, 49, 49, 32, 32, &[&[3, 49, 49], &[2, 1, 49, 49]]),
        (1, 2, 196, 196, 64, 64, &[]),
        (2, 1, 65, 300, 17, 33, &[&[2, 1, 1, 300]]),
        (1, 1, 130, 513, 8, 5, &[&[130, 513]]),
        (1, 2, 3, 256, 24, 80, &[&[256]]),
        (2, 2, 7, 257, 40, 16, &[&[2, 2, 7, 257]]),
        (3, 1, 5, 31, 3, 130, &[&[1, 1, 1, 31], &[3, 1, 5, 31], &[5, 31]]),
        (1, 1, 200, 16, 16, 48, &[]),
        (1, 1, 2, 1100, 20, 7, &[&[1, 1, 2, 1100]]),
    ];
    for (i, (b, h, n, m, d, e, shapes)) in cases.into_iter().enumerate() {
        let seed = 10 * i as u64;
        let q = noise(seed + 1, &[b, h, n, d], DType::F32);
        let k = noise(seed + 2, &[b, h, m, d], DType::F32);
        let v = noise(seed + 3, &[b, h, m, e], DType::F32);
        let biases: Vec<Tensor> = shapes
            .iter()
            .zip(4..)
            .map(|(shape, j)| (noise(seed + j, shape, DType::F32) * 4.0).unwrap())
            .collect();
        let biases: Vec<&Tensor> = biases.iter().collect();
        let scale = 1.5 / (d as f64).sqrt();
        let expected = naive_attention(&q, &k, &v, scale, &biases);
        on_each_isa(|isa| {
            let ys = attention(&q, &k, &v, scale, &biases).unwrap();
            assert!(largest_difference(&ys, &expected) < 5e-6, "case {i} on {isa}");
            let joined = ys.transpose(1, 2).unwrap();
            assert!(joined.is_contiguous(), "case {i}: the heads lie side by side");
        });
        let double = |xs: &Tensor| xs.to_dtype(DType::F64).unwrap();
        let wide: Vec<Tensor> = biases.iter().map(|bias| double(bias)).collect();
        let wide: Vec<&Tensor> = wide.iter().collect();
        let ys = attention(&double(&q), &double(&k), &double(&v), scale, &wide).unwrap();
        assert!(largest_difference(&ys, &expected) < 1e-12, "case {i} in candle's operations");
    }
}

#[test]
fn attention_reads_a_joint_projection_as_it_lies() {
    let (b, n, h, d) = (3, 50, 2, 24);
    let qkv = noise(1, &[b, n, 3 * h * d], DType::F32).reshape((b, n, 3, h, d)).unwrap();
    let part = |i: usize| qkv.narrow(2, i, 1).unwrap().squeeze(2).unwrap().transpose(1, 2).unwrap();
    let copied = |i: usize| part(i).contiguous().unwrap();
    let expected = naive_attention(&copied(0), &copied(1), &copied(2), 0.2, &[]);
    let ys = attention(&part(0), &part(1), &part(2), 0.2, &[]).unwrap();
    assert!(largest_difference(&ys, &expected) < 5e-6);
    // Values that do not lie next to each other are moved first.
    let turned = copied(0).transpose(2, 3).unwrap().contiguous().unwrap().transpose(2, 3).unwrap();
    let ys = attention(&turned, &part(1), &part(2), 0.2, &[]).unwrap();
    assert!(largest_difference(&ys, &expected) < 5e-6);
    // Biases that are views: turned, broadcast, and cut out of a wider one.
    let turned = noise(2, &[n, n, h], DType::F32).permute((2, 0, 1)).unwrap();
    let broadcast = noise(3, &[h, 1, n], DType::F32).broadcast_as((h, n, n)).unwrap();
    let cut = noise(4, &[n, n + 3], DType::F32).narrow(1, 2, n).unwrap();
    for bias in [turned, broadcast, cut] {
        let expected = naive_attention(&copied(0), &copied(1), &copied(2), 0.2, &[&bias]);
        let ys = attention(&part(0), &part(1), &part(2), 0.2, &[&bias]).unwrap();
        assert!(largest_difference(&ys, &expected) < 5e-6, "{:?}", bias.layout());
    }
}

#[test]
fn attention_is_defined_for_masks_and_for_large_scores() {
    let none = f32::NEG_INFINITY;
    for m in [5, 700] {
        let q = noise(1, &[1, 2, 3, 8], DType::F32);
        let (k, v) = (noise(2, &[1, 2, m, 8], DType::F32), noise(3, &[1, 2, m, 8], DType::F32));
        // The first query sees nothing, the second the last key only, the third everything.
        let mut mask = vec![0f32; 3 * m];
        mask[..2 * m - 1].fill(none);
        let mask = Tensor::from_vec(mask, (3, m), &Device::Cpu).unwrap();
        let expected = naive_attention(&q, &k, &v, 1.0, &[&mask]);
        let zeros = expected.narrow(2, 0, 1).unwrap();
        assert_eq!(largest_difference(&zeros, &zeros.zeros_like().unwrap()), 0.0);
        let steep = naive_attention(&q, &k, &v, 300.0, &[]);
        on_each_isa(|isa| {
            let ys = attention(&q, &k, &v, 1.0, &[&mask]).unwrap();
            assert!(largest_difference(&ys, &expected) < 5e-6, "{m} keys on {isa}");
            let ys = attention(&q, &k, &v, 300.0, &[]).unwrap();
            assert!(largest_difference(&ys, &steep) < 5e-4, "{m} keys, steep, on {isa}");
            let spoilt = k.slice_assign(
                &[0..1, 1..2, 2..3, 0..1],
                &Tensor::full(f32::NAN, (1, 1, 1, 1), &Device::Cpu).unwrap(),
            );
            let ys = Values::of(&attention(&q, &spoilt.unwrap(), &v, 1.0, &[]).unwrap()).values;
            assert!(ys[..24].iter().all(|y| y.is_finite()), "the other head, {m} keys on {isa}");
            assert!(ys[24..].iter().all(|y| y.is_nan()), "the head with a NaN, {m} keys on {isa}");
        });
        let var = Var::from_tensor(&q).unwrap();
        let ys = attention(&var, &k, &v, 1.0, &[&mask]).unwrap();
        assert!(largest_difference(&ys, &expected) < 5e-6, "in a graph");
        let grad = ys.sum_all().unwrap().backward().unwrap().get(&var).unwrap().clone();
        let grad = Values::of(&grad).values;
        assert!(grad.iter().all(|g| g.is_finite()));
    }
}

#[test]
fn attention_refuses_what_does_not_fit() {
    let of = |shape: &[usize]| noise(1, shape, DType::F32);
    let (q, k, v) = (of(&[4, 2, 3, 8]), of(&[4, 2, 5, 8]), of(&[4, 2, 5, 6]));
    let with = |bias: &[usize]| said(attention(&q, &k, &v, 1.0, &[&of(bias)]));
    for (message, expected) in [
        (
            said(attention(&q, &of(&[4, 2, 5, 7]), &v, 1.0, &[])),
            "got [4, 2, 3, 8], [4, 2, 5, 7] and [4, 2, 5, 6]",
        ),
        (
            said(attention(&q, &k, &of(&[4, 2, 4, 6]), 1.0, &[])),
            "attention: expected q, k and v of [B, H, N, D]",
        ),
        (
            said(attention(&q, &k, &of(&[4, 1, 5, 6]), 1.0, &[])),
            "attention: expected q, k and v of [B, H, N, D]",
        ),
        (
            said(attention(&of(&[2, 3, 8]), &k, &v, 1.0, &[])),
            "attention: expected q, k and v of [B, H, N, D]",
        ),
        (
            said(attention(&q, &of(&[4, 2, 0, 8]), &of(&[4, 2, 0, 6]), 1.0, &[])),
            "none of them empty, got [4, 2, 3, 8], [4, 2, 0, 8] and [4, 2, 0, 6]",
        ),
        (with(&[3, 2, 3, 5]), "expected a bias of [4 or a divisor, 2 or 1, 3 or 1, 5], got [3, 2, 3, 5]"),
        (with(&[0, 2, 3, 5]), "got [0, 2, 3, 5]"),
        (with(&[3, 3, 5]), "got [3, 3, 5]"),
        (with(&[2, 5]), "got [2, 5]"),
        (with(&[3, 1]), "got [3, 1]"),
        (with(&[1, 4, 2, 3, 5]), "got [1, 4, 2, 3, 5]"),
    ] {
        assert!(message.contains(expected), "{message}");
    }
}
