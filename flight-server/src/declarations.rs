//! What declarations do besides being known to the language: side tables of streams, rows of static tables.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use millstream_connectors::{CurrentTable, TableRows};
use millstream_engine::plan::StreamDefinition;
use millstream_engine::query::QueryOptions;
use millstream_engine::refreshed::RefreshedTable;
use millstream_engine::secret::Secret;
use millstream_engine::side::SideTables;
use millstream_sql::{RelationKind, SERVER_SETTINGS, SecretSource, Session as Language, Statement};

use crate::error::{Error, Result};
use crate::memory::Memory;

/// The side tables of the declared streams, by the name of the stream.
pub(crate) type StreamSides = BTreeMap<String, SideTables>;

/// Declares a stream, with `name$late` and `name$dead` beside it.
pub(crate) fn register_stream(language: &mut Language, sides: &mut StreamSides, definition: Arc<StreamDefinition>) {
    let side = SideTables::new(&definition.schema);
    let tables: [(&str, Arc<dyn TableProvider>); 2] =
        [("late", Arc::clone(&side.late) as _), ("dead", Arc::clone(&side.dead) as _)];
    for (suffix, table) in tables {
        register_side(language, &definition, suffix, table);
    }
    sides.insert(definition.name.clone(), side);
    language.register_stream(definition);
}

/// Declares `stream$late` or `stream$dead` with its rows.
pub(crate) fn register_side(
    language: &mut Language,
    stream: &StreamDefinition,
    suffix: &str,
    table: Arc<dyn TableProvider>,
) {
    language.register_table(Arc::new(table_definition(&format!("{}${suffix}", stream.name), table.as_ref())), table);
}

/// The declaration of a table that no connector reads.
pub(crate) fn table_definition(name: &str, table: &dyn TableProvider) -> StreamDefinition {
    let schema = table.schema();
    StreamDefinition {
        name: name.to_owned(),
        declared: schema.fields().iter().map(|field| field.name().clone()).collect(),
        schema,
        event_time: None,
        bad_data: millstream_engine::plan::BadData::default(),
        durability: None,
        rate_limit: None,
        refresh: None,
        options: Vec::new(),
    }
}

/// What a declaration brings along.
#[derive(Debug)]
pub(crate) enum Prepared {
    /// Nothing.
    Nothing,
    /// The rows of a static table, and a note on those that could not be used.
    Rows(Arc<dyn TableProvider>, Option<String>),
    /// The text of a secret.
    Secret(Secret),
}

/// Does what a declaration needs before it is carried out: checks options, reads the rows of a static table, or a secret.
///
/// # Errors
/// Fails if an option is wrong or the table or secret cannot be read.
pub(crate) async fn prepare(statement: &Statement) -> Result<Prepared, millstream_engine::Error> {
    match statement {
        Statement::CreateStream { definition, .. } => millstream_connectors::check_source(definition)?,
        Statement::CreateSink { definition, .. } => {
            millstream_connectors::check_sink(&definition.name, &definition.options)?;
        }
        Statement::CreateTable { definition, .. } => {
            let (rows, note) = load_table(definition).await?;
            return Ok(Prepared::Rows(rows, note));
        }
        Statement::CreateSecret { name, source, .. } => return read_secret(name, source).map(Prepared::Secret),
        Statement::Set { key, .. } if SERVER_SETTINGS.contains(&key.as_str()) => {
            let message = format!("{key} is for the connections to a server");
            return Err(millstream_engine::Error::query(message, "set it in a session of millstream serve"));
        }
        _ => {}
    }
    Ok(Prepared::Nothing)
}

/// Reads the text of a secret.
///
/// # Errors
/// Names the file or variable that has none.
pub(crate) fn read_secret(name: &str, source: &SecretSource) -> Result<Secret, millstream_engine::Error> {
    let (text, place) = match source {
        SecretSource::Text(secret) => return secret.hide().map(|()| secret.clone()),
        SecretSource::File(path) => {
            let read = std::fs::read_to_string(path);
            let failed = |error| millstream_engine::Error::external(format!("reading the secret \"{name}\""), error);
            (read.map_err(failed)?, format!("the file {path}"))
        }
        SecretSource::Env(variable) => {
            (std::env::var(variable).unwrap_or_default(), format!("the variable {variable} of the environment"))
        }
    };
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        let message = format!("{place} is not there or empty, and the secret \"{name}\" is to be read from it");
        return Err(millstream_engine::Error::query(message, "write the text of the secret there"));
    }
    let secret = Secret::new(text);
    secret.hide()?;
    Ok(secret)
}

/// Carries out a declaration with what was prepared for it; gives the statement back if it is none.
///
/// # Errors
/// Fails if a setting does not take its value.
pub(crate) fn declare(
    language: &mut Language,
    sides: &mut StreamSides,
    memory: &mut Memory,
    statement: Statement,
    prepared: Prepared,
) -> Result<Option<Statement>> {
    match statement {
        Statement::CreateStream { definition, .. } => register_stream(language, sides, definition),
        Statement::CreateTable { definition, .. } => {
            let Prepared::Rows(rows, _) = prepared else {
                let message = format!("the rows of table {} were not read", definition.name);
                return Err(millstream_engine::Error::internal(message).into());
            };
            language.register_table(definition, rows);
        }
        Statement::CreateSecret { name, .. } => {
            let Prepared::Secret(secret) = prepared else {
                return Err(millstream_engine::Error::internal(format!("the secret {name} was not read")).into());
            };
            language.register_secret(&name, secret);
        }
        Statement::CreateView { definition, .. } => language.register_view(definition),
        Statement::CreateSink { definition, .. } => language.register_sink(definition),
        Statement::CreateFunction { definition, .. } => {
            language.declare_function(&definition).map_err(|error| Error::Engine(error.into()))?;
        }
        Statement::Drop { kind, name } => drop_relation(language, sides, kind, &name),
        Statement::Set { key, value } => {
            language.set(&key, &value).map_err(|error| Error::Engine(error.into()))?;
            memory.set(&key, &value)?;
        }
        Statement::Nothing { .. } => {}
        // All are named, so that a declaration that is new to the language is not taken for a query.
        statement @ (Statement::CreateMaterializedView { .. }
        | Statement::Insert { .. }
        | Statement::Select(_)
        | Statement::Explain(_)
        | Statement::ExplainAnalyze(_)
        | Statement::Show { .. }
        | Statement::ShowRunning(_)
        | Statement::Subscribe { .. }
        | Statement::SubscribeQuery { .. }
        | Statement::Control { .. }) => {
            return Ok(Some(statement));
        }
    }
    Ok(None)
}

/// Forgets what has the name, and what came with it.
pub(crate) fn drop_relation(language: &mut Language, sides: &mut StreamSides, kind: RelationKind, name: &str) {
    language.unregister(kind, name);
    if kind == RelationKind::Stream {
        sides.remove(name);
        for suffix in ["late", "dead"] {
            language.unregister(RelationKind::Table, &format!("{name}${suffix}"));
        }
    }
}

/// Reads the rows of a static table; with them a note on those that could not be used.
///
/// # Errors
/// Fails if the table cannot be read.
pub(crate) async fn load_table(
    definition: &Arc<StreamDefinition>,
) -> Result<(Arc<dyn TableProvider>, Option<String>), millstream_engine::Error> {
    let TableRows { batches, bad } = millstream_connectors::read_table(definition).await?;
    let note = bad.first().map(|first| {
        let (count, name) = (bad.len(), &definition.name);
        format!("note: {count} rows of table {name} could not be used; the first is {}: {}", first.place, first.reason)
    });
    if definition.refresh.is_some() {
        let current = Arc::new(CurrentTable(Arc::clone(definition)));
        return Ok((Arc::new(RefreshedTable::new(Arc::clone(definition), current)), note));
    }
    Ok((Arc::new(MemTable::try_new(Arc::clone(&definition.schema), vec![batches])?), note))
}

/// How the settings of a session say that queries run.
///
/// # Errors
/// Fails if a setting is no duration, which SET refuses.
pub(crate) fn query_options(language: &Language, memory: &Memory) -> Result<QueryOptions> {
    let mut options = QueryOptions::default();
    let duration = |key| match language.setting(key) {
        None => Ok(None),
        Some(text) => {
            let span = millstream_sql::parse_span(text).map_err(|error| Error::Engine(error.into()))?;
            Ok::<_, Error>(Some(Duration::from_nanos(span.0.unsigned_abs())))
        }
    };
    options.interval = duration("batch_interval")?.unwrap_or(options.interval);
    options.max_wait = duration("max_wait")?.unwrap_or(options.max_wait);
    options.state_memory = Arc::clone(&memory.state);
    options.runtime = memory.plans_of_query()?;
    let count = |key| language.setting(key).and_then(|text| text.parse::<usize>().ok());
    options.batch_rows = count("batch_rows").unwrap_or(options.batch_rows);
    options.tasks = count("tasks").unwrap_or(options.tasks);
    Ok(options)
}
