//! Convolutions behind their norm, and norms that other layers take over.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Conv2dConfig, Module, ModuleT, VarBuilder, VarMap, batch_norm, conv2d, conv2d_no_bias};
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Interpolation, resize2d};
use zoo_layers::{ConvSpec, NormActConv, Statistics};

use crate::support::{check_gradients, input, relative_difference, seed, weights};

const EPS: f64 = 1e-5;

fn specs() -> [ConvSpec; 3] {
    [
        ConvSpec::pointwise(8, 12, EPS, Activation::Relu),
        ConvSpec::dense3(8, 12, 1, 1e-3, Activation::None),
        ConvSpec::dense3(8, 12, 2, EPS, Activation::Silu),
    ]
}

/// Norm, activation and convolution by candle-nn.
fn reference(spec: &ConvSpec, has_bias: bool, vb: &VarBuilder, xs: &Tensor) -> Tensor {
    let ConvSpec { in_channels, out_channels, kernel, stride, .. } = *spec;
    let options = Conv2dConfig { padding: kernel / 2, stride, ..Default::default() };
    let build = if has_bias { conv2d } else { conv2d_no_bias };
    let conv = build(in_channels, out_channels, kernel, options, vb.pp("conv")).unwrap();
    let norm = batch_norm(in_channels, spec.eps, vb.pp("norm")).unwrap();
    conv.forward(&spec.act.apply(&norm.forward_t(xs, false).unwrap()).unwrap()).unwrap()
}

fn layer(spec: ConvSpec, has_bias: bool, vb: &VarBuilder) -> NormActConv {
    let build = if has_bias { NormActConv::biased } else { NormActConv::new };
    build(spec, vb.pp("norm"), vb.pp("conv")).unwrap()
}

#[test]
fn it_equals_candle_nn_before_and_after_packing() {
    for spec in specs() {
        for has_bias in [false, true] {
            let vb = weights();
            let mut layer = layer(spec, has_bias, &vb);
            for state in ["plain", "prepared", "prepared again"] {
                for (height, width) in [(9, 7), (1, 1), (16, 10)] {
                    let xs = input([2, 8, height, width]);
                    let want = reference(&spec, has_bias, &vb, &xs);
                    let difference = relative_difference(&layer.forward(&xs).unwrap(), &want);
                    assert!(difference < 1e-5, "{spec:?}, {state}: {difference:.1e}");
                    let sum = layer.forward_add(&xs, &want).unwrap();
                    let difference = relative_difference(&sum, &(&want * 2.0).unwrap());
                    assert!(difference < 1e-5, "{spec:?}, {state}, with a residual: {difference:.1e}");
                    let size = layer.cost(FrameSize::new(height, width), &mut Tally::new());
                    assert_eq!([size.height, size.width], want.dims()[2..], "{spec:?}");
                }
                layer.prepare().unwrap();
            }
        }
    }
}

#[test]
fn a_rung_is_the_sum_of_a_projection_and_a_resized_map() {
    for interpolation in [Interpolation::Bilinear, Interpolation::Nearest] {
        // The last does not fit the one pass.
        for spec in [specs()[0], ConvSpec { act: Activation::None, ..specs()[0] }, specs()[1]] {
            let mut layer = layer(spec, true, &weights());
            for state in ["plain", "prepared"] {
                for coarse in [[5, 4], [1, 1], [9, 7], [20, 11]] {
                    let xs = input([2, 8, 9, 7]);
                    let coarse = input([2, 12, coarse[0], coarse[1]]);
                    let resized = resize2d(&coarse, (9, 7), interpolation).unwrap();
                    let want = (layer.forward(&xs).unwrap() + resized).unwrap();
                    let got = layer.lateral(&xs, &coarse, interpolation).unwrap();
                    let difference = relative_difference(&got, &want);
                    assert!(difference < 1e-5, "{spec:?}, {state}, {:?}: {difference:.1e}", coarse.dims());
                }
                layer.prepare().unwrap();
            }
        }
    }
}

#[test]
fn norm_and_convolution_count_apart() {
    let mut tally = Tally::new();
    layer(specs()[0], true, &weights()).cost(FrameSize::new(3, 5), &mut tally);
    let counts = |name: &str| {
        let layer = tally.layers().iter().find(|layer| layer.name == name).unwrap();
        (layer.params, layer.macs, layer.normed, layer.activated, layer.bias_adds)
    };
    assert_eq!(counts("norm"), (16, 0, 8 * 15, 8 * 15, 0));
    assert_eq!(counts("conv"), (8 * 12 + 12, 8 * 12 * 15, 0, 0, 12 * 15));
}

/// first → second, and third as an addend of what the second reads: norms of sums, too, can be taken over.
#[test]
fn layers_before_it_can_take_over_the_norm() {
    let relu = |inputs, outputs, kernel| ConvSpec::dense(inputs, outputs, kernel, 1, EPS, Activation::Relu);
    for has_bias in [false, true] {
        let vb = weights();
        let build = |spec, name: &str| layer(spec, has_bias, &vb.pp(name));
        let mut first = build(relu(8, 12, 3), "first");
        let mut third = build(relu(8, 12, 1), "third");
        let mut second = build(relu(12, 5, 3), "second");
        let xs = input([2, 8, 9, 7]);
        let run = |first: &NormActConv, second: &NormActConv, third: &NormActConv| {
            let sum = third.forward_add(&xs, &first.forward(&xs).unwrap()).unwrap();
            second.forward(&sum).unwrap()
        };
        let want = run(&first, &second, &third);
        let entry = second.hand_over().unwrap();
        first.take_in(&entry.scaling()).unwrap();
        third.take_in(&entry).unwrap();
        for state in ["joined", "prepared"] {
            let difference = relative_difference(&run(&first, &second, &third), &want);
            assert!(difference < 1e-5, "{state}, bias {has_bias}: {difference:.1e}");
            for layer in [&mut first, &mut second, &mut third] {
                layer.prepare().unwrap();
            }
        }
        let error = second.hand_over().unwrap_err().to_string();
        assert!(error.starts_with("second.norm: the norm is another layer's already"), "{error}");
        let error = first.take_in(&entry).unwrap_err().to_string();
        assert!(
            error.starts_with("first.conv: layers are taken in before the weights are packed"),
            "{error}"
        );
        let error = third.take_in(&entry).unwrap_err().to_string();
        assert!(error.starts_with("third.conv: nothing can be taken in behind an activation"), "{error}");
    }
}

#[test]
fn gradients_reach_norm_and_filter() {
    let map = VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F64, &Device::Cpu);
    let mut layer = layer(specs()[2], false, &vb);
    seed(&map);
    let xs = input([2, 8, 5, 4]).to_dtype(DType::F64).unwrap();
    let loss = |layer: &NormActConv| layer.forward(&xs).unwrap().sqr().unwrap().mean_all().unwrap();
    for name in ["norm.weight", "norm.bias", "conv.weight"] {
        check_gradients(&map, name, &|| loss(&layer));
    }
    let stored = loss(&layer).to_scalar::<f64>().unwrap();
    layer.set_statistics(Statistics::Batch { momentum: 0.0 });
    assert!((loss(&layer).to_scalar::<f64>().unwrap() - stored).abs() > 1e-3 * stored);
}

#[test]
fn channels_that_do_not_fit_are_refused() {
    for has_bias in [false, true] {
        let error = layer(specs()[0], has_bias, &weights()).forward(&input([1, 7, 4, 4])).unwrap_err();
        assert!(error.to_string().starts_with("norm: expected 8 channels, got 7"), "{error}");
    }
}
