//! Batch norm, its frozen form and gates: formulas, difference quotients, instruction sets, layouts.

use candle_core::{DType, Result, Tensor, Var};
use zoo_kernels::{
    Activation, ConvOptions, Pads, Region, batch_norm, channel_affine, conv2d, gate, gate_add, max_pool2d,
};
use zoo_kernels::{Pool, depthwise_conv2d, global_avg_pool2d};

use crate::packed::on_each_isa;
use crate::reference::{assert_gradients, layouts};
use crate::support::{largest_difference, noise};

const EPS: f64 = 1e-3;
const ACTS: [Activation; 6] = [
    Activation::None,
    Activation::Relu,
    Activation::Relu6,
    Activation::LeakyRelu(0.2),
    Activation::Silu,
    Activation::Gelu,
];
/// One value a channel, rows narrower and wider than a loop, odd ones.
const SHAPES: [[usize; 4]; 5] = [[2, 1, 5, 7], [3, 24, 4, 5], [1, 16, 9, 3], [2, 300, 3, 2], [2, 3, 1, 1]];

fn channelwise(xs: &Tensor) -> Tensor {
    xs.reshape((1, (), 1, 1)).unwrap()
}

/// Wide enough for every activation to show both its sides.
fn map(seed: u64, shape: [usize; 4]) -> Tensor {
    ((noise(seed, &shape, DType::F64) * 4.0).unwrap() + 1.5).unwrap()
}

/// Scale and shift.
fn vectors(channels: usize) -> [Tensor; 2] {
    let scale = (noise(71, &[channels], DType::F64) + 1.5).unwrap();
    [scale, noise(72, &[channels], DType::F64)]
}

fn mean(xs: &Tensor) -> Tensor {
    xs.mean_keepdim((0, 2, 3)).unwrap()
}

/// (mean, variance), each `[1, C, 1, 1]`.
fn moments(xs: &Tensor) -> (Tensor, Tensor) {
    let centred = xs.broadcast_sub(&mean(xs)).unwrap();
    (mean(xs), mean(&centred.sqr().unwrap()))
}

/// By the definition, in f64.
fn define(xs: &Tensor, scale: &Tensor, shift: &Tensor, residual: Option<&Tensor>, act: Activation) -> Tensor {
    let ys = xs.broadcast_mul(&channelwise(scale)).unwrap().broadcast_add(&channelwise(shift)).unwrap();
    act.apply(&residual.map_or(ys.clone(), |residual| (&ys + residual).unwrap())).unwrap()
}

fn define_batch(
    xs: &Tensor,
    scale: &Tensor,
    shift: &Tensor,
    residual: Option<&Tensor>,
    act: Activation,
) -> Tensor {
    let (mean, variance) = moments(xs);
    let normal = xs.broadcast_sub(&mean).unwrap().broadcast_div(&(variance + EPS).unwrap().sqrt().unwrap());
    define(&normal.unwrap(), scale, shift, residual, act)
}

#[test]
fn both_norms_equal_their_definitions_in_every_layout_on_each_instruction_set() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        let (xs, residual) = (map(i as u64 + 1, shape), map(i as u64 + 40, shape));
        let [scale, shift] = vectors(shape[1]);
        for act in ACTS {
            for residual in [None, Some(&residual)] {
                let affine = define(&xs, &scale, &shift, residual, act);
                let batch = define_batch(&xs, &scale, &shift, residual, act);
                for (dtype, tolerance) in [(DType::F64, 1e-12), (DType::F32, 2e-5)] {
                    let [scale, shift] = [&scale, &shift].map(|t| t.to_dtype(dtype).unwrap());
                    let residual = residual.map(|t| t.to_dtype(dtype).unwrap());
                    on_each_isa(|isa| {
                        for xs in layouts(&xs.to_dtype(dtype).unwrap()) {
                            let name = format!("{shape:?}, {act:?}, {dtype:?} on {isa}");
                            let got =
                                channel_affine(&xs, Some(&scale), &shift, residual.as_ref(), act).unwrap();
                            assert!(largest_difference(&got, &affine) < tolerance, "affine, {name}");
                            let (got, found) =
                                batch_norm(&xs, &scale, &shift, EPS, residual.as_ref(), act).unwrap();
                            let d = largest_difference(&got, &batch);
                            assert!(d < tolerance * 10.0, "batch, {name}: {d}");
                            let (mean, variance) = moments(&xs.to_dtype(DType::F64).unwrap());
                            assert_eq!(found.count, shape[0] * shape[2] * shape[3]);
                            let d = largest_difference(&found.mean, &mean.flatten_all().unwrap());
                            assert!(d < tolerance, "mean, {name}: {d}");
                            let d = largest_difference(&found.variance, &variance.flatten_all().unwrap());
                            assert!(d < tolerance, "variance, {name}: {d}");
                        }
                    });
                }
            }
        }
    }
}

/// Gradients to every operand, under a fixed random weighting of the result.
fn gradients(operands: &[Tensor], dtype: DType, f: impl Fn(&[Tensor]) -> Result<Tensor>) -> Vec<Tensor> {
    let vars: Vec<Var> =
        operands.iter().map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap()).collect();
    let tracked: Vec<Tensor> = vars.iter().map(|var| var.as_tensor().clone()).collect();
    let ys = f(&tracked).unwrap();
    let direction = noise(6, ys.dims(), dtype);
    let grads = (ys * direction).unwrap().sum_all().unwrap().backward().unwrap();
    vars.iter().map(|var| grads.get(var).unwrap().to_dtype(DType::F64).unwrap()).collect()
}

fn assert_close(name: &str, got: &[Tensor], want: &[Tensor], tolerance: f64) {
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        let largest = want.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap().max(1.0);
        let d = largest_difference(got, want);
        assert!(d < tolerance * largest, "{name}, operand {i}: off by {d} of {largest}");
    }
}

type Norm<'a> = &'a dyn Fn(&[Tensor]) -> Result<Tensor>;

#[test]
fn gradients_of_both_norms_equal_difference_quotients_and_are_the_same_in_f32() {
    for (i, shape) in SHAPES.into_iter().enumerate() {
        let [scale, shift] = vectors(shape[1]);
        let operands = [map(i as u64 + 1, shape), scale, shift, map(i as u64 + 40, shape)];
        for act in ACTS {
            for with_residual in [false, true] {
                let n = if with_residual { 4 } else { 3 };
                let affine = |t: &[Tensor]| channel_affine(&t[0], Some(&t[1]), &t[2], t.get(3), act);
                let batch = |t: &[Tensor]| Ok(batch_norm(&t[0], &t[1], &t[2], EPS, t.get(3), act)?.0);
                let norms: [(&str, Norm); 2] = [("affine", &affine), ("batch", &batch)];
                for (kind, f) in norms {
                    let name = format!("{kind} {shape:?}, {act:?}, residual: {with_residual}");
                    let inputs: Vec<&Tensor> = operands[..n].iter().collect();
                    // Candle's own approximation of the error function is too coarse for quotients.
                    if act != Activation::Gelu {
                        assert_gradients(&name, &inputs, |t| f(t).unwrap());
                    }
                    let want = gradients(&operands[..n], DType::F64, f);
                    on_each_isa(|isa| {
                        let got = gradients(&operands[..n], DType::F32, f);
                        assert_close(&format!("{name} on {isa}"), &got, &want, 1e-4);
                    });
                }
            }
        }
    }
}

#[test]
fn statistics_survive_a_large_mean() {
    let xs = ((noise(3, &[2, 5, 40, 40], DType::F64) * 0.01).unwrap() + 100.0).unwrap();
    let [scale, shift] = vectors(5).map(|t| t.to_dtype(DType::F32).unwrap());
    let rounded = xs.to_dtype(DType::F32).unwrap();
    let (_, want) = moments(&rounded.to_dtype(DType::F64).unwrap());
    let (_, found) = batch_norm(&rounded, &scale, &shift, EPS, None, Activation::None).unwrap();
    let want = want.flatten_all().unwrap();
    let largest = want.max_all().unwrap().to_scalar::<f64>().unwrap();
    assert!(largest_difference(&found.variance, &want) < 1e-4 * largest);
}

#[test]
fn gates_equal_a_product_and_have_its_gradients() {
    for shape in SHAPES {
        let operands = [map(5, shape), noise(8, &[shape[0], shape[1], 1, 1], DType::F64)];
        let [xs, gates] = &operands;
        let want = xs.broadcast_mul(gates).unwrap();
        assert_gradients(&format!("{shape:?}"), &[xs, gates], |t| gate(&t[0], &t[1]).unwrap());
        let gradient = gradients(&operands, DType::F64, |t| t[0].broadcast_mul(&t[1]));
        on_each_isa(|isa| {
            for xs in layouts(&xs.to_dtype(DType::F32).unwrap()) {
                let got = gate(&xs, &gates.to_dtype(DType::F32).unwrap()).unwrap();
                assert!(largest_difference(&got, &want) < 1e-5, "{shape:?} on {isa}");
            }
            let got = gradients(&operands, DType::F32, |t| gate(&t[0], &t[1]));
            assert_close(&format!("{shape:?} on {isa}"), &got, &gradient, 1e-5);
        });
    }
}

#[test]
fn gates_with_an_addend_equal_a_product_and_a_sum() {
    for shape in SHAPES {
        let operands = [map(5, shape), noise(8, &[shape[0], shape[1], 1, 1], DType::F64), map(9, shape)];
        let [xs, gates, addend] = &operands;
        let plain = |t: &[Tensor]| t[0].broadcast_mul(&t[1])? + &t[2];
        let want = plain(&operands).unwrap();
        assert_gradients(&format!("{shape:?}"), &[xs, gates, addend], |t| {
            gate_add(&t[0], &t[1], &t[2]).unwrap()
        });
        let gradient = gradients(&operands, DType::F64, plain);
        on_each_isa(|isa| {
            let single = |xs: &Tensor| xs.to_dtype(DType::F32).unwrap();
            for (xs, addend) in layouts(&single(xs)).iter().zip(layouts(&single(addend)).iter().rev()) {
                let got = gate_add(xs, &single(gates), addend).unwrap();
                assert!(largest_difference(&got, &want) < 1e-5, "{shape:?} on {isa}");
            }
            let got = gradients(&operands, DType::F32, |t| gate_add(&t[0], &t[1], &t[2]));
            assert_close(&format!("{shape:?} on {isa}"), &got, &gradient, 1e-5);
        });
    }
}

#[test]
fn norms_and_gates_refuse_what_does_not_fit() {
    let xs = noise(1, &[2, 4, 3, 3], DType::F32);
    let vector = |n: usize| noise(2, &[n], DType::F32);
    let affine = |scale: &Tensor, residual: Option<&Tensor>| {
        channel_affine(&xs, Some(scale), &vector(4), residual, Activation::None).unwrap_err().to_string()
    };
    let narrow = noise(3, &[2, 4, 3, 2], DType::F32);
    for (error, expected) in [
        (affine(&vector(3), None), "expected scale and shift of [4] in F32, got [3] in F32"),
        (affine(&noise(2, &[4], DType::F64), None), "expected scale and shift of [4] in F32, got [4] in F64"),
        (affine(&vector(4), Some(&narrow)), "expected a residual of [2, 4, 3, 3] in F32, got [2, 4, 3, 2]"),
        (gate(&xs, &vector(4)).unwrap_err().to_string(), "expected gates of [2, 4, 1, 1] in F32, got [4]"),
        (
            gate_add(&xs, &noise(2, &[2, 4, 1, 1], DType::F32), &narrow).unwrap_err().to_string(),
            "expected an addend of [2, 4, 3, 3] in F32, got [2, 4, 3, 2]",
        ),
    ] {
        assert!(error.contains(expected), "{error}");
    }
}

/// A small net in which results are used by several operations, ours and candle's, and views of maps
/// have equal sides, so that their order cannot be told from the shape.
fn net(t: &[Tensor]) -> Result<Tensor> {
    let [xs, dense, depthwise, scale, shift] = t else { candle_core::bail!("five operands") };
    let ys = conv2d(&Region::whole(xs)?, dense, Pads::all(1), ConvOptions::default())?;
    let (norm, _) = batch_norm(&ys, scale, shift, EPS, Some(&ys), Activation::Silu)?;
    let deep = depthwise_conv2d(&Region::whole(&norm)?, depthwise, 2, Pads::all(1))?;
    let pooled = max_pool2d(&norm, Pool::square(3, 2, 1))?;
    let ours = channel_affine(&deep, None, shift, Some(&pooled), Activation::Relu)?;
    let theirs = (norm.sqr()?.narrow(2, 0, ours.dim(2)?)?.narrow(3, 0, ours.dim(3)?)? * 0.1)?;
    let gates = global_avg_pool2d(&norm)?;
    gate(&(ours + theirs)?, &gates)
}

#[test]
fn gradients_meet_where_a_result_has_many_users() {
    let shape = [2, 5, 5, 5];
    let [scale, shift] = vectors(5);
    let operands = [
        map(1, shape),
        noise(2, &[5, 5, 3, 3], DType::F64),
        noise(3, &[5, 1, 3, 3], DType::F64),
        scale,
        shift,
    ];
    assert_gradients("in f64", &operands.each_ref(), |t| net(t).unwrap());
    let want = gradients(&operands, DType::F64, net);
    on_each_isa(|isa| {
        assert_close(&format!("on {isa}"), &gradients(&operands, DType::F32, net), &want, 1e-4);
    });
}

#[test]
fn a_graph_can_be_gone_through_again_and_by_several_threads() {
    let [scale, shift] = vectors(5);
    let xs = Var::from_tensor(&map(1, [2, 5, 5, 5]).to_dtype(DType::F32).unwrap()).unwrap();
    let operands = [
        xs.as_tensor().clone(),
        noise(2, &[5, 5, 3, 3], DType::F32),
        noise(3, &[5, 1, 3, 3], DType::F32),
        scale.to_dtype(DType::F32).unwrap(),
        shift.to_dtype(DType::F32).unwrap(),
    ];
    let loss = net(&operands).unwrap().sqr().unwrap().sum_all().unwrap();
    let backward = || loss.backward().unwrap().get(&xs).unwrap().clone();
    let first = backward();
    std::thread::scope(|scope| {
        let passes: Vec<_> = (0..4).map(|_| scope.spawn(|| (0..20).map(|_| backward()).collect())).collect();
        for pass in passes {
            let grads: Vec<Tensor> = pass.join().unwrap();
            assert!(grads.iter().all(|grad| largest_difference(grad, &first) < 1e-4));
        }
    });
}
