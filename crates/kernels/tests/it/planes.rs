//! The operations on planes, which training uses.

use candle_core::{DType, Device, Result, Tensor, Var};
use zoo_kernels::{
    Activation, Pads, Region, bias_act, channels_last, depthwise_conv2d, depthwise_conv2d_candle, plane_for,
    write_window,
};

use crate::support::{largest_difference, noise};

/// Four nested loops over one plane, straight from the definition.
fn naive_depthwise(
    region: &Region,
    weight: &Tensor,
    bias: Option<&Tensor>,
    stride: usize,
    pads: Pads,
    act: Activation,
) -> Tensor {
    let (batch, channels, plane_h, plane_w) = region.plane.dims4().unwrap();
    let k = weight.dim(2).unwrap();
    let xs: Vec<f64> = region.plane.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let w: Vec<f64> = weight.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let bias: Vec<f64> =
        bias.map_or(vec![0.0; channels], |b| b.to_dtype(DType::F64).unwrap().to_vec1().unwrap());
    let out_h = (region.height + pads.top + pads.bottom - k) / stride + 1;
    let out_w = (region.width + pads.left + pads.right - k) / stride + 1;
    let mut ys = Vec::new();
    for p in 0..batch * channels {
        for y in 0..out_h {
            for x in 0..out_w {
                let mut sum = bias[p % channels];
                for i in 0..k {
                    for j in 0..k {
                        let row = (region.top + y * stride + i) as isize - pads.top as isize;
                        let column = (region.left + x * stride + j) as isize - pads.left as isize;
                        if (0..plane_h as isize).contains(&row) && (0..plane_w as isize).contains(&column) {
                            let at = (p * plane_h + row as usize) * plane_w + column as usize;
                            sum += xs[at] * w[(p % channels * k + i) * k + j];
                        }
                    }
                }
                ys.push(sum);
            }
        }
    }
    act.apply(&Tensor::from_vec(ys, (batch, channels, out_h, out_w), &Device::Cpu).unwrap()).unwrap()
}

struct Case {
    plane: [usize; 4],
    /// top, left, height, width
    region: [usize; 4],
    kernel: usize,
    stride: usize,
    pads: Pads,
}

fn cases() -> Vec<Case> {
    let tf_stride2 = Pads { top: 0, bottom: 1, left: 0, right: 1 };
    let torch_stride2 = Pads { top: 1, bottom: 0, left: 1, right: 0 };
    let whole = |plane: [usize; 4], kernel, stride, pads| Case {
        plane,
        region: [0, 0, plane[2], plane[3]],
        kernel,
        stride,
        pads,
    };
    vec![
        whole([1, 1, 1, 1], 3, 1, Pads::all(1)),
        whole([1, 3, 7, 5], 3, 1, Pads::all(1)),
        whole([2, 5, 33, 17], 3, 2, Pads::all(1)),
        whole([1, 2, 8, 6], 3, 2, tf_stride2),
        whole([1, 2, 8, 6], 3, 2, torch_stride2),
        whole([2, 3, 9, 11], 5, 1, Pads::all(2)),
        whole([1, 3, 12, 10], 5, 2, Pads { top: 1, bottom: 2, left: 1, right: 2 }),
        whole([1, 2, 13, 9], 7, 3, Pads::all(3)),
        whole([1, 2, 5, 5], 3, 1, Pads::default()),
        whole([1, 2, 6, 6], 1, 2, Pads::default()),
        whole([1, 1, 3, 70], 3, 1, Pads::all(1)),
        // Windows: in the middle (border from the plane), at a corner (zeros on two sides), at an edge.
        Case { plane: [1, 3, 16, 16], region: [4, 8, 4, 4], kernel: 3, stride: 1, pads: Pads::all(1) },
        Case { plane: [2, 3, 16, 12], region: [0, 0, 8, 6], kernel: 3, stride: 2, pads: torch_stride2 },
        Case { plane: [2, 3, 16, 12], region: [8, 6, 8, 6], kernel: 3, stride: 2, pads: tf_stride2 },
        Case { plane: [1, 2, 16, 16], region: [8, 12, 8, 4], kernel: 5, stride: 1, pads: Pads::all(2) },
        Case { plane: [1, 2, 9, 9], region: [3, 3, 1, 1], kernel: 7, stride: 1, pads: Pads::all(3) },
    ]
}

impl Case {
    fn region_of(&self, plane: &Tensor) -> Region {
        let [top, left, height, width] = self.region;
        Region::new(plane, top, left, height, width).unwrap()
    }

    fn name(&self) -> String {
        format!(
            "plane {:?} region {:?} kernel {} stride {} {:?}",
            self.plane, self.region, self.kernel, self.stride, self.pads
        )
    }
}

#[test]
fn depthwise_equals_the_definition() {
    for (seed, case) in cases().iter().enumerate() {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-13)] {
            let region = case.region_of(&noise(seed as u64 + 1, &case.plane, dtype));
            let weight = noise(99, &[case.plane[1], 1, case.kernel, case.kernel], dtype);
            let bias = noise(98, &[case.plane[1]], dtype);
            for (bias, act) in
                [(None, Activation::None), (Some(&bias), Activation::Relu6), (Some(&bias), Activation::Relu)]
            {
                let want = naive_depthwise(&region, &weight, bias, case.stride, case.pads, act);
                let got = depthwise_conv2d(&region, &weight, bias, case.stride, case.pads, act).unwrap();
                let d = largest_difference(&got, &want);
                assert!(d < tolerance, "{} {dtype:?} {act:?}: off by {d}", case.name());
                let candle =
                    depthwise_conv2d_candle(&region, &weight, bias, case.stride, case.pads, act).unwrap();
                let d = largest_difference(&candle, &want);
                assert!(d < tolerance, "{} {dtype:?} {act:?} (candle ops): off by {d}", case.name());
            }
        }
    }
}

#[test]
fn depthwise_equals_candles_grouped_convolution() {
    let xs = noise(1, &[2, 6, 15, 13], DType::F32);
    let weight = noise(2, &[6, 1, 3, 3], DType::F32);
    for stride in [1, 2] {
        let want = xs.conv2d(&weight, 1, stride, 1, 6).unwrap();
        let region = Region::whole(&xs).unwrap();
        let got = depthwise_conv2d(&region, &weight, None, stride, Pads::all(1), Activation::None).unwrap();
        assert!(largest_difference(&got, &want) < 1e-5, "stride {stride}");
    }
}

#[test]
fn depthwise_takes_views_and_half_precision() {
    let xs = noise(3, &[1, 7, 9, 4], DType::F32).transpose(1, 3).unwrap();
    let weight = noise(4, &[4, 1, 3, 3], DType::F32);
    let region = Region::whole(&xs).unwrap();
    let want = naive_depthwise(&region, &weight, None, 1, Pads::all(1), Activation::None);
    let got = depthwise_conv2d(&region, &weight, None, 1, Pads::all(1), Activation::None).unwrap();
    assert!(largest_difference(&got, &want) < 1e-5);
    for (dtype, tolerance) in [(DType::F16, 1e-2), (DType::BF16, 1e-1)] {
        let region = Region::whole(&xs.to_dtype(dtype).unwrap()).unwrap();
        let weight = weight.to_dtype(dtype).unwrap();
        let got = depthwise_conv2d(&region, &weight, None, 1, Pads::all(1), Activation::None).unwrap();
        assert_eq!(got.dtype(), dtype);
        assert!(largest_difference(&got, &want) < tolerance, "{dtype:?}");
    }
}

#[test]
fn a_nan_in_the_input_stays_visible() {
    let xs = Tensor::full(f32::NAN, (1, 1, 3, 3), &Device::Cpu).unwrap();
    let weight = Tensor::ones((1, 1, 3, 3), DType::F32, &Device::Cpu).unwrap();
    let bias = Tensor::zeros(1, DType::F32, &Device::Cpu).unwrap();
    let region = Region::whole(&xs).unwrap();
    let ys = depthwise_conv2d(&region, &weight, Some(&bias), 1, Pads::all(1), Activation::Relu6).unwrap();
    assert!(ys.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|y| y.is_nan()));
}

#[test]
fn depthwise_gradients_equal_finite_differences() {
    for (seed, case) in cases().iter().enumerate() {
        let plane = Var::from_tensor(&noise(seed as u64 + 7, &case.plane, DType::F64)).unwrap();
        let weight =
            Var::from_tensor(&noise(5, &[case.plane[1], 1, case.kernel, case.kernel], DType::F64)).unwrap();
        // A fixed random weighting of the outputs, so that no gradient cancels.
        let loss = |plane: &Tensor, weight: &Tensor| -> Result<Tensor> {
            let region = case.region_of(plane);
            let ys = depthwise_conv2d(&region, weight, None, case.stride, case.pads, Activation::None)?;
            (&ys * noise(6, ys.dims(), DType::F64))?.sum_all()
        };
        let grads = loss(&plane, &weight).unwrap().backward().unwrap();
        for (name, var) in [("plane", &plane), ("weight", &weight)] {
            let grad = grads.get(var).unwrap().flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let values = var.flatten_all().unwrap().to_vec1::<f64>().unwrap();
            let step = 1e-4;
            for at in (0..values.len()).step_by(values.len().div_ceil(40)) {
                let shifted = |by: f64| -> f64 {
                    let mut values = values.clone();
                    values[at] += by;
                    let moved = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
                    let (plane, weight) = if name == "plane" {
                        (&moved, weight.as_tensor())
                    } else {
                        (plane.as_tensor(), &moved)
                    };
                    loss(plane, weight).unwrap().to_scalar().unwrap()
                };
                let want = (shifted(step) - shifted(-step)) / (2.0 * step);
                assert!((grad[at] - want).abs() < 1e-8, "{} {name}[{at}]: {} {want}", case.name(), grad[at]);
            }
        }
    }
}

#[test]
fn bias_and_activation_have_gradients_too() {
    let xs = noise(11, &[1, 2, 5, 5], DType::F64);
    let weight = noise(12, &[2, 1, 3, 3], DType::F64);
    let bias = Var::from_tensor(&noise(13, &[2], DType::F64)).unwrap();
    let region = Region::whole(&xs).unwrap();
    let ys = depthwise_conv2d(&region, &weight, Some(&bias), 1, Pads::all(1), Activation::Relu).unwrap();
    let grad = ys.sum_all().unwrap().backward().unwrap().get(&bias).unwrap().to_vec1::<f64>().unwrap();
    let positive: Vec<f64> =
        ys.gt(0.0).unwrap().to_dtype(DType::F64).unwrap().sum((0, 2, 3)).unwrap().to_vec1().unwrap();
    assert_eq!(grad, positive);
}

#[test]
fn depthwise_refuses_what_does_not_fit() {
    let xs = noise(1, &[1, 4, 5, 5], DType::F32);
    let region = Region::whole(&xs).unwrap();
    let weight = |shape: &[usize]| noise(2, shape, DType::F32);
    for (name, shape, stride, bias, message) in [
        ("wrong channels", vec![3, 1, 3, 3], 1, None, "expected a weight of [4, 1, k, k], got [3, 1, 3, 3]"),
        ("dense weight", vec![4, 4, 3, 3], 1, None, "expected a weight of [4, 1, k, k]"),
        ("oblong filter", vec![4, 1, 3, 1], 1, None, "expected a weight of [4, 1, k, k]"),
        ("stride 0", vec![4, 1, 3, 3], 0, None, "stride must be at least 1"),
        ("filter too large", vec![4, 1, 7, 7], 1, None, "a 7×7 filter does not fit a padded input of 5×5"),
        ("wrong bias", vec![4, 1, 3, 3], 1, Some(3), "expected a bias of [4], got [3]"),
    ] {
        let bias = bias.map(|n| weight(&[n]));
        let error = depthwise_conv2d(
            &region,
            &weight(&shape),
            bias.as_ref(),
            stride,
            Pads::default(),
            Activation::None,
        )
        .unwrap_err()
        .to_string();
        assert!(error.contains(message), "{name}: {error}");
    }
}

#[test]
fn a_border_is_read_from_the_plane_and_is_zero_outside() {
    for case in cases() {
        let region = case.region_of(&noise(21, &case.plane, DType::F32));
        let got = region.bordered(case.pads).unwrap();
        let Pads { top, bottom, left, right } = case.pads;
        let want = region
            .plane
            .pad_with_zeros(2, top, bottom)
            .and_then(|xs| xs.pad_with_zeros(3, left, right))
            .and_then(|xs| xs.narrow(2, region.top, region.height + top + bottom))
            .and_then(|xs| xs.narrow(3, region.left, region.width + left + right))
            .unwrap();
        assert_eq!(largest_difference(&got, &want), 0.0, "{}", case.name());
    }
    let xs = noise(1, &[1, 1, 4, 4], DType::F32);
    for (top, left, height, width) in [(0, 0, 5, 4), (2, 0, 3, 1), (0, 0, 0, 1), (usize::MAX, 0, 2, 1)] {
        let error = Region::new(&xs, top, left, height, width).unwrap_err().to_string();
        assert!(error.contains("does not lie in a plane of 4×4"), "{error}");
    }
}

#[test]
fn a_window_is_written_in_place_outside_a_graph_and_copied_inside() {
    let plane = noise(31, &[2, 3, 6, 8], DType::F32);
    let xs = noise(32, &[2, 3, 2, 4], DType::F32);
    let want = plane.slice_assign(&[0..2, 0..3, 3..5, 4..8], &xs).unwrap();

    let var = Var::from_tensor(&xs).unwrap();
    let graph = write_window(&plane, &var, 3, 4).unwrap();
    assert_eq!(largest_difference(&graph, &want), 0.0);
    assert!(largest_difference(&plane, &want) > 0.0, "the graph path must leave the plane alone");
    let grads = graph.sum_all().unwrap().backward().unwrap();
    assert_eq!(largest_difference(grads.get(&var).unwrap(), &xs.ones_like().unwrap()), 0.0);

    let view = plane.clone();
    let written = write_window(&plane, &xs, 3, 4).unwrap();
    assert_eq!(largest_difference(&written, &want), 0.0);
    assert_eq!(largest_difference(&view, &want), 0.0, "in place: all who share the storage see it");

    for (xs, top, left) in [
        (noise(1, &[2, 3, 2, 4], DType::F32), 5, 0),
        (noise(1, &[2, 3, 2, 4], DType::F32), 0, usize::MAX),
        (noise(1, &[1, 3, 2, 4], DType::F32), 0, 0),
        (noise(1, &[2, 3, 2, 4], DType::F64), 0, 0),
    ] {
        let error = write_window(&plane, &xs, top, left).unwrap_err().to_string();
        assert!(error.contains("does not fit a plane"), "{error}");
    }
}

#[test]
fn bias_act_equals_candles_operations() {
    let ys = (noise(41, &[2, 3, 5, 7], DType::F32) * 9.0).unwrap();
    let bias = noise(42, &[3], DType::F32);
    for act in [Activation::None, Activation::Relu, Activation::Relu6] {
        let sum = ys.broadcast_add(&bias.reshape((1, 3, 1, 1)).unwrap()).unwrap();
        let want = act.apply(&sum).unwrap();
        let got = bias_act(ys.copy().unwrap(), &bias, act).unwrap();
        assert_eq!(largest_difference(&got, &want), 0.0, "{act:?}");
    }
    assert!(bias_act(ys, &noise(1, &[4], DType::F32), Activation::None).is_err());
}

#[test]
fn channels_last_equals_candles_transpose_and_passes_its_gradient_back() {
    for shape in [[1, 1, 1, 1], [2, 3, 1, 5], [1, 33, 7, 10], [3, 64, 31, 1], [1, 7, 0, 2]] {
        for dtype in [DType::F32, DType::F64, DType::F16] {
            let xs = noise(51, &shape, dtype);
            let got = channels_last(&xs).unwrap();
            let want = xs.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
            assert_eq!(got.dims(), want.dims(), "{shape:?}");
            let values = |t: &Tensor| -> Vec<f64> {
                t.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap()
            };
            assert_eq!(values(&got), values(&want), "{shape:?} {dtype:?}");
        }
    }
    let xs = Var::from_tensor(&noise(52, &[2, 3, 5, 1], DType::F64)).unwrap();
    let scale = noise(53, &[2, 5, 1, 3], DType::F64);
    let loss = (channels_last(&xs).unwrap() * &scale).unwrap().sum_all().unwrap();
    let grad = loss.backward().unwrap().get(&xs).unwrap().clone();
    assert_eq!(largest_difference(&grad, &scale.permute((0, 3, 1, 2)).unwrap()), 0.0);
}

#[test]
fn a_window_is_written_in_place_whatever_the_order_of_memory() {
    let xs = noise(61, &[2, 5, 3, 4], DType::F32);
    let last =
        |t: &Tensor| t.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().permute((0, 3, 1, 2)).unwrap();
    let expected = Tensor::zeros((2, 5, 7, 9), DType::F32, &Device::Cpu).unwrap();
    let expected = expected.slice_assign(&[0..2, 0..5, 2..5, 4..8], &xs).unwrap();
    for xs in [xs.clone(), last(&xs)] {
        let plane = plane_for(&xs, 7, 9).unwrap();
        assert_eq!(plane.is_contiguous(), xs.is_contiguous());
        for window in [&xs, &last(&xs)] {
            let written = write_window(&plane, window, 2, 4).unwrap();
            assert_eq!(largest_difference(&written, &expected), 0.0);
            assert_eq!(largest_difference(&plane, &expected), 0.0);
        }
    }
}
