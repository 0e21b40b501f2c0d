//! What a table may ask of those who write to it that this sink does not do: such a table is refused, for rows that are
//! appended regardless would make it say what is not true.
//!
//! Protocol: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>, "Column Invariants", "CHECK Constraints",
//! "Generated Columns" and "Identity Columns".

use deltalake_core::kernel::StructField;
use deltalake_core::table::state::DeltaTableState;
use millstream_engine::{Error, Result};

/// How the keys in the metadata of a column begin that rule its values, and what is said of such a column.
const COLUMN_RULES: [(&str, &str); 3] = [
    ("delta.invariants", "has an invariant"),
    ("delta.generationExpression", "is generated"),
    ("delta.identity.", "is an identity"),
];

/// How the names of the table properties begin that are CHECK constraints.
const CONSTRAINT: &str = "delta.constraints.";

/// Refuses a table with partitions or with rules for its values.
///
/// # Errors
/// Names the first of them.
pub(super) fn refuse_rules(table: &DeltaTableState, place: &str) -> Result<()> {
    match first_rule(table, place) {
        None => Ok(()),
        Some(rule) => {
            let hint = "name another path: this sink appends only to tables that have no partitions, and no rules for \
                        the values of their columns";
            Err(Error::query(rule, hint))
        }
    }
}

fn first_rule(table: &DeltaTableState, place: &str) -> Option<String> {
    let metadata = table.metadata();
    if let Some(column) = metadata.partition_columns().first() {
        return Some(format!("{place} is partitioned by {column:?}"));
    }
    let constraints = metadata.configuration().keys().filter_map(|name| name.strip_prefix(CONSTRAINT));
    if let Some(constraint) = constraints.min() {
        return Some(format!("{place} has the CHECK constraint {constraint:?}"));
    }
    let schema = table.schema();
    let mut rules = schema.fields().filter_map(|field| Some((field.name(), column_rule(field)?)));
    rules.next().map(|(column, rule)| format!("column {column:?} of {place} {rule}"))
}

fn column_rule(field: &StructField) -> Option<&'static str> {
    if !field.is_nullable() {
        return Some("is NOT NULL");
    }
    let has_rule = |start: &str| field.metadata().keys().any(|key| key.starts_with(start));
    COLUMN_RULES.into_iter().find(|(start, _)| has_rule(start)).map(|(_, rule)| rule)
}
