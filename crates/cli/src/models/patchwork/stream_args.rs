//! How a clip is to be processed, from the command line.

use anyhow::Result;
use clap::{Args, ValueEnum};
use patchwork_det::{Grid, MAX_STRIDE, Mode, PolicyKind, Start};
use zoo_core::FrameSize;

use super::usage;
use crate::args::at_least_one;
use crate::exit::Usage;
use crate::view_args::{ViewArgs, refuse};

/// Rows that a frame is brought near to where no size is given: large enough for a street, small
/// enough for a fraction of a second.
const USUAL_ROWS: usize = 384;
/// The paper's grid.
const DEFAULT_GRID: (usize, usize) = (4, 2);

/// What the help lists the model's options under.
pub const HEADING: &str = "patchwork-det";

/// Options of patchwork-det.
#[derive(Debug, Args)]
#[command(next_help_heading = HEADING)]
pub struct StreamArgs {
    /// Boxes or a mask
    #[arg(long, value_enum, value_name = "TASK")]
    pub task: Option<Task>,
    /// sf, windows, interval=K[,delay=D], or in one word: m4n2-motion [default for clips: windows]
    #[arg(long, value_name = "MODE", value_parser = parse_mode)]
    pub mode: Option<Mode>,
    /// Grid cells a side of the frame
    #[arg(short, long, value_name = "M", value_parser = at_least_one)]
    pub m: Option<usize>,
    /// Grid cells a side of a window
    #[arg(short, long, value_name = "N", value_parser = at_least_one)]
    pub n: Option<usize>,
    /// Which window is next: motion, raster, raster-all, random, random:SEED, fixed:A,B,…, or learned
    #[arg(long, value_name = "POLICY", value_parser = parse_policy)]
    pub policy: Option<PolicyKind>,
    /// The first frames: full (all of the first one), tiles, zeros
    #[arg(long, value_enum, value_name = "START")]
    pub start: Option<StartChoice>,
    /// The backbone's depth multiplier, for random or own weights
    #[arg(long, value_name = "ALPHA")]
    pub depth: Option<f64>,
    /// Check on random weights that windows come to compute what whole frames do, property by property; needs
    /// no input
    #[arg(long)]
    pub selftest: bool,
}

/// `--task`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Task {
    Detect,
    Segment,
}

/// `--start`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum StartChoice {
    Full,
    Tiles,
    Zeros,
}

impl From<StartChoice> for Start {
    fn from(choice: StartChoice) -> Self {
        match choice {
            StartChoice::Full => Self::Full,
            StartChoice::Tiles => Self::Tiles,
            StartChoice::Zeros => Self::Zeros,
        }
    }
}

impl StreamArgs {
    /// The first option given that only windows have.
    fn for_windows(&self, view: &ViewArgs) -> Option<&'static str> {
        let windowed = [
            ("--m", self.m.is_some()),
            ("--n", self.n.is_some()),
            ("--policy", self.policy.is_some()),
            ("--start", self.start.is_some()),
            ("--flip", view.flip),
        ];
        windowed.into_iter().find_map(|(option, given)| given.then_some(option))
    }

    /// Pictures without an order have no frame before them to carry anything over from.
    pub fn refuse_for_stills(&self, view: &ViewArgs, input: &str) -> Result<()> {
        let mode = self.mode.as_ref().filter(|mode| **mode != Mode::SingleFrame).map(|_| "--mode");
        match mode.or_else(|| self.for_windows(view)) {
            Some(option) => Err(Usage::error(format_args!(
                "{option} needs a clip, and {input} is taken as single pictures: name a folder of frames or a \
                 video without --stills, or leave {option} out"
            ))),
            None => Ok(()),
        }
    }

    /// The mode of clips.
    pub fn clip_mode(&self, view: &ViewArgs, seed: u64) -> Result<Mode> {
        let (grid, policy) = match &self.mode {
            None => (Grid::new(DEFAULT_GRID.0, DEFAULT_GRID.1).map_err(usage)?, PolicyKind::Motion),
            Some(Mode::Windows { grid, policy, .. }) => (*grid, policy.clone()),
            Some(mode) => {
                if let Some(option) = self.for_windows(view) {
                    return Err(Usage::error(format_args!(
                        "{option} is for windows, not for {}",
                        mode.name()
                    )));
                }
                return Ok(mode.clone());
            }
        };
        let policy = match self.policy.clone().unwrap_or(policy) {
            PolicyKind::Random(0) => PolicyKind::Random(seed),
            policy => policy,
        };
        let (m, n) = (self.m.unwrap_or(grid.m()), self.n.unwrap_or(grid.n()));
        let grid = Grid::new(m, n).map_err(usage)?;
        policy.build(grid).map_err(usage)?;
        let start = self.start.map(Start::from).unwrap_or_default();
        Ok(Mode::Windows { grid, policy, start, flip: view.flip })
    }

    /// Another model has none of these options.
    pub fn refuse_for(&self, model: &str) -> Result<()> {
        let given = [
            ("--task", self.task.is_some()),
            ("--mode", self.mode.is_some()),
            ("--m", self.m.is_some()),
            ("--n", self.n.is_some()),
            ("--policy", self.policy.is_some()),
            ("--start", self.start.is_some()),
            ("--depth", self.depth.is_some()),
            ("--selftest", self.selftest),
        ];
        refuse(model, &given)
    }
}

/// The size that a clip's frames are resized to, for every command: `size` if it was given, else the one near
/// 384 rows and the frames' shape that can be cut into the windows of all `modes`, or into the paper's 4×4 cells
/// where none has windows, so that modes compare.
pub fn clip_size(size: Option<FrameSize>, source: FrameSize, modes: &[Mode]) -> Result<FrameSize> {
    let grids = || {
        modes.iter().filter_map(|mode| match mode {
            Mode::Windows { grid, .. } => Some(*grid),
            _ => None,
        })
    };
    let cells = grids().map(|grid| grid.m()).reduce(least_common_multiple).unwrap_or(DEFAULT_GRID.0);
    let size = size.unwrap_or_else(|| usual_size(source, cells * MAX_STRIDE));
    grids().try_for_each(|grid| grid.check_frame(size)).map_err(usage)?;
    Ok(size)
}

fn least_common_multiple(a: usize, b: usize) -> usize {
    let (mut x, mut y) = (a, b);
    while y > 0 {
        (x, y) = (y, x % y);
    }
    a / x.max(1) * b
}

/// The multiple of `unit` nearest 384 rows, and the columns that keep the frame's shape best; of two that do
/// equally well, the smaller, which is the cheaper.
fn usual_size(source: FrameSize, unit: usize) -> FrameSize {
    let nearest = |pixels: f64| ((pixels / unit as f64 - 0.5).ceil() as usize).max(1) * unit;
    let height = nearest(USUAL_ROWS as f64);
    let shape = source.width as f64 / source.height.max(1) as f64;
    FrameSize::new(height, nearest(height as f64 * shape))
}

fn parse_policy(text: &str) -> Result<PolicyKind, String> {
    PolicyKind::parse(text).map_err(|error| error.to_string())
}

/// `sf`, `windows`, `interval=K`, `interval=K,delay=D`, `m4n2-motion`.
pub fn parse_mode(text: &str) -> Result<Mode, String> {
    let unknown =
        || "expected sf, windows, interval=K, interval=K,delay=D, or a grid and a policy such as m4n2-motion";
    let windows = |m, n, policy| Mode::windows(m, n, policy).map_err(|error| error.to_string());
    match text {
        "sf" => return Ok(Mode::SingleFrame),
        "windows" => return windows(DEFAULT_GRID.0, DEFAULT_GRID.1, PolicyKind::Motion),
        _ => {}
    }
    if let Some(interval) = text.strip_prefix("interval=") {
        let (every, delay) = interval.split_once(",delay=").unwrap_or((interval, "0"));
        let every = at_least_one(every).map_err(|_| unknown())?;
        let delay = delay.parse().map_err(|_| unknown())?;
        return Ok(Mode::Interval { every, delay });
    }
    let (grid, policy) = text.split_once('-').ok_or_else(unknown)?;
    let cells = grid.strip_prefix('m').and_then(|grid| grid.split_once('n'));
    let (m, n) = cells.and_then(|(m, n)| m.parse().ok().zip(n.parse().ok())).ok_or_else(unknown)?;
    let policy = parse_policy(policy)?;
    Grid::new(m, n).and_then(|grid| policy.build(grid)).map_err(|error| error.to_string())?;
    windows(m, n, policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_parse_and_faults_say_what_is_known() {
        for (text, name) in [
            ("sf", "single frame"),
            ("windows", "M=4 N=2 motion"),
            ("interval=4", "interval=4"),
            ("interval=4,delay=3", "interval=4 delay=3"),
            ("m4n1-raster-all", "M=4 N=1 raster-all"),
        ] {
            assert_eq!(parse_mode(text).unwrap().name(), name, "{text}");
        }
        for (text, part) in [
            ("single", "m4n2-motion"),
            ("interval=0", "interval=K"),
            ("interval=4,delay=x", "interval=K"),
            ("m4n5-motion", "1 ≤ N ≤ M"),
            ("m4n2-rastr", "unknown policy 'rastr'"),
            ("m5n2-raster", "does not divide"),
        ] {
            let error = parse_mode(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_usual_size_keeps_the_shape() {
        for (source, unit, expected) in [
            (FrameSize::new(400, 600), 128, FrameSize::new(384, 512)),
            (FrameSize::new(480, 640), 128, FrameSize::new(384, 512)),
            (FrameSize::new(720, 1280), 128, FrameSize::new(384, 640)),
            (FrameSize::new(1280, 100), 128, FrameSize::new(384, 128)),
            (FrameSize::new(384, 384), 160, FrameSize::new(320, 320)),
        ] {
            assert_eq!(usual_size(source, unit), expected, "{source} at {unit}");
        }
    }

    #[test]
    fn a_clip_has_one_size_whichever_modes_run_on_it() {
        let modes = |texts: &[&str]| -> Vec<Mode> { texts.iter().map(|t| parse_mode(t).unwrap()).collect() };
        let source = FrameSize::new(400, 600);
        for (texts, expected) in [
            (&["sf"][..], FrameSize::new(384, 512)),
            (&["interval=4"], FrameSize::new(384, 512)),
            (&["m4n2-motion"], FrameSize::new(384, 512)),
            (&["sf", "interval=4", "m4n2-raster", "m4n1-motion"], FrameSize::new(384, 512)),
            (&["m2n1-motion"], FrameSize::new(384, 576)),
            (&["m2n1-motion", "m3n1-motion"], FrameSize::new(384, 576)),
        ] {
            assert_eq!(clip_size(None, source, &modes(texts)).unwrap(), expected, "{texts:?}");
        }
        let given = Some(FrameSize::new(300, 300));
        assert_eq!(clip_size(given, source, &modes(&["interval=4"])).unwrap(), FrameSize::new(300, 300));
        let error = clip_size(given, source, &modes(&["sf", "m4n2-motion"])).unwrap_err().to_string();
        assert!(error.contains("--size 256x256"), "{error}");
    }
}
