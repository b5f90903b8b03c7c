//! One video through a windowed net: preparation of windows, start-up, choice, memories, mirror.
//!
//! The same for the detector and the segmenter; what differs stands behind [`WindowedNet`].

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use candle_core::{DType, Device, Tensor};
use serde::Serialize;
use zoo_core::{FrameSize, Image};
use zoo_kernels::on_pool;
use zoo_vision::{Normalization, Resize};

use crate::config::{Mode, Start};
use crate::error::Context;
use crate::motion::MotionMap;
use crate::net::WindowedNet;
use crate::policy::{Needs, Observation, Policy};
use crate::preparation::Preparation;
use crate::{Error, Grid, Memories, Result, Window};

/// Windowed mode's state.
#[derive(Clone)]
struct Windows {
    grid: Grid,
    policy: Box<dyn Policy>,
    needs: Needs,
    start: Start,
    /// Windows of the start-up that are still to come; `None` stands for the whole frame.
    startup: VecDeque<Option<usize>>,
    memories: Memories,
    mirrored: Option<Memories>,
    q: Option<Vec<f32>>,
    motion: Option<MotionMap>,
}

impl Windows {
    fn startup(grid: Grid, start: Start) -> VecDeque<Option<usize>> {
        match start {
            Start::Full => VecDeque::from([None]),
            Start::Tiles => grid.tiles().unwrap_or_default().into_iter().map(Some).collect(),
            Start::Zeros => VecDeque::new(),
        }
    }

    fn reset(&mut self, frame: FrameSize) {
        self.policy.reset();
        self.startup = Self::startup(self.grid, self.start);
        self.memories.reset();
        self.mirrored.iter_mut().for_each(Memories::reset);
        self.q = None;
        self.motion = self.needs.motion.then(|| MotionMap::new(frame));
    }
}

/// The state of one stream: which frame is next, and what the cells remember.
///
/// A value in the caller's hands: it can be cloned (the clone continues identically), kept, dropped.
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
            Mode::SingleFrame => None,
            Mode::Interval { every: 0, .. } => {
                return Err(Error::Config("interval = 0: expected at least 1".to_owned()));
            }
            Mode::Interval { .. } => None,
            Mode::Windows { grid, policy, start, flip } => {
                grid.check_frame(frame)?;
                let name = policy.name();
                let needs_tiles = *start == Start::Tiles && grid.tiles().is_none();
                if needs_tiles {
                    return Err(Error::Policy {
                        policy: name,
                        needs: format!(
                            "cannot start by tiles: N={} does not divide M={}",
                            grid.n(),
                            grid.m()
                        ),
                    });
                }
                let policy = policy.build(*grid)?;
                let needs = policy.needs();
                if needs.q && net.attention_grid() != Some((*grid, frame)) {
                    let has = net.attention_grid().map_or("none".to_owned(), |(g, f)| {
                        format!("one for M={} N={} at {f}", g.m(), g.n())
                    });
                    return Err(Error::Policy {
                        policy: name,
                        needs: format!(
                            "needs a trained attention network for M={} N={} at {frame}, and the model has {has}: use motion",
                            grid.m(),
                            grid.n()
                        ),
                    });
                }
                Some(Windows {
                    grid: *grid,
                    needs,
                    start: *start,
                    startup: Windows::startup(*grid, *start),
                    memories: Memories::new(),
                    mirrored: flip.then(Memories::new),
                    q: None,
                    motion: needs.motion.then(|| MotionMap::new(frame)),
                    policy,
                })
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
        self.windows.as_ref().map(|w| &w.memories)
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
        let full = Window::full(self.frame);
        let (pass, window, action) = match (&self.mode, &mut self.windows) {
            (_, Some(windows)) => {
                let (preparation, size) = (&self.preparation, self.frame);
                let (pass, window, action) = on_pool(|| windows.step(net, preparation, frame, size, device))?;
                (Some(pass), Some(window), action)
            }
            (Mode::Interval { every, .. }, None) if !index.is_multiple_of(*every) => (None, None, None),
            (_, None) => {
                let raw = on_pool(|| {
                    let xs = self.preparation.frame(frame, device)?;
                    net.single_frame(&xs).context("single frame")
                })?;
                (Some(Pass { raw, mirrored: None }), Some(full), None)
            }
        };
        let network = started.elapsed();
        let output = pass.map(|pass| decode(pass, self.source)).transpose()?;
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
        self.index += 1;
        Ok(Step { output, index, window, action, time: StepTime { network, decode } })
    }
}

impl Windows {
    /// Chooses a window, runs the net on it (and on its mirror image, if there is a mirrored
    /// stream), and remembers.
    fn step<N: WindowedNet>(
        &mut self,
        net: &N,
        preparation: &Preparation,
        image: &Image,
        frame: FrameSize,
        device: &Device,
    ) -> Result<(Pass<N::Raw>, Window, Option<usize>)> {
        let shown = self.motion.is_some().then(|| preparation.samples(image)).transpose()?;
        let action = self.choose(shown.as_deref());
        let window = match action {
            Some(action) => self.grid.window(action, frame)?,
            None => Window::full(frame),
        };
        let xs = preparation.window(image, window, device)?;
        let mirrored = match &mut self.mirrored {
            Some(memories) => {
                let xs = xs.flip(&[3]).context("mirror")?;
                let window = window.mirrored(frame);
                Some(net.step(&xs, frame, window, memories, false).context("mirrored window")?)
            }
            None => None,
        };
        let raw = net.step(&xs, frame, window, &mut self.memories, self.needs.q).context("window")?;
        self.q = N::q_values(&raw).map(q_row).transpose().context("Q-values")?;
        if let (Some(map), Some(shown)) = (&mut self.motion, &shown) {
            map.update(shown, window);
        }
        Ok((Pass { raw, mirrored }, window, action))
    }

    /// The window of the next frame, of which `shown` are the sampled pixels; `None` for all of it.
    fn choose(&mut self, shown: Option<&[f32]>) -> Option<usize> {
        if let Some(startup) = self.startup.pop_front() {
            return startup;
        }
        let motion = match (&self.motion, shown) {
            (Some(map), Some(shown)) => Some(map.differences(shown, self.grid)),
            _ => None,
        };
        Some(self.policy.next(Observation { q: self.q.as_deref(), motion: motion.as_deref() }))
    }
}

fn q_row(q: &Tensor) -> candle_core::Result<Vec<f32>> {
    q.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
