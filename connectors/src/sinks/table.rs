//! An aligned table that goes on: the widths are set by the header and the first epoch, and then kept.

use datafusion::arrow::datatypes::{DataType, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_engine::Result;
use millstream_engine::plan::{WINDOW_END, WINDOW_START};

const BOLD: &str = "\u{1b}[1m";
const DIM: &str = "\u{1b}[2m";
const PLAIN: &str = "\u{1b}[0m";
const GAP: &str = "  ";

/// The layout of a table whose rows come in one epoch after the other.
#[derive(Debug)]
pub(super) struct Table {
    schema: SchemaRef,
    columns: Vec<Column>,
    is_colored: bool,
    has_header: bool,
}

#[derive(Debug)]
struct Column {
    width: usize,
    is_number: bool,
    is_window: bool,
}

impl Table {
    pub(super) fn new(schema: SchemaRef) -> Self {
        let columns = schema.fields().iter().map(|field| Column {
            width: min_width(field.data_type()).max(width(field.name())),
            is_number: field.data_type().is_numeric(),
            is_window: [WINDOW_START, WINDOW_END].contains(&field.name().as_str()),
        });
        Self { columns: columns.collect(), schema, is_colored: false, has_header: false }
    }

    /// The same table with a bold header and dim window columns, by ANSI escapes.
    pub(super) fn colored(mut self) -> Self {
        self.is_colored = true;
        self
    }

    pub(super) const fn has_header(&self) -> bool {
        self.has_header
    }

    /// Appends the rows to `out`, the first time with the header before them.
    pub(super) fn write(&mut self, batches: &[RecordBatch], out: &mut String) -> Result<()> {
        let rows = cells(batches)?;
        if !self.has_header {
            self.widen(&rows);
            self.write_header(out);
        }
        for row in &rows {
            self.write_row(row, |column| if column.is_window { DIM } else { "" }, out);
        }
        Ok(())
    }

    fn widen(&mut self, rows: &[Vec<String>]) {
        for row in rows {
            for (column, cell) in self.columns.iter_mut().zip(row) {
                column.width = column.width.max(width(cell));
            }
        }
    }

    fn write_header(&mut self, out: &mut String) {
        let names: Vec<_> = self.schema.fields().iter().map(|field| field.name().clone()).collect();
        let rules: Vec<_> = self.columns.iter().map(|column| "-".repeat(column.width)).collect();
        self.write_row(&names, |_| BOLD, out);
        self.write_row(&rules, |_| "", out);
        self.has_header = true;
    }

    fn write_row(&self, cells: &[String], style: impl Fn(&Column) -> &'static str, out: &mut String) {
        for (index, (column, cell)) in self.columns.iter().zip(cells).enumerate() {
            let is_last = index + 1 == self.columns.len();
            let padding = " ".repeat(column.width.saturating_sub(width(cell)));
            let style = if self.is_colored { style(column) } else { "" };
            let (before, after) = if column.is_number { (padding.as_str(), "") } else { ("", padding.as_str()) };
            out.push_str(before);
            out.push_str(style);
            out.push_str(cell);
            out.push_str(if style.is_empty() { "" } else { PLAIN });
            if !is_last {
                out.push_str(after);
                out.push_str(GAP);
            }
        }
        out.push('\n');
    }
}

/// The rows as text; control characters are escaped, so that no value can break the table or the terminal.
fn cells(batches: &[RecordBatch]) -> Result<Vec<Vec<String>>> {
    let options = FormatOptions::new().with_null("NULL").with_display_error(true);
    let mut rows = Vec::new();
    for batch in batches {
        let mut formatters = Vec::with_capacity(batch.num_columns());
        for array in batch.columns() {
            formatters.push(ArrayFormatter::try_new(array.as_ref(), &options)?);
        }
        for row in 0..batch.num_rows() {
            rows.push(formatters.iter().map(|column| escape(column.value(row).to_string())).collect());
        }
    }
    Ok(rows)
}

fn escape(cell: String) -> String {
    if !cell.contains(char::is_control) {
        return cell;
    }
    let escaped = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    cell.chars().map(escaped).collect()
}

fn width(text: &str) -> usize {
    text.chars().count()
}

/// What most values of a type take, so that later epochs seldom leave their column.
fn min_width(kind: &DataType) -> usize {
    match kind {
        DataType::Timestamp(_, _) => 19,
        DataType::Date32 | DataType::Date64 => 10,
        DataType::Boolean => 5,
        DataType::Int8 | DataType::UInt8 => 4,
        DataType::Int16 | DataType::UInt16 => 6,
        kind if kind.is_numeric() => 10,
        _ => 8,
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::{numbers, prices};
    use super::*;

    #[test]
    fn numbers_stand_right_and_text_left_under_one_header() {
        let mut table = Table::new(prices().schema());
        let mut out = String::new();
        table.write(&[prices().slice(0, 1)], &mut out).unwrap();
        table.write(&[prices().slice(1, 1)], &mut out).unwrap();
        let expected = [
            "window_end           szcode        trades       price",
            "-------------------  --------  ----------  ----------",
            "2013-10-07T09:30:00  600519,A           7        12.5",
            "2013-10-07T09:30:00.500  NULL            NULL        NULL",
            "",
        ];
        assert_eq!(out, expected.join("\n"));
    }

    #[test]
    fn colors_do_not_move_the_columns() {
        let mut out = String::new();
        Table::new(prices().schema()).colored().write(&[prices().slice(0, 1)], &mut out).unwrap();
        assert!(out.starts_with("\u{1b}[1mwindow_end\u{1b}[0m           \u{1b}[1mszcode\u{1b}[0m"));
        assert!(out.contains("\n\u{1b}[2m2013-10-07T09:30:00\u{1b}[0m  600519,A"));
        let mut plain = String::new();
        Table::new(prices().schema()).write(&[prices().slice(0, 1)], &mut plain).unwrap();
        assert_eq!([BOLD, DIM, PLAIN].iter().fold(out, |text, code| text.replace(code, "")), plain);
    }

    #[test]
    fn wide_cells_of_the_first_epoch_widen_their_column() {
        let mut out = String::new();
        Table::new(numbers(&[]).schema()).write(&[numbers(&[1, 123_456_789_012])], &mut out).unwrap();
        assert_eq!(out, "           n\n------------\n           1\n123456789012\n");
    }

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(escape("a\nb\u{1b}[1m ü".into()), "a\\nb\\u{1b}[1m ü");
    }
}
