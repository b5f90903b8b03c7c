//! Cross entropy over the pixels that are hard.

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

use crate::cross_entropy::{IGNORED, pixel_cross_entropy};

/// Cross entropy over each image's hardest pixels: those whose loss exceeds `threshold`, if they are more than `kept`,
/// else the `kept` hardest ones. The mean over an image's chosen pixels, then over images.
///
/// This is the rule of HyperSeg's code, which cites Reed et al. ("Training Deep Neural Networks on Noisy Labels with
/// Bootstrapping", 2015) for it; that paper's own loss is another. Pixels that do not count have a loss of 0 and are
/// chosen last.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BootstrappedCrossEntropy {
    /// Pixels of an image that are chosen at least.
    pub kept: usize,
    /// A loss above this is hard.
    pub threshold: f64,
    /// The label of pixels that do not count.
    pub ignored: Option<u32>,
}

impl Default for BootstrappedCrossEntropy {
    /// HyperSeg's numbers: 4096 pixels, 0.3.
    fn default() -> Self {
        Self { kept: 4096, threshold: 0.3, ignored: Some(IGNORED) }
    }
}

impl BootstrappedCrossEntropy {
    /// The loss, a scalar. `scores` and `labels` as for [`pixel_cross_entropy`].
    ///
    /// # Errors
    /// As [`pixel_cross_entropy`]; if `kept` is 0, or an image has no more than `kept` pixels, or a score is no number.
    pub fn loss(&self, scores: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let losses = pixel_cross_entropy(scores, labels, self.ignored)?.flatten_from(1)?;
        let (images, pixels) = losses.dims2()?;
        if self.kept == 0 || pixels <= self.kept {
            bail!(
                "bootstrapped cross entropy: expected images of more pixels than the {} that are kept, and at least \
                 one kept, got images of {pixels}",
                self.kept
            )
        }
        let values = losses.detach().to_dtype(DType::F32)?.to_vec2::<f32>()?;
        let mut weights = Vec::with_capacity(images * pixels);
        for values in &values {
            weights.extend(self.weights(values)?);
        }
        let weights =
            Tensor::from_vec(weights, (images, pixels), losses.device())?.to_dtype(losses.dtype())?;
        (losses * weights)?.sum_all()? / images as f64
    }

    /// One over the number of chosen pixels for each of these, 0 for the others.
    fn weights(&self, losses: &[f32]) -> Result<Vec<f32>> {
        if let Some(at) = losses.iter().position(|loss| !loss.is_finite()) {
            bail!("bootstrapped cross entropy: the loss of pixel {at} is {:?}", losses.get(at))
        }
        let mut order: Vec<usize> = (0..losses.len()).collect();
        let of = |i: &usize| losses.get(*i).copied().unwrap_or_default();
        // Only who is among the first `kept` matters, and who comes next; of equal losses the first pixel.
        let (hardest, next, _) =
            order.select_nth_unstable_by(self.kept, |a, b| of(b).total_cmp(&of(a)).then(a.cmp(b)));
        let is_hard = |loss: f32| f64::from(loss) > self.threshold;
        if is_hard(of(next)) {
            let share = 1.0 / losses.iter().filter(|&&loss| is_hard(loss)).count() as f32;
            return Ok(losses.iter().map(|&loss| if is_hard(loss) { share } else { 0.0 }).collect());
        }
        let mut weights = vec![0.0; losses.len()];
        for &i in hardest.iter() {
            if let Some(weight) = weights.get_mut(i) {
                *weight = 1.0 / self.kept as f32;
            }
        }
        Ok(weights)
    }
}
