//! `hyperseg`: segmentation by a decoder whose weights a net makes for each patch.

use std::io::Write;

use anyhow::Result;
use hyperseg::tables::{self, Counts};
use hyperseg::weights::HyperSegWeights;
use hyperseg::{Config, HyperSegNet, Preset, checkpoint};
use serde_json::{Value as Json, json};
use zoo_core::{ModelInfo, Weights as _};
use zoo_hub::convert::{StateDict, TorchFile};
use zoo_hub::{Checkpoint, Pretrained as _};
use zoo_parity::Case;

use super::{Model, check_fit, no_weights};
use crate::args::RunArgs;
use crate::exit::{Outcome, Usage};
use crate::table::{Table, number};

pub struct HyperSeg;

const NAME: &str = "hyperseg";

impl Model for HyperSeg {
    fn name(&self) -> &'static str {
        NAME
    }

    fn presets(&self) -> Vec<&'static str> {
        Preset::ALL.map(Preset::name).into()
    }

    fn infos(&self) -> Result<Vec<ModelInfo>> {
        Preset::ALL.into_iter().map(info).collect()
    }

    fn print_tables(&self, out: &mut dyn Write) -> Result<()> {
        print_counts(out)?;
        print_s3(out)
    }

    fn run(&self, _: Option<&str>, _: &RunArgs) -> Result<Outcome> {
        Err(Usage::error(format_args!("{NAME} does not run on pictures yet: its net does, in programs")))
    }

    fn fit(&self, preset: Option<&str>, checkpoint: Checkpoint) -> Result<Json> {
        fit(preset.map_or(Ok(Preset::CamvidS), Preset::parse)?.config(), checkpoint)
    }

    fn recognises(&self, file: &TorchFile) -> bool {
        checkpoint::is_hyperseg(file)
    }

    fn convert(&self, preset: Option<&str>, file: &TorchFile, state: &mut StateDict) -> Result<Json> {
        let config = match preset {
            Some(preset) => Preset::parse(preset)?.config(),
            None => checkpoint::config(file)?,
        };
        checkpoint::leave_out_unused(state);
        fit(config, state.to_checkpoint()?)
    }

    fn parity_cases(&self) -> Vec<Case> {
        hyperseg::parity::cases(true)
    }
}

fn fit(config: Config, checkpoint: Checkpoint) -> Result<Json> {
    let preset = Preset::ALL.into_iter().find(|preset| preset.config() == config);
    let name = preset.map_or_else(|| NAME.to_owned(), |preset| format!("{NAME}/{}", preset.name()));
    HyperSegNet::check(&config, &checkpoint).map_err(anyhow::Error::from_boxed)?;
    check_fit(&name, checkpoint, |vb| HyperSegNet::new(&config, vb))?;
    Ok(json!({ "architecture": name, "config": config }))
}

fn info(preset: Preset) -> Result<ModelInfo> {
    let cfg = preset.config();
    let summary = format!(
        "Table S1's {} of the authors' code {}, {} classes",
        preset.title(),
        cfg.version,
        cfg.num_classes
    );
    Ok(ModelInfo {
        name: format!("{NAME}/{}", preset.name()),
        summary,
        task: "segmentation",
        input: preset.size(),
        cost: HyperSegNet::new(&cfg, no_weights())?.cost(preset.size()),
        weights: vec![HyperSegWeights(preset).spec()],
    })
}

fn print_counts(out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new(["preset", "input", "params", "θ^w M", "GMACs", "dynamic", "repository G"])
        .with_text_columns(2);
    for preset in Preset::ALL {
        let counts = tables::counts(&preset.config(), preset.size())?;
        table.row([
            preset.name().to_owned(),
            preset.size().to_string(),
            counts.params.to_string(),
            millions(counts.map_params),
            billions(counts.macs),
            billions(counts.dynamic_macs),
            billions(counts.repository),
        ]);
    }
    writeln!(out, "\nTable S1's models:\n{table}")?;
    Ok(())
}

fn print_s3(out: &mut dyn Write) -> Result<()> {
    let mut table = Table::new([
        "groups",
        "paper G",
        "v1_0",
        "v0_2",
        "paper θ^w M",
        "v1_0",
        "v0_2",
        "paper params M",
        "v1_0",
        "v0_2",
    ]);
    for row in tables::s3()? {
        let [gflops, map_params, params] = row.paper;
        let cells = |paper: f64, count: &dyn Fn(&Counts) -> String| {
            [number(Some(paper), 1), count(&row.v1_0), count(&row.v0_2)]
        };
        let cells = [
            cells(gflops, &|counts| billions(counts.repository)),
            cells(map_params, &|counts| millions(counts.map_params)),
            cells(params, &|counts| millions(counts.params)),
        ];
        let groups = row.groups.map(|groups| groups.to_string()).join(" ");
        table.row(std::iter::once(groups).chain(cells.into_iter().flatten()));
    }
    writeln!(
        out,
        "\nTable S3, HyperSeg-M at 768×1536, r_1 = 1/4:\n{table}\n\nPaper: Nirkin, Wolf, Hassner, HyperSeg, CVPR 2021, \
         supplement. MACs: multiply-accumulates of every convolution, dynamic ones with their halo. \
         G of the repository: its profiler's operations, without dynamic convolutions (twice, in v0_1), 2 a value out of \
         a batch norm, 5 a swish. The paper's G are cut, not rounded."
    )?;
    Ok(())
}

fn millions(count: u64) -> String {
    number(Some(count as f64 / 1e6), 3)
}

fn billions(count: u64) -> String {
    number(Some(count as f64 / 1e9), 3)
}
