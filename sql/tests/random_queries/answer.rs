//! The answer of a text as the engine gives it, and as it should be.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::DataFusionError;
use millstream_engine::Error as EngineError;
use millstream_engine::query::PlannedQuery;
use millstream_engine::testing::run_planned;
use millstream_sql::{Session, Statement, StreamQuery};

use crate::known::known_bug;
use crate::oracle::Log;
use crate::oracle::batch::{AtInstant, Relation, try_results};
use crate::oracle::cut::Way;
use crate::oracle::table::{Cells, cells_of, columns_of, difference};
use crate::query::Texts;
use crate::relation::{Inputs, Windowed};

/// More than any of these queries takes.
const PATIENCE: Duration = Duration::from_secs(120);

/// How an answer compares.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// Right, with so many rows.
    Right(usize),
    /// Refused with this message.
    Refused(String),
    /// Wrong or failed in this way.
    Wrong(String),
    /// Wrong because of this bug.
    Known(&'static str),
}

impl Outcome {
    /// The same, or the bug that it is known to come from.
    pub(crate) fn unless_known(self) -> Self {
        let message = match self {
            Self::Wrong(message) => message,
            other => return other,
        };
        let bug = known_bug(&message);
        bug.map_or(Self::Wrong(message), Self::Known)
    }
}

/// Rows and their columns, if there are rows.
pub(crate) struct Answer {
    pub(crate) rows: Vec<Cells>,
    pub(crate) columns: Option<Vec<(String, DataType)>>,
}

/// Compares the answers to a query in all `ways` with those of a batch at each instant.
pub(crate) fn compare(query: &Texts, inputs: &Inputs, ways: &[Way]) -> Outcome {
    let text = typed(&query.streaming, inputs);
    compare_text(&text, query, inputs, ways).unless_known()
}

fn compare_text(text: &str, query: &Texts, inputs: &Inputs, ways: &[Way]) -> Outcome {
    let batch = query.batch.replace('@', "t");
    let reads = |windowed: &&Windowed| batch.contains(&format!("{} AS", windowed.relation.table));
    let relations: Vec<_> = inputs.windowed.iter().filter(reads).map(|windowed| windowed.relation.clone()).collect();
    let expected = match wait_for(expected(&batch, &relations)) {
        Ok(expected) => expected,
        Err(error) => return Outcome::Refused(format!("a batch fails: {error}")),
    };
    for way in ways {
        let actual = match answer(text, inputs, way) {
            Ok(actual) => actual,
            Err(Outcome::Wrong(message)) => return Outcome::Wrong(format!("{way:?}\n  {message}")),
            Err(other) => return other,
        };
        if let Err(difference) = difference(&actual.rows, &expected.rows) {
            return Outcome::Wrong(format!("{way:?}\n{difference}"));
        }
        if actual.columns != expected.columns {
            let (actual, expected) = (actual.columns, expected.columns);
            return Outcome::Wrong(format!("{way:?}\n  columns {actual:?}\n  are not {expected:?}"));
        }
    }
    Outcome::Right(expected.rows.len())
}

/// A query as a user types it: with its windows in it.
pub(crate) fn typed(query: &str, inputs: &Inputs) -> String {
    let windows = inputs.windowed.iter().enumerate();
    windows.fold(query.to_owned(), |text, (number, windowed)| text.replace(&format!("@{number}"), &windowed.text))
}

async fn expected(sql: &str, relations: &[Relation]) -> Result<Answer, DataFusionError> {
    let results = try_results(sql, relations).await?;
    let of_instant = |result: &AtInstant| cells_of(&result.batches, result.slack);
    let rows = results.values().flat_map(of_instant).collect();
    Ok(Answer { rows, columns: results.values().find_map(|result| columns_of(&result.batches)) })
}

/// What the engine answers to a text; a panic is a wrong answer, and so is none at all.
pub(crate) fn answer(text: &str, inputs: &Inputs, way: &Way) -> Result<Answer, Outcome> {
    let answered = without_panic(|| {
        let query = compile(text, inputs).map_err(|error| Outcome::Refused(error.to_string()))?;
        let answer = wait_for(async { tokio::time::timeout(PATIENCE, run(&query, &inputs.logs, way)).await });
        answer.unwrap_or_else(|_| Err(Outcome::Wrong("it never ends".to_owned())))
    });
    answered.unwrap_or_else(|panic| Err(Outcome::Wrong(panic)))
}

/// Waits for `future` on threads of its own, which end with it.
pub(crate) fn wait_for<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    runtime.unwrap().block_on(future)
}

/// What `work` gives, or the message of its panic.
pub(crate) fn without_panic<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("panic: {}", text.unwrap_or_default())
    })
}

fn compile(text: &str, inputs: &Inputs) -> millstream_sql::Result<StreamQuery> {
    let mut session = Session::new();
    for log in &inputs.logs {
        session.register_stream(log.definition());
    }
    for view in &inputs.views {
        for parsed in session.parse(view)? {
            if let Statement::CreateView { definition, .. } = session.compile(&parsed)? {
                session.register_view(definition);
            }
        }
    }
    let statements = session.parse(text)?;
    match session.compile(&statements[0])? {
        Statement::Select(query) => Ok(query),
        other => panic!("{text} is no query: {other:?}"),
    }
}

async fn run(query: &StreamQuery, logs: &[Log], way: &Way) -> Result<Answer, Outcome> {
    let planned = match PlannedQuery::plan(&query.logical, way.options()).await {
        Ok(planned) => planned,
        Err(error @ EngineError::Query { .. }) => return Err(Outcome::Refused(error.to_string())),
        Err(error) => return Err(Outcome::Wrong(format!("planning: {error}: {error:?}"))),
    };
    let scripts: Vec<_> = logs.iter().map(Log::script).collect();
    let run = run_planned(planned, &scripts, &mut way.cut(), None).await;
    let batches = run.map_err(|error| Outcome::Wrong(format!("{error}: {error:?}")))?.batches();
    Ok(Answer { rows: cells_of(&batches, 0.0), columns: columns_of(&batches) })
}
