//! The report of `--check`: named parts of lines, one fact a line behind the name of its part, so that
//! people and grep(1) read it. No I/O.

use std::fmt;

/// The width of the names of parts, in characters.
const NAME_WIDTH: usize = 11;

/// What was found, in the order in which it is printed.
#[derive(Debug, Default)]
pub(super) struct Report(Vec<Part>);

/// A part; one without lines is not printed.
#[derive(Debug)]
struct Part {
    name: &'static str,
    lines: Vec<String>,
}

impl Report {
    /// Adds a part behind the others.
    pub(super) fn add(&mut self, name: &'static str, lines: Vec<String>) {
        self.0.push(Part { name, lines });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Part { name, lines } in &self.0 {
            lines.iter().try_for_each(|line| writeln!(f, "{name:NAME_WIDTH$} {line}"))?;
        }
        Ok(())
    }
}

/// A row of a table; a cell has a text for each of the lines that it takes.
pub(super) type Row = Vec<Vec<String>>;

/// The lines of a table, with two blanks between its columns.
pub(super) fn table(head: &[&str], rows: &[Row]) -> Vec<String> {
    let head: Row = head.iter().map(|title| vec![(*title).to_owned()]).collect();
    let rows: Vec<&Row> = std::iter::once(&head).chain(rows).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).flatten();
        cells.map(|text| text.chars().count()).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    rows.iter().flat_map(|row| lines_of(row, &widths)).collect()
}

fn lines_of(row: &Row, widths: &[usize]) -> Vec<String> {
    let line = |number: usize| {
        let text = |cell: &Vec<String>| cell.get(number).cloned().unwrap_or_default();
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{:width$}", text(cell))).collect();
        cells.join("  ").trim_end().to_owned()
    };
    (0..row.iter().map(Vec::len).max().unwrap_or_default()).map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_the_name_of_its_part() {
        let mut report = Report::default();
        let lines = |text: &str| text.lines().map(str::to_owned).collect();
        report.add("listen", lines("https 0.0.0.0:7393\nhttp 127.0.0.1:7390, without login"));
        report.add("nothing", Vec::new());
        report.add("certificate", lines("ends"));
        assert_eq!(
            report.to_string(),
            "listen      https 0.0.0.0:7393\nlisten      http 127.0.0.1:7390, without login\n\
             certificate ends\n"
        );
    }

    #[test]
    fn columns_are_aligned_and_cells_have_further_lines() {
        let cell = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
        let rows = [
            vec![cell("a"), cell("drop input any\naccept * eth0"), cell("own")],
            vec![cell("größer"), cell(""), cell("all")],
        ];
        assert_eq!(
            table(&["NAME", "ALLOW", "READ"], &rows),
            [
                "NAME    ALLOW           READ",
                "a       drop input any  own",
                "        accept * eth0",
                "größer                  all",
            ]
        );
    }
}
