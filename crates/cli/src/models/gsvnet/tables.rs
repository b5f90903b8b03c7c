//! Table 2: the paper's numbers beside ours.

use std::io::Write;

use anyhow::Result;
use gsvnet_seg::tables::Counts;
use gsvnet_seg::{KeyframeScale, Preset};

use crate::table::{Table, number};

/// What the paper, and its repository's front page, print of a preset.
struct Printed {
    preset: Preset,
    scale: KeyframeScale,
    key_megabytes: f64,
    key_giga: f64,
}

const PRINTED: [Printed; 3] = [
    Printed {
        preset: Preset::SwiftnetR18,
        scale: KeyframeScale::ThreeQuarters,
        key_megabytes: 47.2,
        key_giga: 58.5,
    },
    Printed { preset: Preset::SwiftnetR18, scale: KeyframeScale::Half, key_megabytes: 47.2, key_giga: 26.0 },
    Printed {
        preset: Preset::BisenetR18,
        scale: KeyframeScale::ThreeQuarters,
        key_megabytes: 49.0,
        key_giga: 58.0,
    },
];
const BETWEEN_MEGABYTES: f64 = 1.6;
const BETWEEN_GIGA: f64 = 2.8;
/// Interval and mean of SwiftNet at three quarters.
const AVERAGES: [(usize, Option<f64>); 4] = [(2, None), (3, Some(21.3)), (4, Some(16.7)), (5, None)];

/// The counts with the notes that they need.
pub fn print(out: &mut dyn Write) -> Result<()> {
    let mut key =
        Table::new(["key frames", "scale", "params", "MB", "paper", "GMACs", "with norms", "paper"])
            .with_text_columns(2);
    for Printed { preset, scale, key_megabytes, key_giga } in PRINTED {
        let counts = Counts::of(preset, scale)?;
        key.row([
            preset.name().to_owned(),
            scale.name().to_owned(),
            counts.key.params.to_string(),
            megabytes(counts.key.params),
            number(Some(key_megabytes), 1),
            giga(counts.key.macs as f64),
            giga(counts.key_operations as f64),
            number(Some(key_giga), 1),
        ]);
    }
    let counts = Counts::of(Preset::SwiftnetR18, KeyframeScale::ThreeQuarters)?;
    let mut between =
        Table::new(["between key frames", "params", "MB", "paper", "GMACs", "with norms", "paper"]);
    between.row([
        "flow, guide, intra, kernels".to_owned(),
        counts.between.params.to_string(),
        megabytes(counts.between.params),
        number(Some(BETWEEN_MEGABYTES), 1),
        giga(counts.between.macs as f64),
        giga(counts.between_operations as f64),
        number(Some(BETWEEN_GIGA), 1),
    ]);
    let mut averages = Table::new(["interval", "G a frame", "paper"]);
    for (interval, paper) in AVERAGES {
        averages.row([interval.to_string(), giga(counts.average(interval)), number(paper, 1)]);
    }
    writeln!(
        out,
        "\nTable 2, frames of 1024×2048:\n{key}\n\n{between}\n\nSwiftNet at three quarters, averaged over the interval:\n{averages}\n\nPaper: Lee, Chen, Peng, GSVNet, ICME 2021; interval 3 from its repository's front page. Its \"parameters\" are bytes, four a value; its \
         \"FLOPs\" multiply-accumulates, with two operations a value out of a batch norm and one out of a ReLU. BiSeNet's \
         49.0 MB are not reproduced: without the heads that only its training needs it has 51.6."
    )?;
    Ok(())
}

fn megabytes(params: u64) -> String {
    number(Some(4e-6 * params as f64), 2)
}

fn giga(count: f64) -> String {
    number(Some(count / 1e9), 2)
}
