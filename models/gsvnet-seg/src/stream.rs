//! What a stream remembers, and the choice of key frames: Section 3.1.

use candle_core::{DType, Result, Tensor, bail};
use serde::Serialize;
use zoo_core::FrameSize;

use crate::config::Schedule;

/// Why a frame went through the key frames' net.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum KeyReason {
    /// The stream's first, or the first after a reset.
    First,
    /// The interval has passed.
    Interval,
    /// It looks very different from the frame before.
    SceneChange,
}

/// A stream's memory: the last frame's scores (of Accel: its features) and its eighth, and how long ago the last key frame was. A clone goes
/// on exactly like the original.
#[derive(Debug, Clone)]
pub struct StreamState {
    size: FrameSize,
    /// Frames since the last key frame, and what is kept of the last frame.
    last: Option<(usize, Last)>,
}

/// How the next frame gets its scores.
pub(crate) enum Next<'a> {
    /// From the key frames' net.
    Key(KeyReason),
    /// From the frame before.
    From(&'a Last),
}

/// What is kept of a frame.
#[derive(Debug, Clone)]
pub(crate) struct Last {
    /// What the next frame starts from, `[B, C, ·, ·]`: scores, or Accel's features.
    pub(crate) map: Tensor,
    /// `[B, 3, h, w]`
    pub(crate) low: Tensor,
}

impl StreamState {
    /// Of a stream of frames of `size`, before the first.
    pub(crate) fn new(size: FrameSize) -> Self {
        Self { size, last: None }
    }

    /// The size of the stream's frames.
    pub fn frame_size(&self) -> FrameSize {
        self.size
    }

    /// Forgets everything but the size: the next frame is a key frame.
    pub fn reset(&mut self) {
        self.last = None;
    }

    /// Frames since the last key frame; `None` before the first.
    pub fn since_key(&self) -> Option<usize> {
        self.last.as_ref().map(|(since, _)| *since)
    }

    /// Whether a frame, `[B, 3, H, W]`, has the stream's size.
    pub(crate) fn check(&self, frame: &Tensor) -> Result<()> {
        let FrameSize { height, width } = self.size;
        match *frame.dims() {
            [_, 3, h, w] if (h, w) == (height, width) => Ok(()),
            _ => bail!(
                "expected a frame of [B, 3, {height}, {width}], the stream's size, got {:?}: start another stream",
                frame.dims()
            ),
        }
    }

    /// Whether the frame with this eighth is a key frame; otherwise, what it is propagated from.
    pub(crate) fn next(&self, schedule: &Schedule, low: &Tensor) -> Result<Next<'_>> {
        let Some((since, last)) = &self.last else { return Ok(Next::Key(KeyReason::First)) };
        if since + 1 >= schedule.interval {
            return Ok(Next::Key(KeyReason::Interval));
        }
        if let Some(least) = schedule.scene_change
            && difference(low, &last.low)? > least
        {
            return Ok(Next::Key(KeyReason::SceneChange));
        }
        Ok(Next::From(last))
    }

    /// Goes on to the next frame.
    pub(crate) fn advance(&mut self, map: Tensor, low: Tensor, is_key: bool) {
        let since = if is_key { 0 } else { self.since_key().map_or(0, |since| since + 1) };
        // Whatever graph the frames are part of ends here: a stream goes on for ever.
        self.last = Some((since, Last { map: map.detach(), low: low.detach() }));
    }
}

/// The mean difference of two maps' values.
fn difference(a: &Tensor, b: &Tensor) -> Result<f32> {
    (a - b)?.abs()?.mean_all()?.to_dtype(DType::F32)?.to_scalar()
}
