//! The cost columns of Tables 4 and 5: MFLOPs a frame, largest and on average.

use serde::Serialize;
use zoo_core::{Cost, FrameSize, Tally};

use crate::config::Mode;
use crate::{Result, Window, WindowedNet};

/// The counts of a net's steps.
pub trait StepCost: WindowedNet {
    /// The layers of one step that sees `window` of a frame of `frame`.
    fn step_cost(&self, frame: FrameSize, window: FrameSize, with_q: bool) -> Cost {
        let mut tally = Tally::new();
        self.cost(frame, window, with_q, &mut tally);
        tally.total()
    }

    /// MFLOPs a frame of a stream in `mode` (the convention of [`Cost::flops`]). A whole first frame
    /// and idle frames' zero cost are not counted in `max`; neither are resizing and decoding.
    ///
    /// An interval with a delay spreads each key frame's work over the interval, so its average is
    /// SF/K; the tables print SF/K² for most of these rows.
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
                let Window { height, width, .. } = grid.window(0, frame)?;
                let needs_q = policy.build(*grid)?.needs().q;
                let step = self.step_cost(frame, FrameSize::new(height, width), needs_q).mflops();
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
