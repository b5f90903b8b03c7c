//! The operations on planes, which training uses.

use candle_core::{DType, Device, Tensor, Var};
use zoo_kernels::{
    Pads, Region, channels_last, depthwise_conv2d, depthwise_conv2d_candle, plane_for, write_window,
};

use crate::packed::on_each_isa;
use crate::support::{largest_difference, noise};

/// Four nested loops over one plane, straight from the definition.
fn naive_depthwise(region: &Region, weight: &Tensor, stride: usize, pads: Pads) -> Tensor {
    let (batch, channels, plane_h, plane_w) = region.plane.dims4().unwrap();
    let k = weight.dim(2).unwrap();
    let xs: Vec<f64> = region.plane.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let w: Vec<f64> = weight.to_dtype(DType::F64).unwrap().flatten_all().unwrap().to_vec1().unwrap();
    let out_h = (region.height + pads.top + pads.bottom - k) / stride + 1;
    let out_w = (region.width + pads.left + pads.right - k) / stride + 1;
    let mut ys = Vec::new();
    for p in 0..batch * channels {
        for y in 0..out_h {
            for x in 0..out_w {
                let mut sum = 0.0;
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
    Tensor::from_vec(ys, (batch, channels, out_h, out_w), &Device::Cpu).unwrap()
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
fn depthwise_equals_the_definition_on_each_instruction_set() {
    for (seed, case) in cases().iter().enumerate() {
        for (dtype, tolerance) in [(DType::F32, 1e-5), (DType::F64, 1e-13)] {
            let region = case.region_of(&noise(seed as u64 + 1, &case.plane, dtype));
            let weight = noise(99, &[case.plane[1], 1, case.kernel, case.kernel], dtype);
            let want = naive_depthwise(&region, &weight, case.stride, case.pads);
            on_each_isa(|isa| {
                let got = depthwise_conv2d(&region, &weight, case.stride, case.pads).unwrap();
                let d = largest_difference(&got, &want);
                assert!(d < tolerance, "{} {dtype:?} on {isa}: off by {d}", case.name());
            });
            let candle = depthwise_conv2d_candle(&region, &weight, case.stride, case.pads).unwrap();
            let d = largest_difference(&candle, &want);
            assert!(d < tolerance, "{} {dtype:?} (candle ops): off by {d}", case.name());
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
        let got = depthwise_conv2d(&region, &weight, stride, Pads::all(1)).unwrap();
        assert!(largest_difference(&got, &want) < 1e-5, "stride {stride}");
    }
}

#[test]
fn depthwise_takes_views_and_half_precision() {
    let xs = noise(3, &[1, 7, 9, 4], DType::F32).transpose(1, 3).unwrap();
    let weight = noise(4, &[4, 1, 3, 3], DType::F32);
    let region = Region::whole(&xs).unwrap();
    let want = naive_depthwise(&region, &weight, 1, Pads::all(1));
    let got = depthwise_conv2d(&region, &weight, 1, Pads::all(1)).unwrap();
    assert!(largest_difference(&got, &want) < 1e-5);
    for (dtype, tolerance) in [(DType::F16, 1e-2), (DType::BF16, 1e-1)] {
        let region = Region::whole(&xs.to_dtype(dtype).unwrap()).unwrap();
        let weight = weight.to_dtype(dtype).unwrap();
        let got = depthwise_conv2d(&region, &weight, 1, Pads::all(1)).unwrap();
        assert_eq!(got.dtype(), dtype);
        assert!(largest_difference(&got, &want) < tolerance, "{dtype:?}");
    }
}

#[test]
fn a_nan_in_the_input_stays_visible() {
    let xs = Tensor::full(f32::NAN, (1, 1, 3, 3), &Device::Cpu).unwrap();
    let weight = Tensor::ones((1, 1, 3, 3), DType::F32, &Device::Cpu).unwrap();
    let ys = depthwise_conv2d(&Region::whole(&xs).unwrap(), &weight, 1, Pads::all(1)).unwrap();
    assert!(ys.flatten_all().unwrap().to_vec1::<f32>().unwrap().iter().all(|y| y.is_nan()));
}

/// The convolution is linear in each operand, so a difference quotient of its definition in f64 is its
/// derivative, whatever the step.
#[test]
fn depthwise_has_both_gradients_on_each_instruction_set() {
    for (seed, case) in cases().iter().enumerate() {
        let plane = noise(seed as u64 + 7, &case.plane, DType::F32);
        let weight = noise(5, &[case.plane[1], 1, case.kernel, case.kernel], DType::F32);
        let define = |plane: &Tensor, weight: &Tensor| {
            naive_depthwise(&case.region_of(plane), weight, case.stride, case.pads)
        };
        // A fixed random weighting of the outputs, so that no gradient cancels.
        let direction = noise(6, define(&plane, &weight).dims(), DType::F64);
        let loss = |plane: &Tensor, weight: &Tensor| {
            (define(plane, weight) * &direction).unwrap().sum_all().unwrap().to_scalar::<f64>().unwrap()
        };
        let gradients = |dtype: DType| {
            let vars = [&plane, &weight].map(|t| Var::from_tensor(&t.to_dtype(dtype).unwrap()).unwrap());
            let ys = depthwise_conv2d(&case.region_of(&vars[0]), &vars[1], case.stride, case.pads).unwrap();
            let loss = (ys * direction.to_dtype(dtype).unwrap()).unwrap().sum_all().unwrap();
            let grads = loss.backward().unwrap();
            vars.map(|var| grads.get(&var).unwrap().to_dtype(DType::F64).unwrap())
        };
        let candles = gradients(DType::F64);
        on_each_isa(|isa| {
            for ((name, var), grad) in
                [("plane", &plane), ("weight", &weight)].into_iter().zip(gradients(DType::F32))
            {
                let grad = grad.flatten_all().unwrap().to_vec1::<f64>().unwrap();
                let largest = grad.iter().fold(1f64, |largest, g| largest.max(g.abs()));
                let values = var.flatten_all().unwrap().to_vec1::<f32>().unwrap();
                for at in (0..values.len()).step_by(values.len().div_ceil(25)) {
                    let moved = |by: f32| {
                        let mut values = values.clone();
                        values[at] += by;
                        let moved = Tensor::from_vec(values, var.dims(), &Device::Cpu).unwrap();
                        if name == "plane" { loss(&moved, &weight) } else { loss(&plane, &moved) }
                    };
                    let want = (moved(1.0) - moved(-1.0)) / 2.0;
                    let difference = (grad[at] - want).abs();
                    assert!(
                        difference < 3e-6 * largest,
                        "{} {name}[{at}] on {isa}: {} instead of {want}",
                        case.name(),
                        grad[at]
                    );
                }
            }
            for (got, want) in gradients(DType::F32).iter().zip(&candles) {
                let largest = want.abs().unwrap().max_all().unwrap().to_scalar::<f64>().unwrap();
                assert!(largest_difference(got, want) < 3e-6 * largest.max(1.0), "{} on {isa}", case.name());
            }
        });
    }
}

#[test]
fn depthwise_refuses_what_does_not_fit() {
    let xs = noise(1, &[1, 4, 5, 5], DType::F32);
    let region = Region::whole(&xs).unwrap();
    let weight = |shape: &[usize]| noise(2, shape, DType::F32);
    for (name, shape, stride, message) in [
        ("wrong channels", vec![3, 1, 3, 3], 1, "expected a weight of [4, 1, k, k], got [3, 1, 3, 3]"),
        ("dense weight", vec![4, 4, 3, 3], 1, "expected a weight of [4, 1, k, k]"),
        ("oblong filter", vec![4, 1, 3, 1], 1, "expected a weight of [4, 1, k, k]"),
        ("stride 0", vec![4, 1, 3, 3], 0, "stride must be at least 1"),
        (
            "filter too large",
            vec![4, 1, 7, 7],
            1,
            "a 7×7 filter of dilation 1 does not fit a padded input of 5×5",
        ),
    ] {
        let error =
            depthwise_conv2d(&region, &weight(&shape), stride, Pads::default()).unwrap_err().to_string();
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
    let last =
        |t: &Tensor| t.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap().permute((0, 3, 1, 2)).unwrap();
    // The second is large enough to be shared out over threads.
    for (b, c, h, w) in [(2, 5, 3, 4), (2, 37, 50, 60)] {
        let xs = noise(61, &[b, c, h, w], DType::F32);
        let expected = Tensor::zeros((b, c, h + 4, w + 5), DType::F32, &Device::Cpu).unwrap();
        let expected = expected.slice_assign(&[0..b, 0..c, 2..h + 2, 4..w + 4], &xs).unwrap();
        for xs in [xs.clone(), last(&xs)] {
            let plane = plane_for(&xs, h + 4, w + 5).unwrap();
            assert_eq!(plane.is_contiguous(), xs.is_contiguous());
            for window in [&xs, &last(&xs)] {
                let written = write_window(&plane, window, 2, 4).unwrap();
                assert_eq!(largest_difference(&written, &expected), 0.0);
                assert_eq!(largest_difference(&plane, &expected), 0.0);
            }
        }
    }
}
