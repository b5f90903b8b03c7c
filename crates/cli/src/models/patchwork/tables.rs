//! The cost columns of Tables 4 and 5: the paper's beside ours.

use std::io::Write;

use anyhow::Result;
use patchwork_det::tables::{Row, table4, table5};

use crate::table::{Table, number};

/// Both tables with the notes that they need.
pub fn print(out: &mut dyn Write) -> Result<()> {
    writeln!(out, "\nTable 4 (ImageNet VID), MFLOPs a frame at 384×384:\n{}", table(&table4()?))?;
    writeln!(out, "\nTable 5 (DAVIS), MFLOPs a frame at 384×384:\n{}", table(&table5()?))?;
    writeln!(
        out,
        "\nPaper: Chai, Patchwork, ICCV 2019, Tables 4 and 5. MFLOPs: 2 MAC + 1 a bias add + 1 a residual add, batch \
         norm folded.\nThe segmenter's width (232) and the attention network's (64) are ours, chosen to meet these \
         columns.\nWith a delay, the work of a key frame, spread evenly over K frames, averages SF/K, which is what \
         we report; the paper's averages are smaller."
    )?;
    Ok(())
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(["row", "paper max", "ours max", "paper avg", "ours avg", "max, deviation"]);
    for row in rows {
        let deviation = row.deviation().map(percent);
        table.row([
            row.name.to_owned(),
            number(row.paper.map(|paper| paper.max), 0),
            number(Some(row.ours.max), 2),
            number(row.paper.map(|paper| paper.avg), 0),
            number(Some(row.ours.avg), 2),
            deviation.unwrap_or_else(|| "–".to_owned()),
        ]);
    }
    table
}

/// A signed share in tenths of a percent; what rounds to nothing has no sign.
fn percent(share: f64) -> String {
    match (1000.0 * share).round() {
        0.0 => "0.0 %".to_owned(),
        tenths => format!("{:+.1} %", tenths / 10.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deviations_have_a_sign_unless_they_round_to_nothing() {
        for (share, text) in
            [(0.0123, "+1.2 %"), (-0.05, "-5.0 %"), (0.0, "0.0 %"), (-0.0004, "0.0 %"), (0.0004, "0.0 %")]
        {
            assert_eq!(percent(share), text, "{share}");
        }
    }
}
