//! Several looks at one image, and scores that all of them agree on.

use candle_core::{Result, Tensor, bail};
use zoo_kernels::Interpolation;

use crate::resize_like;

/// How the scores of several sizes of an image become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum MergeViews {
    /// (older + newer) / 2, size after size, so that a later one weighs more: HyperSeg's "mean".
    #[default]
    RunningMean,
    /// The largest.
    Max,
}

/// Scores `[B, C, h, w]` of an image that is looked at in several sizes, as HyperSeg's code does it for a list: `net`
/// runs on each of `sizes`, `[B, 3, H, W]` with its own H and W; what it says is brought to the first one's scores
/// (half-pixel bilinear) and merged. `mirrored` asks it of each size's mirror image, too, and takes the larger score.
///
/// # Errors
/// If there is no size, one is not a map, or `net` fails.
pub fn pyramid_scores(
    sizes: &[Tensor],
    mirrored: bool,
    merge: MergeViews,
    net: impl Fn(&Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let [first, others @ ..] = sizes else { bail!("pyramid: expected at least one size of the image") };
    let scores = |xs: &Tensor| {
        let ys = net(xs)?;
        // What is to be flipped must be contiguous, and nets need not give it so.
        if mirrored {
            ys.maximum(&net(&xs.contiguous()?.flip(&[3])?)?.contiguous()?.flip(&[3])?)
        } else {
            Ok(ys)
        }
    };
    let mut merged = scores(first)?;
    for xs in others {
        let ys = resize_like(&scores(xs)?, &merged, Interpolation::Bilinear)?;
        merged = match merge {
            MergeViews::RunningMean => ((merged + ys)? / 2.0)?,
            MergeViews::Max => merged.maximum(&ys)?,
        };
    }
    Ok(merged)
}
