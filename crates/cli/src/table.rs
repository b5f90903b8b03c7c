//! Tables for people.

use std::fmt;

/// Columns as wide as their widest cell: the first to the left, numbers to the right.
#[derive(Debug)]
pub struct Table {
    head: Vec<String>,
    rows: Vec<Vec<String>>,
    /// Columns from the left that hold text.
    text: usize,
}

impl Table {
    /// A table whose first column holds text.
    pub fn new<const N: usize>(head: [&str; N]) -> Self {
        Self { head: head.map(str::to_owned).into(), rows: Vec::new(), text: 1 }
    }

    /// The same with text in more columns.
    pub fn with_text_columns(self, text: usize) -> Self {
        Self { text, ..self }
    }

    /// Adds a row; cells beyond the head are not shown.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = || std::iter::once(&self.head).chain(&self.rows);
        let cell_width = |line: &Vec<String>, i: usize| line.get(i).map_or(0, |cell| cell.chars().count());
        let widths: Vec<usize> = (0..self.head.len())
            .map(|i| lines().map(|line| cell_width(line, i)).max().unwrap_or(0))
            .collect();
        for (n, line) in lines().enumerate() {
            if n > 0 {
                writeln!(f)?;
            }
            let mut text = String::new();
            for (i, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let cell = match i < self.text {
                    true => format!("{cell:<width$}"),
                    false => format!("{cell:>width$}"),
                };
                text.push_str(if i > 0 { "  " } else { "" });
                text.push_str(&cell);
            }
            f.write_str(text.trim_end())?;
            if n == 0 {
                write!(
                    f,
                    "\n{}",
                    "─".repeat(widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1))
                )?;
            }
        }
        Ok(())
    }
}

/// A number with so many decimals, or a dash.
pub fn number(value: Option<f64>, decimals: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| format!("{value:.decimals$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["mode", "ms"]);
        table.row(["single frame".to_owned(), number(Some(12.345), 1)]);
        table.row(["é".to_owned(), number(None, 1)]);
        let expected = "mode            ms\n──────────────────\nsingle frame  12.3\né                –";
        assert_eq!(table.to_string(), expected);
    }
}
