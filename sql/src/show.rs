//! The rows that answer `SHOW …` and `DESCRIBE name`; all columns are text.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, StringArray};
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::plan::{EventTimeRule, StreamDefinition, WithOption};

use crate::catalog::{Catalog, Relation};
use crate::error::{Error, Result};
use crate::statement::RelationKind;
use crate::types::sql_name;

/// One row per relation, sink, secret or function of that kind, by name; aggregates are functions too.
pub(crate) fn show(catalog: &Catalog, kind: RelationKind) -> Result<RecordBatch> {
    let definitions = || catalog.relations().filter(|(_, relation)| relation.kind() == kind);
    match kind {
        RelationKind::Stream => {
            let rows = definitions().filter_map(|(name, relation)| {
                let stream = relation.definition()?;
                Some([name.to_owned(), connector(&stream.options), time(stream)])
            });
            table(["stream", "connector", "event_time"], rows)
        }
        RelationKind::Table => {
            let rows = definitions()
                .filter_map(|(name, relation)| Some([name.to_owned(), connector(&relation.definition()?.options)]));
            table(["table", "connector"], rows)
        }
        RelationKind::View => {
            let rows = catalog.relations().filter_map(|(name, relation)| match relation {
                Relation::View(view) => Some([name.to_owned(), view.text.clone()]),
                _ => None,
            });
            table(["view", "query"], rows)
        }
        RelationKind::MaterializedView => {
            let rows = catalog.relations().filter_map(|(name, relation)| match relation {
                Relation::MaterializedView { definition, .. } => Some([name.to_owned(), definition.text.clone()]),
                _ => None,
            });
            table(["view", "query"], rows)
        }
        RelationKind::Sink => {
            table(["sink", "connector"], catalog.sinks().map(|sink| [sink.name.clone(), connector(&sink.options)]))
        }
        RelationKind::Secret => table(["secret"], catalog.secrets().map(|name| [name.to_owned()])),
        RelationKind::Function => functions(catalog, |_| true),
        RelationKind::Aggregate => functions(catalog, |kind| kind == RelationKind::Aggregate),
    }
}

/// One row per declared function of those kinds.
fn functions(catalog: &Catalog, shows: impl Fn(RelationKind) -> bool) -> Result<RecordBatch> {
    let shown = catalog.functions().filter(|definition| shows(definition.kind()));
    let rows = shown.map(|definition| {
        let [name, kind] = [&definition.name, definition.kind().noun()].map(str::to_owned);
        [name, kind, definition.signature(), definition.text.clone()]
    });
    table(["function", "kind", "signature", "definition"], rows)
}

/// One row per column of a stream or table.
pub(crate) fn describe(definition: &StreamDefinition) -> Result<RecordBatch> {
    let fields = definition.schema.fields().iter().zip(&definition.declared).enumerate();
    let rows = fields.map(|(index, (field, declared))| {
        let note = definition.event_time.filter(|rule| rule.column == index).map(watermark).unwrap_or_default();
        [declared.clone(), sql_name(field.data_type()), nullable(field.is_nullable()), note]
    });
    table(["column", "type", "nullable", "note"], rows)
}

/// One row per column of a view.
pub(crate) fn describe_columns(schema: &Schema) -> Result<RecordBatch> {
    let fields = schema.fields().iter();
    let rows = fields
        .map(|field| [field.name().clone(), sql_name(field.data_type()), nullable(field.is_nullable()), String::new()]);
    table(["column", "type", "nullable", "note"], rows)
}

fn nullable(nullable: bool) -> String {
    if nullable { "yes" } else { "no" }.to_owned()
}

fn connector(options: &[WithOption]) -> String {
    options.iter().find(|option| option.key == "connector").map(|option| option.value.clone()).unwrap_or_default()
}

fn time(stream: &StreamDefinition) -> String {
    let column = stream.event_time.and_then(|rule| stream.declared.get(rule.column));
    column.cloned().unwrap_or_else(|| "arrival".to_owned())
}

fn watermark(rule: EventTimeRule) -> String {
    let mut note = format!("event time, watermark {} behind", rule.delay);
    if let Some(timeout) = rule.idle_timeout {
        note.push_str(&format!(", idle after {timeout}"));
    }
    if let Some(skew) = rule.max_future_skew {
        note.push_str(&format!(", at most {skew} ahead"));
    }
    note
}

fn table<const N: usize>(names: [&str; N], rows: impl Iterator<Item = [String; N]>) -> Result<RecordBatch> {
    let mut columns: [Vec<String>; N] = std::array::from_fn(|_| Vec::new());
    for row in rows {
        for (column, value) in columns.iter_mut().zip(row) {
            column.push(value);
        }
    }
    let arrays = columns.into_iter().map(|column| Arc::new(StringArray::from(column)) as ArrayRef);
    RecordBatch::try_from_iter(names.into_iter().zip(arrays))
        .map_err(|error| Error { source: Some(Arc::new(error.into())), ..Error::new("the rows cannot be shown") })
}
