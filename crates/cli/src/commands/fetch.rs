//! `zoo fetch`.

use std::io::{Write, stdout};

use anyhow::Result;
use clap::Args;
use zoo_hub::{LoadOptions, Record, RepoRevision};

use crate::exit::{Outcome, Usage, note};

/// What to fetch.
#[derive(Args)]
pub struct FetchArgs {
    /// Repository and branch, tag or commit
    #[arg(value_name = "OWNER/NAME@REV")]
    repository: String,
    /// Files of it
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    /// Take a changed commit or file, and record it anew
    #[arg(long)]
    accept: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Fetches and says where the files lie.
pub fn run(args: &FetchArgs) -> Result<Outcome> {
    let target: RepoRevision = args.repository.parse().map_err(Usage::error)?;
    let fetched = zoo_hub::fetch(&target, &args.files, args.accept, &LoadOptions::default())?;
    let mut out = stdout().lock();
    if args.json {
        writeln!(out, "{}", serde_json::to_string_pretty(&fetched)?)?;
        return Ok(Outcome::Success);
    }
    for file in &fetched.files {
        let record = match file.record {
            Record::New => "recorded now",
            Record::Enforced => "as recorded",
            Record::Accepted => "changed, recorded anew",
            _ => "recorded",
        };
        writeln!(
            out,
            "{}\n  sha256 {}, {} bytes, {record}",
            file.path.display(),
            file.digest.sha256,
            file.digest.size
        )?;
    }
    note(format_args!("{target} is commit {}; the record is {}", fetched.commit, fetched.ledger.display()));
    Ok(Outcome::Success)
}
