//! Sigmoid losses: classes against a large background, and shares.

use candle_core::{DType, Result, Tensor, bail};
use serde::{Deserialize, Serialize};

/// ln(1 + eˣ), without overflow; the binary cross entropy of a logit x with target 0.
fn softplus(xs: &Tensor) -> Result<Tensor> {
    xs.relu()? + (xs.abs()?.neg()?.exp()? + 1.0)?.log()?
}

/// 1 / (1 + e⁻ˣ) with a gradient, without overflow.
fn sigmoid(xs: &Tensor) -> Result<Tensor> {
    ((xs / 2.0)?.tanh()? + 1.0)? / 2.0
}

/// Binary cross entropy of each logit x with a target t in 0..=1: ln(1 + eˣ) − x·t.
///
/// # Errors
/// If the shapes differ.
pub fn binary_cross_entropy(logits: &Tensor, targets: &Tensor) -> Result<Tensor> {
    if logits.dims() != targets.dims() {
        bail!("binary cross entropy: logits {:?}, but targets {:?}", logits.dims(), targets.dims())
    }
    softplus(logits)? - (logits * targets)?
}

/// Focal loss of independent classes, of which a place shows one or none (Lin et al., "Focal Loss for Dense Object
/// Detection", ICCV 2017, Equation 5).
///
/// With p the sigmoid of a logit: −α · (1 − p)^γ · ln p for the place's class, −(1 − α) · p^γ · ln(1 − p) for each other.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SigmoidFocal {
    /// What a place's own class weighs; the others weigh 1 − α.
    pub alpha: f64,
    /// How much less counts what is known already.
    pub gamma: f64,
}

impl Default for SigmoidFocal {
    /// The paper's: α = 0.25, γ = 2.
    fn default() -> Self {
        Self { alpha: 0.25, gamma: 2.0 }
    }
}

impl SigmoidFocal {
    /// The label of a place that does not count.
    pub const IGNORED: i32 = -1;

    /// The sum over all places and classes, a scalar.
    ///
    /// `logits`: `[N, K]`; `labels`: one a place, 0 for none of the classes, k for the kth (from 1 on),
    /// [`SigmoidFocal::IGNORED`]. Has a gradient for the logits.
    ///
    /// # Errors
    /// If the numbers of places differ, or a label is no class.
    pub fn sum(&self, logits: &Tensor, labels: &[i32]) -> Result<Tensor> {
        let (places, classes) = logits.dims2()?;
        if labels.len() != places {
            bail!("focal loss: logits of {places} places, but {} labels", labels.len())
        }
        if let Some(label) =
            labels.iter().find(|&&l| l != Self::IGNORED && !(0..=classes as i32).contains(&l))
        {
            bail!(
                "focal loss: label {label} is neither −1 (ignored), 0 (none) nor one of the {classes} classes"
            )
        }
        let device = logits.device();
        let counted: Vec<u32> =
            (0..).zip(labels).filter(|(_, label)| **label != Self::IGNORED).map(|(place, _)| place).collect();
        let counted = if counted.len() == places {
            logits.clone()
        } else if counted.is_empty() {
            return nothing(logits);
        } else {
            logits.index_select(&Tensor::new(counted.as_slice(), device)?, 0)?
        };
        // Place by place first: one sum of millions would round.
        let by_place = self.absent(&counted)?.sum(1)?;
        let all = by_place.to_dtype(DType::F64)?.sum_all()?.to_dtype(logits.dtype())?;
        let own: Vec<u32> = (0u32..)
            .zip(labels)
            .filter(|(_, label)| **label > 0)
            .map(|(place, &label)| place * classes as u32 + label as u32 - 1)
            .collect();
        if own.is_empty() {
            return Ok(all);
        }
        let own = logits.flatten_all()?.index_select(&Tensor::new(own.as_slice(), device)?, 0)?;
        all + (self.present(&own)? - self.absent(&own)?)?.sum_all()?
    }

    /// Of a class that the place does not show.
    fn absent(&self, xs: &Tensor) -> Result<Tensor> {
        (self.power(&sigmoid(xs)?)? * softplus(xs)?)? * (1.0 - self.alpha)
    }

    /// Of the class that it shows.
    fn present(&self, xs: &Tensor) -> Result<Tensor> {
        let xs = xs.neg()?;
        (self.power(&sigmoid(&xs)?)? * softplus(&xs)?)? * self.alpha
    }

    fn power(&self, ps: &Tensor) -> Result<Tensor> {
        if self.gamma == 2.0 { ps.sqr() } else { ps.powf(self.gamma) }
    }
}

/// A scalar 0 that keeps what it comes from in the graph, with gradients of 0: the loss where there is nothing to learn.
///
/// # Errors
/// If candle cannot sum the tensor.
pub fn nothing(of: &Tensor) -> Result<Tensor> {
    // By a tensor: a factor would end the graph.
    of.sum_all()? * Tensor::zeros((), of.dtype(), of.device())?
}
