//! One video through a net: whole frames, held results, or windows.
//!
//! The same for the detector and the segmenter; what differs stands behind [`WindowedNet`].

mod preparation;
mod windowed;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use candle_core::Device;
use serde::Serialize;
use zoo_core::{FrameSize, Image};
use zoo_kernels::on_pool;
use zoo_vision::{Normalization, Resize};

use crate::config::Mode;
use crate::error::Context;
use crate::net::WindowedNet;
use crate::{Error, Memories, Result, Window};

pub(crate) use preparation::Preparation;
use windowed::Windows;

/// The state of one stream: which frame is next, and what the cells remember.
///
/// A value in the caller's hands: it can be cloned (the clone continues identically), kept, dropped.
///
/// A step that fails leaves the order of windows, the start-up included, where it was: the same frame
/// once more gives what it would have given. Only cells may already hold the failed step's window.
#[derive(Clone)]
pub struct Stream<O> {
    source: FrameSize,
    frame: FrameSize,
    mode: Mode,
    preparation: Preparation,
    windows: Option<Windows>,
    index: usize,
    /// Key frames' outputs that are not due yet, with the frame they are due at (interval modes).
    pending: VecDeque<(usize, O)>,
    held: Option<O>,
}

/// How long the parts of a step took.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct StepTime {
    /// Crop, resizing, network, memories, attention.
    pub network: Duration,
    /// Decoding and suppression, or upsampling.
    pub decode: Duration,
}

/// What one frame gave.
#[derive(Debug, Clone, Serialize)]
pub struct Step<O> {
    /// The model's answer for the whole frame, in pixels of the source.
    pub output: O,
    /// Number of the frame in its stream, from 0.
    pub index: usize,
    /// The part of the frame that was seen, in pixels of the net's frame; `None` if none was.
    pub window: Option<Window>,
    /// The window's action in its grid; `None` for a whole frame.
    pub action: Option<usize>,
    /// Time spent.
    pub time: StepTime,
}

/// One pass over a frame or window: the predictions, and those of the mirrored stream.
pub(crate) struct Pass<R> {
    pub raw: R,
    pub mirrored: Option<R>,
}

impl<O: Clone> Stream<O> {
    pub(crate) fn new<N: WindowedNet>(
        net: &N,
        mode: &Mode,
        source: FrameSize,
        frame: FrameSize,
        resize: Resize,
        normalization: Normalization,
    ) -> Result<Self> {
        let windows = match mode {
            Mode::Interval { every: 0, .. } => {
                return Err(Error::Config("interval = 0: expected at least 1".to_owned()));
            }
            Mode::SingleFrame | Mode::Interval { .. } => None,
            Mode::Windows { grid, policy, start, flip } => {
                Some(Windows::new(net, *grid, policy, *start, *flip, frame)?)
            }
        };
        Ok(Self {
            source,
            frame,
            mode: mode.clone(),
            preparation: Preparation::new(source, frame, resize, normalization)?,
            windows,
            index: 0,
            pending: VecDeque::new(),
            held: None,
        })
    }

    /// The size of the source's frames.
    pub fn source_size(&self) -> FrameSize {
        self.source
    }

    /// The size that frames are resized to.
    pub fn frame_size(&self) -> FrameSize {
        self.frame
    }

    /// How the stream spends its computation.
    pub fn mode(&self) -> &Mode {
        &self.mode
    }

    /// What the cells remember; `None` outside windowed mode.
    pub fn memories(&self) -> Option<&Memories> {
        self.windows.as_ref().map(Windows::memories)
    }

    /// Starts over, as for a new video of the same size.
    pub fn reset(&mut self) {
        self.index = 0;
        self.pending.clear();
        self.held = None;
        if let Some(windows) = &mut self.windows {
            windows.reset(self.frame);
        }
    }

    /// Whether a model that resizes frames to `frame` may step this stream: what it remembers, and the
    /// places of boxes, are of one size.
    pub(crate) fn check_frame(&self, frame: FrameSize) -> Result<()> {
        match self.frame == frame {
            true => Ok(()),
            false => Err(Error::OtherModel { expected: self.frame, got: frame }),
        }
    }

    /// Takes the next frame. `decode` turns predictions into an answer, `empty` is the answer before
    /// there is one.
    pub(crate) fn advance<N: WindowedNet>(
        &mut self,
        net: &N,
        device: &Device,
        frame: &Image,
        decode: impl Fn(Pass<N::Raw>, FrameSize) -> Result<O>,
        empty: impl Fn(FrameSize) -> O,
    ) -> Result<Step<O>> {
        if frame.size() != self.source {
            return Err(Error::FrameChanged { expected: self.source, got: frame.size() });
        }
        let index = self.index;
        let started = Instant::now();
        let (pass, window, action, look) = match (&self.mode, &mut self.windows) {
            (_, Some(windows)) => {
                let (preparation, size) = (&self.preparation, self.frame);
                let (pass, look) = on_pool(|| windows.look(net, preparation, frame, size, device))?;
                (Some(pass), Some(look.window), look.action, Some(look))
            }
            (Mode::Interval { every, .. }, None) if !index.is_multiple_of(*every) => (None, None, None, None),
            (_, None) => {
                let raw = on_pool(|| {
                    let xs = self.preparation.frame(frame, device)?;
                    net.single_frame(&xs).context("single frame")
                })?;
                (Some(Pass { raw, mirrored: None }), Some(Window::full(self.frame)), None, None)
            }
        };
        let network = started.elapsed();
        let output = pass.map(|pass| decode(pass, self.source)).transpose()?;

        // Nothing can fail from here on: the stream moves on.
        if let (Some(windows), Some(look)) = (&mut self.windows, look) {
            windows.take(look);
        }
        self.index += 1;
        let output = match (&self.mode, output) {
            (Mode::Interval { delay, .. }, output) => {
                self.pending.extend(output.map(|output| (index.saturating_add(*delay), output)));
                while self.pending.front().is_some_and(|(due, _)| *due <= index) {
                    self.held = self.pending.pop_front().map(|(_, output)| output);
                }
                self.held.clone().unwrap_or_else(|| empty(self.source))
            }
            (_, Some(output)) => output,
            (_, None) => empty(self.source),
        };
        let decode = started.elapsed().saturating_sub(network);
        Ok(Step { output, index, window, action, time: StepTime { network, decode } })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicBool, Ordering};

    use candle_core::{Tensor, bail};
    use zoo_core::Tally;
    use zoo_layers::Surroundings;

    use super::*;
    use crate::net::Probe;
    use crate::{Grid, PolicyKind, Start};

    const FRAME: FrameSize = FrameSize::new(64, 64);

    /// Two cells, the first of which is written even if the step fails.
    #[derive(Default)]
    struct TwoCells {
        fails: AtomicBool,
    }

    impl WindowedNet for TwoCells {
        type Raw = Tensor;

        fn forward(
            &self,
            xs: &Tensor,
            around: &mut dyn Surroundings,
            _with_q: bool,
            _probe: Probe,
        ) -> candle_core::Result<Tensor> {
            let first = around.place("first", xs)?.plane;
            if self.fails.load(Ordering::Relaxed) {
                bail!("no memory left")
            }
            first + around.place("second", &(xs * 2.0)?)?.plane
        }

        fn q_values(_: &Tensor) -> Option<&Tensor> {
            None
        }

        fn attention_grid(&self) -> Option<(Grid, FrameSize)> {
            None
        }

        fn cost(&self, _: FrameSize, _: FrameSize, _: bool, _: &mut Tally) {}
    }

    #[test]
    fn a_failed_step_can_be_taken_again() {
        let frames: Vec<Image> = (0..6)
            .map(|t| {
                Image::new(FRAME, (0..3 * FRAME.area()).map(|i| (i * (t + 3) % 251) as u8).collect()).unwrap()
            })
            .collect();
        for policy in [PolicyKind::Raster, PolicyKind::RasterAll, PolicyKind::Random(3), PolicyKind::Motion] {
            for start in [Start::Full, Start::Tiles, Start::Zeros] {
                let grid = Grid::new(2, 1).unwrap();
                let mode = Mode::Windows { grid, policy: policy.clone(), start, flip: true };
                let net = TwoCells::default();
                let decoder_fails = Cell::new(false);
                let fresh =
                    || Stream::new(&net, &mode, FRAME, FRAME, Resize::HalfPixel, Normalization::Tf).unwrap();
                let step = |stream: &mut Stream<Vec<f32>>, frame: &Image| {
                    let decode = |pass: Pass<Tensor>, _| match decoder_fails.get() {
                        true => Err(Error::Config("no box fits".to_owned())),
                        false => (pass.raw + pass.mirrored.unwrap())
                            .and_then(|sum| sum.flatten_all()?.to_vec1())
                            .context("sum"),
                    };
                    stream.advance(&net, &Device::Cpu, frame, decode, |_| vec![])
                };
                let (mut steady, mut shaken) = (fresh(), fresh());
                for (t, frame) in frames.iter().enumerate() {
                    net.fails.store(true, Ordering::Relaxed);
                    let error = step(&mut shaken, frame).unwrap_err().to_string();
                    assert!(error.starts_with("mirrored window: no memory left"), "{error}");
                    net.fails.store(false, Ordering::Relaxed);
                    decoder_fails.set(true);
                    assert!(step(&mut shaken, frame).unwrap_err().to_string().contains("no box fits"));
                    decoder_fails.set(false);

                    let expected = step(&mut steady, frame).unwrap();
                    let got = step(&mut shaken, frame).unwrap();
                    let about = |step: &Step<Vec<f32>>| (step.index, step.action, step.window);
                    assert_eq!(about(&got), about(&expected), "{policy:?} {start:?} frame {t}");
                    assert_eq!(got.output, expected.output, "{policy:?} {start:?} frame {t}");
                }
            }
        }
    }
}
