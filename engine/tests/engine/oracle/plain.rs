//! A GROUP BY added up row by row.

use std::collections::{BTreeMap, BTreeSet};

use super::table::{Cell, Cells};
use super::{Places, Row, Seen, Window};

/// The query that [`group_by_key`] evaluates, over a windowed table `t`.
pub(crate) const SQL: &str = "\
    SELECT window_start, window_end, k, COUNT(*), COUNT(i), SUM(i), SUM(d), SUM(f), MIN(i), MAX(d), MIN(f), \
    COUNT(DISTINCT g), first_value(i), last_value(i) FROM t GROUP BY window_start, window_end, k";

/// Two sums of the same doubles in different order lie this far apart at the most, relative to the sum of their sizes.
pub(crate) const SUM_SLACK: f64 = 1e-12;

/// The rows of [`SQL`] for each instant.
pub(crate) fn group_by_key(window: &Window, places: &Places, rows: &[Seen]) -> BTreeMap<i64, Vec<Cells>> {
    let mut results = BTreeMap::new();
    for (instant, numbers) in places {
        let mut groups = BTreeMap::<Option<&str>, Group>::new();
        for number in numbers {
            let row = &rows[*number].row;
            groups.entry(row.k.as_deref()).or_default().add(row);
        }
        let bounds = [Cell::exact(instant - window.range), Cell::exact(instant)];
        let row = |(key, group): (&Option<&str>, &Group)| {
            bounds.iter().cloned().chain([Cell::maybe(*key)]).chain(group.cells()).collect()
        };
        results.insert(*instant, groups.iter().map(row).collect());
    }
    results
}

#[derive(Debug, Default)]
struct Group {
    rows: u64,
    integers: u64,
    sum: Option<i64>,
    decimal: Option<i128>,
    double: Option<f64>,
    size: f64,
    least: Option<i64>,
    greatest: Option<i128>,
    least_double: Option<f64>,
    distinct: BTreeSet<i64>,
    /// The values of the first and the last row, null or not.
    first: Option<(u32, u64, Option<i64>)>,
    last: Option<(u32, u64, Option<i64>)>,
}

impl Group {
    fn add(&mut self, row: &Row) {
        self.rows += 1;
        if let Some(i) = row.i {
            self.integers += 1;
            self.sum = Some(self.sum.unwrap_or(0).checked_add(i).unwrap());
            self.least = Some(self.least.map_or(i, |least| least.min(i)));
        }
        if let Some(d) = row.d {
            self.decimal = Some(self.decimal.unwrap_or(0) + d);
            self.greatest = self.greatest.max(Some(d));
        }
        if let Some(f) = row.f {
            self.double = Some(self.double.unwrap_or(0.0) + f);
            self.size += f.abs();
            self.least_double = Some(self.least_double.map_or(f, |least| least.min(f)));
        }
        self.distinct.extend(row.g);
        let place = (row.partition, row.offset, row.i);
        let is_first = self.first.is_none_or(|first| (place.0, place.1) < (first.0, first.1));
        let is_last = self.last.is_none_or(|last| (place.0, place.1) > (last.0, last.1));
        self.first = if is_first { Some(place) } else { self.first };
        self.last = if is_last { Some(place) } else { self.last };
    }

    fn cells(&self) -> Cells {
        let double = |value: Option<f64>, slack: f64| value.map_or(Cell::Null, |value| Cell::Double(value, slack));
        vec![
            Cell::exact(self.rows),
            Cell::exact(self.integers),
            Cell::maybe(self.sum),
            Cell::maybe(self.decimal),
            double(self.double, SUM_SLACK * self.size),
            Cell::maybe(self.least),
            Cell::maybe(self.greatest),
            double(self.least_double, 0.0),
            Cell::exact(self.distinct.len()),
            Cell::maybe(self.first.and_then(|first| first.2)),
            Cell::maybe(self.last.and_then(|last| last.2)),
        ]
    }
}
