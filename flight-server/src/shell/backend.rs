//! Where statements are carried out: by an engine in this process, or by a server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use arrow_flight::decode::FlightRecordBatchStream;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use futures::StreamExt;
use millstream_sql::{ParsedStatement, Session as Language};

use super::remote::{Remote, said};
use crate::embed::{Answer, Engine, Rows, RunningQuery, Subscription};
use crate::error::Result;
use crate::queries::thousands;
use crate::session::{Script, refusal};

/// Where statements are carried out.
#[derive(Debug)]
pub(super) enum Backend {
    /// In this process.
    Here(Engine),
    /// By a server.
    There(Box<Remote>),
}

/// What a statement gives.
#[derive(Debug)]
pub(super) enum Answered {
    /// Rows, as they are found.
    Rows(Found),
    /// Text for a person.
    Text(String),
    /// A query that runs on behind the prompt.
    Started(RunningQuery),
    /// A query into a sink that comes to its end by itself.
    Writing(RunningQuery),
    /// A query whose work is told when it has ended.
    Analysis(RunningQuery),
    /// Nothing: it was carried out.
    Done,
}

/// Rows on their way.
#[derive(Debug)]
pub(super) enum Found {
    Here(Box<Rows>),
    /// The rows of a materialized view as they come, until they are not wanted any more.
    Following(SchemaRef, Option<Box<Subscription>>, VecDeque<RecordBatch>),
    /// None once they are not wanted any more, which the server finds out by itself.
    There(SchemaRef, Option<Box<FlightRecordBatchStream>>),
}

/// Names to be completed, as far as they are known.
#[derive(Debug, Clone)]
pub(super) enum Names {
    Here(Engine),
    There(Arc<Mutex<Vec<String>>>),
}

impl Backend {
    /// The statements of a text, in order.
    ///
    /// # Errors
    /// The text cannot be read as SQL.
    pub(super) fn statements(&self, script: &Script) -> Result<Vec<ParsedStatement>> {
        match self {
            Self::Here(engine) => engine.statements(script),
            Self::There(_) => Language::new().parse(&script.text).map_err(|error| refusal(error, script)),
        }
    }

    /// Carries out a statement.
    ///
    /// # Errors
    /// It is wrong, or cannot be carried out.
    pub(super) async fn answer(&mut self, parsed: &ParsedStatement, script: &Script) -> Result<Answered> {
        let engine = match self {
            Self::There(remote) => return remote.answer(&parsed.text).await,
            Self::Here(engine) => engine,
        };
        Ok(match engine.answer(parsed, script).await? {
            Answer::Rows(rows) => Answered::Rows(Found::Here(rows)),
            Answer::Following(view) => {
                Answered::Rows(Found::Following(view.schema(), Some(Box::new(view)), VecDeque::new()))
            }
            Answer::Text(text) => Answered::Text(text),
            Answer::Started(query) => Answered::Started(query),
            Answer::Writing(query) => Answered::Writing(query),
            Answer::Analysis(query) => Answered::Analysis(query),
            Answer::Done => Answered::Done,
        })
    }

    /// The rows of a query.
    ///
    /// # Errors
    /// It is wrong, or is none.
    pub(super) async fn query(&mut self, sql: &str) -> Result<Found> {
        match self {
            Self::Here(engine) => Ok(Found::Here(Box::new(engine.query(sql).await?))),
            Self::There(remote) => remote.query(sql).await,
        }
    }

    /// The names of what is declared, for whoever types them.
    pub(super) fn names(&self) -> Names {
        match self {
            Self::Here(engine) => Names::Here(engine.clone()),
            Self::There(remote) => Names::There(Arc::clone(&remote.names)),
        }
    }

    /// Learns what other names there are now.
    pub(super) async fn learn_names(&mut self) {
        if let Self::There(remote) = self {
            remote.learn_names().await;
        }
    }
}

impl Found {
    /// The columns.
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::Here(rows) => rows.schema(),
            Self::Following(schema, ..) | Self::There(schema, _) => Arc::clone(schema),
        }
    }

    /// Waits for the next rows; none once the query has ended.
    pub(super) async fn next(&mut self) -> Option<Result<RecordBatch>> {
        match self {
            Self::Here(rows) => rows.next().await,
            Self::Following(_, view, waiting) => {
                while waiting.is_empty() {
                    match view.as_mut()?.next().await? {
                        Ok(changes) => waiting.extend(changes.rows),
                        Err(error) => return Some(Err(error)),
                    }
                }
                waiting.pop_front().map(Ok)
            }
            Self::There(_, stream) => {
                let batch = stream.as_mut()?.next().await?;
                Some(batch.map_err(|error| said(&error)))
            }
        }
    }

    /// Wants no more rows than those that are on their way.
    pub(super) fn leave(&mut self) {
        match self {
            Self::Here(rows) => rows.ask_to_stop(),
            Self::Following(_, view, _) => *view = None,
            Self::There(_, stream) => *stream = None,
        }
    }

    /// What a person sees who waits for rows.
    pub(super) fn waiting(&self) -> String {
        let Self::Here(rows) = self else { return "no rows yet; Ctrl-C stops".to_owned() };
        let progress = rows.progress();
        format!("no rows yet: {} read, watermark {}; Ctrl-C stops", thousands(progress.rows_read), progress.watermark)
    }
}

impl Names {
    /// All of them.
    pub(super) fn all(&self) -> Vec<String> {
        match self {
            Self::Here(engine) => engine.names(),
            Self::There(names) => names.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }
}
