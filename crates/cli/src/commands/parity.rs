//! `zoo parity`: a line a file, the rows that failed, and with `-v` all rows.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde::Serialize;
use zoo_parity::{Registry, Report};

use crate::args::ComputeArgs;
use crate::exit::{Outcome, note, with_causes};
use crate::models;

/// Which golden files.
#[derive(Args)]
pub struct ParityArgs {
    /// Golden files: safetensors with the metadata to run them, or JSON case files
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    compute: ComputeArgs,
}

#[derive(Serialize)]
struct Unreadable {
    golden: PathBuf,
    error: String,
}

/// Runs every file; one that cannot be run does not stop the others.
pub fn run(args: &ParityArgs, verbose: bool) -> Result<Outcome> {
    let device = args.compute.start()?;
    let registry = Registry::new(models::all().flat_map(|model| model.parity_cases()))?;
    let mut reports: Vec<Report> = Vec::new();
    let mut unreadable = Vec::new();
    for path in &args.files {
        match registry.run(path, &device).with_context(|| format!("cannot check {}", path.display())) {
            Ok(report) => {
                if !args.json && verbose {
                    writeln!(stdout(), "{report}\n")?;
                } else if !args.json {
                    writeln!(stdout(), "{}", report.brief())?;
                }
                reports.push(report);
            }
            Err(error) => {
                let error = with_causes(&error);
                note(format_args!("error: {error}"));
                unreadable.push(Unreadable { golden: path.clone(), error });
            }
        }
    }
    let passed = reports.iter().filter(|report| report.passed).count();
    if args.json {
        let summary = serde_json::json!({
            "passed": passed, "files": args.files.len(), "reports": reports, "unreadable": unreadable,
        });
        writeln!(stdout(), "{summary:#}")?;
    } else {
        writeln!(stdout(), "{passed} of {} files passed", args.files.len())?;
    }
    Ok(if passed < reports.len() || reports.is_empty() {
        Outcome::Failed
    } else if unreadable.is_empty() {
        Outcome::Success
    } else {
        Outcome::Partly
    })
}
