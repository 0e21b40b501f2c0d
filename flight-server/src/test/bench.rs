//! What a test stands on, what is declared and what was inserted so far, and the steps that change or check it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, new_null_array};
use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use millstream_engine::plan::{Location, StreamDefinition};
use millstream_engine::query::streams_of;
use millstream_engine::source::PartitionId;
use millstream_engine::testing::{LogEvent, Run, StreamLogScript};
use millstream_sql::test_block::{AssertedQuery, FileName, Moment, RowList, TestAction, TestBlock, TestItem, TestStep};
use millstream_sql::{
    Error as Refusal, ParsedStatement, Relation, RelationKind, Session as Language, Statement, StreamQuery,
};

use super::beside;
use super::difference::{Comparison, difference};
use super::failure::{Failure, refusal_of};
use super::rows::{evaluated, rows_of, typed};
use super::trial::{Trial, Ways};
use crate::declarations::{Prepared, StreamSides, declare, prepare, register_side};
use crate::error::Result;
use crate::memory::Memory;
use crate::session::{Script, placed, refusal};

/// How deep files may include files.
const MAX_INCLUDES: usize = 16;

/// What is declared, and the rows of streams and tables.
#[derive(Debug, Clone)]
pub(super) struct Bench {
    language: Language,
    sides: StreamSides,
    memory: Memory,
    /// The static tables without a connector, whose rows are inserted.
    tables: BTreeMap<String, Vec<RecordBatch>>,
    /// What happened to each stream so far; nothing to those that are not here.
    logs: BTreeMap<String, Log>,
    including: usize,
    unrun: usize,
}

#[derive(Debug, Clone, Default)]
struct Log {
    events: Vec<LogEvent>,
    has_ended: bool,
}

impl Bench {
    /// One on which nothing is declared.
    pub(super) fn new(parameters: &[(String, String)]) -> Self {
        let mut language = Language::new();
        for (name, value) in parameters {
            language.bind_parameter(name, value);
        }
        Self {
            language,
            sides: StreamSides::new(),
            memory: Memory::of_machine(),
            tables: BTreeMap::new(),
            logs: BTreeMap::new(),
            including: 0,
            unrun: 0,
        }
    }

    /// Reads a file of tests.
    ///
    /// # Errors
    /// The first part that cannot be read.
    pub(super) fn parse(&self, script: &Script) -> Result<Vec<TestItem>, Refusal> {
        self.language.parse_tests(&script.text)
    }

    /// How many queries outside of tests were passed over since it was asked last.
    pub(super) fn take_unrun(&mut self) -> usize {
        std::mem::take(&mut self.unrun)
    }

    /// Carries out the statements of a file.
    ///
    /// # Errors
    /// Fails if the file cannot be read, has a test, or a statement in it is wrong.
    pub(super) async fn include(&mut self, name: &FileName, script: &Script) -> Result<()> {
        let included = Script::read(&beside(script, &name.path))?;
        if self.including >= MAX_INCLUDES {
            let error = Refusal::new(format!("files include each other more than {MAX_INCLUDES} deep"));
            return Err(refusal(error.at(name.location), script));
        }
        self.including += 1;
        for item in self.parse(&included).map_err(|error| refusal(error, &included))? {
            match item {
                TestItem::Statement(statement) => self.carry_out(&statement, &included).await?,
                TestItem::Include(name) => Box::pin(self.include(&name, &included)).await?,
                TestItem::Test(block) => {
                    let error = Refusal::new("a file that is included has a test");
                    let error = error.hint("move what both files need into a file without tests");
                    return Err(refusal(error.at(block.location), &included));
                }
            }
        }
        self.including -= 1;
        Ok(())
    }

    /// Carries out a statement outside of tests; queries are checked only.
    ///
    /// # Errors
    /// Fails if the statement is wrong.
    pub(super) async fn carry_out(&mut self, parsed: &ParsedStatement, script: &Script) -> Result<()> {
        let compiled = read_once(self.language.compile(parsed).map_err(|error| refusal(error, script))?);
        let table = match &compiled {
            Statement::CreateStream { definition, .. } if definition.options.is_empty() => Prepared::Nothing,
            Statement::CreateTable { definition, .. } if definition.options.is_empty() => {
                self.tables.insert(definition.name.clone(), Vec::new());
                let empty = MemTable::try_new(Arc::clone(&definition.schema), vec![Vec::new()]);
                Prepared::Rows(Arc::new(empty.map_err(millstream_engine::Error::from)?), None)
            }
            other => prepare(other).await.map_err(|error| placed(error, parsed, script))?,
        };
        if let Statement::CreateStream { definition, .. } = &compiled {
            self.logs.remove(&definition.name);
        }
        if let Statement::CreateMaterializedView { definition, .. } = &compiled {
            let error = Refusal::new(format!("the materialized view \"{}\" is not kept in tests", definition.name));
            let error = error.hint("write CREATE VIEW in the file that is tested").at(Some(parsed.location));
            return Err(refusal(error, script));
        }
        let left = declare(&mut self.language, &mut self.sides, &mut self.memory, compiled, table)?;
        self.unrun += usize::from(matches!(left, Some(Statement::Select(_) | Statement::Insert { .. })));
        Ok(())
    }

    /// Runs a test to its end or its first failure.
    ///
    /// # Errors
    /// Says which step failed and why.
    pub(super) async fn run(mut self, block: &TestBlock, script: &Script, ways: Ways) -> Result<(), Failure> {
        for step in &block.steps {
            self.step(step, script, ways).await?;
        }
        Ok(())
    }

    async fn step(&mut self, step: &TestStep, script: &Script, ways: Ways) -> Result<(), Failure> {
        let failed = |error: Refusal| Failure::new(&error.at(step.location), script);
        match &step.action {
            TestAction::Insert { relation, columns, rows } => {
                self.insert(relation, columns, rows).await.map_err(failed)
            }
            TestAction::Advance { stream, to } => self.advance(stream.as_ref(), *to).map_err(failed),
            TestAction::AssertError { statement, pattern } => {
                self.assert_error(statement.as_ref(), pattern).await.map_err(failed)
            }
            TestAction::Assert { query, rows } => {
                let asserted = self.resolve(query, script)?;
                let wanted = match rows {
                    Some(rows) => {
                        let schema = Arc::clone(asserted.query.logical.schema().inner());
                        self.rows(rows, &schema).await.map_err(failed)?
                    }
                    None => Vec::new(),
                };
                self.assert(&asserted, &wanted, step.location, script, ways).await
            }
        }
    }

    /// Appends rows to a stream or to a table without a connector.
    async fn insert(
        &mut self,
        name: &str,
        columns: &[(String, Option<Location>)],
        rows: &RowList,
    ) -> Result<(), Refusal> {
        let relation = self.language.catalog().expect_relation(name)?.clone();
        let Some(definition) = relation.definition() else {
            return Err(Refusal::new(format!("\"{name}\" is a view")).hint("insert into the streams that it reads"));
        };
        let batch = self.batch(definition, columns, rows).await?;
        if let Relation::Stream(_) = relation {
            let log = self.logs.entry(name.to_owned()).or_default();
            if log.has_ended {
                let error = Refusal::new(format!("stream \"{name}\" has ended"));
                return Err(error.hint("insert before ADVANCE WATERMARK TO END"));
            }
            log.events.push(LogEvent::Rows(PartitionId(0), batch));
            return Ok(());
        }
        let Some(batches) = self.tables.get_mut(name) else {
            let error = Refusal::new(format!("the rows of table \"{name}\" are those of its connector"));
            return Err(error.hint("declare it without WITH to insert them"));
        };
        batches.push(batch);
        let table = MemTable::try_new(Arc::clone(&definition.schema), vec![batches.clone()]);
        let table = table.map_err(|error| refusal_of(&error.into(), None))?;
        self.language.register_table(Arc::clone(definition), Arc::new(table));
        Ok(())
    }

    /// Rows as a relation declares them; columns that are left out are null.
    async fn batch(
        &self,
        definition: &StreamDefinition,
        columns: &[(String, Option<Location>)],
        rows: &RowList,
    ) -> Result<RecordBatch, Refusal> {
        let schema = &definition.schema;
        for (index, (column, place)) in columns.iter().enumerate() {
            let error = if schema.index_of(column).is_err() {
                Refusal::new(format!("\"{}\" has no column \"{column}\"", definition.name))
                    .hint(format!("it has {}", definition.declared.join(", ")))
            } else if columns.iter().take(index).any(|(other, _)| other == column) {
                Refusal::new(format!("the column \"{column}\" is named twice"))
            } else {
                continue;
            };
            return Err(error.at(*place));
        }
        let values = self.values(rows).await?;
        let given = if columns.is_empty() { schema.fields().len() } else { columns.len() };
        check_count(&values, given, rows)?;
        let mut arrays: Vec<ArrayRef> = Vec::new();
        for (index, field) in schema.fields().iter().enumerate() {
            let place = if columns.is_empty() {
                Some(index)
            } else {
                columns.iter().position(|(column, _)| column == field.name())
            };
            let array = match place.and_then(|place| values.columns().get(place)) {
                Some(array) => typed(array, field).map_err(|message| Refusal::new(message).at(rows.location))?,
                None => new_null_array(field.data_type(), values.num_rows()),
            };
            if !field.is_nullable() && array.null_count() > 0 {
                let error = Refusal::new(format!("column \"{}\" is NOT NULL", field.name()));
                return Err(error.hint("give it a value in every row").at(rows.location));
            }
            arrays.push(array);
        }
        RecordBatch::try_new(Arc::clone(schema), arrays).map_err(|error| refusal_of(&error.into(), rows.location))
    }

    /// The rows that a query with these columns is to have.
    async fn rows(&self, rows: &RowList, schema: &Schema) -> Result<Vec<super::rows::Row>, Refusal> {
        let values = self.values(rows).await?;
        check_count(&values, schema.fields().len(), rows)?;
        let columns = values.columns().iter().zip(schema.fields());
        let arrays = columns.map(|(array, field)| typed(array, field)).collect::<Result<Vec<_>, _>>();
        let arrays = arrays.map_err(|message| Refusal::new(message).at(rows.location))?;
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
        let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
        RecordBatch::try_new(schema, arrays)
            .map_err(millstream_engine::Error::from)
            .and_then(|batch| rows_of(&[batch]))
            .map_err(|error| refusal_of(&error, rows.location))
    }

    async fn values(&self, rows: &RowList) -> Result<RecordBatch, Refusal> {
        let plan = self.language.compile_rows(rows)?;
        evaluated(&self.language, plan).await.map_err(|error| refusal_of(&error, rows.location))
    }

    /// Moves the watermark of one stream or of all.
    fn advance(&mut self, stream: Option<&(String, Option<Location>)>, to: Moment) -> Result<(), Refusal> {
        let names: Vec<String> = match stream {
            Some((name, place)) => {
                let relation = self.language.catalog().expect_relation(name).map_err(|error| error.at(*place))?;
                if relation.kind() != RelationKind::Stream {
                    let noun = relation.kind().noun();
                    return Err(Refusal::new(format!("\"{name}\" is a {noun} and has no watermark")).at(*place));
                }
                vec![name.clone()]
            }
            None => {
                let relations = self.language.catalog().relations();
                let streams = relations.filter(|(_, relation)| relation.kind() == RelationKind::Stream);
                streams.map(|(name, _)| name.to_owned()).collect()
            }
        };
        for name in names {
            let log = self.logs.entry(name).or_default();
            match to {
                Moment::Time(time) => log.events.push(LogEvent::Watermark(time)),
                Moment::End => log.has_ended = true,
            }
        }
        Ok(())
    }

    /// Wants a statement to fail with a message like `pattern`.
    async fn assert_error(&self, statement: Result<&ParsedStatement, &Refusal>, pattern: &str) -> Result<(), Refusal> {
        let failure = match statement {
            Err(error) => Some(error.clone()),
            Ok(parsed) => match self.language.compile(parsed) {
                Err(error) => Some(error),
                Ok(Statement::Select(query) | Statement::Insert { query, .. }) => {
                    let ended = self.trial(&query)?.whole().await;
                    ended.err().map(|error| refusal_of(&error, None))
                }
                Ok(other) => prepare(&other).await.err().map(|error| refusal_of(&error, None)),
            },
        };
        let Some(failure) = failure else { return Err(Refusal::new("the statement does not fail")) };
        if is_like(&failure.message, pattern) {
            return Ok(());
        }
        let error = Refusal::new(format!("the statement fails with \"{}\", not like '{pattern}'", failure.message));
        Err(error.hint("% stands for any text and _ for one letter"))
    }

    /// The query of an assertion.
    fn resolve(&self, query: &AssertedQuery, script: &Script) -> Result<Asserted, Failure> {
        let (name, parameters) = match query {
            AssertedQuery::Here(parsed) => {
                let compiled = self.language.compile(parsed);
                return Asserted::new(parsed, compiled).map_err(|error| Failure::new(&error, script));
            }
            AssertedQuery::File { name, parameters } => (name, parameters),
        };
        let path: PathBuf = beside(script, &name.path);
        let file = Script::read(&path).map_err(|error| {
            let error = Refusal::new(format!("{error}: {}", cause_of(&error))).at(name.location);
            Failure::new(&error, script)
        })?;
        let mut language = self.language.clone();
        for parameter in parameters {
            language.bind_parameter(&parameter.key, parameter.value.as_str());
        }
        let statements = language.parse(&file.text).map_err(|error| Failure::elsewhere(&error, &file))?;
        let [parsed] = statements.as_slice() else {
            let message = format!("{} has {} statements, not one", path.display(), statements.len());
            let error = Refusal::new(message).hint("INCLUDE a file of declarations; ASSERT FILE takes one query");
            return Err(Failure::new(&error.at(name.location), script));
        };
        Asserted::new(parsed, language.compile(parsed)).map_err(|error| Failure::elsewhere(&error, &file))
    }

    /// Compares the answer to a query, found in every way, with the rows that are wanted.
    async fn assert(
        &mut self,
        asserted: &Asserted,
        wanted: &[super::rows::Row],
        place: Option<Location>,
        script: &Script,
        ways: Ways,
    ) -> Result<(), Failure> {
        let failed = |error: Refusal| Failure::new(&error.at(place), script);
        let trial = self.trial(&asserted.query).map_err(failed)?;
        let columns: Vec<_> =
            asserted.query.logical.schema().fields().iter().map(|field| field.name().clone()).collect();
        let compared = |batches: &[RecordBatch], by: Comparison, what: String| {
            let given = rows_of(batches).map_err(|error| failed(refusal_of(&error, place)))?;
            match difference(&columns, wanted, &given, by) {
                Some(table) => Err(failed(Refusal::new(what)).with_table(&table)),
                None => Ok(()),
            }
        };
        let by = if asserted.is_ordered { Comparison::Ordered } else { Comparison::Unordered };
        let run = trial.whole().await.map_err(|error| failed(refusal_of(&error, place)))?;
        compared(&run.batches(), by, "the query gives other rows".to_owned())?;
        self.set_aside(&trial, &run).map_err(|error| failed(refusal_of(&error, place)))?;
        if !asserted.query.is_streaming {
            return Ok(());
        }
        // A group that changes is shown again in the micro-batch that changes it: the last state is among the rows.
        let by = if trial.shows_changes() { Comparison::Among } else { by };
        for number in 0..ways.cuts {
            let what = format!("cut {} of {} into other micro-batches gives other rows", number + 1, ways.cuts);
            let batches = trial.cut(ways.seed.wrapping_add(number)).await;
            let batches = batches.map_err(|error| failed(refusal_of(&error, place)))?;
            compared(&batches, by, what)?;
        }
        for number in 0..ways.restarts {
            let what = format!("restart {} of {} after a crash gives other rows", number + 1, ways.restarts);
            let batches = trial.restarted(ways.seed.wrapping_add(number)).await;
            let batches = batches.map_err(|error| failed(refusal_of(&error, place)))?;
            compared(&batches, by, what)?;
        }
        Ok(())
    }

    /// Shows in `stream$late` and `stream$dead` what the query that ran last has set aside.
    fn set_aside(&mut self, trial: &Trial, run: &Run) -> Result<(), millstream_engine::Error> {
        // The rows set aside are in the order of the query's streams.
        for (index, script) in trial.scripts.iter().enumerate() {
            for (suffix, rows) in [("late", run.late.get(index)), ("dead", run.dead.get(index))] {
                let Some(rows) = rows.cloned() else { continue };
                let table = MemTable::try_new(rows.schema(), vec![vec![rows]])?;
                register_side(&mut self.language, &script.definition, suffix, Arc::new(table));
            }
        }
        Ok(())
    }

    fn trial(&self, query: &StreamQuery) -> Result<Trial, Refusal> {
        let streams = streams_of(&query.logical).map_err(|error| refusal_of(&error, None))?;
        let scripts = streams.into_iter().map(|definition| {
            let log = self.logs.get(&definition.name).cloned().unwrap_or_default();
            StreamLogScript { definition, partitions: 1, events: log.events, ends: log.has_ended }
        });
        let state_memory = Arc::clone(&self.memory.state);
        Ok(Trial { logical: query.logical.clone(), emission: query.emission, scripts: scripts.collect(), state_memory })
    }
}

/// A query to be compared.
struct Asserted {
    query: StreamQuery,
    is_ordered: bool,
}

impl Asserted {
    fn new(parsed: &ParsedStatement, compiled: Result<Statement, Refusal>) -> Result<Self, Refusal> {
        let is_ordered = parsed.is_ordered();
        match compiled? {
            Statement::Select(query) | Statement::Insert { query, .. } if query.late_sink.is_some() => {
                let error = Refusal::new("a test writes to no sink, and the query has LATE DATA TO one");
                Err(error.hint("leave it out and SELECT from stream$late").at(Some(parsed.location)))
            }
            Statement::Select(query) | Statement::Insert { query, .. } => Ok(Self { query, is_ordered }),
            _ => Err(Refusal::new("this is no query").hint("ASSERT takes SELECT …").at(Some(parsed.location))),
        }
    }
}

fn check_count(values: &RecordBatch, wanted: usize, rows: &RowList) -> Result<(), Refusal> {
    let given = values.num_columns();
    if given == wanted {
        return Ok(());
    }
    let counted = |count: usize, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
    let message = format!("a row has {} for {}", counted(given, "value"), counted(wanted, "column"));
    Err(Refusal::new(message).hint("give every row a value for each column").at(rows.location))
}

fn cause_of(error: &crate::Error) -> String {
    std::error::Error::source(error).map(ToString::to_string).unwrap_or_default()
}

/// Whether `text` is like `pattern` in the sense of SQL.
fn is_like(text: &str, pattern: &str) -> bool {
    let mut letters = pattern.chars();
    match letters.next() {
        None => text.is_empty(),
        Some('%') => {
            let rest = letters.as_str();
            is_like(text, rest)
                || text.char_indices().any(|(at, c)| is_like(text.get(at + c.len_utf8()..).unwrap_or(""), rest))
        }
        Some(letter) => {
            let mut others = text.chars();
            others.next().is_some_and(|other| letter == '_' || other == letter)
                && is_like(others.as_str(), letters.as_str())
        }
    }
}

/// The same declaration of a table that is not read again: in a test only its steps change something.
fn read_once(statement: Statement) -> Statement {
    match statement {
        Statement::CreateTable { definition, or_replace } => {
            let definition = StreamDefinition { refresh: None, ..Arc::unwrap_or_clone(definition) };
            Statement::CreateTable { definition: Arc::new(definition), or_replace }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::is_like;

    #[test]
    fn patterns_are_those_of_like() {
        for (text, pattern) in [("abc", "abc"), ("abc", "a_c"), ("abc", "%c"), ("abc", "%b%"), ("", "%"), ("é", "_")] {
            assert!(is_like(text, pattern), "{text} {pattern}");
        }
        for (text, pattern) in [("abc", "ab"), ("abc", "%d%"), ("abc", "_"), ("", "_")] {
            assert!(!is_like(text, pattern), "{text} {pattern}");
        }
    }
}
