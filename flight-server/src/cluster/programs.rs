//! What a query is, in words that any process of the same version makes the same plan of: what was declared, and its
//! statement.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use millstream_engine::Error as EngineError;
use millstream_engine::cluster::Programs;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::query::{PlannedQuery, QueryOptions};
use millstream_engine::source::Source;
use millstream_sql::{ParsedStatement, Session as Language, Statement, StreamQuery};
use serde::{Deserialize, Serialize};

use crate::declarations::{StreamSides, declare, prepare, query_options};
use crate::error::{Error, Result};
use crate::memory::Memory;
use crate::queries::plan_query;
use crate::session::{Script, placed, refusal};

/// A statement as it was typed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Declaration {
    pub(crate) text: String,
    /// The settings that it was typed under.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) settings: BTreeMap<String, String>,
}

/// A query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    /// What is declared, in the order in which it was.
    pub(crate) declarations: Vec<Declaration>,
    /// The statement that it runs.
    pub(crate) query: Declaration,
}

impl Program {
    /// Its words.
    ///
    /// # Errors
    /// Fails only if text could not be JSON.
    pub(crate) fn to_text(&self) -> Result<String> {
        let text = serde_json::to_string(self);
        Ok(text.map_err(|error| EngineError::internal(format!("a program is no JSON: {error}")))?)
    }
}

/// An executor's way to its plans.
#[derive(Debug)]
pub(super) struct Planner {
    memory: Memory,
}

impl Planner {
    /// Plans whose state and work share `memory`.
    pub(super) const fn new(memory: Memory) -> Self {
        Self { memory }
    }

    async fn planned(&self, program: &Program) -> Result<PlannedQuery> {
        let (mut language, mut memory) = (Language::new(), self.memory.clone());
        let mut sides = StreamSides::new();
        // One that was replaced may need others that stand behind it, and the query may not need what fails.
        let mut waiting: Vec<&Declaration> = program.declarations.iter().collect();
        let failed = loop {
            let (count, mut failed, mut reasons) = (waiting.len(), Vec::new(), Vec::new());
            for declaration in waiting {
                if let Err(error) = declared(&mut language, &mut sides, &mut memory, declaration).await {
                    failed.push(declaration);
                    reasons.push(error.to_string());
                }
            }
            if failed.len() == count || failed.is_empty() {
                break reasons;
            }
            waiting = failed;
        };
        let planned = self.planned_in(&mut language, program).await;
        planned.map_err(|error| match failed.first() {
            Some(reason) => {
                let message = format!("{error}; at an executor {reason}");
                EngineError::query(message, "have every executor reach the files and variables that it names").into()
            }
            None => error,
        })
    }

    async fn planned_in(&self, language: &mut Language, program: &Program) -> Result<PlannedQuery> {
        let (parsed, script) = parsed(language, &program.query)?;
        let compiled = language.compile(&parsed).map_err(|error| refusal(error, &script))?;
        let query = query_of(compiled)?;
        // What a SET of the statement's session says of memory is about another process.
        let options = QueryOptions { name: "query".to_owned(), ..query_options(language, &self.memory)? };
        plan_query(&query, options).await.map_err(|error| placed(error, &parsed, &script))
    }
}

fn query_of(compiled: Statement) -> Result<StreamQuery> {
    match compiled {
        Statement::Select(query)
        | Statement::Insert { query, .. }
        | Statement::CreateMaterializedView { query, .. } => Ok(query),
        _ => Err(EngineError::internal("a program has no query").into()),
    }
}

/// A statement under its settings.
fn parsed(language: &mut Language, declaration: &Declaration) -> Result<(ParsedStatement, Script)> {
    let settings = declaration.settings.clone();
    let script = Script { settings, ..Script::typed(&declaration.text) };
    for (key, value) in &script.settings {
        language.set(key, value).map_err(|error| refusal(error, &script))?;
    }
    let statement = language.parse(&script.text).map_err(|error| refusal(error, &script))?.pop();
    Ok((statement.ok_or_else(|| EngineError::internal("a program lacks a statement"))?, script))
}

async fn declared(
    language: &mut Language,
    sides: &mut StreamSides,
    memory: &mut Memory,
    declaration: &Declaration,
) -> Result<()> {
    let mut own = language.clone();
    let (parsed, script) = parsed(&mut own, declaration)?;
    let compiled = own.compile(&parsed).map_err(|error| refusal(error, &script))?;
    let prepared = prepare(&compiled).await?;
    declare(language, sides, memory, compiled, prepared).map(drop)
}

#[async_trait]
impl Programs for Planner {
    async fn plan(&self, program: &str) -> millstream_engine::Result<PlannedQuery> {
        let program: Program = serde_json::from_str(program)
            .map_err(|error| EngineError::internal(format!("a program cannot be read: {error}")))?;
        self.planned(&program).await.map_err(|error| match error {
            Error::Engine(error) => error,
            other => {
                let hint = "have every executor reach the files and tables that it names, or SET executors = 'off'";
                EngineError::query(format!("an executor cannot plan the query: {other}"), hint)
            }
        })
    }

    fn open(&self, definition: &Arc<StreamDefinition>) -> millstream_engine::Result<Arc<dyn Source>> {
        millstream_connectors::open_source(definition)
    }
}
