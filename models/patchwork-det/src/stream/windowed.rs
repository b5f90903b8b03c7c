//! Windowed mode: which window of a frame is seen, what the cells remember of the rest, and the
//! mirrored stream.

use std::collections::VecDeque;

use candle_core::{DType, Device, Tensor};
use zoo_core::{FrameSize, Image};

use crate::attention::motion::MotionMap;
use crate::attention::policy::{Needs, Observation, Policy};
use crate::config::Start;
use crate::error::Context;
use crate::net::WindowedNet;
use crate::stream::{Pass, Preparation};
use crate::{Error, Grid, Memories, PolicyKind, Result, Window};

/// The order in which a stream looks at windows: the start-up's, then the policy's.
#[derive(Clone)]
struct Order {
    /// Windows of the start-up that are still to come; `None` stands for the whole frame.
    startup: VecDeque<Option<usize>>,
    policy: Box<dyn Policy>,
}

impl Order {
    fn next(&mut self, seen: Observation) -> Option<usize> {
        self.startup.pop_front().unwrap_or_else(|| Some(self.policy.next(seen)))
    }
}

/// The windows that a stream begins with.
fn startup(grid: Grid, start: Start) -> VecDeque<Option<usize>> {
    match start {
        Start::Full => VecDeque::from([None]),
        Start::Tiles => grid.tiles().unwrap_or_default().into_iter().map(Some).collect(),
        Start::Zeros => VecDeque::new(),
    }
}

/// Windowed mode's state.
#[derive(Clone)]
pub(crate) struct Windows {
    grid: Grid,
    start: Start,
    needs: Needs,
    order: Order,
    memories: Memories,
    /// Those of the mirrored stream (supplement, Table 4, row 4: "flip").
    mirrored: Option<Memories>,
    /// Q-values after the last step.
    q: Option<Vec<f32>>,
    motion: Option<MotionMap>,
}

/// A windowed step that the net has computed. The stream moves on to it when its answer is decoded too.
pub(crate) struct Look {
    /// The window, in pixels of the net's frame.
    pub window: Window,
    /// The window's action; `None` for the whole frame.
    pub action: Option<usize>,
    /// The order after this window.
    order: Order,
    q: Option<Vec<f32>>,
    /// The frame's samples, for [`MotionMap`].
    shown: Option<Vec<f32>>,
}

impl Windows {
    pub(crate) fn new<N: WindowedNet>(
        net: &N,
        grid: Grid,
        policy: &PolicyKind,
        start: Start,
        flip: bool,
        frame: FrameSize,
    ) -> Result<Self> {
        grid.check_frame(frame)?;
        let fault = |needs: String| Error::Policy { policy: policy.name(), needs };
        let (m, n) = (grid.m(), grid.n());
        if start == Start::Tiles && grid.tiles().is_none() {
            return Err(fault(format!("cannot start by tiles: N={n} does not divide M={m}")));
        }
        let order = Order { startup: startup(grid, start), policy: policy.build(grid)? };
        let needs = order.policy.needs();
        if needs.q && net.attention_grid() != Some((grid, frame)) {
            let has = net.attention_grid().map_or("none".to_owned(), |(grid, frame)| {
                format!("one for M={} N={} at {frame}", grid.m(), grid.n())
            });
            return Err(fault(format!(
                "needs a trained attention network for M={m} N={n} at {frame}, and the model has {has}: use motion"
            )));
        }
        Ok(Self {
            grid,
            start,
            needs,
            order,
            memories: Memories::new(),
            mirrored: flip.then(Memories::new),
            q: None,
            motion: needs.motion.then(|| MotionMap::new(frame)),
        })
    }

    pub(crate) fn memories(&self) -> &Memories {
        &self.memories
    }

    /// Starts over, as for a new video.
    pub(crate) fn reset(&mut self, frame: FrameSize) {
        self.order.policy.reset();
        self.order.startup = startup(self.grid, self.start);
        self.memories.reset();
        self.mirrored.iter_mut().for_each(Memories::reset);
        self.q = None;
        self.motion = self.needs.motion.then(|| MotionMap::new(frame));
    }

    /// Chooses a window and runs the net on it (and on its mirror image, if there is a mirrored
    /// stream). Only the memories have changed then.
    pub(crate) fn look<N: WindowedNet>(
        &mut self,
        net: &N,
        preparation: &Preparation,
        image: &Image,
        frame: FrameSize,
        device: &Device,
    ) -> Result<(Pass<N::Raw>, Look)> {
        let shown = self.motion.is_some().then(|| preparation.samples(image)).transpose()?;
        let motion = self.motion.as_ref().zip(shown.as_ref());
        let motion = motion.map(|(map, shown)| map.differences(shown, self.grid));
        let mut order = self.order.clone();
        let action = order.next(Observation { q: self.q.as_deref(), motion: motion.as_deref() });
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
        let q = N::q_values(&raw).map(q_row).transpose().context("Q-values")?;
        Ok((Pass { raw, mirrored }, Look { window, action, order, q, shown }))
    }

    /// Makes what followed from `look` the stream's own.
    pub(crate) fn take(&mut self, look: Look) {
        self.order = look.order;
        self.q = look.q;
        if let (Some(map), Some(shown)) = (&mut self.motion, &look.shown) {
            map.update(shown, look.window);
        }
    }
}

fn q_row(q: &Tensor) -> candle_core::Result<Vec<f32>> {
    q.to_dtype(DType::F32)?.flatten_all()?.to_vec1()
}
