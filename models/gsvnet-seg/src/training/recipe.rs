//! Numbers of the training, and the descent that they make.

use std::sync::PoisonError;

use candle_core::{Result, Var};
use candle_nn::{Init, VarMap};
use serde::{Deserialize, Serialize};
use zoo_layers::Statistics;
use zoo_train::{Decay, Schedule, Sgd, SgdConfig};

/// Frames propagated in a sample: an epoch runs through the training set once with each, in this order.
pub const STEPS: [usize; 4] = [1, 2, 3, 4];
/// Epochs.
pub const EPOCHS: usize = 100;
/// Samples of a batch.
pub const BATCH: usize = 8;
/// The paper's rate of all parts; the authors' code has [`Rates::default`].
pub const PAPER_RATE: f64 = 0.002;
/// Rates fall by this every 100 batches.
pub const DECAY: Schedule = Schedule::new(Decay::Step { every: 100, factor: 0.992 });
/// Options of the descent.
pub const SGD: SgdConfig = SgdConfig { momentum: 0.9, nesterov: true, weight_decay: 5e-4 };
/// What norms go by while they learn.
pub const STATISTICS: Statistics = Statistics::Batch { momentum: 0.1 };

/// What learns at a rate of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    /// The flow net.
    Flow,
    /// φ.
    Intra,
    /// G.
    Guide,
    /// The bank of delay kernels, where it is a variable: the ideal ones stay as they are.
    Kernels,
}

impl Part {
    /// The part that a tensor of a checkpoint belongs to; `None` for those of the key frames' net, which does not learn.
    pub fn of_tensor(name: &str) -> Option<Self> {
        let parts = [
            ("ofnet.", Self::Flow),
            ("grm.intra_net.", Self::Intra),
            ("grm.guide.", Self::Guide),
            ("grm.ideal_dk.", Self::Kernels),
        ];
        parts.into_iter().find_map(|(prefix, part)| name.starts_with(prefix).then_some(part))
    }
}

/// Learning rates.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rates {
    /// See [`Part::Flow`].
    pub flow: f64,
    /// See [`Part::Intra`].
    pub intra: f64,
    /// See [`Part::Guide`].
    pub guide: f64,
    /// See [`Part::Kernels`].
    pub kernels: f64,
}

impl Default for Rates {
    /// Those of the authors' code.
    fn default() -> Self {
        Self { flow: 1e-4, intra: 0.01, guide: 0.04, kernels: 0.01 }
    }
}

impl Rates {
    /// One for all, such as [`PAPER_RATE`].
    pub const fn all(rate: f64) -> Self {
        Self { flow: rate, intra: rate, guide: rate, kernels: rate }
    }

    /// That of a part.
    pub fn of(&self, part: Part) -> f64 {
        match part {
            Part::Flow => self.flow,
            Part::Intra => self.intra,
            Part::Guide => self.guide,
            Part::Kernels => self.kernels,
        }
    }
}

/// Descent by [`SGD`] for the variables that learn, by their names in `vars`: `ofnet.…` and `grm.…`.
///
/// # Errors
/// If a rate is negative or not finite.
pub fn optimiser(vars: &VarMap, rates: &Rates) -> Result<Sgd> {
    let data = vars.data().lock().unwrap_or_else(PoisonError::into_inner);
    // The map has no order of its own.
    let mut learning: Vec<(&String, &Var, Part)> = data
        .iter()
        .filter(|(name, _)| !name.contains(".running_"))
        .filter_map(|(name, var)| Part::of_tensor(name).map(|part| (name, var, part)))
        .collect();
    learning.sort_by_key(|(name, ..)| *name);
    let sgd = Sgd::new(SGD)?;
    learning.into_iter().try_fold(sgd, |sgd, (_, var, part)| sgd.with([var.clone()], rates.of(part)))
}

/// Draws the filters of φ and G anew, as the authors' code does before it trains: Xavier's normal distribution, of
/// variance 2 / (fan-in + fan-out). Everything else of `vars` stays as it is.
///
/// # Errors
/// If candle cannot draw.
pub fn initialise(vars: &VarMap) -> Result<()> {
    let data = vars.data().lock().unwrap_or_else(PoisonError::into_inner);
    for (name, var) in data.iter() {
        let (Some(Part::Intra | Part::Guide), &[outputs, inputs, h, w]) = (Part::of_tensor(name), var.dims())
        else {
            continue;
        };
        let stdev = (2.0 / ((inputs + outputs) * h * w) as f64).sqrt();
        var.set(Init::Randn { mean: 0.0, stdev }.var(var.shape(), var.dtype(), var.device())?.as_tensor())?;
    }
    Ok(())
}
