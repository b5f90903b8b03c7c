use candle_core::{Device, Result, Tensor, Var};
use gsvnet_seg::training::PropagationLoss;
use zoo_kernels::{Interpolation, resize2d};

use crate::support::{noise, values};

fn value(loss: Result<Tensor>) -> f64 {
    f64::from(values(&loss.unwrap())[0])
}

/// One pixel of two classes: shares ¼ and ¾ against ½ and ½.
#[test]
fn a_loss_by_hand() {
    let scores = Tensor::new(&[0.0, 3f32.ln()], &Device::Cpu).unwrap().reshape((1, 2, 1, 1)).unwrap();
    let teacher = scores.zeros_like().unwrap();
    let label = Tensor::new(&[[[1u8]]], &Device::Cpu).unwrap();
    // −ln ¾ = 0.28768; ½ ln 2 + ½ ln ⅔ = 0.14384, over two values.
    let expected = 10.0 * (0.287_682 + 10.0 * 0.143_841 / 2.0);
    // The only pixel weighs as much as all.
    let got = value(PropagationLoss::new([5.0, 0.3]).loss(&scores, &teacher, &label));
    assert!((got - expected).abs() < 1e-4, "{got}, expected {expected}");
}

#[test]
fn the_loss_is_its_definition() {
    let shape = [2, 3, 5, 4];
    let [scores, teacher] = ["ours", "theirs"].map(|name| (noise(name, &shape) * 3.0).unwrap());
    let labels: Vec<u8> = (0..40).map(|i| if i % 6 == 0 { 255 } else { (i * 7 % 3) as u8 }).collect();
    let label_map = Tensor::from_vec(labels.clone(), (2, 5, 4), &Device::Cpu).unwrap();
    let weights = [0.5f32, 2.0, 3.0];

    let rows = |map: &Tensor| {
        let last = map.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
        values(&last)
            .chunks(3)
            .map(|row| row.iter().map(|&s| f64::from(s)).collect())
            .collect::<Vec<Vec<_>>>()
    };
    let log_softmax = |row: &[f64], class: usize| row[class] - row.iter().map(|s| s.exp()).sum::<f64>().ln();
    let (mut sum, mut all, mut divergence) = (0.0, 0.0, 0.0);
    for ((ours, theirs), &label) in rows(&scores).iter().zip(&rows(&teacher)).zip(&labels) {
        if label != 255 {
            let weight = f64::from(weights[usize::from(label)]);
            sum -= weight * log_softmax(ours, usize::from(label));
            all += weight;
        }
        for class in 0..3 {
            let theirs = log_softmax(theirs, class);
            divergence += theirs.exp() * (theirs - log_softmax(ours, class));
        }
    }
    let expected = 10.0 * (sum / all + 10.0 * divergence / 120.0);
    let loss = PropagationLoss::new(weights);
    let got = value(loss.loss(&scores, &teacher, &label_map));
    assert!((got - expected).abs() < 1e-5 * expected, "{got}, expected {expected}");

    let paper = PropagationLoss { distillation: 0.0, factor: 1.0, ..loss.clone() };
    let got = value(paper.loss(&scores, &teacher, &label_map));
    assert!((got - sum / all).abs() < 1e-5 * got, "the cross entropy alone: {got}");
}

#[test]
fn scores_are_resized_with_their_corners_and_only_ours_learn() {
    let labels = Tensor::zeros((1, 24, 40), candle_core::DType::U8, &Device::Cpu).unwrap();
    let (ours, theirs) = (noise("ours", &[1, 2, 3, 5]), noise("theirs", &[1, 2, 6, 10]));
    let loss = PropagationLoss::new([1.0, 1.0]);
    let large = |map: &Tensor| resize2d(map, (24, 40), Interpolation::BilinearCorners).unwrap();
    let want = value(loss.loss(&large(&ours), &large(&theirs), &labels));
    let (ours, theirs) = (Var::from_tensor(&ours).unwrap(), Var::from_tensor(&theirs).unwrap());
    let got = loss.loss(ours.as_tensor(), theirs.as_tensor(), &labels).unwrap();
    assert!((f64::from(values(&got)[0]) - want).abs() < 1e-5 * want);
    let gradients = got.backward().unwrap();
    assert!(values(gradients.get(&ours).unwrap()).iter().all(|g| *g != 0.0));
    assert!(gradients.get(&theirs).is_none());
}

#[test]
fn presets_have_a_weight_for_each_class() {
    for (loss, classes) in [(PropagationLoss::cityscapes(), 19), (PropagationLoss::camvid(), 11)] {
        let scores = noise("scores", &[1, classes, 4, 4]);
        let labels = Tensor::zeros((1, 4, 4), candle_core::DType::U8, &Device::Cpu).unwrap();
        assert!(value(loss.loss(&scores, &scores, &labels)) > 0.0);
        let fewer = noise("scores", &[1, classes - 1, 4, 4]);
        let error = loss.loss(&fewer, &fewer, &labels).unwrap_err().to_string();
        assert!(error.contains(&format!("expected {} weights", classes - 1)), "{error}");
        let error = loss.loss(&scores, &fewer, &labels).unwrap_err().to_string();
        assert!(error.contains("of the teacher"), "{error}");
        let error = loss.loss(&scores, &scores, &labels.squeeze(0).unwrap()).unwrap_err().to_string();
        assert!(error.contains("expected labels [B, H, W], got [4, 4]"), "{error}");
    }
}
