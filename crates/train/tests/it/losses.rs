//! Losses by their definitions, and their gradients by finite differences.

use candle_core::{DType, Device, Result, Tensor, Var};
use zoo_testing::assert_close;
use zoo_train::{BootstrappedCrossEntropy, CrossEntropy, distillation, pixel_cross_entropy};

use crate::support::{assert_gradient, drawn, value, values};

/// Batch, classes, rows, columns of the scores here.
const SHAPE: [usize; 4] = [2, 4, 3, 5];

fn scores(name: &str, shape: [usize; 4]) -> Tensor {
    drawn(name, &shape)
}

/// Labels 0 to 3, with 255 at every seventh pixel.
fn labels() -> Tensor {
    let labels = (0..30u8).map(|i| if i % 7 == 0 { 255 } else { (i * 5 + i / 4) % 4 });
    Tensor::from_vec(labels.collect(), (2, 3, 5), &Device::Cpu).unwrap()
}

/// Each pixel's scores and label, in the labels' order.
fn pixels(scores: &Tensor, labels: &Tensor) -> Vec<(Vec<f64>, usize)> {
    let last = scores.permute((0, 2, 3, 1)).unwrap().contiguous().unwrap();
    let rows = values(&last);
    rows.chunks(SHAPE[1])
        .map(<[f64]>::to_vec)
        .zip(values(labels).into_iter().map(|label| label as usize))
        .collect()
}

fn log_softmax(scores: &[f64], class: usize) -> f64 {
    scores[class] - scores.iter().map(|score| score.exp()).sum::<f64>().ln()
}

#[test]
fn cross_entropy_is_its_definition_and_ignored_pixels_are_0() {
    let (scores, labels) = (scores("ce", SHAPE), labels());
    let got = values(&pixel_cross_entropy(&scores, &labels, Some(255)).unwrap());
    for (i, (scores, label)) in pixels(&scores, &labels).into_iter().enumerate() {
        let expected = if label == 255 { 0.0 } else { -log_softmax(&scores, label) };
        assert!((got[i] - expected).abs() < 1e-12, "pixel {i}: {} and {expected}", got[i]);
    }
    let counted = pixels(&scores, &labels).iter().filter(|(_, label)| *label != 255).count();
    let loss = CrossEntropy::default().loss(&scores, &labels).unwrap();
    assert!((value(&loss) - got.iter().sum::<f64>() / counted as f64).abs() < 1e-12);
    for dtype in [DType::U32, DType::I64] {
        let same = CrossEntropy::default().loss(&scores, &labels.to_dtype(dtype).unwrap()).unwrap();
        assert_eq!(value(&same), value(&loss), "{dtype:?}");
    }
}

#[test]
fn weights_of_classes_weigh_the_sum_and_what_divides_it() {
    let (scores, labels) = (scores("weighted", SHAPE), labels());
    let weights = [0.5f32, 2.0, 0.0, 3.0];
    let (mut sum, mut all) = (0.0, 0.0);
    for (scores, label) in pixels(&scores, &labels).into_iter().filter(|(_, label)| *label != 255) {
        sum -= f64::from(weights[label]) * log_softmax(&scores, label);
        all += f64::from(weights[label]);
    }
    let loss = CrossEntropy::default().with_weights(weights);
    assert!((value(&loss.loss(&scores, &labels).unwrap()) - sum / all).abs() < 1e-12);
    assert_gradient("weighted", &scores, |scores| loss.loss(scores, &labels));
}

/// Two of four pixels are hard by the threshold; asked for three, the third is the next hardest.
#[test]
fn the_hardest_pixels_are_chosen_by_threshold_or_by_number() {
    let hard = |p: f64| Tensor::new(&[0.0, ((1.0 - p) / p).ln()], &Device::Cpu).unwrap();
    let scores: Vec<Tensor> = [0.9, 0.2, 0.5, 0.1, 0.95].map(hard).into();
    let scores = Tensor::stack(&scores, 1).unwrap().reshape((1, 2, 1, 5)).unwrap();
    let labels = Tensor::zeros((1, 1, 5), DType::U8, &Device::Cpu).unwrap();
    let of = |kept, threshold| {
        let loss = BootstrappedCrossEntropy { kept, threshold, ignored: Some(255) };
        value(&loss.loss(&scores, &labels).unwrap())
    };
    let mean = |shares: &[f64]| -shares.iter().map(|p| p.ln()).sum::<f64>() / shares.len() as f64;
    for (kept, threshold, chosen) in [
        (1, 1.0, &[0.2, 0.1][..]),
        (1, 0.0, &[0.9, 0.2, 0.5, 0.1, 0.95]),
        (2, 1.0, &[0.2, 0.1]),
        (3, 1.0, &[0.2, 0.1, 0.5]),
        (4, 9.0, &[0.2, 0.1, 0.5, 0.9]),
    ] {
        assert!((of(kept, threshold) - mean(chosen)).abs() < 1e-6, "{kept} kept, above {threshold}");
    }
}

#[test]
fn bootstrapped_gradients_are_those_of_the_chosen() {
    let (scores, labels) = (scores("boot", SHAPE), labels());
    for (kept, threshold) in [(3, 0.8), (9, 20.0)] {
        let loss = BootstrappedCrossEntropy { kept, threshold, ignored: Some(255) };
        assert_gradient(&format!("{kept} kept"), &scores, |scores| loss.loss(scores, &labels));
    }
    assert_eq!(BootstrappedCrossEntropy::default().kept, 4096);
}

#[test]
fn a_student_is_drawn_to_its_teacher() {
    let (student, teacher) = (scores("student", SHAPE), scores("teacher", SHAPE));
    let all_zero = Tensor::zeros((2, 3, 5), DType::U8, &Device::Cpu).unwrap();
    let mut expected = 0.0;
    for ((s, _), (t, _)) in pixels(&student, &all_zero).into_iter().zip(pixels(&teacher, &all_zero)) {
        for class in 0..SHAPE[1] {
            let (s, t) = (log_softmax(&s, class), log_softmax(&t, class));
            expected += t.exp() * (t - s);
        }
    }
    expected /= SHAPE.iter().product::<usize>() as f64;
    assert!((value(&distillation(&student, &teacher).unwrap()) - expected).abs() < 1e-12);
    assert_gradient("distillation", &student, |student| distillation(student, &teacher));
    assert!(value(&distillation(&teacher, &teacher).unwrap()).abs() < 1e-15);
    let teacher = Var::from_tensor(&teacher).unwrap();
    let student = Var::from_tensor(&student).unwrap();
    let gradients = distillation(&student, &teacher).unwrap().backward().unwrap();
    assert!(gradients.get(&teacher).is_none(), "the teacher stays as it is");
}

#[test]
fn scores_are_brought_to_the_labels_size() {
    let (small, labels) = (scores("small", [2, 4, 2, 3]), labels());
    let large = zoo_kernels::resize2d(&small, (3, 5), zoo_kernels::Interpolation::Bilinear).unwrap();
    let loss = CrossEntropy::default();
    assert_close(
        "resized",
        &loss.loss(&small, &labels).unwrap(),
        &loss.loss(&large, &labels).unwrap(),
        0.0,
        1e-14,
    );
    assert_gradient("resized", &small, |scores| loss.loss(scores, &labels));
}

#[test]
fn losses_stay_finite_for_large_scores_and_for_no_pixel() {
    let large = (scores("large", SHAPE) * 1e4).unwrap().to_dtype(DType::F32).unwrap();
    assert!(value(&CrossEntropy::default().loss(&large, &labels()).unwrap()).is_finite());
    let none = Tensor::full(255u8, (2, 3, 5), &Device::Cpu).unwrap();
    assert_eq!(value(&CrossEntropy::default().loss(&large, &none).unwrap()), 0.0);
    let loss = BootstrappedCrossEntropy { kept: 4, ..BootstrappedCrossEntropy::default() };
    assert_eq!(value(&loss.loss(&large, &none).unwrap()), 0.0);
}

#[test]
fn faults_are_named() {
    let (scores, labels) = (scores("faults", SHAPE), labels());
    let ce = CrossEntropy::default();
    let said = |result: Result<Tensor>| result.unwrap_err().to_string();
    let four = (&labels.clamp(0u8, 3u8).unwrap() + 1.0).unwrap();
    let error = said(ce.loss(&scores, &four));
    assert!(error.contains("label 4 is no class of the scores, which have 4 (0 to 3)"), "{error}");
    let error = said(ce.clone().with_ignored(None).loss(&scores, &labels));
    assert!(error.contains("label 255 is no class"), "{error}");
    let error = said(ce.loss(&scores, &labels.narrow(0, 0, 1).unwrap()));
    assert!(error.contains("as many labels as scores") && error.contains("[1, 3, 5]"), "{error}");
    let error = said(ce.loss(&scores, &scores.narrow(1, 0, 1).unwrap().squeeze(1).unwrap()));
    assert!(error.contains("expected labels of u8, u32 or i64, got F64"), "{error}");
    assert!(said(ce.loss(&scores.get(0).unwrap(), &labels)).contains("expected scores [B, C, H, W]"));
    for weights in [vec![1.0; 3], vec![1.0, f32::NAN, 1.0, 1.0], vec![1.0, -1.0, 1.0, 1.0]] {
        let error = said(ce.clone().with_weights(weights).loss(&scores, &labels));
        assert!(error.contains("expected 4 weights of at least 0, one a class"), "{error}");
    }
    for kept in [0, 15] {
        let loss = BootstrappedCrossEntropy { kept, ..BootstrappedCrossEntropy::default() };
        let error = said(loss.loss(&scores, &labels));
        assert!(error.contains(&format!("more pixels than the {kept} that are kept")), "{error}");
    }
    let error = said(distillation(&scores, &scores.narrow(1, 0, 3).unwrap()));
    assert!(error.contains("[2, 4, 3, 5] of the student and [2, 3, 3, 5] of the teacher"), "{error}");
}
