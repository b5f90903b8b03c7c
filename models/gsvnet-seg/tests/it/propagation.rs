//! Warp, delay kernels, edges and guided filtering by their definitions.

use candle_core::{Device, Tensor, Var};
use gsvnet_seg::{DelayKernels, EdgeMode, KernelSize, Propagation, PropagationConfig, edge_map, warp_scores};
use zoo_kernels::channel_shares;

use crate::support::{difference, noise, values, weights};

const SIZES: [KernelSize; 2] = [KernelSize::Three, KernelSize::Five];

fn propagation(kernel_size: KernelSize, classes: usize) -> Propagation {
    let cfg = PropagationConfig { kernel_size, ..PropagationConfig::default() };
    Propagation::new(&cfg, classes, weights().pp("grm")).unwrap()
}

/// All weight on one candidate.
fn one_hot(candidates: usize, candidate: usize, (h, w): (usize, usize)) -> Tensor {
    let mut shares = vec![0f32; candidates * h * w];
    shares[candidate * h * w..][..h * w].fill(1.0);
    Tensor::from_vec(shares, (1, candidates, h, w), &Device::Cpu).unwrap()
}

#[test]
fn each_candidate_is_the_map_moved_by_its_delay() {
    let (h, w) = (7, 9);
    for size in SIZES {
        let net = propagation(size, 4);
        let (warped, intra) = (noise("warped", &[1, 4, h, w]), noise("intra", &[1, 4, h, w]));
        let of =
            |candidate| net.filter(&warped, &one_hot(size.count() + 2, candidate, (h, w)), &intra).unwrap();
        assert_eq!(values(&of(0)), values(&warped), "the first one stays");
        assert_eq!(values(&of(size.count() + 1)), values(&intra), "the last one is f");
        assert!(values(&of(size.count())).iter().all(|&y| y == 0.0), "the last kernel is empty");
        for (i, (down, right)) in size.delays().into_iter().enumerate() {
            let moved = values(&of(i + 1));
            let at = |y: isize, x: isize, c: usize| match (0..h as isize).contains(&y)
                && (0..w as isize).contains(&x)
            {
                true => values(&warped)[(c * h + y as usize) * w + x as usize],
                false => 0.0,
            };
            for (p, &value) in moved.iter().enumerate() {
                let (c, y, x) = (p / (h * w), p / w % h, p % w);
                assert_eq!(value, at(y as isize + down, x as isize + right, c), "{size:?}, kernel {i}");
            }
        }
    }
    // Section 7's lists, in (row, column) of the kernel.
    let delays = KernelSize::Five.delays();
    assert_eq!(delays[..8], KernelSize::Three.delays()[..]);
    let kernel: Vec<_> = delays[8..].iter().map(|(down, right)| (down + 2, right + 2)).collect();
    assert_eq!(kernel, [(0, 0), (0, 2), (0, 4), (2, 0), (2, 4), (4, 0), (4, 2), (4, 4)]);
}

#[test]
fn learned_kernels_are_convolutions_of_each_class() {
    for size in SIZES {
        let (count, side) = (size.count(), size.side());
        let ideal = Tensor::from_vec(size.ideal(), (count, 1, 1, side, side), &Device::Cpu).unwrap();
        assert!(DelayKernels::learned(size, &ideal).unwrap().are_ideal());
        let bank = (&ideal + (noise("bank", ideal.dims()) * 0.2).unwrap()).unwrap();
        let tensors = [("grm.ideal_dk.filter_copy_s".to_owned(), bank.clone())].into();
        let with_bank = candle_nn::VarBuilder::from_tensors(tensors, candle_core::DType::F32, &Device::Cpu);
        let kernels = DelayKernels::stored(size, with_bank.pp("grm.ideal_dk")).unwrap();
        assert!(!kernels.are_ideal());
        let mut net = propagation(size, 3);
        net.set_kernels(kernels).unwrap();
        let (warped, intra) = (noise("warped", &[1, 3, 6, 8]), noise("intra", &[1, 3, 6, 8]));
        let shares = channel_shares(&noise("raw", &[1, count + 2, 6, 8]).abs().unwrap(), 1e-9).unwrap();
        // By definition: the bank applied to each class's map alone, then all candidates weighted.
        let maps = warped.reshape((3, 1, 6, 8)).unwrap();
        let moved = maps.conv2d(&bank.squeeze(1).unwrap(), side / 2, 1, 1, 1).unwrap();
        let candidates = Tensor::cat(&[&maps, &moved, &intra.reshape((3, 1, 6, 8)).unwrap()], 1).unwrap();
        let want = candidates.broadcast_mul(&shares).unwrap().sum(1).unwrap().unsqueeze(0).unwrap();
        let ys = net.filter(&warped, &shares, &intra).unwrap();
        assert!(difference(&ys, &want) < 1e-6, "{size:?}");
    }
}

#[test]
fn gradients_reach_learned_kernels_and_all_operands() {
    let size = KernelSize::Three;
    let ideal = Tensor::from_vec(size.ideal(), (9, 1, 1, 3, 3), &Device::Cpu).unwrap();
    let bank = Var::from_tensor(&ideal).unwrap();
    let kernels = DelayKernels::learned(size, bank.as_tensor()).unwrap();
    assert!(!kernels.are_ideal(), "a variable may change");
    let mut net = propagation(size, 3);
    net.set_kernels(kernels).unwrap();
    let vars = ["warped", "intra"].map(|name| Var::from_tensor(&noise(name, &[1, 3, 6, 8])).unwrap());
    let raw = Var::from_tensor(&noise("raw", &[1, 11, 6, 8]).abs().unwrap()).unwrap();
    let shares = channel_shares(&raw, 1e-9).unwrap();
    let ys = net.filter(&vars[0], &shares, &vars[1]).unwrap();
    let gradients = ys.sqr().unwrap().sum_all().unwrap().backward().unwrap();
    for var in [&bank, &vars[0], &vars[1], &raw] {
        let gradient = gradients.get(var).unwrap();
        assert!(values(gradient).iter().any(|&g| g.abs() > 1e-4), "{:?}", var.dims());
    }
}

#[test]
fn shares_sum_to_one_and_nothing_gives_zero() {
    let net = propagation(KernelSize::Three, 5);
    let (low, warped) = (noise("low", &[2, 3, 12, 20]), noise("warped", &[2, 5, 12, 20]));
    let steps = net.forward(&low, &warped).unwrap();
    let sums = values(&steps.weights.sum(1).unwrap());
    let alive = sums.iter().filter(|&&sum| (sum - 1.0).abs() < 1e-5).count();
    assert!(sums.iter().all(|&sum| sum == 0.0 || (sum - 1.0).abs() < 1e-5));
    assert!(alive > sums.len() / 2, "{alive} of {}", sums.len());
    let nothing =
        channel_shares(&Tensor::zeros((1, 11, 4, 4), candle_core::DType::F32, &Device::Cpu).unwrap(), 1e-9);
    let (warped, intra) = (noise("warped", &[1, 5, 4, 4]), noise("intra", &[1, 5, 4, 4]));
    let ys = net.filter(&warped, &nothing.unwrap(), &intra).unwrap();
    assert!(values(&ys).iter().all(|&y| y == 0.0));
}

#[test]
fn flow_is_four_units_a_pixel_and_wild_flow_gives_zeros() {
    let scores = noise("scores", &[1, 2, 3, 5]);
    let flow = |x: f32, y: f32| {
        let (x, y) =
            (Tensor::full(x, (1, 1, 3, 5), &Device::Cpu), Tensor::full(y, (1, 1, 3, 5), &Device::Cpu));
        Tensor::cat(&[x.unwrap(), y.unwrap()], 1).unwrap()
    };
    assert_eq!(values(&warp_scores(&scores, &flow(0.0, 0.0)).unwrap()), values(&scores));
    // Four units to the right: each pixel comes from its right neighbour, the last column from outside.
    let moved = warp_scores(&scores, &flow(4.0, 0.0)).unwrap();
    assert_eq!(values(&moved.narrow(3, 0, 4).unwrap()), values(&scores.narrow(3, 1, 4).unwrap()));
    assert!(values(&moved.narrow(3, 4, 1).unwrap()).iter().all(|&y| y == 0.0));
    for wild in [f32::NAN, f32::INFINITY, -1e30, 1e6] {
        let ys = warp_scores(&scores, &flow(wild, 0.0)).unwrap();
        assert!(values(&ys).iter().all(|&y| y == 0.0), "{wild}");
    }
}

#[test]
fn edges_are_where_labels_change_and_at_the_border() {
    // Labels 1 on the left and 2 on the right of a map of 4×6.
    let scores = |label: &dyn Fn(usize, usize) -> usize| {
        let mut scores = vec![0f32; 3 * 4 * 6];
        for (y, x) in (0..4).flat_map(|y| (0..6).map(move |x| (y, x))) {
            scores[(label(y, x) * 4 + y) * 6 + x] = 1.0;
        }
        Tensor::from_vec(scores, (1, 3, 4, 6), &Device::Cpu).unwrap()
    };
    let edges =
        |label: &dyn Fn(usize, usize) -> usize| values(&edge_map(&scores(label), EdgeMode::Binary).unwrap());
    let halves = edges(&|_, x| 1 + x / 3);
    let inside: Vec<f32> = halves[6..12].into();
    assert_eq!(inside, [1.0, 0.0, 1.0, 1.0, 0.0, 1.0], "border, change, border");
    assert!(halves[..6].iter().all(|&e| e == 1.0), "the upper border");
    assert!(edges(&|_, _| 0).iter().all(|&e| e == 0.0), "label 0 has no border");
    // A checkerboard of 0 and 1: (4 − 8 · 1) and (4 − 0), but no zero; and where 0, 1 and 2 cancel out.
    assert!(edges(&|y, x| (y + x) % 2)[7..10].iter().all(|&e| e == 1.0));
    let sigmoid = values(&edge_map(&scores(&|_, _| 0), EdgeMode::Sigmoid).unwrap());
    assert!(sigmoid.iter().all(|&e| (e - 0.5).abs() < 1e-6));
    // All scores alike: the first class, as outside.
    let tied = Tensor::zeros((1, 3, 4, 6), candle_core::DType::F32, &Device::Cpu).unwrap();
    assert!(values(&edge_map(&tied, EdgeMode::Binary).unwrap()).iter().all(|&e| e == 0.0));
}

#[test]
fn prepared_and_plain_agree_on_odd_maps_of_any_class_count() {
    for (classes, (h, w)) in [(11, (90, 120)), (19, (11, 13)), (2, (4, 5))] {
        for size in SIZES {
            let plain = propagation(size, classes);
            let mut prepared = plain.clone();
            prepared.prepare().unwrap();
            let (low, warped) = (noise("low", &[1, 3, h, w]), noise("warped", &[1, classes, h, w]));
            let [want, ys] = [&plain, &prepared].map(|net| net.forward(&low, &warped).unwrap().scores);
            assert_eq!(ys.dims(), [1, classes, h, w]);
            assert!(difference(&ys, &want) < 1e-4, "{classes} classes, {h}×{w}: {}", difference(&ys, &want));
        }
    }
}
