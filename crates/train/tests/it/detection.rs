//! Losses of detectors by their definitions and by hand, and their gradients by finite differences.

use candle_core::{Device, Result, Tensor};
use zoo_train::{IouLoss, SigmoidFocal, binary_cross_entropy, centerness, smooth_l1};

use crate::support::{assert_gradient, drawn, value, values};

fn logistic(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// One term of the paper's Equation 5, `p_t` the probability of what is true.
fn focal_term(p_t: f64, alpha_t: f64, gamma: f64) -> f64 {
    -alpha_t * (1.0 - p_t).powf(gamma) * p_t.ln()
}

#[test]
fn focal_loss_is_its_definition() {
    let logits = drawn("focal", &[6, 4]);
    let labels = [0, 3, SigmoidFocal::IGNORED, 1, 4, 0];
    for focal in [SigmoidFocal::default(), SigmoidFocal { alpha: 0.6, gamma: 1.5 }] {
        let mut expected = 0.0;
        for (row, label) in values(&logits).chunks(4).zip(labels) {
            if label == SigmoidFocal::IGNORED {
                continue;
            }
            for (class, &logit) in (1..).zip(row) {
                expected += if class == label {
                    focal_term(logistic(logit), focal.alpha, focal.gamma)
                } else {
                    focal_term(logistic(-logit), 1.0 - focal.alpha, focal.gamma)
                };
            }
        }
        let got = value(&focal.sum(&logits, &labels).unwrap());
        assert!((got - expected).abs() < 1e-12 * expected, "{got} and {expected}");
        assert_gradient("focal", &logits, |logits| focal.sum(logits, &labels));
    }
}

/// p = ½ everywhere: ¼ of ln 2 for each class, times α or 1 − α.
#[test]
fn focal_loss_by_hand() {
    let logits = Tensor::zeros((2, 3), candle_core::DType::F64, &Device::Cpu).unwrap();
    let got = value(&SigmoidFocal::default().sum(&logits, &[2, 0]).unwrap());
    let quarter = 0.25 * 2f64.ln();
    assert!((got - quarter * (0.25 + 5.0 * 0.75)).abs() < 1e-15, "{got}");
}

#[test]
fn focal_loss_of_extremes_stays_finite_and_nothing_counts_nothing() {
    let logits = Tensor::new(&[[1e4f32, -1e4], [-1e4, 1e4]], &Device::Cpu).unwrap();
    let var = candle_core::Var::from_tensor(&logits).unwrap();
    let loss = SigmoidFocal::default().sum(&var, &[2, 0]).unwrap();
    // The class that is there is certain not to be, and one that is not there is certain: α and 1 − α times 10⁴, and
    // the first row's wrong class.
    assert!((value(&loss) - 1e4 * (0.75 + 0.25 + 0.75)).abs() < 1.0, "{loss}");
    let gradients = loss.backward().unwrap();
    assert!(values(gradients.get(&var).unwrap()).iter().all(|g| g.is_finite()));
    let ignored = [SigmoidFocal::IGNORED; 2];
    assert_eq!(value(&SigmoidFocal::default().sum(&logits, &ignored).unwrap()), 0.0);
}

#[test]
fn cross_entropy_of_shares() {
    let (logits, targets) = (drawn("bce", &[3, 5]), Tensor::rand(0f64, 1.0, (3, 5), &Device::Cpu).unwrap());
    let got = values(&binary_cross_entropy(&logits, &targets).unwrap());
    for ((got, x), t) in got.iter().zip(values(&logits)).zip(values(&targets)) {
        let expected = -t * logistic(x).ln() - (1.0 - t) * logistic(-x).ln();
        assert!((got - expected).abs() < 1e-12, "{got} and {expected}");
    }
    assert_gradient("bce", &logits, |logits| binary_cross_entropy(logits, &targets)?.sum_all());
}

#[test]
fn smooth_l1_by_hand() {
    let at = |x: f64, beta| value(&smooth_l1(&Tensor::new(&[x], &Device::Cpu).unwrap(), beta).unwrap());
    for (x, beta, expected) in
        [(0.0, 1.0, 0.0), (0.5, 1.0, 0.125), (-3.0, 1.0, 2.5), (0.055, 0.11, 0.01375), (1.11, 0.11, 1.055)]
    {
        assert!((at(x, beta) - expected).abs() < 1e-15, "{x}, β {beta}: {}", at(x, beta));
    }
    let xs = drawn("smooth", &[7]);
    assert_gradient("smooth", &xs, |xs| smooth_l1(xs, 0.11)?.sum_all());
}

/// Boxes of 4 × 2 and 2 × 4 around one point share 2 × 2; they and the point's 4 × 4 enclose them.
#[test]
fn overlaps_by_hand() {
    let predicted = Tensor::new(&[[2.0, 1.0, 2.0, 1.0], [1.0, 1.0, 1.0, 1.0]], &Device::Cpu).unwrap();
    let truth = Tensor::new(&[[1.0, 2.0, 1.0, 2.0], [1.0, 1.0, 1.0, 1.0]], &Device::Cpu).unwrap();
    let iou: f64 = 5.0 / 13.0;
    let got = values(&IouLoss::Iou.of(&predicted, &truth).unwrap());
    assert!((got[0] + iou.ln()).abs() < 1e-12 && got[1].abs() < 1e-12, "{got:?}");
    let got = values(&IouLoss::Giou.of(&predicted, &truth).unwrap());
    assert!((got[0] - (1.0 - (iou - 4.0 / 16.0))).abs() < 1e-6 && got[1].abs() < 1e-6, "{got:?}");
    let positive = (drawn("boxes", &[5, 4]).abs().unwrap() + 0.1).unwrap();
    let other = (drawn("others", &[5, 4]).abs().unwrap() + 0.1).unwrap();
    for loss in [IouLoss::Iou, IouLoss::Giou] {
        assert_gradient("overlap", &positive, |xs| loss.of(xs, &other)?.sum_all());
    }
}

#[test]
fn centerness_by_hand() {
    let distances = Tensor::new(&[[1.0, 2.0, 4.0, 2.0], [3.0, 3.0, 3.0, 3.0]], &Device::Cpu).unwrap();
    assert_eq!(values(&centerness(&distances).unwrap()), [0.5, 1.0]);
}

#[test]
fn faults_are_named() {
    let said = |result: Result<Tensor>| result.unwrap_err().to_string();
    let logits = drawn("faults", &[3, 4]);
    let focal = SigmoidFocal::default();
    assert!(said(focal.sum(&logits, &[0, 1])).contains("logits of 3 places, but 2 labels"));
    for label in [-2, 5] {
        let error = said(focal.sum(&logits, &[0, label, 1]));
        assert!(
            error.contains(&format!("label {label} is neither")) && error.contains("4 classes"),
            "{error}"
        );
    }
    assert!(said(smooth_l1(&logits, 0.0)).contains("expected a β above 0, got 0"));
    assert!(said(IouLoss::Iou.of(&logits, &drawn("two", &[2, 4]))).contains("got [3, 4] and [2, 4]"));
    assert!(said(centerness(&drawn("five", &[3, 5]))).contains("expected distances [P, 4], got [3, 5]"));
    assert!(
        said(binary_cross_entropy(&logits, &logits.narrow(0, 0, 1).unwrap()))
            .contains("[3, 4], but targets [1, 4]")
    );
}
