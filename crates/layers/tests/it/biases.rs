//! Convolutions that have a bias besides a norm, and transposed ones.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{BatchNorm, Conv2d, Conv2dConfig, Module, ModuleT, VarBuilder, VarMap, batch_norm, conv2d};
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, TransposedOptions};
use zoo_layers::{ConvNormAct, ConvSpec, Statistics, TransposedConv};

use crate::support::{check_gradients, input, recorded, relative_difference, seed, weights};

const EPS: f64 = 1e-5;
const ACT: Activation = Activation::LeakyRelu(0.1);

/// Of 8 channels to 8 or 12.
fn specs() -> Vec<(&'static str, ConvSpec)> {
    vec![
        ("3×3", ConvSpec::dense3(8, 12, 1, EPS, Activation::Relu)),
        ("3×3, stride 2", ConvSpec::dense3(8, 12, 2, EPS, ACT)),
        ("3×3, dilation 4", ConvSpec::dense3(8, 8, 1, EPS, ACT).dilated(4)),
        ("1×1", ConvSpec::pointwise(8, 12, 1e-3, Activation::None)),
        ("3×3, one filter a channel", ConvSpec::depthwise3(8, 1, EPS, Activation::Relu)),
    ]
}

/// candle-nn's convolution with a bias, and its norm.
fn parts(spec: &ConvSpec, vb: &VarBuilder) -> (Conv2d, BatchNorm) {
    let ConvSpec { in_channels, out_channels, kernel, stride, dilation, groups, .. } = *spec;
    let padding = kernel / 2 * dilation;
    let options = Conv2dConfig { padding, stride, dilation, groups, ..Default::default() };
    let conv = conv2d(in_channels, out_channels, kernel, options, vb.pp("conv")).unwrap();
    (conv, batch_norm(out_channels, spec.eps, vb.pp("norm")).unwrap())
}

#[test]
fn a_norm_behind_a_bias_equals_candle_nn_before_and_after_folding() {
    for (name, spec) in specs() {
        let vb = weights();
        let plain = ConvNormAct::biased_norm(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        let without = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        let mut prepared = plain.clone();
        prepared.prepare().unwrap();
        prepared.prepare().unwrap();
        let (conv, norm) = parts(&spec, &vb);
        for (height, width) in [(9, 7), (1, 1), (16, 10)] {
            let xs = input([2, 8, height, width]);
            let want = spec.act.apply(&norm.forward_t(&conv.forward(&xs).unwrap(), false).unwrap()).unwrap();
            for (state, block) in [("plain", &plain), ("prepared", &prepared)] {
                let difference = relative_difference(&block.forward(&xs).unwrap(), &want);
                assert!(difference < 1e-5, "{name}, {state}, {height}×{width}: {difference:.1e}");
            }
            let difference = relative_difference(&without.forward(&xs).unwrap(), &want);
            assert!(difference > 1e-3, "{name}: the bias makes no difference");
        }
    }
}

#[test]
fn a_bias_before_a_norm_is_asked_for_and_counted() {
    for (name, spec) in specs() {
        let (asked, vb) = recorded(DType::F32);
        let conv = ConvNormAct::biased_norm(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        let channels = spec.out_channels;
        let filter = [channels, spec.in_channels / spec.groups, spec.kernel, spec.kernel];
        let shape = filter.map(|side| side.to_string()).join("x");
        let want =
            [format!("conv.bias {channels}"), format!("conv.weight {shape}"), format!("norm.* {channels}")];
        assert_eq!(asked.lines(), want, "{name}");

        let mut tally = Tally::new();
        let output = conv.cost(FrameSize::new(9, 7), &mut tally);
        let [layer] = tally.layers() else { panic!("{name}: {:?}", tally.layers()) };
        let weights = filter.iter().product::<usize>();
        assert_eq!(layer.params, (weights + 3 * channels) as u64, "{name}: weights, bias, scale, shift");
        assert_eq!(layer.macs, (weights * output.area()) as u64, "{name}");
        // The bias goes into the norm's shift, and that into the convolution.
        assert_eq!((layer.bias_adds, layer.residual_adds), (0, 0), "{name}");
        assert_eq!(layer.outputs, (channels * output.area()) as u64, "{name}");
    }
}

/// In f64, where candle's operations stand in for our kernels.
#[test]
fn gradients_reach_a_bias_before_a_norm_by_stored_statistics() {
    for (_, spec) in specs() {
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
        let conv = ConvNormAct::biased_norm(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        seed(&vars);
        let xs = input([2, 8, 5, 6]).to_dtype(DType::F64).unwrap();
        let loss = || conv.forward(&xs).unwrap().sqr().unwrap().mean_all().unwrap();
        check_gradients(&vars, "conv.", &loss);
    }
}

/// On our kernels: nothing is left of a shift that the batch's mean takes away, and the stored mean has it.
#[test]
fn the_batchs_statistics_take_a_bias_away() {
    let spec = ConvSpec::dense3(8, 12, 1, EPS, Activation::Relu);
    let vars = VarMap::new();
    let vb = VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu);
    let mut conv = ConvNormAct::biased_norm(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
    seed(&vars);
    conv.set_statistics(Statistics::Batch { momentum: 1.0 });
    let xs = input([2, 8, 5, 6]);
    let set = |bias: f32| {
        let bias = Tensor::full(bias, 12, &Device::Cpu).unwrap();
        vars.data().lock().unwrap()["conv.bias"].set(&bias).unwrap();
    };
    let mean = || vars.data().lock().unwrap()["norm.running_mean"].as_detached_tensor().copy().unwrap();
    set(0.0);
    let (want, before) = (conv.forward(&xs).unwrap(), mean());
    set(0.5);
    let (got, after) = (conv.forward(&xs).unwrap(), mean());
    assert!(relative_difference(&got, &want) < 1e-5);
    assert!(relative_difference(&after, &(before + 0.5).unwrap()) < 1e-5, "{after}");
    let gradients = got.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let sizes = ["conv.bias", "norm.bias"].map(|name| {
        let gradient = gradients.get(&vars.data().lock().unwrap()[name]).unwrap().abs().unwrap();
        gradient.max_all().unwrap().to_scalar::<f32>().unwrap()
    });
    assert!(sizes[0] < 1e-4 * sizes[1], "rounding and the norm's own: {sizes:?}");
}

const fn options(stride: usize, padding: usize, output_padding: usize) -> TransposedOptions {
    TransposedOptions { stride, padding, output_padding }
}

/// Channels in and out, filter and options.
const TRANSPOSED: [((usize, usize), usize, TransposedOptions); 5] = [
    ((2, 2), 4, options(2, 0, 0)),
    ((16, 12), 4, options(2, 1, 0)),
    ((7, 19), 3, options(2, 1, 1)),
    ((5, 6), 3, options(1, 1, 0)),
    ((4, 3), 2, options(3, 0, 2)),
];

fn transposed(case: usize, act: Activation, vb: VarBuilder) -> TransposedConv {
    let (channels, kernel, options) = TRANSPOSED[case];
    TransposedConv::new(channels, kernel, options, act, vb.pp("up")).unwrap()
}

#[test]
fn a_transposed_convolution_equals_candles_before_and_after_packing() {
    for (case, ((inputs, outputs), kernel, o)) in TRANSPOSED.into_iter().enumerate() {
        for act in [Activation::None, ACT] {
            let vb = weights();
            let plain = transposed(case, act, vb.clone());
            let mut prepared = plain.clone();
            prepared.prepare().unwrap();
            prepared.prepare().unwrap();
            let filter = vb.get((inputs, outputs, kernel, kernel), "up.weight").unwrap();
            let bias = vb.get((1, outputs, 1, 1), "up.bias").unwrap();
            for (h, w) in [(5, 7), (1, 1), (2, 9)] {
                let xs = input([2, inputs, h, w]);
                let ys = xs.conv_transpose2d(&filter, o.padding, o.output_padding, o.stride, 1).unwrap();
                let want = act.apply(&ys.broadcast_add(&bias).unwrap()).unwrap();
                for (state, conv) in [("plain", &plain), ("prepared", &prepared)] {
                    let difference = relative_difference(&conv.forward(&xs).unwrap(), &want);
                    assert!(difference < 1e-5, "case {case}, {state}, {h}×{w}: {difference:.1e}");
                }
                let mut tally = Tally::new();
                let size = plain.cost(FrameSize::new(h, w), &mut tally);
                assert_eq!([size.height, size.width], want.dims()[2..], "case {case}, {h}×{w}");
                let cost = tally.total();
                assert_eq!(cost.params, (inputs * outputs * kernel * kernel + outputs) as u64);
                assert_eq!(cost.macs, (h * w * inputs * outputs * kernel * kernel) as u64);
                assert_eq!(cost.bias_adds, (outputs * size.area()) as u64);
                assert_eq!(tally.layers()[0].outputs, cost.bias_adds);
            }
        }
    }
}

#[test]
fn a_map_in_another_layout_is_the_same_map_to_a_transposed_convolution() {
    let plain = transposed(1, ACT, weights());
    let mut prepared = plain.clone();
    prepared.prepare().unwrap();
    let xs = input([1, 16, 5, 6]);
    let turned = xs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().permute((0, 3, 1, 2)).unwrap();
    for conv in [&plain, &prepared] {
        let (got, want) = (conv.forward(&turned).unwrap(), conv.forward(&xs).unwrap());
        assert!(relative_difference(&got, &want) < 1e-6);
    }
}

#[test]
fn gradients_reach_a_transposed_convolution_until_it_is_packed() {
    for (case, ((inputs, _), ..)) in TRANSPOSED.into_iter().enumerate() {
        let vars = VarMap::new();
        let vb = VarBuilder::from_varmap(&vars, DType::F64, &Device::Cpu);
        let conv = transposed(case, ACT, vb);
        seed(&vars);
        let xs = input([2, inputs, 3, 4]).to_dtype(DType::F64).unwrap();
        check_gradients(&vars, "up.", &|| conv.forward(&xs).unwrap().sqr().unwrap().mean_all().unwrap());
    }
    let vars = VarMap::new();
    let mut conv = transposed(1, ACT, VarBuilder::from_varmap(&vars, DType::F32, &Device::Cpu));
    let xs = input([1, 16, 3, 4]);
    assert!(conv.forward(&xs).unwrap().track_op());
    conv.prepare().unwrap();
    assert!(!conv.forward(&xs).unwrap().track_op());
}

#[test]
fn faults_of_transposed_convolutions_say_what_was_expected() {
    let said = |result: Result<TransposedConv>| result.unwrap_err().to_string();
    let new =
        |kernel, options| TransposedConv::new((3, 4), kernel, options, Activation::None, weights().pp("up"));
    for (kernel, options) in [(0, options(2, 0, 0)), (3, options(0, 0, 0)), (3, options(2, 0, 2))] {
        let error = said(new(kernel, options));
        assert!(error.contains("up: a transposed convolution of") && error.contains("stride"), "{error}");
    }
    let tensors = [("up.weight".to_owned(), Tensor::zeros((4, 3, 2, 2), DType::F32, &Device::Cpu).unwrap())];
    let vb = VarBuilder::from_tensors(tensors.into(), DType::F32, &Device::Cpu);
    let error = said(TransposedConv::new((3, 4), 2, options(2, 0, 0), Activation::None, vb.pp("up")));
    assert!(error.contains("up.weight") && error.contains("[3, 4, 2, 2]"), "{error}");

    let plain = new(3, options(1, 2, 0)).unwrap();
    let mut prepared = plain.clone();
    prepared.prepare().unwrap();
    for conv in [plain, prepared] {
        let error = conv.forward(&input([1, 5, 4, 4])).unwrap_err().to_string();
        assert!(error.contains("up: expected 3 channels, got 5"), "{error}");
        let error = conv.forward(&input([1, 3, 2, 4])).unwrap_err().to_string();
        assert!(error.contains("leaves nothing of a map of 2×4: use a larger input"), "{error}");
    }
}
