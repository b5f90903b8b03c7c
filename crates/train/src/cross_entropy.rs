//! Cross entropy of classes of pixels.

use candle_core::{DType, Result, Tensor, bail};
use zoo_kernels::{Interpolation, cross_entropy, resize2d};

/// The label of pixels that do not count, as label files are read (`zoo_core::SegMap::IGNORED`).
pub const IGNORED: u32 = 255;

/// −log of each pixel's softmax at its label, `[B, H, W]`; 0 where the label is `ignored`.
///
/// `scores`: `[B, C, h, w]`, brought to the labels' size first where they have another (bilinear, half-pixel).
/// `labels`: `[B, H, W]`, u8, u32 or i64. Has a gradient for the scores.
///
/// # Errors
/// If the shapes do not fit, or a label that counts is no class.
pub fn pixel_cross_entropy(scores: &Tensor, labels: &Tensor, ignored: Option<u32>) -> Result<Tensor> {
    Labels::new(scores, labels, ignored)?.losses(scores)
}

/// Labels that fit the scores.
struct Labels {
    /// u32 `[B, H, W]`, 0 where it does not count.
    classes: Tensor,
    /// 1 where it counts, else 0, u8 `[B, H, W]`.
    counted: Tensor,
}

impl Labels {
    fn new(scores: &Tensor, labels: &Tensor, ignored: Option<u32>) -> Result<Self> {
        let (&[b, classes, _, _], &[lb, h, w]) = (scores.dims(), labels.dims()) else {
            bail!(
                "cross entropy: expected scores [B, C, H, W] and labels [B, H, W], got {:?} and {:?}",
                scores.dims(),
                labels.dims()
            )
        };
        if b != lb || b * classes * h * w == 0 {
            bail!(
                "cross entropy: expected as many labels as scores and at least one, got scores {:?} and labels {:?}",
                scores.dims(),
                labels.dims()
            )
        }
        if !matches!(labels.dtype(), DType::U8 | DType::U32 | DType::I64) {
            bail!("cross entropy: expected labels of u8, u32 or i64, got {:?}", labels.dtype())
        }
        let labels = labels.to_device(scores.device())?.to_dtype(DType::I64)?;
        let counted = match ignored {
            Some(ignored) => labels.ne(i64::from(ignored))?,
            None => labels.ones_like()?.to_dtype(DType::U8)?,
        };
        let labels = counted.where_cond(&labels, &labels.zeros_like()?)?;
        for label in [labels.min_all()?, labels.max_all()?] {
            let label = label.to_scalar::<i64>()?;
            if !(0..classes as i64).contains(&label) {
                bail!(
                    "cross entropy: label {label} is no class of the scores, which have {classes} (0 to {})",
                    classes - 1
                )
            }
        }
        Ok(Self { classes: labels.to_dtype(DType::U32)?, counted })
    }

    /// The loss of each pixel, `[B, H, W]`.
    fn losses(&self, scores: &Tensor) -> Result<Tensor> {
        let (_, height, width) = self.classes.dims3()?;
        let labels =
            self.counted.where_cond(&self.classes, &(self.classes.zeros_like()? + f64::from(u32::MAX))?)?;
        let sized = resize2d(scores, (height, width), Interpolation::Bilinear)?;
        cross_entropy(&sized, &labels.flatten_all()?.to_vec1()?)
    }
}

/// Mean cross entropy over the pixels that count.
///
/// With weights each pixel counts as much as its class, in the sum and in what it is divided by, as PyTorch's
/// `CrossEntropyLoss` has it.
#[derive(Debug, Clone, PartialEq)]
pub struct CrossEntropy {
    /// The label of pixels that do not count.
    pub ignored: Option<u32>,
    /// What a pixel of each class weighs; 1 where `None`.
    pub weights: Option<Vec<f32>>,
}

impl Default for CrossEntropy {
    fn default() -> Self {
        Self { ignored: Some(IGNORED), weights: None }
    }
}

impl CrossEntropy {
    /// Sets [`CrossEntropy::weights`].
    #[must_use]
    pub fn with_weights(self, weights: impl Into<Vec<f32>>) -> Self {
        Self { weights: Some(weights.into()), ..self }
    }

    /// Sets [`CrossEntropy::ignored`].
    #[must_use]
    pub fn with_ignored(self, ignored: Option<u32>) -> Self {
        Self { ignored, ..self }
    }

    /// The loss, a scalar; 0 without gradient where no pixel counts.
    ///
    /// # Errors
    /// As [`pixel_cross_entropy`]; if there are not as many weights as classes, or one is below 0 or not finite.
    pub fn loss(&self, scores: &Tensor, labels: &Tensor) -> Result<Tensor> {
        let labels = Labels::new(scores, labels, self.ignored)?;
        let losses = labels.losses(scores)?;
        let mut weights = labels.counted.to_dtype(losses.dtype())?;
        if let Some(of_class) = &self.weights {
            let expected = scores.dim(1)?;
            let fits = of_class.len() == expected && of_class.iter().all(|w| w.is_finite() && *w >= 0.0);
            if !fits {
                bail!(
                    "cross entropy: expected {expected} weights of at least 0, one a class, got {of_class:?}"
                )
            }
            let of_class = Tensor::new(of_class.as_slice(), scores.device())?.to_dtype(losses.dtype())?;
            let of_pixel =
                of_class.index_select(&labels.classes.flatten_all()?, 0)?.reshape(losses.shape())?;
            weights = (weights * of_pixel)?;
        }
        let all = weights.to_dtype(DType::F64)?.sum_all()?.to_scalar::<f64>()?;
        if all == 0.0 {
            return Tensor::zeros((), losses.dtype(), losses.device());
        }
        (losses * weights)?.sum_all()? / all
    }
}
