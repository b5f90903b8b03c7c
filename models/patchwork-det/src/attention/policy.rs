//! Which window to look at next: the paper's learned choice, and orders of ours that need no training.

use serde::{Deserialize, Serialize};

use crate::{Error, Grid, Result};

/// What a policy may look at before it chooses the window of the next frame.
#[derive(Debug, Clone, Copy, Default)]
pub struct Observation<'a> {
    /// Q-values of all windows after the last step, if the policy [needs](Needs) them.
    pub q: Option<&'a [f32]>,
    /// For each window, how far the next frame is from what the cells last saw there: the sum of
    /// absolute differences over sampled pixels.
    pub motion: Option<&'a [f32]>,
}

/// What has to be computed for a policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Needs {
    /// Run the attention network in each step.
    pub q: bool,
    /// Compare each frame with the image memory before its step.
    pub motion: bool,
}

/// Chooses windows. A policy's state belongs to one stream; a clone continues identically. Each step
/// asks a clone, which the stream keeps once the step has succeeded.
pub trait Policy: Send + Sync {
    /// The window for the next frame, an action of the grid.
    fn next(&mut self, seen: Observation) -> usize;

    /// Starts over, as for a new video.
    fn reset(&mut self);

    /// What [`Policy::next`] has to be shown.
    fn needs(&self) -> Needs {
        Needs::default()
    }

    /// A copy with the same state.
    fn boxed_clone(&self) -> Box<dyn Policy>;
}

impl Clone for Box<dyn Policy> {
    fn clone(&self) -> Self {
        self.boxed_clone()
    }
}

/// The policies by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum PolicyKind {
    /// The window with the largest Q-value; needs a trained attention network.
    Learned,
    /// The windows that tile the frame, row by row, over and over; needs N to divide M.
    Raster,
    /// All windows, row by row, over and over.
    RasterAll,
    /// Uniformly at random, the same every time for one seed.
    Random(u64),
    /// A given list, over and over.
    Fixed(Vec<usize>),
    /// The window whose pixels changed most since the cells last saw them. Needs no training.
    Motion,
}

impl PolicyKind {
    /// The names that [`PolicyKind::parse`] takes.
    pub const NAMES: &'static str = "learned, raster, raster-all, random, random:SEED, fixed:A,B,…, motion";

    /// The policy's name, without its parameters.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Learned => "learned",
            Self::Raster => "raster",
            Self::RasterAll => "raster-all",
            Self::Random(_) => "random",
            Self::Fixed(_) => "fixed",
            Self::Motion => "motion",
        }
    }

    /// Reads [`PolicyKind::NAMES`].
    ///
    /// # Errors
    /// If there is no such policy.
    pub fn parse(text: &str) -> Result<Self> {
        let unknown =
            || Error::Unknown { what: "policy", got: text.to_owned(), expected: Self::NAMES.to_owned() };
        let (name, parameter) = text.split_once(':').map_or((text, None), |(n, p)| (n, Some(p)));
        match (name, parameter) {
            ("learned", None) => Ok(Self::Learned),
            ("raster", None) => Ok(Self::Raster),
            ("raster-all", None) => Ok(Self::RasterAll),
            ("motion", None) => Ok(Self::Motion),
            ("random", seed) => Ok(Self::Random(seed.unwrap_or("0").parse().map_err(|_| unknown())?)),
            ("fixed", Some(list)) => list
                .split(',')
                .map(|a| a.trim().parse().map_err(|_| unknown()))
                .collect::<Result<_>>()
                .map(Self::Fixed),
            _ => Err(unknown()),
        }
    }

    /// The policy for windows of `grid`.
    ///
    /// # Errors
    /// If the policy does not suit the grid.
    pub fn build(&self, grid: Grid) -> Result<Box<dyn Policy>> {
        let fault = |needs: String| Error::Policy { policy: self.name(), needs };
        let actions = grid.actions();
        match self {
            Self::Learned => Ok(Box::new(Learned)),
            Self::Motion => Ok(Box::new(Motion)),
            Self::Random(seed) => Ok(Box::new(Random { seed: *seed, rng: SplitMix::new(*seed), actions })),
            Self::RasterAll => Ok(Box::new(Cycle::new((0..actions).collect()))),
            Self::Raster => match grid.tiles() {
                Some(tiles) => Ok(Box::new(Cycle::new(tiles))),
                None => Err(fault(format!(
                    "needs windows that tile the frame, and N={} does not divide M={}: use raster-all or another grid",
                    grid.n(),
                    grid.m()
                ))),
            },
            Self::Fixed(list) => match list.iter().find(|&&a| a >= actions) {
                Some(&action) => Err(Error::Action { action, m: grid.m(), n: grid.n(), last: actions - 1 }),
                None if list.is_empty() => Err(fault("needs at least one window in its list".to_owned())),
                None => Ok(Box::new(Cycle::new(list.clone()))),
            },
        }
    }
}

/// Index of the largest value, the lowest on ties; 0 for an empty slice.
pub(crate) fn argmax(values: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in values.iter().enumerate() {
        if values.get(best).is_none_or(|b| v > b) {
            best = i;
        }
    }
    best
}

/// argmax Q, as [`crate::qlearning`] trains it. Before a stream's first step there are no Q-values: the
/// first window, then.
#[derive(Debug, Clone)]
struct Learned;

impl Policy for Learned {
    fn next(&mut self, seen: Observation) -> usize {
        argmax(seen.q.unwrap_or_default())
    }
    fn reset(&mut self) {}
    fn needs(&self) -> Needs {
        Needs { q: true, motion: false }
    }
    fn boxed_clone(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}

/// argmax of the change since the cells last saw each window.
#[derive(Debug, Clone)]
struct Motion;

impl Policy for Motion {
    fn next(&mut self, seen: Observation) -> usize {
        argmax(seen.motion.unwrap_or_default())
    }
    fn reset(&mut self) {}
    fn needs(&self) -> Needs {
        Needs { q: false, motion: true }
    }
    fn boxed_clone(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}

/// A list, over and over.
#[derive(Debug, Clone)]
struct Cycle {
    actions: Vec<usize>,
    at: usize,
}

impl Cycle {
    fn new(actions: Vec<usize>) -> Self {
        Self { actions, at: 0 }
    }
}

impl Policy for Cycle {
    fn next(&mut self, _seen: Observation) -> usize {
        let action = self.actions.get(self.at).copied().unwrap_or_default();
        self.at = (self.at + 1) % self.actions.len().max(1);
        action
    }
    fn reset(&mut self) {
        self.at = 0;
    }
    fn boxed_clone(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}

/// Uniform and reproducible.
#[derive(Debug, Clone)]
struct Random {
    seed: u64,
    rng: SplitMix,
    actions: usize,
}

impl Policy for Random {
    fn next(&mut self, _seen: Observation) -> usize {
        self.rng.below(self.actions)
    }
    fn reset(&mut self) {
        self.rng = SplitMix::new(self.seed);
    }
    fn boxed_clone(&self) -> Box<dyn Policy> {
        Box::new(self.clone())
    }
}

/// SplitMix64: a small generator whose numbers are the same on every platform and in every version.
#[derive(Debug, Clone)]
pub(crate) struct SplitMix(u64);

impl SplitMix {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Uniform in 0..n (0 for n = 0), by multiplication; the bias is below n / 2⁶⁴.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next()) * n as u128) >> 64) as usize
    }

    /// Uniform in 0..1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(kind: &PolicyKind, grid: Grid, steps: usize) -> Vec<usize> {
        let mut policy = kind.build(grid).unwrap();
        (0..steps).map(|_| policy.next(Observation::default())).collect()
    }

    #[test]
    fn fixed_orders() {
        let grid = Grid::new(4, 2).unwrap();
        for (kind, expected) in [
            (PolicyKind::Raster, vec![0, 2, 6, 8, 0, 2]),
            (PolicyKind::RasterAll, vec![0, 1, 2, 3, 4, 5]),
            (PolicyKind::Fixed(vec![7, 1]), vec![7, 1, 7, 1, 7, 1]),
        ] {
            assert_eq!(run(&kind, grid, 6), expected, "{kind:?}");
        }
    }

    #[test]
    fn random_is_reproducible_covers_all_windows_and_restarts_on_reset() {
        let grid = Grid::new(4, 2).unwrap();
        let long = run(&PolicyKind::Random(7), grid, 200);
        assert_eq!(long, run(&PolicyKind::Random(7), grid, 200));
        assert_ne!(long, run(&PolicyKind::Random(8), grid, 200));
        for action in 0..9 {
            let times = long.iter().filter(|&&a| a == action).count();
            assert!((10..40).contains(&times), "window {action}: {times} of 200");
        }
        let mut policy = PolicyKind::Random(7).build(grid).unwrap();
        policy.next(Observation::default());
        let mut copy = policy.clone();
        assert_eq!(policy.next(Observation::default()), copy.next(Observation::default()));
        policy.reset();
        assert_eq!(policy.next(Observation::default()), long[0]);
    }

    #[test]
    fn learned_and_motion_take_the_largest_lowest_index_first() {
        let grid = Grid::new(2, 1).unwrap();
        for (values, expected) in
            [([0.1, 0.9, 0.9, 0.0], 1), ([f32::NAN, 1.0, 0.5, 2.0], 0), ([-1.0, -3.0, -1.0, -2.0], 0)]
        {
            let mut learned = PolicyKind::Learned.build(grid).unwrap();
            let q = Observation { q: Some(&values), motion: None };
            assert_eq!(learned.next(q), expected, "{values:?}");
            let mut motion = PolicyKind::Motion.build(grid).unwrap();
            assert_eq!(motion.next(Observation { q: None, motion: Some(&values) }), expected, "{values:?}");
        }
    }

    #[test]
    fn names_parse_and_faults_say_what_is_known() {
        for (text, kind) in [
            ("motion", PolicyKind::Motion),
            ("random:5", PolicyKind::Random(5)),
            ("random", PolicyKind::Random(0)),
            ("fixed:0, 3", PolicyKind::Fixed(vec![0, 3])),
        ] {
            assert_eq!(PolicyKind::parse(text).unwrap(), kind, "{text}");
        }
        for text in ["rastr", "random:x", "fixed:", "fixed", "motion:1"] {
            let error = PolicyKind::parse(text).unwrap_err().to_string();
            assert!(error.contains(&format!("unknown policy '{text}'")), "{error}");
            assert!(error.contains("raster-all"), "{error}");
        }
        let error = |kind: PolicyKind, m, n| kind.build(Grid::new(m, n).unwrap()).err().unwrap().to_string();
        assert!(error(PolicyKind::Raster, 5, 2).contains("N=2 does not divide M=5"));
        assert!(error(PolicyKind::Fixed(vec![4]), 2, 1).contains("window 4 does not exist"));
        assert!(error(PolicyKind::Fixed(vec![]), 2, 1).contains("at least one window"));
    }
}
