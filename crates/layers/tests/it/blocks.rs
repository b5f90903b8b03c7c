//! Blocks against candle-nn's own layers, before and after `prepare`.

use candle_core::{DType, Device, Tensor};
use candle_nn::{Conv2dConfig, Module, ModuleT, VarBuilder, batch_norm, conv2d, conv2d_no_bias};
use zoo_core::{FrameSize, Tally};
use zoo_kernels::{Activation, Region};
use zoo_layers::{
    ConvNormAct, ConvSpec, InvertedResidual, Linear, Padding, Pointwise, SamePadding, SeparableConv,
    SqueezeExcite, ZeroBorder,
};

use crate::support::{input, recorded, relative_difference, weights};

const EPS: f64 = 1e-5;

/// Convolutions of 8 channels to 8 or 12.
fn specs() -> Vec<(&'static str, ConvSpec)> {
    use Activation::{None, Relu, Relu6, Silu};
    vec![
        ("pointwise", ConvSpec::pointwise(8, 12, EPS, Relu6)),
        ("pointwise, linear", ConvSpec::pointwise(8, 12, 1e-3, None)),
        ("pointwise, stride 2", ConvSpec::dense(8, 12, 1, 2, EPS, Relu)),
        ("dense 3×3", ConvSpec::dense3(8, 12, 1, EPS, Relu6)),
        ("dense 3×3, stride 2", ConvSpec::dense3(8, 12, 2, EPS, Relu6)),
        ("dense 3×3, dilation 2", ConvSpec::dense3(8, 12, 1, EPS, Relu).dilated(2)),
        ("dense 3×3, 4 groups", ConvSpec::dense3(8, 12, 1, EPS, Relu).grouped(4)),
        ("dense 3×3, 2 groups, stride 2", ConvSpec::dense3(8, 12, 2, EPS, Relu).grouped(2)),
        ("dense 7×7, stride 2", ConvSpec::dense(8, 12, 7, 2, EPS, Relu)),
        ("dense 3×3, no epsilon", ConvSpec::dense3(8, 12, 1, 0.0, Relu)),
        ("depthwise 3×3", ConvSpec::depthwise3(8, 1, EPS, Relu6)),
        ("depthwise 3×3, stride 2", ConvSpec::depthwise3(8, 2, EPS, Relu)),
        ("depthwise 5×5, stride 2", ConvSpec::depthwise(8, 5, 2, EPS, Silu)),
        ("depthwise 3×3, dilation 2", ConvSpec::depthwise3(8, 1, EPS, Silu).dilated(2)),
    ]
}

/// Convolution with torch's padding, norm and residual by candle-nn.
fn reference(spec: &ConvSpec, vb: &VarBuilder, xs: &Tensor, residual: Option<&Tensor>) -> Tensor {
    let ConvSpec { in_channels, out_channels, kernel, stride, dilation, groups, .. } = *spec;
    let padding = kernel / 2 * dilation;
    let options = Conv2dConfig { padding, stride, dilation, groups, ..Default::default() };
    let conv = conv2d_no_bias(in_channels, out_channels, kernel, options, vb.pp("conv")).unwrap();
    let norm = batch_norm(out_channels, spec.eps, vb.pp("norm")).unwrap();
    let ys = norm.forward_t(&conv.forward(xs).unwrap(), false).unwrap();
    let ys = residual.map_or(Ok(ys.clone()), |residual| ys + residual).unwrap();
    spec.act.apply(&ys).unwrap()
}

#[test]
fn conv_norm_act_equals_candle_nn_before_and_after_folding() {
    for (name, spec) in specs() {
        let vb = weights();
        let plain = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        let mut prepared = plain.clone();
        prepared.prepare().unwrap();
        prepared.prepare().unwrap();
        for (height, width) in [(9, 7), (1, 1), (16, 10)] {
            let xs = input([2, 8, height, width]);
            let want = reference(&spec, &vb, &xs, None);
            let size = plain.cost(FrameSize::new(height, width), &mut Tally::new());
            assert_eq!([size.height, size.width], want.dims()[2..], "{name} {height}×{width}");
            for (state, block) in [("plain", &plain), ("prepared", &prepared)] {
                let difference = relative_difference(&block.forward(&xs).unwrap(), &want);
                assert!(difference < 1e-5, "{name}, {state}, {height}×{width}: {difference:.1e}");
            }
        }
    }
}

#[test]
fn a_residual_is_added_before_the_activation() {
    for (name, spec) in specs() {
        if name.starts_with("depthwise") && spec.dilation == 1 {
            continue;
        }
        let vb = weights();
        let plain = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        let mut prepared = plain.clone();
        prepared.prepare().unwrap();
        let xs = input([2, 8, 9, 7]);
        let residual = (input([2, spec.out_channels, 9, 7]) * 3.0).unwrap();
        let residual = if spec.stride == 2 {
            residual.narrow(2, 0, 5).unwrap().narrow(3, 0, 4).unwrap().contiguous().unwrap()
        } else {
            residual
        };
        let want = reference(&spec, &vb, &xs, Some(&residual));
        for (state, block) in [("plain", &plain), ("prepared", &prepared)] {
            let got = block.forward_region_add(&Region::whole(&xs).unwrap(), &residual).unwrap();
            let difference = relative_difference(&got, &want);
            assert!(difference < 1e-5, "{name}, {state}: {difference:.1e}");
        }
    }
}

#[test]
fn a_bare_convolution_has_nothing_but_its_filter() {
    for (name, spec) in specs() {
        let vb = weights();
        let plain = ConvNormAct::bare(spec, vb.clone()).unwrap();
        let mut prepared = plain.clone();
        prepared.prepare().unwrap();
        let ConvSpec { in_channels, out_channels, kernel, stride, dilation, groups, .. } = spec;
        let options =
            Conv2dConfig { padding: kernel / 2 * dilation, stride, dilation, groups, ..Default::default() };
        let conv = conv2d_no_bias(in_channels, out_channels, kernel, options, vb).unwrap();
        let xs = input([2, 8, 9, 7]);
        let ys = conv.forward(&xs).unwrap();
        let want = spec.act.apply(&ys).unwrap();
        for (state, block) in [("plain", &plain), ("prepared", &prepared)] {
            let difference = relative_difference(&block.forward(&xs).unwrap(), &want);
            assert!(difference < 1e-5, "{name}, {state}: {difference:.1e}");
            if groups == in_channels && dilation == 1 {
                continue;
            }
            let residual = (&ys * 0.5).unwrap();
            let want = spec.act.apply(&(&ys * 1.5).unwrap()).unwrap();
            let got = block.forward_region_add(&Region::whole(&xs).unwrap(), &residual).unwrap();
            let difference = relative_difference(&got, &want);
            assert!(difference < 1e-5, "{name}, {state}, with a residual: {difference:.1e}");
        }
        let mut tally = Tally::new();
        plain.cost(FrameSize::new(9, 7), &mut tally);
        let filter = (out_channels * in_channels / groups * kernel * kernel) as u64;
        assert_eq!((tally.total().params, tally.total().bias_adds), (filter, 0), "{name}");
    }
}

#[test]
fn a_separable_convolution_is_its_two_parts() {
    for (stride, act) in [(1, Activation::Relu), (2, Activation::None)] {
        let vb = weights();
        let spec = ConvSpec::dense3(8, 12, stride, EPS, act);
        let mut block = SeparableConv::new(spec, vb.pp("filters"), vb.pp("mix"), vb.pp("norm")).unwrap();
        let options = Conv2dConfig { padding: 1, stride, groups: 8, ..Default::default() };
        let filters = conv2d_no_bias(8, 8, 3, options, vb.pp("filters")).unwrap();
        let mix = conv2d_no_bias(8, 12, 1, Conv2dConfig::default(), vb.pp("mix")).unwrap();
        let norm = batch_norm(12, EPS, vb.pp("norm")).unwrap();
        for state in ["plain", "prepared"] {
            // Once prepared, the last is large enough to go through both parts in one pass.
            for size in [(9, 7), (1, 1), (190, 180)] {
                let xs = input([1, 8, size.0, size.1]);
                let ys =
                    norm.forward_t(&mix.forward(&filters.forward(&xs).unwrap()).unwrap(), false).unwrap();
                let residual = (&ys * -0.5).unwrap();
                for (got, want) in [
                    (block.forward(&xs).unwrap(), act.apply(&ys).unwrap()),
                    (block.forward_add(&xs, &residual).unwrap(), act.apply(&(&ys * 0.5).unwrap()).unwrap()),
                ] {
                    let difference = relative_difference(&got, &want);
                    assert!(difference < 1e-5, "{state}, stride {stride}, {size:?}: {difference:.1e}");
                }
            }
            let mut tally = Tally::new();
            let size = block.cost(FrameSize::new(9, 7), &mut tally);
            let area = size.area() as u64;
            assert_eq!(size, FrameSize::new(9_usize.div_ceil(stride), 7_usize.div_ceil(stride)));
            assert_eq!((tally.total().params, tally.total().macs), (72 + 96 + 24, (72 + 96) * area));
            let counts = tally.layers().iter().map(|layer| (layer.normed, layer.activated));
            let activated = if act == Activation::None { 0 } else { 12 * area };
            assert_eq!(counts.collect::<Vec<_>>(), [(0, 0), (12 * area, activated)]);
            block.prepare().unwrap();
        }
    }
}

#[test]
fn other_types_are_folded_but_not_packed() {
    for (name, spec) in specs() {
        let vb = recorded(DType::F64).1;
        let plain = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        let mut folded = plain.clone();
        folded.prepare().unwrap();
        let xs = input([1, 8, 9, 7]).to_dtype(DType::F64).unwrap();
        let (got, want) = (folded.forward(&xs).unwrap(), plain.forward(&xs).unwrap());
        assert_eq!(got.dtype(), DType::F64, "{name}");
        let difference = relative_difference(&got, &want);
        assert!(difference < 1e-12, "{name}: {difference:.1e}");
    }
}

#[test]
fn a_region_reads_its_border_from_the_plane() {
    for (name, spec) in specs().into_iter().filter(|(_, spec)| spec.stride == 1) {
        let vb = weights();
        let plain = ConvNormAct::new(spec, vb.pp("conv"), vb.pp("norm")).unwrap();
        let mut prepared = plain.clone();
        prepared.prepare().unwrap();
        let plane = input([1, 8, 12, 12]);
        let whole = plain.forward(&plane).unwrap();
        let want = whole.narrow(2, 3, 4).unwrap().narrow(3, 5, 6).unwrap().contiguous().unwrap();
        for (state, block) in [("plain", &plain), ("prepared", &prepared)] {
            let part = block.forward_region(&Region::new(&plane, 3, 5, 4, 6).unwrap()).unwrap();
            let difference = relative_difference(&part, &want);
            assert!(difference < 1e-5, "{name}, {state}: {difference:.1e}");
        }
    }
}

#[test]
fn padding_moves_what_a_stride_sees() {
    let xs = input([1, 8, 10, 8]);
    let spec = ConvSpec::depthwise(8, 5, 2, EPS, Activation::None);
    for (padding, before, size) in [
        (Padding::Same(SamePadding::Torch), 2, [5, 4]),
        (Padding::Same(SamePadding::Tf), 1, [5, 4]),
        (Padding::Fixed { before: 2, after: 2 }, 2, [5, 4]),
        (Padding::Fixed { before: 0, after: 1 }, 0, [4, 3]),
    ] {
        let vb = weights();
        let plain = ConvNormAct::new(spec.padded(padding), vb.pp("conv"), vb.pp("norm")).unwrap();
        let mut prepared = plain.clone();
        prepared.prepare().unwrap();
        // The same filter without a border of its own, on an input with room for any.
        let bordered = xs.pad_with_zeros(2, before, 5).unwrap().pad_with_zeros(3, before, 5).unwrap();
        let unpadded = spec.padded(Padding::Fixed { before: 0, after: 0 });
        let unpadded = ConvNormAct::new(unpadded, vb.pp("conv"), vb.pp("norm")).unwrap();
        let want = unpadded.forward(&bordered).unwrap();
        let want = want.narrow(2, 0, size[0]).unwrap().narrow(3, 0, size[1]).unwrap();
        for (state, block) in [("plain", &plain), ("prepared", &prepared)] {
            let difference = relative_difference(&block.forward(&xs).unwrap(), &want.contiguous().unwrap());
            assert!(difference < 1e-5, "{padding:?}, {state}: {difference:.1e}");
        }
        let output = plain.cost(FrameSize::new(10, 8), &mut Tally::new());
        assert_eq!([output.height, output.width], size, "{padding:?}");
    }
}

#[test]
fn squeeze_excite_equals_candle_nn() {
    let vb = weights();
    let (reduce, expand) = (vb.pp("reduce"), vb.pp("expand"));
    let mut block = SqueezeExcite::new(8, 3, Activation::Silu, reduce.clone(), expand.clone()).unwrap();
    let reduce = conv2d(8, 3, 1, Conv2dConfig::default(), reduce).unwrap();
    let expand = conv2d(3, 8, 1, Conv2dConfig::default(), expand).unwrap();
    let xs = input([2, 8, 5, 3]);
    let means = xs.mean_keepdim((2, 3)).unwrap();
    let gates = expand.forward(&reduce.forward(&means).unwrap().silu().unwrap()).unwrap();
    let want = xs.broadcast_mul(&candle_nn::ops::sigmoid(&gates).unwrap()).unwrap();
    // The same values with the channels last in memory.
    let last = xs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().permute((0, 3, 1, 2)).unwrap();
    for state in ["plain", "prepared"] {
        for (layout, xs) in [("channels first", &xs), ("channels last", &last)] {
            let difference = relative_difference(&block.forward(xs).unwrap(), &want);
            assert!(difference < 1e-6, "{state}, {layout}: {difference:.1e}");
        }
        block.prepare().unwrap();
    }
    let mut tally = Tally::new();
    block.cost(&mut tally);
    assert_eq!((tally.total().params, tally.total().macs), (24 + 3 + 24 + 8, 48));
}

#[test]
fn a_linear_layer_stays_the_same_when_packed() {
    let mut linear = Linear::new(20, 7, weights()).unwrap();
    let xs = input([3, 20, 1, 1]).flatten_from(1).unwrap();
    let want = linear.forward(&xs).unwrap();
    linear.prepare().unwrap();
    let difference = relative_difference(&linear.forward(&xs).unwrap(), &want);
    assert!(difference < 1e-6, "{difference:.1e}");
}

#[test]
fn gradients_reach_the_weights_until_they_are_prepared() {
    let map = candle_nn::VarMap::new();
    let vb = VarBuilder::from_varmap(&map, DType::F32, &Device::Cpu);
    let conv = |spec, name: &str| ConvNormAct::new(spec, vb.pp(name), vb.pp(name).pp("norm")).unwrap();
    let mut block = InvertedResidual {
        name: "block".to_owned(),
        expand: Some(conv(ConvSpec::pointwise(4, 8, EPS, Activation::Silu), "expand")),
        depthwise: conv(ConvSpec::depthwise3(8, 1, EPS, Activation::Silu), "depthwise"),
        squeeze_excite: Some(
            SqueezeExcite::new(8, 2, Activation::Silu, vb.pp("reduce"), vb.pp("widen")).unwrap(),
        ),
        project: conv(ConvSpec::pointwise(8, 4, EPS, Activation::None), "project"),
        drop_rate: 0.0,
    };
    assert!(block.is_residual());
    let xs = input([1, 4, 5, 5]);
    let loss = |block: &InvertedResidual| {
        let ys = block.forward(&xs, &mut ZeroBorder, None).unwrap();
        ys.sqr().unwrap().sum_all().unwrap()
    };
    let gradients = loss(&block).backward().unwrap();
    for (name, var) in map.data().lock().unwrap().iter().filter(|(name, _)| !name.contains("running")) {
        let gradient = gradients.get(var).unwrap_or_else(|| panic!("{name} has no gradient"));
        let largest = gradient.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        assert!(largest > 0.0 && largest.is_finite(), "{name}: {largest}");
    }
    let before = loss(&block).to_scalar::<f32>().unwrap();
    block.prepare().unwrap();
    let after = loss(&block).to_scalar::<f32>().unwrap();
    assert!((before - after).abs() < 1e-4 * before.abs(), "{before} {after}");
}

#[test]
fn faults_are_named() {
    let vb = weights();
    let build = |spec: ConvSpec| ConvNormAct::new(spec, vb.pp("stem"), vb.pp("norm"));
    let wide = ConvSpec::pointwise(8, 4, EPS, Activation::None);
    let deep = ConvSpec::depthwise3(8, 1, EPS, Activation::None);
    let unpadded = ConvSpec::dense3(8, 4, 1, EPS, Activation::None)
        .dilated(2)
        .padded(Padding::Fixed { before: 0, after: 0 });
    let region = |shape| Region::whole(&input(shape)).unwrap();
    for (name, message, expected) in [
        (
            "channels",
            build(wide).unwrap().forward(&input([1, 5, 2, 2])).unwrap_err(),
            "stem: expected 8 channels, got 5",
        ),
        (
            "rank",
            build(wide).unwrap().forward(&input([1, 5, 2, 2]).flatten_all().unwrap()).unwrap_err(),
            "unexpected rank, expected: 4",
        ),
        (
            "size",
            build(unpadded).unwrap().forward(&input([1, 8, 4, 9])).unwrap_err(),
            "stem: a 3×3 filter of dilation 2 does not fit an input of 4×9",
        ),
        (
            "empty",
            build(wide)
                .unwrap()
                .forward(&Tensor::zeros((1, 8, 0, 3), DType::F32, &Device::Cpu).unwrap())
                .unwrap_err(),
            "does not fit an input of 0×3",
        ),
        (
            "residual",
            build(wide).unwrap().forward_region_add(&region([1, 8, 2, 2]), &input([1, 3, 2, 2])).unwrap_err(),
            "stem: expected a residual of [1, 4, 2, 2], got [1, 3, 2, 2]",
        ),
        (
            "residual of a depthwise layer",
            build(deep).unwrap().forward_region_add(&region([1, 8, 2, 2]), &input([1, 8, 2, 2])).unwrap_err(),
            "stem: a convolution with one filter a channel takes no residual",
        ),
        (
            "groups",
            build(wide.grouped(3)).unwrap_err(),
            "stem: 3 groups do not divide 8 channels in and 4 out",
        ),
        (
            "stride",
            build(ConvSpec { stride: 0, ..wide }).unwrap_err(),
            "stem: kernel, stride, dilation and groups must be at least 1",
        ),
        (
            "pointwise",
            Pointwise::new(8, 4, vb.pp("head")).unwrap().forward(&input([1, 5, 2, 2])).unwrap_err(),
            "head: expected 8 channels, got 5",
        ),
    ] {
        let message = message.to_string();
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn a_large_inverted_residual_in_one_pass_equals_its_layers() {
    for (inputs, outputs, stride) in [(16, 24, 2), (16, 16, 1)] {
        let vb = weights();
        let conv = |spec, name: &str| ConvNormAct::new(spec, vb.pp(name), vb.pp(name).pp("norm")).unwrap();
        let mut block = InvertedResidual {
            name: "block".to_owned(),
            expand: Some(conv(ConvSpec::pointwise(inputs, 96, EPS, Activation::Relu6), "expand")),
            depthwise: conv(ConvSpec::depthwise3(96, stride, EPS, Activation::Relu6), "depthwise"),
            squeeze_excite: None,
            project: conv(ConvSpec::pointwise(96, outputs, EPS, Activation::None), "project"),
            drop_rate: 0.0,
        };
        let xs = input([1, inputs, 61, 60]);
        let plain = block.forward(&xs, &mut ZeroBorder, None).unwrap();
        block.prepare().unwrap();
        let mut seen = None;
        let mut see = |expanded: &Tensor| {
            seen = Some(expanded.dims().to_vec());
            Ok(())
        };
        let one_pass = block.forward(&xs, &mut ZeroBorder, None).unwrap();
        let shown = block.forward(&xs, &mut ZeroBorder, Some(&mut see)).unwrap();
        assert_eq!(seen, Some(vec![1, 96, 61, 60]));
        for (name, ys) in [("one pass", one_pass), ("shown", shown)] {
            assert_eq!(ys.dims(), plain.dims());
            let difference =
                (ys - &plain).unwrap().abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            let largest = plain.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
            assert!(
                difference < 1e-5 * largest.max(1.0),
                "{name} at stride {stride}: {difference} of {largest}"
            );
        }
    }
}

/// Of a dropped sample only the input is left; the others' branch counts for more; preparing ends it.
#[test]
fn a_residual_block_in_training_drops_samples_of_its_branch() {
    let vb = weights();
    let conv = |spec, name: &str| ConvNormAct::new(spec, vb.pp(name), vb.pp(name).pp("norm")).unwrap();
    let mut block = InvertedResidual {
        name: "block".to_owned(),
        expand: None,
        depthwise: conv(ConvSpec::depthwise3(8, 1, EPS, Activation::Silu), "depthwise"),
        squeeze_excite: None,
        project: conv(ConvSpec::pointwise(8, 8, EPS, Activation::None), "project"),
        drop_rate: 0.0,
    };
    let xs = input([40, 8, 3, 3]);
    let forward = |block: &InvertedResidual| block.forward(&xs, &mut ZeroBorder, None).unwrap();
    let branch = (forward(&block) - &xs).unwrap();
    block.drop_rate = 0.5;
    let dropping = (forward(&block) - &xs).unwrap();
    let mut kept = 0;
    for i in 0..40 {
        let (whole, got) = (branch.narrow(0, i, 1).unwrap(), dropping.narrow(0, i, 1).unwrap());
        let size = got.abs().unwrap().max_all().unwrap().to_scalar::<f32>().unwrap();
        if size > 0.0 {
            let apart = relative_difference(&got, &(whole * 2.0).unwrap());
            assert!(apart < 1e-4, "sample {i}: {apart}");
            kept += 1;
        }
    }
    assert!((1..40).contains(&kept), "{kept} of 40 samples at a rate of one half");
    block.prepare().unwrap();
    let apart = relative_difference(&(forward(&block) - &xs).unwrap(), &branch);
    assert!(apart < 1e-4, "prepared: {apart}");
}
