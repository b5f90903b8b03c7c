//! `zoo convert`.

use std::io::{Write, stdout};
use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use serde_json::json;
use zoo_hub::FitReport;
use zoo_hub::convert::{CardFacts, StateDict, TorchFile, write_model};

use crate::exit::{Outcome, note};
use crate::models;

/// What to convert to what.
#[derive(Args)]
pub struct ConvertArgs {
    /// The checkpoint, of either PyTorch container
    #[arg(value_name = "FILE.pth")]
    file: PathBuf,
    /// Another checkpoint with a part of the same net; give it once for each (gsvnet-seg: the key frames' net, and the
    /// rest)
    #[arg(long, value_name = "FILE.pth", requires = "arch", conflicts_with = "key")]
    and: Vec<PathBuf>,
    /// Hold it against this model, as `zoo info` lists them; refused if it does not fit [default: the model
    /// that the file says it is of, if it says]
    #[arg(long, value_name = "MODEL")]
    arch: Option<String>,
    /// Folder for model.safetensors, config.json and README.md
    #[arg(short = 'o', long, value_name = "DIR")]
    out: PathBuf,
    /// Store floats as f16
    #[arg(long)]
    f16: bool,
    /// Licence of the weights, for the model card
    #[arg(long, alias = "license", value_name = "SPDX", default_value = "unknown")]
    licence: String,
    /// Which dictionary of the checkpoint, where it has several
    #[arg(long, value_name = "KEY")]
    key: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Converts it.
pub fn run(args: &ConvertArgs) -> Result<Outcome> {
    let arch = args.arch.as_deref().map(models::find).transpose()?;
    let file = TorchFile::open(&args.file)?;
    let arch = arch.or_else(|| models::recognise(&file));
    let others = args.and.iter().map(|path| TorchFile::open(path)).collect::<Result<Vec<_>, _>>()?;
    let mut state = match &arch {
        Some(chosen) => chosen.model.state_dict(&file, &others, args.key.as_deref())?,
        None => file.state_dict(args.key.as_deref())?,
    };
    state.check_finite()?;
    let config = match &arch {
        Some(chosen) => chosen.model.convert(chosen.preset, &file, &mut state)?,
        None => json!({ "architecture": null }),
    };
    let state = if args.f16 { state.into_half()? } else { state };
    let name = config["architecture"].as_str().unwrap_or(file.file_name());
    let mut facts = CardFacts::new(name, &args.licence, &file);
    if arch.is_some() {
        facts = facts.with_fit(fitting(name, &state, file.file_name()));
    }
    let written = write_model(&args.out, &state, &config, &facts)?;
    let mut out = stdout().lock();
    if args.json {
        let report = json!({
            "written": written,
            "tensors": state.tensors().len(),
            "values": state.values(),
            "skipped": state.skipped().iter().map(|s| json!({ "name": s.name, "what": s.what })).collect::<Vec<_>>(),
            "fits": facts.fit.is_some(),
        });
        writeln!(out, "{report:#}")?;
        return Ok(Outcome::Success);
    }
    match &facts.fit {
        Some(fit) => writeln!(out, "{fit}")?,
        None => writeln!(out, "not held against a model (--arch MODEL would)")?,
    }
    for skipped in state.skipped() {
        note(format_args!("left out {}: {}", skipped.name, skipped.what));
    }
    writeln!(
        out,
        "{} tensors, {} values -> {} ({} bytes, sha256 {})",
        state.tensors().len(),
        state.values(),
        written.weights.display(),
        written.digest.size,
        written.digest.sha256
    )?;
    Ok(Outcome::Success)
}

/// The report of a checkpoint that was just accepted, for the model card.
fn fitting(model: &str, state: &StateDict, file: &str) -> FitReport {
    let counters = state.tensors().keys().filter(|name| name.ends_with("num_batches_tracked")).count();
    FitReport {
        model: model.to_owned(),
        file: file.to_owned(),
        requested: state.tensors().len().saturating_sub(counters),
        ..FitReport::default()
    }
}
