use candle_core::{Result, Tensor, bail};
use zoo_core::{FrameSize, ScoreNet};
use zoo_train::{CrossEntropy, distillation};

use super::propagate;
use crate::net::{GsvNet, resized};

/// What a pixel of each class of Cityscapes weighs: 1 / ln(1.02 + p) for a class that p of the training pixels have, as
/// ENet's training weighs them (Paszke et al., 2016).
pub const CITYSCAPES_WEIGHTS: [f32; 19] = [
    3.0387, 13.0200, 4.5301, 38.0090, 35.3599, 31.1425, 45.8211, 39.4445, 6.0000, 32.6476, 17.3473, 31.4572,
    47.0854, 11.7017, 44.5097, 44.8050, 45.6306, 48.2108, 41.2191,
];
/// The same of CamVid, where pixels of no class count among all.
pub const CAMVID_WEIGHTS: [f32; 11] =
    [6.0884, 4.5196, 33.9744, 3.8928, 12.4725, 8.5316, 47.7011, 29.6653, 18.9982, 38.3878, 40.1059];

/// `factor · (cross entropy + distillation · KL(key frames' net ‖ ours))`, on scores of the labels' size.
///
/// KL is averaged over all values, not over pixels alone ([`zoo_train::distillation`]). The paper has the cross entropy
/// alone.
#[derive(Debug, Clone, PartialEq)]
pub struct PropagationLoss {
    /// Of the labels, by class. Pixels of label 255 do not count, as the zoo's label sets have it; the authors' code
    /// has 250 there.
    pub cross_entropy: CrossEntropy,
    /// What the other net's opinion weighs.
    pub distillation: f64,
    /// What all of it is multiplied by.
    pub factor: f64,
}

impl PropagationLoss {
    /// With a weight for each class, and the authors' factors, 10 and 10.
    pub fn new(weights: impl Into<Vec<f32>>) -> Self {
        let cross_entropy = CrossEntropy::default().with_weights(weights);
        Self { cross_entropy, distillation: 10.0, factor: 10.0 }
    }

    /// Of Cityscapes.
    pub fn cityscapes() -> Self {
        Self::new(CITYSCAPES_WEIGHTS)
    }

    /// Of CamVid.
    pub fn camvid() -> Self {
        Self::new(CAMVID_WEIGHTS)
    }

    /// The loss, a scalar. `scores` and `teacher`: `[B, C, ·, ·]`, each of any size; `labels`: `[B, H, W]`, u8, u32 or
    /// i64. Has a gradient for `scores` alone.
    ///
    /// # Errors
    /// If batches or classes differ, or a label that counts is no class.
    pub fn loss(&self, scores: &Tensor, teacher: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let &[_, height, width] = labels.dims() else {
            bail!("propagation loss: expected labels [B, H, W], got {:?}", labels.dims())
        };
        let size = FrameSize::new(height, width);
        let scores = resized(scores, size)?;
        let by_labels = self.cross_entropy.loss(&scores, labels)?;
        let by_teacher = distillation(&scores, &resized(&teacher.detach(), size)?)?;
        (by_labels + (by_teacher * self.distillation)?)? * self.factor
    }

    /// The loss of a sample: `frames` as for [`propagate`], `labels` of the last one.
    ///
    /// # Errors
    /// As [`propagate`] and [`PropagationLoss::loss`].
    pub fn of_sample<N: ScoreNet>(
        &self,
        net: &GsvNet<N>,
        frames: &[Tensor],
        labels: &Tensor,
    ) -> Result<Tensor> {
        let scores = propagate(net, frames)?;
        let (Some(last), &[_, height, width]) = (frames.last(), labels.dims()) else {
            bail!("propagation loss: expected labels [B, H, W], got {:?}", labels.dims())
        };
        let teacher = net.key_scores(last, FrameSize::new(height, width))?.detach();
        self.loss(&scores, &teacher, labels)
    }
}
