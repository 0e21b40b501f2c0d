//! What any one statement gives, whatever it is: how shells and servers carry out what is typed.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::LogicalPlanBuilder;
use millstream_engine::plan::Emission;
use millstream_engine::query::PlannedQuery;
use millstream_engine::sink::Sink;
use millstream_sql::statement::Running as ShowRunning;
use millstream_sql::{ParsedStatement, RelationKind, Statement, StreamQuery};
use tokio::sync::watch;

use super::engine::Engine;
use super::query::{Rows, RowsSink, RunningQuery};
use super::running::Job;
use super::subscription::Subscription;
use crate::cluster::Cluster;
use crate::error::Result;
use crate::explain::{explanation, plan_analyzed};
use crate::running::{queries_table, state_table, watermarks_table};
use crate::session::{Script, placed, refusal};

/// What a statement gives.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Rows, as they are found.
    Rows(Box<Rows>),
    /// The rows of a materialized view, as they come.
    Following(Subscription),
    /// Text for a person.
    Text(String),
    /// A query that runs on.
    Started(RunningQuery),
    /// A query into a sink that comes to its end by itself, as it reads no stream.
    Writing(RunningQuery),
    /// A query whose work is told when it has ended.
    Analysis(RunningQuery),
    /// Nothing: it was carried out.
    Done,
}

impl Engine {
    /// The statements of a text, in order.
    ///
    /// # Errors
    /// The text cannot be read as SQL.
    pub(crate) fn statements(&self, script: &Script) -> Result<Vec<ParsedStatement>> {
        self.declared().language.parse(&script.text).map_err(|error| refusal(error, script))
    }

    /// Carries out any one statement.
    ///
    /// # Errors
    /// It is wrong, or cannot be carried out.
    pub(crate) async fn answer(&self, parsed: &ParsedStatement, script: &Script) -> Result<Answer> {
        match self.asked(parsed, script)? {
            Statement::Select(query) => {
                self.rows(&query, parsed, script).await.map(|rows| Answer::Rows(Box::new(rows)))
            }
            Statement::Explain(query) => {
                let planned = self.plan(&query, self.name_of(None), parsed, script).await?;
                Ok(Answer::Text(explanation(planned.explain())))
            }
            Statement::Subscribe { rows, after, .. } => Ok(Answer::Following(Subscription::new(rows, after))),
            Statement::SubscribeQuery { query, .. } => {
                let error =
                    millstream_sql::Error::new(format!("there is no server on which the query \"{query}\" runs"));
                let error = error.hint("ask the server that has named it: millstream sql --connect URL");
                Err(refusal(error.at(Some(parsed.location)), script))
            }
            Statement::ExplainAnalyze(query) => self.analyzed(&query, parsed, script).await.map(Answer::Analysis),
            Statement::Nothing { note } => Ok(Answer::Text(note)),
            _ => self.change(parsed, script).await,
        }
    }

    /// A statement as it is to be answered: one that tells of what there is has become a query.
    ///
    /// # Errors
    /// It is wrong.
    fn asked(&self, parsed: &ParsedStatement, script: &Script) -> Result<Statement> {
        self.told(self.compile(parsed, script)?, parsed)
    }

    /// A compiled statement as it is to be answered.
    ///
    /// # Errors
    /// Fails only if what there is cannot be told as rows.
    pub(crate) fn told(&self, compiled: Statement, parsed: &ParsedStatement) -> Result<Statement> {
        match self.shown(compiled)? {
            ControlFlow::Break(rows) => Ok(Statement::Select(fixed_rows(rows, &parsed.text)?)),
            ControlFlow::Continue(other) => Ok(other),
        }
    }

    /// Carries out a statement that changes something, one at a time.
    async fn change(&self, parsed: &ParsedStatement, script: &Script) -> Result<Answer> {
        let _changing = self.shared.changing.lock().await;
        // Another one may have changed what its names stand for.
        match self.job(self.compile(parsed, script)?, parsed, script).await? {
            ControlFlow::Break(job) if job.query.streams().is_empty() => Ok(Answer::Writing(self.start_one(job)?)),
            ControlFlow::Break(job) => {
                let kept = job.kept.clone();
                let started = self.start_one(job);
                if let (Err(_), Some(kept)) = (&started, kept) {
                    self.undo(&kept)?;
                }
                Ok(Answer::Started(started?))
            }
            ControlFlow::Continue(other) => {
                self.declare(other, parsed, script).await?;
                Ok(Answer::Done)
            }
        }
    }

    pub(super) async fn rows(&self, query: &StreamQuery, parsed: &ParsedStatement, script: &Script) -> Result<Rows> {
        self.start_rows(self.plan_rows(query, parsed, script).await?)
    }

    /// Plans a query for whoever takes its rows.
    ///
    /// # Errors
    /// It cannot be run.
    pub(crate) async fn plan_rows(
        &self,
        query: &StreamQuery,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<PlannedQuery> {
        self.plan(query, self.name_of(None), parsed, script).await
    }

    /// Starts a query for whoever takes its rows.
    ///
    /// # Errors
    /// A stream of it cannot be opened.
    pub(crate) fn start_rows(&self, planned: PlannedQuery) -> Result<Rows> {
        let schema = planned.schema();
        let (rows, batches) = RowsSink::channel();
        let running = self.start_into(planned, |stop| Box::new(RowsSink::new(rows, stop.subscribe())))?;
        Ok(Rows::new(schema, batches, running))
    }

    /// Starts a query into the sink that is made with what stops it.
    ///
    /// # Errors
    /// A stream of it cannot be opened.
    pub(crate) fn start_into(
        &self,
        planned: PlannedQuery,
        sink: impl FnOnce(watch::Sender<bool>) -> Box<dyn Sink>,
    ) -> Result<RunningQuery> {
        let stop = watch::channel(false).0;
        self.start_one(Job { query: planned, sink: sink(stop.clone()), stop, kept: None })
    }

    pub(super) async fn analyzed(
        &self,
        query: &StreamQuery,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<RunningQuery> {
        let planned = plan_analyzed(query, self.options(self.name_of(None), script)?).await;
        let (query, sink) = planned.map_err(|error| placed(error, parsed, script))?;
        self.start_one(Job { query, sink, stop: watch::channel(false).0, kept: None })
    }

    /// What a statement tells of what there is; the statement, if it is another.
    pub(super) fn shown(&self, compiled: Statement) -> Result<ControlFlow<RecordBatch, Statement>> {
        Ok(ControlFlow::Break(match compiled {
            Statement::Show { rows, .. } => rows,
            Statement::ShowRunning(ShowRunning::Queries) => queries_table(&self.query_statuses())?,
            Statement::ShowRunning(ShowRunning::State) => state_table(&self.query_statuses())?,
            Statement::ShowRunning(ShowRunning::Watermarks) => watermarks_table(&self.ingests())?,
            Statement::ShowRunning(ShowRunning::Executors) => match &self.shared.cluster {
                Some(cluster) => cluster.table()?,
                None => Cluster::no_table()?,
            },
            other => return Ok(ControlFlow::Continue(other)),
        }))
    }

    /// The names of relations, their columns, sinks and functions, for whoever types them.
    pub(crate) fn names(&self) -> Vec<String> {
        let declared = self.declared();
        let catalog = declared.language.catalog();
        let relations = catalog.relations().flat_map(|(name, relation)| {
            let columns = relation.definition().map(|definition| definition.declared.clone()).unwrap_or_default();
            std::iter::once(name.to_owned()).chain(columns)
        });
        let sinks = catalog.sinks().map(|sink| sink.name.clone());
        let functions = catalog.functions().map(|function| function.name.clone());
        relations.chain(sinks).chain(functions).collect()
    }

    /// The relations that have a name of their own, without what belongs to a stream, in the order of their names.
    pub(crate) fn relations(&self) -> Vec<(String, RelationKind)> {
        let declared = self.declared();
        let relations = declared.language.catalog().relations().filter(|(name, _)| !name.contains('$'));
        relations.map(|(name, relation)| (name.to_owned(), relation.kind())).collect()
    }

    /// The columns of a relation.
    ///
    /// # Errors
    /// There is none of that name, or it is a view of something that is not there.
    pub(crate) fn columns_of(&self, name: &str) -> Result<Schema> {
        let script = Script::typed(&format!("SELECT * FROM \"{}\"", name.replace('"', "\"\"")));
        let parsed = self.statements(&script)?.pop();
        let parsed = parsed.ok_or_else(|| millstream_engine::Error::internal("a SELECT is no statement"))?;
        match self.compile(&parsed, &script)? {
            Statement::Select(query) => Ok(query.logical.schema().as_arrow().clone()),
            _ => Err(millstream_engine::Error::internal("a SELECT is no query").into()),
        }
    }

    /// Binds a parameter that windows name.
    pub(crate) fn bind_parameter(&self, name: &str, value: &str) {
        self.declared().language.bind_parameter(name, value);
    }
}

/// Rows that are there already, as a query.
pub(super) fn fixed_rows(rows: RecordBatch, text: &str) -> Result<StreamQuery> {
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(millstream_engine::Error::from)?;
    let logical = LogicalPlanBuilder::scan("shown", provider_as_source(Arc::new(table)), None)
        .and_then(LogicalPlanBuilder::build)
        .map_err(millstream_engine::Error::from)?;
    Ok(StreamQuery {
        logical,
        text: text.to_owned(),
        emission: Emission::default(),
        is_streaming: false,
        reads_kept_rows: false,
        relations: BTreeSet::new(),
        late_sink: None,
    })
}
