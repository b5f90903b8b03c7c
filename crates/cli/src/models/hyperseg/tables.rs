//! What the presets cost, and Table S3: the paper's numbers beside ours.

use std::io::Write;

use anyhow::Result;
use hyperseg::Preset;
use hyperseg::tables::{self, Counts};

use crate::table::{Table, number};

/// Both tables with the notes that they need.
pub fn print(out: &mut dyn Write) -> Result<()> {
    print_counts(out)?;
    print_s3(out)
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
