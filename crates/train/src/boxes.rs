//! Losses of boxes.

use candle_core::{Result, Tensor, bail};
use serde::{Deserialize, Serialize};

/// Huber's loss as detectors have it, of each difference: x² / 2β below β, |x| − β/2 from there on (Girshick, "Fast
/// R-CNN", ICCV 2015, Equation 3, where β = 1).
///
/// # Errors
/// If β is not above 0.
pub fn smooth_l1(differences: &Tensor, beta: f64) -> Result<Tensor> {
    if !(beta > 0.0 && beta.is_finite()) {
        bail!("smooth L1: expected a β above 0, got {beta}")
    }
    // With c = min(|x|, β): c·(|x| − c/2) / β.
    let size = differences.abs()?;
    let capped = size.minimum(&Tensor::full(beta, size.shape(), size.device())?.to_dtype(size.dtype())?)?;
    (&capped * (&size - (&capped / 2.0)?)?)? / beta
}

/// How well a box overlaps the true one, as a loss.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum IouLoss {
    /// −ln IoU (Yu et al., "UnitBox", ACM MM 2016).
    Iou,
    /// 1 − GIoU: the share of the enclosing box that neither covers counts too (Rezatofighi et al., "Generalized
    /// Intersection over Union", CVPR 2019).
    Giou,
}

impl IouLoss {
    /// The loss of each of P boxes, `[P]`, as FCOS's code has it: IoU = (I + 1) / (U + 1), and 10⁻⁷ in the enclosing area.
    ///
    /// Both `[P, 4]`: distances of one point to the left, top, right and bottom side of the predicted and of the true box.
    /// Has a gradient for the prediction.
    ///
    /// # Errors
    /// If the shapes are not `[P, 4]`.
    pub fn of(self, predicted: &Tensor, truth: &Tensor) -> Result<Tensor> {
        let (boxes, sides) = predicted.dims2()?;
        if sides != 4 || truth.dims() != [boxes, 4] {
            bail!(
                "box loss: expected distances [P, 4] of prediction and truth, got {:?} and {:?}",
                predicted.dims(),
                truth.dims()
            )
        }
        // Opposite sides added up: width and height.
        let sides = |xs: &Tensor| -> Result<(Tensor, Tensor)> {
            let side = |i: usize| xs.narrow(1, i, 1)?.squeeze(1);
            Ok(((side(0)? + side(2)?)?, (side(1)? + side(3)?)?))
        };
        let area = |xs: &Tensor| -> Result<Tensor> {
            let (w, h) = sides(xs)?;
            w * h
        };
        let shared = area(&predicted.minimum(truth)?)?;
        let union = ((area(predicted)? + area(truth)?)? - &shared)?;
        let iou = ((&shared + 1.0)? / (&union + 1.0)?)?;
        match self {
            Self::Iou => iou.log()?.neg(),
            Self::Giou => {
                let enclosing = (area(&predicted.maximum(truth)?)? + 1e-7)?;
                let giou = (iou - ((&enclosing - &union)? / &enclosing)?)?;
                1.0 - giou
            }
        }
    }
}

/// How central a point is in its box: √(min(l, r) / max(l, r) · min(t, b) / max(t, b)), `[P]` (Tian et al., "FCOS", ICCV
/// 2019, Equation 3). `distances`: `[P, 4]`, left, top, right, bottom, all above 0.
///
/// # Errors
/// If the shape is not `[P, 4]`.
pub fn centerness(distances: &Tensor) -> Result<Tensor> {
    let (_, 4) = distances.dims2()? else {
        bail!("centerness: expected distances [P, 4], got {:?}", distances.dims())
    };
    let side = |i: usize| distances.narrow(1, i, 1)?.squeeze(1);
    let ratio = |a: Tensor, b: Tensor| -> Result<Tensor> { a.minimum(&b)? / a.maximum(&b)? };
    (ratio(side(0)?, side(2)?)? * ratio(side(1)?, side(3)?)?)?.sqrt()
}
