//! The language from text to plan: what is accepted and what it becomes, what is refused and with which words.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod accepted;
mod declarations;
mod emission;
mod functions;
mod garbage;
mod interval;
mod refused;
mod spellings;
mod test_blocks;
mod windows;

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::empty::EmptyTable;
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::batch::Epoch;
use millstream_engine::plan::StreamTable;
use millstream_engine::results::{Changes, MaterializedRows};
use millstream_engine::time::EventTime;
use millstream_sql::{Error, Session, Statement, StreamQuery};
use tokio::sync::watch;

const SCHEMA: &str = include_str!("../../../queries/refused/schema.sql");

/// A session in which the paper's three streams, a table, views and a sink are declared.
fn session() -> Session {
    let mut session = Session::new();
    run(&mut session, SCHEMA).unwrap_or_else(|error| panic!("{}", error.render(SCHEMA)));
    session
}

/// Compiles the statements one after the other and registers what they declare.
fn run(session: &mut Session, text: &str) -> Result<Vec<Statement>, Error> {
    let mut statements = Vec::new();
    for parsed in session.parse(text)? {
        let statement = session.compile(&parsed)?;
        match statement.clone() {
            Statement::CreateStream { definition, .. } => session.register_stream(definition),
            Statement::CreateTable { definition, .. } => {
                let rows = Arc::new(EmptyTable::new(Arc::clone(&definition.schema)));
                session.register_table(definition, rows);
            }
            Statement::CreateView { definition, .. } => session.register_view(definition),
            Statement::CreateMaterializedView { definition, query, .. } => {
                let rows = Arc::new(NoRows(Arc::clone(query.logical.schema().inner())));
                session.register_materialized_view(definition, rows);
            }
            Statement::CreateSink { definition, .. } => session.register_sink(definition),
            Statement::CreateFunction { definition, .. } => session.declare_function(&definition)?,
            Statement::Drop { kind, name } => assert!(session.unregister(kind, &name)),
            Statement::Set { key, value } => session.set(&key, &value)?,
            _ => {}
        }
        statements.push(statement);
    }
    Ok(statements)
}

/// A materialized view in which nothing is yet.
#[derive(Debug)]
struct NoRows(SchemaRef);

impl MaterializedRows for NoRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0)
    }

    fn closed_to(&self) -> Option<EventTime> {
        None
    }

    fn snapshot(&self, _: Option<EventTime>) -> millstream_engine::Result<Arc<dyn TableProvider>> {
        Ok(Arc::new(EmptyTable::new(self.schema())))
    }

    fn since(&self, _: Option<Epoch>) -> millstream_engine::Result<Option<Changes>> {
        Ok(None)
    }

    fn commits(&self) -> watch::Receiver<Option<Epoch>> {
        watch::channel(None).1
    }
}

/// The query of the only statement in `text`.
fn query(session: &Session, text: &str) -> StreamQuery {
    let mut parsed = session.parse(text).unwrap_or_else(|error| panic!("{}", error.render(text)));
    assert_eq!(parsed.len(), 1, "{text}");
    match session.compile(&parsed.remove(0)).unwrap_or_else(|error| panic!("{}", error.render(text))) {
        Statement::Select(query) | Statement::Explain(query) | Statement::Insert { query, .. } => query,
        other => panic!("{text} is no query: {other:?}"),
    }
}

/// The names of the plan's stream leaves as scanned, in order.
fn leaves(plan: &LogicalPlan) -> Vec<String> {
    let mut leaves = Vec::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node
            && let Some(leaf) = source_as_provider(&scan.source).unwrap().downcast_ref::<StreamTable>()
        {
            assert_eq!(scan.table_name.table(), leaf.scan_name(), "the scan is named after its window");
            leaves.push(leaf.scan_name());
        }
        Ok(TreeNodeRecursion::Continue)
    })
    .unwrap();
    leaves
}
