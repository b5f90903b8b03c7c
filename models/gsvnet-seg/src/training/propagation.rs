use candle_core::{Result, Tensor, bail};
use zoo_core::{FrameSize, ScoreNet};
use zoo_layers::Statistics;

use super::STATISTICS;
use crate::config::{SMALLEST, low_size};
use crate::net::{self, GsvNet};

/// The last so many propagated frames are learned from.
pub const LEARNED_STEPS: usize = 2;

/// Scores of a sample's last frame, `[B, classes, h, w]`, an eighth of it, to learn from.
///
/// `frames`: the key frame and the frames after it, `[B, 3, H, W]` each, as [`GsvNet::push`] takes them. The key frame
/// is not resized and has no gradient, nor has any frame's propagation before the last [`LEARNED_STEPS`]; from one of
/// these to the next, scores carry gradients. Norms go by the batch ([`STATISTICS`]) in the flow net always, in the
/// other nets for the last [`LEARNED_STEPS`] frames only, whatever [`GsvNet::set_statistics`] said; the stored
/// statistics follow.
///
/// # Errors
/// If there are fewer than two frames, their shapes differ, the key frames' net does not take them, or nothing can learn:
/// the net was prepared, or its weights are no variables.
pub fn propagate<N: ScoreNet>(net: &GsvNet<N>, frames: &[Tensor]) -> Result<Tensor> {
    let [key, following @ ..] = frames else { bail!("training: expected a key frame, got no frames") };
    let (_, channels, height, width) = key.dims4()?;
    let size = FrameSize::new(height, width);
    if let Some(other) = following.iter().find(|frame| frame.dims() != key.dims()) {
        bail!("training: expected frames of one shape, got {:?} and {:?}", key.dims(), other.dims())
    }
    if following.is_empty() || channels != 3 || height < SMALLEST.height || width < SMALLEST.width {
        bail!(
            "training: expected a key frame and at least one more, [B, 3, H, W] of {SMALLEST} or larger, got {} of {:?}",
            frames.len(),
            key.dims()
        )
    }
    net.keyframe().check_input(size)?;

    let eighth = low_size(size);
    let low = |frame: &Tensor| net.channels().propagation.of_rgb(&net::resized(frame, eighth)?);
    let mut flow = net.flow_net().clone();
    flow.set_statistics(STATISTICS);
    let [stored, learning] = [Statistics::Stored, STATISTICS].map(|statistics| {
        let mut propagation = net.propagation().clone();
        propagation.set_statistics(statistics);
        propagation
    });
    let mut scores = net.key_scores(key, eighth)?.detach();
    let mut before = low(key)?;
    for (i, frame) in following.iter().enumerate() {
        let now = low(frame)?;
        let learns = i + LEARNED_STEPS >= following.len();
        let propagation = if learns { &learning } else { &stored };
        let step = net::propagate((&flow, propagation), &now, &before, &scores)?;
        scores = if learns { step.scores } else { step.scores.detach() };
        before = now;
    }
    if !scores.track_op() {
        bail!(
            "training: nothing can learn: build the net on variables (candle_nn::VarMap), and do not prepare it"
        )
    }
    Ok(scores)
}
