//! What differs between the rows that a test wants and those that a query gives, as a table. Pure.

use std::collections::HashMap;

use super::rows::{Cell, Row};

/// How far two floating-point numbers may lie apart, as a share of the greater: sums depend on the order of rows.
const APART: f64 = 1e-9;
/// The most rows that are shown.
const SHOWN_ROWS: usize = 30;

/// How rows are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    /// Place by place.
    Ordered,
    /// Each as often as the other, in any order.
    Unordered,
    /// Each of the wanted rows is among those given, which may be more.
    Among,
}

/// A line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mark {
    Missing,
    Extra,
}

/// The table of rows missing (-) and extra (+) under the names of `columns`; none if nothing differs.
pub(super) fn difference(columns: &[String], wanted: &[Row], given: &[Row], by: Comparison) -> Option<String> {
    let marked = match by {
        Comparison::Ordered => by_place(wanted, given),
        Comparison::Unordered => by_count(wanted, given),
        Comparison::Among => by_count(wanted, given).into_iter().filter(|(mark, _)| *mark == Mark::Missing).collect(),
    };
    if marked.is_empty() {
        return None;
    }
    Some(table(columns, &marked, wanted.len()))
}

/// The rows that differ at the same place, the wanted one first.
fn by_place<'a>(wanted: &'a [Row], given: &'a [Row]) -> Vec<(Mark, &'a Row)> {
    let mut marked = Vec::new();
    for index in 0..wanted.len().max(given.len()) {
        let (wanted, given) = (wanted.get(index), given.get(index));
        if wanted.zip(given).is_some_and(|(wanted, given)| are_alike(wanted, given)) {
            continue;
        }
        marked.extend(wanted.map(|row| (Mark::Missing, row)));
        marked.extend(given.map(|row| (Mark::Extra, row)));
    }
    marked
}

/// The rows that one side has more often than the other, in its order.
fn by_count<'a>(wanted: &'a [Row], given: &'a [Row]) -> Vec<(Mark, &'a Row)> {
    let mut counts: HashMap<Vec<&str>, usize> = HashMap::new();
    for row in given {
        *counts.entry(texts(row)).or_default() += 1;
    }
    // Rows that look the same are found at once; what is left is compared number by number.
    let mut missing: Vec<&Row> = wanted.iter().filter(|row| !took_one(&mut counts, row)).collect();
    let mut extra: Vec<&Row> = given.iter().filter(|row| took_one(&mut counts, row)).collect();
    missing.retain(|row| match extra.iter().position(|other| are_alike(row, other)) {
        Some(index) => {
            extra.remove(index);
            false
        }
        None => true,
    });
    let missing = missing.into_iter().map(|row| (Mark::Missing, row));
    missing.chain(extra.into_iter().map(|row| (Mark::Extra, row))).collect()
}

fn texts(row: &Row) -> Vec<&str> {
    row.iter().map(|cell| cell.text.as_str()).collect()
}

fn took_one<'a>(counts: &mut HashMap<Vec<&'a str>, usize>, row: &'a Row) -> bool {
    match counts.get_mut(&texts(row)) {
        Some(count) if *count > 0 => {
            *count -= 1;
            true
        }
        _ => false,
    }
}

fn are_alike(left: &Row, right: &Row) -> bool {
    left.len() == right.len() && left.iter().zip(right).all(|(left, right)| are_equal(left, right))
}

fn are_equal(left: &Cell, right: &Cell) -> bool {
    match (left.number, right.number) {
        (Some(left), Some(right)) if left.is_finite() && right.is_finite() => {
            (left - right).abs() <= APART * left.abs().max(right.abs())
        }
        _ => left.text == right.text,
    }
}

fn table(columns: &[String], marked: &[(Mark, &Row)], wanted: usize) -> String {
    let shown = marked.get(..SHOWN_ROWS).unwrap_or(marked);
    let width = |index: usize| {
        let cells = shown.iter().filter_map(|(_, row)| row.get(index)).map(|cell| cell.text.chars().count());
        cells.chain(columns.get(index).map(|name| name.chars().count())).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns.len()).map(width).collect();
    let header = line(' ', columns.iter().map(String::as_str), &widths);
    let mut lines = vec![header];
    for (mark, row) in shown {
        let mark = if *mark == Mark::Missing { '-' } else { '+' };
        lines.push(line(mark, row.iter().map(|cell| cell.text.as_str()), &widths));
    }
    if marked.len() > shown.len() {
        lines.push(format!("  … and {} more", marked.len() - shown.len()));
    }
    let missing = marked.iter().filter(|(mark, _)| *mark == Mark::Missing).count();
    let extra = marked.len() - missing;
    lines.push(format!("{missing} missing (-), {extra} extra (+), {} as they should be", wanted - missing));
    lines.join("\n")
}

fn line<'a>(mark: char, cells: impl Iterator<Item = &'a str>, widths: &[usize]) -> String {
    let mut line = mark.to_string();
    for (cell, width) in cells.zip(widths) {
        line.push_str(&format!(" {cell:width$} "));
    }
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(texts: &[&str]) -> Vec<Row> {
        let cell = |text: &str| Cell { text: text.to_owned(), number: text.parse().ok() };
        texts.iter().map(|row| row.split(',').map(cell).collect()).collect()
    }

    fn compared(wanted: &[&str], given: &[&str], by: Comparison) -> Option<String> {
        difference(&["key".to_owned(), "n".to_owned()], &rows(wanted), &rows(given), by)
    }

    #[test]
    fn the_same_rows_in_another_order_differ_only_where_order_counts() {
        assert_eq!(compared(&["a,1", "b,2"], &["b,2", "a,1"], Comparison::Unordered), None);
        assert!(compared(&["a,1", "b,2"], &["b,2", "a,1"], Comparison::Ordered).is_some());
    }

    #[test]
    fn rows_are_counted() {
        assert!(compared(&["a,1"], &["a,1", "a,1"], Comparison::Unordered).is_some());
        assert_eq!(compared(&["a,1"], &["a,1", "a,1"], Comparison::Among), None);
        assert!(compared(&["a,1", "a,1"], &["a,1"], Comparison::Among).is_some());
    }

    #[test]
    fn numbers_may_differ_in_their_last_bits() {
        assert_eq!(compared(&["a,0.3"], &["a,0.30000000000000004"], Comparison::Unordered), None);
        assert!(compared(&["a,0.3"], &["a,0.3001"], Comparison::Unordered).is_some());
    }

    #[test]
    fn the_table_marks_what_is_missing_and_what_is_extra() {
        let shown = compared(&["abc,1", "b,2"], &["b,2", "c,30"], Comparison::Unordered).unwrap();
        let expected = "  key  n\n- abc  1\n+ c    30\n1 missing (-), 1 extra (+), 1 as they should be";
        assert_eq!(shown, expected);
    }
}
