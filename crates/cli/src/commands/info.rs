//! `zoo info`.

use std::io::{Write, stdout};

use anyhow::Result;
use clap::Args;
use serde::Serialize;
use zoo_core::{ModelInfo, Status, WeightSpec};

use crate::exit::Outcome;
use crate::models;
use crate::table::{Table, number};

/// Which models, and for whom.
#[derive(Args)]
pub struct InfoArgs {
    /// MODEL or MODEL/PRESET [default: all]
    model: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Entry {
    #[serde(flatten)]
    info: ModelInfo,
    mflops: f64,
}

/// Lists models; one model alone comes with the paper's tables.
pub fn run(args: &InfoArgs) -> Result<Outcome> {
    let chosen = args.model.as_deref().map(models::find).transpose()?;
    let mut infos = Vec::new();
    match &chosen {
        Some(chosen) => infos.extend(chosen.model.infos()?),
        None => {
            for model in models::all() {
                infos.extend(model.infos()?);
            }
        }
    }
    if let Some(preset) = chosen.as_ref().and_then(|chosen| chosen.preset) {
        infos.retain(|info| info.name.ends_with(&format!("/{preset}")));
    }
    let mut out = stdout().lock();
    if args.json {
        let entries: Vec<Entry> =
            infos.into_iter().map(|info| Entry { mflops: info.cost.mflops(), info }).collect();
        writeln!(out, "{}", serde_json::to_string_pretty(&entries)?)?;
        return Ok(Outcome::Success);
    }
    let mut table =
        Table::new(["model", "task", "input", "weights", "licence", "params M", "GMACs", "MFLOPs"])
            .with_text_columns(5);
    for info in &infos {
        let weights: Vec<String> = info.weights.iter().map(status).collect();
        let licences: Vec<&str> = info.weights.iter().map(|weights| weights.license.as_str()).collect();
        table.row([
            info.name.clone(),
            info.task.to_owned(),
            info.input.to_string(),
            weights.join(", "),
            licences.join(", "),
            number(Some(info.cost.params as f64 / 1e6), 2),
            number(Some(info.cost.macs as f64 / 1e9), 3),
            number(Some(info.cost.mflops()), 2),
        ]);
    }
    writeln!(out, "{table}")?;
    if let Some(chosen) = chosen {
        writeln!(out)?;
        for info in &infos {
            writeln!(out, "{}: {}", info.name, info.summary)?;
            for weights in &info.weights {
                writeln!(out, "  weights {}, trained on {}", weights.name, weights.trained_on)?;
                if let Status::Convert(how) = &weights.status {
                    writeln!(out, "  to get them: {how}")?;
                }
            }
        }
        if chosen.preset.is_none() {
            chosen.model.print_tables(&mut out)?;
        }
    }
    Ok(Outcome::Success)
}

fn status(weights: &WeightSpec) -> String {
    match &weights.status {
        Status::Bundled => "bundled".to_owned(),
        Status::Hub(at) => format!("hub ({})", at.repo),
        Status::Convert(_) => "to convert".to_owned(),
        Status::Random => "random".to_owned(),
        other => format!("{other:?}"),
    }
}
