//! What tells two sets of rows apart, in lines that can be read.

use std::fmt::Write;

/// The most rows that are shown of either side.
const SHOWN: usize = 12;

/// The rows that only one side has, as many times as it has them more often; `None` if there are none.
pub(crate) fn difference(found: &[String], expected: &[String]) -> Option<String> {
    let (extra, missing) = (without(found, expected), without(expected, found));
    if extra.is_empty() && missing.is_empty() {
        return None;
    }
    let mut text = format!("{} rows where {} are expected\n", found.len(), expected.len());
    for (sign, rows) in [('-', missing), ('+', extra)] {
        for row in rows.iter().take(SHOWN) {
            let _ = writeln!(text, "  {sign} {row}");
        }
        if rows.len() > SHOWN {
            let _ = writeln!(text, "  {sign} and {} more", rows.len() - SHOWN);
        }
    }
    Some(text)
}

/// The rows of one side in order, without those of the other.
fn without<'a>(rows: &'a [String], others: &[String]) -> Vec<&'a str> {
    let mut counts = std::collections::HashMap::<&str, usize>::new();
    for row in others {
        *counts.entry(row).or_default() += 1;
    }
    let is_alone = |row: &&str| match counts.get_mut(*row) {
        Some(count) if *count > 0 => {
            *count -= 1;
            false
        }
        _ => true,
    };
    let mut alone: Vec<&str> = rows.iter().map(String::as_str).filter(is_alone).collect();
    alone.sort_unstable();
    alone
}

#[test]
fn rows_that_one_side_has_more_often_are_shown() {
    let rows = |rows: &[&str]| rows.iter().map(|row| (*row).to_owned()).collect::<Vec<_>>();
    assert_eq!(difference(&rows(&["a", "b", "a"]), &rows(&["b", "a", "a"])), None);
    let text = difference(&rows(&["a", "c", "b"]), &rows(&["a", "b", "b"]));
    assert_eq!(text.as_deref(), Some("3 rows where 3 are expected\n  - b\n  + c\n"));
}
