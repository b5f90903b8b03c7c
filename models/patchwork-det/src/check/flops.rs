//! What a frame costs: the FLOPs of a net's steps in each mode, counted by walking the net.

use serde::Serialize;
use zoo_core::{Cost, FrameSize, Tally};

use crate::config::Mode;
use crate::{Result, WindowedNet};

/// The counts of a net's steps.
pub trait StepCost: WindowedNet {
    /// Parameters and operations of one step that sees `window` of a frame of `frame`, with the
    /// attention network or without.
    fn step_cost(&self, frame: FrameSize, window: FrameSize, with_q: bool) -> Cost {
        let mut tally = Tally::new();
        self.cost(frame, window, with_q, &mut tally);
        tally.total()
    }

    /// MFLOPs a frame of a stream in `mode`, as [`Cost::flops`] counts them.
    ///
    /// Counted is what the net computes once the stream is under way: not the whole frame that a
    /// stream of windows may begin with, not resizing, decoding or suppression. With an interval, the
    /// frames between key frames cost nothing. A delay spreads each key frame's work evenly over the
    /// interval, so that its every frame costs the average.
    ///
    /// # Errors
    /// If the frame cannot be cut into the mode's grid.
    fn mflops(&self, frame: FrameSize, mode: &Mode) -> Result<StepFlops> {
        let whole = self.step_cost(frame, frame, false).mflops();
        Ok(match mode {
            Mode::SingleFrame => StepFlops { max: whole, avg: whole },
            Mode::Interval { every, delay } => {
                let avg = whole / (*every).max(1) as f64;
                StepFlops { max: if *delay == 0 { whole } else { avg }, avg }
            }
            Mode::Windows { grid, policy, flip, .. } => {
                let window = grid.window(0, frame)?.size();
                let needs_q = policy.build(*grid)?.needs().q;
                let step = self.step_cost(frame, window, needs_q).mflops();
                let step = if *flip { 2.0 * step } else { step };
                StepFlops { max: step, avg: step }
            }
        })
    }
}

/// MFLOPs a frame.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct StepFlops {
    /// Of the most expensive frame.
    pub max: f64,
    /// Over all frames.
    pub avg: f64,
}

impl<N: WindowedNet> StepCost for N {}
