use candle_core::{DType, Device, Tensor, Var};
use candle_nn::VarBuilder;
use gsvnet_seg::training::{
    DECAY, LEARNED_STEPS, PAPER_RATE, PropagationLoss, Rates, STATISTICS, optimiser, propagate,
};
use gsvnet_seg::{FrameSize, KernelSize, StreamState, warp_scores};
use zoo_kernels::{Interpolation, resize2d};
use zoo_layers::Statistics;

use super::support::{CLASSES, Model};
use crate::support::{difference, frame, noise, values};

const SIZE: FrameSize = FrameSize::new(64, 96);
const LOW: (usize, usize) = (8, 12);

/// Two clips side by side.
fn clip(frames: usize) -> Vec<Tensor> {
    let pair = |i: usize| Tensor::cat(&[frame(i, SIZE), frame(i + 40, SIZE)], 0).unwrap();
    (0..frames).map(pair).collect()
}

fn labels() -> Tensor {
    let labels: Vec<u8> =
        (0..2 * SIZE.area()).map(|i| if i % 11 == 0 { 255 } else { (i / 24 % CLASSES) as u8 }).collect();
    Tensor::from_vec(labels, (2, SIZE.height, SIZE.width), &Device::Cpu).unwrap()
}

/// The scores of the last frame, by one call of the nets after the other.
fn by_hand(model: &Model, frames: &[Tensor]) -> Tensor {
    let bgr = |frame: &Tensor| {
        let low = resize2d(frame, LOW, Interpolation::BilinearCorners).unwrap();
        low.contiguous().unwrap().index_select(&Tensor::new(&[2u32, 1, 0], &Device::Cpu).unwrap(), 1).unwrap()
    };
    let (mut net, last) = (model.net.clone(), frames.len() - 1);
    let logits = net.key_scores(&frames[0], FrameSize::new(LOW.0, LOW.1)).unwrap();
    let mut scores = Tensor::from_vec(values(&logits), logits.shape(), &Device::Cpu).unwrap();
    for t in 1..=last {
        let learns = t + 2 > last;
        net.set_statistics(STATISTICS, if learns { STATISTICS } else { Statistics::Stored });
        let flow = net.flow_net().forward(&bgr(&frames[t]), &bgr(&frames[t - 1])).unwrap();
        let warped = warp_scores(&scores, &flow).unwrap();
        scores = net.propagation().forward(&bgr(&frames[t]), &warped).unwrap().scores;
        if !learns {
            scores = scores.detach();
        }
    }
    scores
}

/// Scores, gradients and running statistics, for each number of steps.
#[test]
fn the_last_two_frames_are_learned_from() {
    assert_eq!(LEARNED_STEPS, 2);
    for steps in 1..=4 {
        let frames = clip(steps + 1);
        let (ours, theirs) = (Model::new(), Model::new());
        let (got, want) = (propagate(&ours.net, &frames).unwrap(), by_hand(&theirs, &frames));
        assert_eq!(got.dims(), [2, CLASSES, LOW.0, LOW.1]);
        assert!(difference(&got, &want) < 1e-6, "{steps} steps");
        let backward = |scores: &Tensor| scores.sqr().unwrap().mean_all().unwrap().backward().unwrap();
        let (of_ours, of_theirs) = (backward(&got), backward(&want));
        let fresh = Model::new();
        for name in ours.names() {
            let (got, want) = (ours.value(&name), theirs.value(&name));
            let largest = want.iter().fold(0f32, |largest, v| largest.max(v.abs()));
            for (got, want) in got.iter().zip(&want) {
                assert!(
                    (got - want).abs() <= 1e-6 * largest,
                    "{steps} steps, {name}: {got}, expected {want}"
                );
            }
            let is_statistic = name.contains("running_");
            let moves = is_statistic && !name.starts_with("segnet");
            assert_eq!(ours.value(&name) != fresh.value(&name), moves, "{steps} steps, {name}");
            let [got, want] =
                [(&ours, &of_ours), (&theirs, &of_theirs)].map(|(model, of)| model.gradient(of, &name));
            if is_statistic || name.starts_with("segnet") {
                assert!(got.is_none(), "{name}");
                continue;
            }
            let (got, want) = (got.unwrap(), want.unwrap());
            assert!((got - want).abs() <= 1e-4 * want, "{steps} steps, {name}: {got}, expected {want}");
            // A bias that a norm by the batch takes away again has no effect.
            let is_taken_away = name.ends_with("bias") && model_has_norm_behind(&name);
            assert!(is_taken_away || got > 0.0, "{steps} steps, {name}");
        }
    }
}

/// Whether it is the bias of a convolution with a norm behind it.
fn model_has_norm_behind(name: &str) -> bool {
    !name.contains("toflow") && !name.contains("intra_net.6")
}

#[test]
fn no_gradient_goes_beyond_the_last_two_frames() {
    let model = Model::new();
    let frames: Vec<Var> = clip(5).iter().map(|frame| Var::from_tensor(frame).unwrap()).collect();
    let tensors: Vec<Tensor> = frames.iter().map(|frame| frame.as_tensor().clone()).collect();
    let gradients =
        propagate(&model.net, &tensors).unwrap().sqr().unwrap().sum_all().unwrap().backward().unwrap();
    let reached: Vec<bool> = frames
        .iter()
        .map(|frame| gradients.get(frame).is_some_and(|g| values(g).iter().any(|g| *g != 0.0)))
        .collect();
    // Frame 2 is where the flow of frame 3 leads back to.
    assert_eq!(reached, [false, false, true, true, true]);
}

#[test]
fn statistics_follow_the_frames_they_saw() {
    // By how much a mean that starts at m comes near what it sees: 0.1 a call.
    let moved = |steps: usize, name: &str| {
        let model = Model::new();
        let before = model.value(name);
        // The same pair again and again, so that every call sees the same.
        let still = vec![clip(1).remove(0); steps + 1];
        propagate(&model.net, &still).unwrap();
        model.value(name)[0] - before[0]
    };
    for (name, calls) in [
        ("ofnet.conv1.1.running_mean", [1, 2, 3, 4]),
        ("grm.intra_net.intra_net.1.running_mean", [1, 2, 2, 2]),
    ] {
        let once = f64::from(moved(1, name));
        for (steps, calls) in (1..).zip(calls) {
            let share = (1.0 - 0.9f64.powi(calls)) / 0.1;
            let got = f64::from(moved(steps, name));
            assert!((got - once * share).abs() < 1e-5, "{name}, {steps} steps: {got}, once {once}");
        }
    }
}

#[test]
fn learned_kernels_learn() {
    let mut model = Model::new();
    let ideal = Tensor::from_vec(KernelSize::Three.ideal(), (9, 1, 1, 3, 3), &Device::Cpu).unwrap();
    let name = "grm.ideal_dk.filter_copy_s";
    model.vars.data().lock().unwrap().insert(name.to_owned(), Var::from_tensor(&ideal).unwrap());
    model.net.load_kernels(&VarBuilder::from_varmap(&model.vars, DType::F32, &Device::Cpu)).unwrap();
    let mut sgd = optimiser(&model.vars, &Rates::all(1e-3)).unwrap();
    let loss = PropagationLoss::new([1.0; CLASSES]);
    let frames = clip(3);
    let gradients = loss.of_sample(&model.net, &frames, &labels()).unwrap().backward().unwrap();
    assert!(model.gradient(&gradients, name).unwrap() > 1e-3);
    sgd.step(&gradients, 1.0).unwrap();
    assert_ne!(model.value(name), values(&ideal));
    // The net goes by what the variable has become.
    let kernels = |bank: &Tensor| gsvnet_seg::DelayKernels::learned(KernelSize::Three, bank).unwrap();
    let bank = model.vars.data().lock().unwrap()[name].as_detached_tensor();
    let mut with_bank = model.net.propagation().clone();
    with_bank.set_kernels(kernels(&bank)).unwrap();
    let (low, warped) = (noise("low", &[1, 3, 8, 12]), noise("warped", &[1, CLASSES, 8, 12]));
    let [got, want] = [model.net.propagation(), &with_bank].map(|p| p.forward(&low, &warped).unwrap().scores);
    assert!(difference(&got, &want) < 1e-6);
}

/// A disc in front of a background, both of their own colour; the disc moves.
fn disc(at: f32) -> (Tensor, Tensor) {
    let is_disc = |i: usize| {
        let (y, x) = ((i / SIZE.width) as f32 - 30.0, (i % SIZE.width) as f32 - at);
        y * y + x * x < 20.0 * 20.0
    };
    let color = |channel: usize, i: usize| if is_disc(i) { [1.5, -1.0, 0.5][channel] } else { -0.5 };
    let pixels: Vec<f32> = (0..3)
        .flat_map(|channel| (0..SIZE.area()).map(move |i| (channel, i)))
        .map(|(c, i)| color(c, i))
        .collect();
    let labels: Vec<u8> = (0..SIZE.area()).map(|i| u8::from(is_disc(i))).collect();
    (
        Tensor::from_vec(pixels, (1, 3, SIZE.height, SIZE.width), &Device::Cpu).unwrap(),
        Tensor::from_vec(labels, (1, SIZE.height, SIZE.width), &Device::Cpu).unwrap(),
    )
}

#[test]
fn a_few_steps_lower_the_loss_of_a_moving_disc() {
    let clips = [[30.0, 38.0, 46.0], [66.0, 58.0, 50.0]].map(|clip| clip.map(disc));
    let both = |map: &dyn Fn(&(Tensor, Tensor)) -> Tensor, t: usize| {
        Tensor::cat(&clips.each_ref().map(|clip| map(&clip[t])), 0).unwrap()
    };
    let frames: Vec<Tensor> = (0..3).map(|t| both(&|(frame, _)| frame.clone(), t)).collect();
    let labels = both(&|(_, labels)| labels.clone(), 2);
    // The authors' numbers, with a random teacher that will not agree with the labels; and the paper's loss.
    let authors = PropagationLoss::new([1.0, 2.0, 1.0, 1.0]);
    let paper = PropagationLoss { distillation: 0.0, ..authors.clone() };
    for (loss, rates, least) in [(authors, Rates::default(), 0.8), (paper, Rates::all(PAPER_RATE), 0.5)] {
        let model = Model::new();
        let mut sgd = optimiser(&model.vars, &rates).unwrap();
        let mut losses = Vec::new();
        for step in 0..12 {
            let loss = loss.of_sample(&model.net, &frames, &labels).unwrap();
            losses.push(values(&loss)[0]);
            sgd.step(&loss.backward().unwrap(), DECAY.factor(step)).unwrap();
        }
        assert!(losses[11] < least * losses[0], "{losses:?}");
    }
}

#[test]
fn samples_that_cannot_be_learned_from_are_errors() {
    let said = |model: &Model, frames: &[Tensor]| propagate(&model.net, frames).unwrap_err().to_string();
    let model = Model::new();
    assert!(said(&model, &[]).contains("got no frames"));
    let error = said(&model, &clip(1));
    assert!(error.contains("a key frame and at least one more") && error.contains("got 1 of"), "{error}");
    let mut mixed = clip(3);
    mixed[2] = mixed[2].narrow(3, 0, 88).unwrap();
    let error = said(&model, &mixed);
    assert!(error.contains("frames of one shape, got [2, 3, 64, 96] and [2, 3, 64, 88]"), "{error}");
    let narrow: Vec<Tensor> = clip(2).iter().map(|frame| frame.narrow(3, 0, 90).unwrap()).collect();
    assert!(said(&model, &narrow).contains("a width of 90 is no multiple of 4"));
    let small: Vec<Tensor> = clip(2).iter().map(|frame| frame.narrow(2, 0, 24).unwrap()).collect();
    assert!(said(&model, &small).contains("32×32 or larger"));
    let mut prepared = Model::new();
    prepared.net.prepare_propagation().unwrap();
    let error = said(&prepared, &clip(2));
    assert!(error.contains("nothing can learn") && error.contains("do not prepare it"), "{error}");
    let loss = PropagationLoss::new([1.0; CLASSES]);
    let error = loss.of_sample(&model.net, &clip(2), &labels().get(0).unwrap()).unwrap_err().to_string();
    assert!(error.contains("expected labels [B, H, W]"), "{error}");
}

/// Training leaves the net as it was for streams.
#[test]
fn a_stream_goes_by_stored_statistics_after_training() {
    let model = Model::new();
    propagate(&model.net, &clip(3)).unwrap();
    let run = |model: &Model| {
        let mut state: StreamState = model.net.start(SIZE).unwrap();
        let steps = (0..2).map(|i| model.net.push(&frame(i, SIZE), &mut state).unwrap().scores);
        steps.last().unwrap()
    };
    let before = model.value("ofnet.conv1.1.running_mean");
    run(&model);
    assert_eq!(model.value("ofnet.conv1.1.running_mean"), before);
}
