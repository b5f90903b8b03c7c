use std::fmt;
use std::path::Path;

use candle_core::Device;
use indexmap::IndexMap;

use crate::{BoxError, Error, Golden, Outputs, Report, Result, Tolerance, case_file, compare};

type Run = dyn Fn(&Golden, &Device) -> Result<Outputs, BoxError> + Send + Sync;
type Level = dyn Fn(&Golden, &str) -> Option<Tolerance> + Send + Sync;

/// How a model crate computes what its golden files store: the models that it answers to, the tolerance
/// that it must keep, and a function from a golden file to outputs.
pub struct Case {
    models: Vec<String>,
    tolerance: Tolerance,
    exceptions: Option<Box<Level>>,
    run: Box<Run>,
}

impl Case {
    /// A case for the golden files whose `model` is one of `models`. Any error of `run` may be passed up
    /// with `?`.
    pub fn new<M: Into<String>>(
        models: impl IntoIterator<Item = M>,
        tolerance: Tolerance,
        run: impl Fn(&Golden, &Device) -> Result<Outputs, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let models = models.into_iter().map(M::into).collect();
        Self { models, tolerance, exceptions: None, run: Box::new(run) }
    }

    /// Another tolerance for the outputs (by their own names, or JSON pointers) for which the function
    /// names one.
    #[must_use]
    pub fn with_exceptions(
        mut self,
        exceptions: impl Fn(&Golden, &str) -> Option<Tolerance> + Send + Sync + 'static,
    ) -> Self {
        self.exceptions = Some(Box::new(exceptions));
        self
    }

    fn tolerance(&self, golden: &Golden, output: &str) -> Tolerance {
        let exception = self.exceptions.as_ref().and_then(|exceptions| exceptions(golden, output));
        exception.unwrap_or(self.tolerance)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case")
            .field("models", &self.models)
            .field("tolerance", &self.tolerance)
            .finish_non_exhaustive()
    }
}

/// The cases of all model crates.
#[derive(Debug, Default)]
pub struct Registry {
    cases: Vec<Case>,
    by_model: IndexMap<String, usize>,
}

impl Registry {
    /// Collects cases.
    ///
    /// # Errors
    /// If two of them answer to the same model.
    pub fn new(cases: impl IntoIterator<Item = Case>) -> Result<Self> {
        let mut registry = Self::default();
        for case in cases {
            for model in &case.models {
                if registry.by_model.insert(model.clone(), registry.cases.len()).is_some() {
                    return Err(Error::DuplicateModel(model.clone()));
                }
            }
            registry.cases.push(case);
        }
        Ok(registry)
    }

    /// The models that have a case, in the order of registration.
    pub fn models(&self) -> impl Iterator<Item = &str> {
        self.by_model.keys().map(String::as_str)
    }

    /// Opens a golden file, runs its case on `device`, and compares.
    ///
    /// # Errors
    /// If the file cannot be used, no case handles its model, or the case fails. Differences are not
    /// errors: see [`Report::passed`].
    pub fn run(&self, path: impl AsRef<Path>, device: &Device) -> Result<Report> {
        self.run_golden(&Golden::open(path)?, device)
    }

    /// As [`Registry::run`], for a file that is already open.
    ///
    /// # Errors
    /// If no case handles the file's model, or the case fails.
    pub fn run_golden(&self, golden: &Golden, device: &Device) -> Result<Report> {
        let model = &golden.meta().model;
        let case = self.by_model.get(model).and_then(|&at| self.cases.get(at));
        let case = case.ok_or_else(|| Error::UnknownModel {
            golden: golden.name().to_owned(),
            model: model.clone(),
            known: self.models().map(str::to_owned).collect(),
        })?;
        let outputs = (case.run)(golden, device).map_err(|source| Error::Case {
            golden: golden.name().to_owned(),
            model: model.clone(),
            source,
        })?;
        let level = |output: &str| case.tolerance(golden, output);
        let factor = Tolerance::factor(device);
        let (rows, unmatched) = match golden.cases() {
            Some(cases) => case_file::values(cases, &outputs, &level, factor),
            None => compare::tensors(golden, &outputs, &level, factor),
        };
        Ok(Report::new(golden, device, rows, unmatched))
    }
}
