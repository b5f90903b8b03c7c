//! Holding the tensors of a file against those that a net asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{DType, Device, Shape, Tensor};
use candle_nn::Init;
use candle_nn::var_builder::SimpleBackend;

use crate::names::printable;
use crate::{Checkpoint, Error};

/// Training's counters, which no net asks for at inference.
const COUNTER: &str = "num_batches_tracked";
/// Lines of each kind that a report prints.
const SHOWN: usize = 10;

/// A tensor that the net asks for and the file does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    /// Its name.
    pub name: String,
    /// The shape it should have, where the net said.
    pub shape: Option<Vec<usize>>,
    /// The unused name of the file that is most like it, if any is.
    pub nearest: Option<String>,
}

/// A tensor whose shape in the file is not the net's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrongShape {
    /// Its name.
    pub name: String,
    /// The net's shape.
    pub expected: Vec<usize>,
    /// The file's shape.
    pub got: Vec<usize>,
}

/// Everything in which a file and a net differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FitReport {
    /// The net.
    pub model: String,
    /// The file.
    pub file: String,
    /// Tensors that the net asks for.
    pub requested: usize,
    /// Asked for, not there.
    pub missing: Vec<Missing>,
    /// There, not asked for, by name.
    pub unexpected: Vec<String>,
    /// There, in another shape.
    pub wrong_shape: Vec<WrongShape>,
}

impl FitReport {
    /// Whether the file fits the net.
    pub fn fits(&self) -> bool {
        self.missing.is_empty() && self.unexpected.is_empty() && self.wrong_shape.is_empty()
    }
}

impl std::error::Error for FitReport {}

impl fmt::Display for FitReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { model, file, requested, missing, unexpected, wrong_shape } = self;
        if self.fits() {
            return write!(f, "all {requested} tensors of {model} are in {file}, in the right shape");
        }
        write!(
            f,
            "weights {file} do not fit {model}: {} missing, {} unexpected, {} wrong shape",
            missing.len(),
            unexpected.len(),
            wrong_shape.len()
        )?;
        let width = missing
            .iter()
            .map(|m| &m.name)
            .take(SHOWN)
            .chain(wrong_shape.iter().map(|w| &w.name).take(SHOWN))
            .map(|name| name.chars().count())
            .max()
            .unwrap_or(0);
        section(f, "missing", missing, |f, missing| {
            write!(f, "{:width$}", missing.name)?;
            if let Some(shape) = &missing.shape {
                write!(f, "  {shape:?}")?;
            }
            missing.nearest.as_ref().map_or(Ok(()), |name| write!(f, " (did you mean {}?)", printable(name)))
        })?;
        section(f, "unexpected", unexpected, |f, name| f.write_str(&printable(name)))?;
        section(f, "wrong shape", wrong_shape, |f, WrongShape { name, expected, got }| {
            write!(f, "{name:width$}  expected {expected:?}, file has {got:?}")?;
            match (expected.split_first(), got.split_first()) {
                (Some((_, tail)), Some((classes, got_tail))) if tail == got_tail => {
                    write!(f, " (num_classes {classes}?)")
                }
                _ => Ok(()),
            }
        })
    }
}

fn section<T>(
    f: &mut fmt::Formatter<'_>,
    title: &str,
    items: &[T],
    line: impl Fn(&mut fmt::Formatter<'_>, &T) -> fmt::Result,
) -> fmt::Result {
    for item in items.iter().take(SHOWN) {
        write!(f, "\n  {title:<11} ")?;
        line(f, item)?;
    }
    match items.len().saturating_sub(SHOWN) {
        0 => Ok(()),
        more => write!(f, "\n  {title:<11} and {more} more"),
    }
}

/// Serves a file's tensors to a net under construction and notes what it asks for. What does not fit
/// is served as zeros, so that construction goes on and the report is complete.
#[derive(Clone)]
pub(crate) struct Fitting {
    checkpoint: Arc<Checkpoint>,
    allow_non_finite: bool,
    notes: Arc<Mutex<Notes>>,
}

#[derive(Default)]
struct Notes {
    /// The shapes asked for; `None` where the net takes whatever there is.
    requested: BTreeMap<String, Option<Vec<usize>>>,
    /// The first tensor that is there but cannot be used.
    unusable: Option<Error>,
    /// Construction could not go on for want of a tensor of unknown shape.
    stopped: bool,
}

impl Fitting {
    pub(crate) fn new(checkpoint: Checkpoint, allow_non_finite: bool) -> Self {
        Self { checkpoint: Arc::new(checkpoint), allow_non_finite, notes: Arc::default() }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first stored tensor that was asked for and cannot be used.
    pub(crate) fn take_unusable(&self) -> Option<Error> {
        self.notes().unusable.take()
    }

    /// Whether construction failed only because a tensor is missing.
    pub(crate) fn stopped(&self) -> bool {
        self.notes().stopped
    }

    /// The differences so far.
    pub(crate) fn report(&self, model: &str, allowed: &[String]) -> FitReport {
        let notes = self.notes();
        let stored = self.checkpoint.tensors();
        let unused: Vec<_> = stored.keys().filter(|name| !notes.requested.contains_key(*name)).collect();
        let mut report = FitReport {
            model: model.to_owned(),
            file: self.checkpoint.file().to_owned(),
            requested: notes.requested.len(),
            ..FitReport::default()
        };
        for (name, shape) in &notes.requested {
            match (stored.get(name), shape) {
                (None, _) => {
                    // Comparing names costs; only those that are printed need it.
                    let wanted = report.missing.len() < SHOWN;
                    let nearest = wanted.then(|| nearest(name, &unused)).flatten();
                    report.missing.push(Missing { name: name.clone(), shape: shape.clone(), nearest });
                }
                (Some(entry), Some(shape)) if entry.shape != *shape => report.wrong_shape.push(WrongShape {
                    name: name.clone(),
                    expected: shape.clone(),
                    got: entry.shape.clone(),
                }),
                _ => {}
            }
        }
        // A net that was not built to its end has not asked for everything.
        if !notes.stopped {
            report.unexpected = unused
                .into_iter()
                .filter(|name| name.rsplit('.').next() != Some(COUNTER))
                .filter(|name| !allowed.iter().any(|prefix| name.starts_with(prefix)))
                .cloned()
                .collect();
        }
        report
    }

    fn load(&self, name: &str, dtype: DType, device: &Device) -> Option<Tensor> {
        match self.checkpoint.tensor(name, dtype, device, self.allow_non_finite) {
            Ok(tensor) => Some(tensor),
            Err(error) => {
                self.notes().unusable.get_or_insert(error);
                None
            }
        }
    }
}

/// The candidate that takes the fewest edits, if that is at most a third of the name.
fn nearest(name: &str, candidates: &[&String]) -> Option<String> {
    let limit = name.len() / 3;
    candidates
        .iter()
        .filter(|candidate| candidate.len().abs_diff(name.len()) <= limit)
        .map(|candidate| (strsim::levenshtein(name, candidate), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| (*candidate).clone())
}

impl SimpleBackend for Fitting {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        _: Init,
        dtype: DType,
        device: &Device,
    ) -> candle_core::Result<Tensor> {
        let fits = self.checkpoint.tensors().get(name).is_some_and(|entry| entry.shape == shape.dims());
        let asked = Some(shape.dims().to_vec());
        // A shape that does not fit stays noted, should the net ask again for another.
        if fits {
            self.notes().requested.entry(name.to_owned()).or_insert(asked);
        } else {
            self.notes().requested.insert(name.to_owned(), asked);
        }
        match fits.then(|| self.load(name, dtype, device)).flatten() {
            Some(tensor) => Ok(tensor),
            None => Tensor::zeros(shape, dtype, device),
        }
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> candle_core::Result<Tensor> {
        self.notes().requested.entry(name.to_owned()).or_insert(None);
        let found = self.checkpoint.tensors().contains_key(name);
        match found.then(|| self.load(name, dtype, device)).flatten() {
            Some(tensor) => Ok(tensor),
            None => {
                self.notes().stopped = true;
                Err(candle_core::Error::CannotFindTensor { path: name.to_owned() }.bt())
            }
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.checkpoint.tensors().contains_key(name)
    }
}
