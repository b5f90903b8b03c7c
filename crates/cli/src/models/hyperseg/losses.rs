//! HyperSeg's losses and its evaluation, as its authors' code computes them. Here, because the crate of the
//! nets needs nothing of training.

use candle_core::{DType, Device, Tensor};
use serde::Deserialize;
use zoo_metrics::segment::{ConfusionMatrix, IouRule};
use zoo_parity::{BoxError, Case, Golden, Outputs, Tolerance};
use zoo_train::{BootstrappedCrossEntropy, CrossEntropy};

/// Losses closely; counts of pixels to the unit.
pub fn case() -> Case {
    Case::new(["hyperseg-losses"], Tolerance::Close, losses)
        .with_exceptions(|_, name| (name == "confusion").then_some(Tolerance::Exact))
}

#[derive(Deserialize)]
struct LossConfig {
    bootstrapped: Vec<Bootstrapped>,
    ignore_index: u8,
    logit_scale: f64,
    num_classes: u8,
}

#[derive(Deserialize)]
struct Bootstrapped {
    k: usize,
    thresh: f64,
}

fn losses(golden: &Golden, device: &Device) -> Result<Outputs, BoxError> {
    let config: LossConfig = golden.config()?;
    let scores = (golden.input("losses.logits", device)? * config.logit_scale)?;
    let target = golden.tensor("target", device)?.to_dtype(DType::U8)?;
    let ignored = Some(u32::from(config.ignore_index));
    let mut outputs = Outputs::new();
    outputs.given("target");
    let ce = CrossEntropy::default().with_ignored(ignored).loss(&scores, &target)?;
    outputs.push("ce", &ce.reshape(1)?)?;
    for (i, Bootstrapped { k, thresh }) in config.bootstrapped.into_iter().enumerate() {
        let loss = BootstrappedCrossEntropy { kept: k, threshold: thresh, ignored };
        outputs.push(format!("bootstrapped.{i}"), &loss.loss(&scores, &target)?.reshape(1)?)?;
    }

    let labels = |tensor: Tensor| tensor.to_dtype(DType::U8)?.flatten_all()?.to_vec1::<u8>();
    let mut matrix = ConfusionMatrix::new(config.num_classes, Some(config.ignore_index));
    matrix.add(&labels(scores.argmax(1)?)?, &labels(target)?)?;
    let n = matrix.classes();
    let counts = (0..n * n).map(|i| matrix.count(i / n, i % n) as f64);
    outputs.push_values("confusion", &[n, n], counts)?;
    outputs.push_values("global_acc", &[1], matrix.pixel_accuracy())?;
    outputs.push_values("class_acc", &[n], matrix.class_accuracy().into_iter().flatten())?;
    outputs.push_values("class_iou", &[n], matrix.iou_by(IouRule::HYPERSEG).into_iter().flatten())?;
    outputs.push_values("miou", &[1], matrix.mean_iou_by(IouRule::HYPERSEG))?;
    Ok(outputs)
}
