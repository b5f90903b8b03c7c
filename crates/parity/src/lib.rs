//! Golden files: what a reference implementation computed, to be computed again on this machine.
//!
//! A golden file is a safetensors with expected outputs and, in its metadata, everything needed to make
//! them again: the model's name and configuration, the names and shapes of its weights (whose values
//! follow from those alone, see [`seeded`]), and its inputs. A `.json` case file holds lists of
//! arguments and results instead. [`Golden`] reads both; a model crate supplies a [`Case`] that computes
//! the outputs; the [`Registry`] finds the case for a file, runs it, and compares.
//!
//! ```
//! use zoo_parity::{Case, Outputs, Registry, Tolerance};
//!
//! let relu = Case::new(["relu"], Tolerance::Exact, |golden, device| {
//!     let mut outputs = Outputs::new();
//!     outputs.push("output", &golden.input("input", device)?.relu()?)?;
//!     Ok(outputs)
//! });
//! let registry = Registry::new([relu])?;
//! assert_eq!(registry.models().collect::<Vec<_>>(), ["relu"]);
//! # Ok::<(), zoo_parity::Error>(())
//! ```
//!
//! # What a report checks
//!
//! Rows come in the order of the file's `output_shapes`, which is the forward order of the stages, so
//! the first failing row is where to look. A report fails if
//!
//! - any stored tensor or its `@stats` was not produced, has another shape than `output_shapes` says, is
//!   off by more than its tolerance, or holds a NaN or an infinity;
//! - any part of a case file was neither produced nor declared as given;
//! - nothing at all was compared.
//!
//! A produced tensor that the file does not hold is listed as unmatched and does not fail the report:
//! one case serves files that store different stages, and a misspelt name fails through the stored
//! tensor that it leaves without a partner.

mod case_file;
mod compare;
mod error;
mod golden;
mod meta;
mod outputs;
mod registry;
mod report;
pub mod seeded;
mod stored;
mod tolerance;

pub use error::{BoxError, Error, Result};
pub use golden::Golden;
pub use meta::{Gain, Meta};
pub use outputs::Outputs;
pub use registry::{Case, Registry};
pub use report::{Failure, Report, Row, Verdict};
pub use tolerance::{ACCELERATOR_FACTOR, STATS_ROUNDING, Tolerance};
