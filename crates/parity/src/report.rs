use std::fmt;

use serde::Serialize;

use crate::Tolerance;

/// What came of one stored tensor, `@stats`, or part of a case file.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The name in the file, suffix included.
    pub name: String,
    /// Values that were compared.
    pub count: usize,
    /// Largest |Δ|.
    pub max_abs: f64,
    /// Largest |Δ| as a share of the tensor's largest absolute value; infinite (in JSON: null) where that is
    /// 0 and |Δ| is not.
    pub max_rel: f64,
    /// Mean |Δ| as a share of the same.
    pub mean_rel: f64,
    /// The level that was asked for, before the device's factor.
    pub tolerance: Tolerance,
    /// The outcome.
    pub verdict: Verdict,
}

/// The outcome of a comparison.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Verdict {
    /// Within tolerance.
    Pass,
    /// An argument that the file gives; nothing to compare.
    Given,
    /// Not as stored.
    Fail(Failure),
}

/// Why a comparison failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Failure {
    /// The case did not produce it.
    NotProduced,
    /// The case produced another shape than `output_shapes` says.
    Shape {
        /// The full shape in the file.
        expected: Vec<usize>,
        /// The produced one.
        got: Vec<usize>,
    },
    /// A NaN or an infinity on either side.
    NotFinite {
        /// Its place among the compared values.
        index: usize,
    },
    /// Beyond the tolerance.
    Apart {
        /// Place of the largest difference among the compared values.
        index: usize,
        /// The stored value there.
        expected: f64,
        /// The produced one.
        got: f64,
    },
    /// In a case file, something other than a number differs.
    Structure {
        /// JSON pointer of the first difference.
        at: String,
        /// What the file has there.
        expected: String,
        /// What was produced.
        got: String,
    },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotProduced => write!(f, "not produced"),
            Self::Shape { expected, got } => write!(f, "shape {got:?}, expected {expected:?}"),
            Self::NotFinite { index } => write!(f, "value {index} is not finite"),
            Self::Apart { index, expected, got } => write!(f, "value {index} is {got}, expected {expected}"),
            Self::Structure { at, expected, got } => write!(f, "{at} is {got}, expected {expected}"),
        }
    }
}

/// How a golden file's outputs compare on this machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The golden file.
    pub golden: String,
    /// Its model.
    pub model: String,
    /// `cpu`, `cuda:0`, …
    pub device: String,
    /// How many times wider than stated the tolerances are on this device.
    pub tolerance_factor: f64,
    /// Whether every row that is not given passed, and there was at least one value to compare.
    pub passed: bool,
    /// The first row in forward order that failed.
    pub first_difference: Option<String>,
    /// One row per stored tensor, in forward order.
    pub rows: Vec<Row>,
    /// Outputs of the case that the file does not hold.
    pub unmatched: Vec<String>,
}

impl Report {
    pub(crate) fn new(
        golden: &crate::Golden,
        device: &candle_core::Device,
        rows: Vec<Row>,
        unmatched: Vec<String>,
    ) -> Self {
        let failed = |row: &&Row| matches!(row.verdict, Verdict::Fail(_));
        let first_difference = rows.iter().find(failed).map(|row| row.name.clone());
        let compared: usize = rows.iter().map(|row| row.count).sum();
        Self {
            golden: golden.name().to_owned(),
            model: golden.meta().model.clone(),
            device: device_name(device),
            tolerance_factor: Tolerance::factor(device),
            passed: first_difference.is_none() && compared > 0,
            first_difference,
            rows,
            unmatched,
        }
    }

    /// Values that were compared.
    pub fn compared(&self) -> usize {
        self.rows.iter().map(|row| row.count).sum()
    }

    /// The rows that failed, if any did, and the line that sums it up.
    pub fn brief(&self) -> impl fmt::Display {
        Brief(self)
    }

    /// Rows that failed, in forward order, with the reason.
    pub fn failures(&self) -> impl Iterator<Item = (&Row, &Failure)> {
        self.rows.iter().filter_map(|row| match &row.verdict {
            Verdict::Fail(failure) => Some((row, failure)),
            _ => None,
        })
    }
}

fn device_name(device: &candle_core::Device) -> String {
    use candle_core::DeviceLocation::{Cpu, Cuda, Metal};
    match device.location() {
        Cpu => "cpu".to_owned(),
        Cuda { gpu_id } => format!("cuda:{gpu_id}"),
        Metal { gpu_id } => format!("metal:{gpu_id}"),
    }
}

impl fmt::Display for Report {
    /// An aligned table and a line that sums it up.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_table(f, &self.rows.iter().collect::<Vec<_>>())?;
        self.write_summary(f)
    }
}

/// [`Report::brief`].
struct Brief<'a>(&'a Report);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let failed: Vec<&Row> = self.0.failures().map(|(row, _)| row).collect();
        if !failed.is_empty() {
            self.0.write_table(f, &failed)?;
        }
        self.0.write_summary(f)
    }
}

impl Report {
    fn write_table(&self, f: &mut fmt::Formatter<'_>, rows: &[&Row]) -> fmt::Result {
        let width = |of: &dyn Fn(&&Row) -> usize, head: usize| rows.iter().map(of).fold(head, usize::max);
        let name = width(&|row| row.name.chars().count(), "tensor".len());
        let level = width(&|row| row.tolerance.to_string().len(), "tolerance".len());
        writeln!(
            f,
            "{:<name$} {:>8} {:>10} {:>10} {:>10}  {:<level$}  verdict",
            "tensor", "values", "max |Δ|", "max rel", "mean rel", "tolerance"
        )?;
        for row in rows {
            let Row { count, max_abs, max_rel, mean_rel, tolerance, .. } = row;
            write!(f, "{:<name$} {count:>8} ", row.name)?;
            if *count > 0 {
                write!(f, "{max_abs:>10.2e} {max_rel:>10.2e} {mean_rel:>10.2e}")?;
            } else {
                write!(f, "{:>10} {:>10} {:>10}", "-", "-", "-")?;
            }
            match &row.verdict {
                Verdict::Pass => writeln!(f, "  {tolerance:<level$}  ok")?,
                Verdict::Given => writeln!(f, "  {tolerance:<level$}  given")?,
                Verdict::Fail(failure) => writeln!(f, "  {tolerance:<level$}  FAIL: {failure}")?,
            }
        }
        if !self.unmatched.is_empty() {
            writeln!(f, "not in the file: {}", self.unmatched.join(", "))?;
        }
        Ok(())
    }

    fn write_summary(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { golden, model, device, .. } = self;
        write!(f, "{golden} ({model}) on {device}: ")?;
        match &self.first_difference {
            Some(first) => {
                let failed = self.failures().count();
                write!(f, "FAILED, {failed} of {} rows, first {first}", self.rows.len())?;
            }
            None if self.passed => write!(f, "passed, {} rows, {} values", self.rows.len(), self.compared())?,
            None => write!(f, "FAILED, nothing was compared")?,
        }
        if self.tolerance_factor > 1.0 {
            write!(f, " (tolerances ×{}, not a CPU)", self.tolerance_factor)?;
        }
        Ok(())
    }
}
