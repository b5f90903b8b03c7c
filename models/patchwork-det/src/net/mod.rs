//! The nets of Section 4 over the cells of Section 3.2. Here is what the detector and the segmenter have in
//! common: one forward pass that serves a whole frame and a window of it.

pub(crate) mod cell;
pub mod detector;
pub mod segmenter;
pub(crate) mod window;

use candle_core::{Result, Tensor};
use zoo_core::{FrameSize, Tally};
use zoo_layers::{Surroundings, ZeroBorder};

use crate::{Grid, Memories, Window};

/// The stem's cell, whose input is the picture itself: the latest pixels of every window.
pub(crate) const IMAGE_CELL: &str = "features.0";
/// The cell that restores the full frame's map for the attention network, and the detector's pyramid
/// (supplement, Figure 10).
pub(crate) const RESTORE_CELL: &str = "restore";

/// Sees every intermediate map by name; copy what is to outlive the step.
pub type Probe<'a> = &'a mut dyn FnMut(&str, &Tensor) -> Result<()>;

/// A net that sees a window and predicts for the frame.
pub trait WindowedNet: Sync {
    /// Its predictions before decoding.
    type Raw: Send;

    /// The one forward pass behind both modes. `around` says what lies outside `xs`
    /// (`[B, 3, h, w]`, normalised) and restores full-frame maps; `probe` sees the maps on the way.
    ///
    /// # Errors
    /// If a shape does not fit, or `with_q` is asked of a net without attention.
    fn forward(
        &self,
        xs: &Tensor,
        around: &mut dyn Surroundings,
        with_q: bool,
        probe: Probe,
    ) -> Result<Self::Raw>;

    /// The Q-values `[B, |A|]` among the predictions, if they were asked for.
    fn q_values(raw: &Self::Raw) -> Option<&Tensor>;

    /// The grid and frame that the attention network was built for, if there is one.
    fn attention_grid(&self) -> Option<(Grid, FrameSize)>;

    /// Counts one step that sees `window` of a frame of `frame` (the same for single-frame mode),
    /// the attention network only `with_q`.
    fn cost(&self, frame: FrameSize, window: FrameSize, with_q: bool, tally: &mut Tally);

    /// Single-frame mode: the whole frame `xs` (`[B, 3, H, W]`), zeros around it.
    ///
    /// # Errors
    /// If a shape does not fit.
    fn single_frame(&self, xs: &Tensor) -> Result<Self::Raw> {
        self.forward(xs, &mut ZeroBorder, false, &mut |_, _| Ok(()))
    }

    /// A Patchwork step: `xs` is `window` of a frame of `frame`; everything else comes from, and
    /// goes to, the memories.
    ///
    /// # Errors
    /// If a shape does not fit, or the window does not lie on multiples of 32.
    fn step(
        &self,
        xs: &Tensor,
        frame: FrameSize,
        window: Window,
        memories: &mut Memories,
        with_q: bool,
    ) -> Result<Self::Raw> {
        self.forward(xs, &mut memories.at(frame, window), with_q, &mut |_, _| Ok(()))
    }
}

/// Marks every cell of a predicted map `[B, C, h, w]` as seen: ones, `[B, 1, h, w]`.
pub(crate) fn seen_like(map: &Tensor) -> Result<Tensor> {
    map.narrow(1, 0, 1)?.ones_like()
}
