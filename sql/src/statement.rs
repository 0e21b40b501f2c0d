//! Statements, as parsed and as compiled.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::Query;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use millstream_engine::plan::{Emission, Location, StreamDefinition, WithOption};
use millstream_engine::results::MaterializedRows;
use millstream_engine::secret::Secret;
use millstream_engine::time::Span;

use crate::as_of::AsOf;
use crate::catalog::{SinkDefinition, ViewDefinition};
use crate::emission::NamedSink;
use crate::error::location;
use crate::function::FunctionDefinition;
use crate::window::WindowClause;
use crate::window_call::WindowCall;

/// One statement of a text: its grammar is known to be right, its names are not looked up yet.
#[derive(Debug, Clone)]
pub struct ParsedStatement {
    /// The statement as typed, without its semicolon.
    pub text: String,
    /// Where it starts in the text.
    pub location: Location,
    pub(crate) body: Body,
}

impl ParsedStatement {
    /// Whether it is a query whose rows have an order, by an ORDER BY of its own.
    pub fn is_ordered(&self) -> bool {
        match &self.body {
            Body::Select(query) | Body::Explain(query) | Body::ExplainAnalyze(query) | Body::Insert { query, .. } => {
                query.query.order_by.is_some()
            }
            _ => false,
        }
    }
}

/// What a statement asks for.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    CreateRelation { kind: RelationKind, definition: Arc<StreamDefinition>, create: Create },
    CreateView { name: String, query: ParsedQuery, create: Create },
    CreateMaterializedView { name: String, query: ParsedQuery, retain: Option<Span>, create: Create },
    CreateSink { name: String, options: Vec<WithOption>, create: Create },
    CreateSecret { name: String, source: SecretSource, create: Create },
    CreateFunction { definition: Arc<FunctionDefinition>, create: Create },
    Insert { sink: String, sink_location: Option<Location>, query: ParsedQuery },
    Select(ParsedQuery),
    Explain(ParsedQuery),
    ExplainAnalyze(ParsedQuery),
    Drop { kind: RelationKind, name: String, name_location: Option<Location>, if_exists: bool },
    Show(RelationKind),
    ShowRunning(Running),
    Control { action: Control, query: String, query_location: Option<Location> },
    Describe { name: String, name_location: Option<Location> },
    Subscribe { view: String, view_location: Option<Location>, after: Option<u64> },
    SubscribeQuery { query: String, after: Option<u64> },
    Set { key: String, value: String },
}

/// How CREATE treats a name that exists, and where the name stands.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Create {
    pub(crate) if_not_exists: bool,
    pub(crate) or_replace: bool,
    pub(crate) name_location: Option<Location>,
}

/// The kinds of things that have a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RelationKind {
    /// A declared endless input.
    Stream,
    /// A static table.
    Table,
    /// A named query.
    View,
    /// A named query whose results are kept.
    MaterializedView,
    /// A destination.
    Sink,
    /// A text that options name and nobody sees.
    Secret,
    /// A function of one row.
    Function,
    /// A function of many rows.
    Aggregate,
}

impl RelationKind {
    pub(crate) const ALL: [Self; 8] = [
        Self::Stream,
        Self::Table,
        Self::View,
        Self::MaterializedView,
        Self::Sink,
        Self::Secret,
        Self::Function,
        Self::Aggregate,
    ];

    /// The word for it in messages: `stream`.
    pub const fn noun(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Table => "table",
            Self::View => "view",
            Self::MaterializedView => "materialized view",
            Self::Sink => "sink",
            Self::Secret => "secret",
            Self::Function => "function",
            Self::Aggregate => "aggregate",
        }
    }

    /// Whether it is called and not read.
    pub const fn is_function(self) -> bool {
        matches!(self, Self::Function | Self::Aggregate)
    }

    /// `a stream`, `an aggregate`.
    pub(crate) fn with_article(self) -> String {
        let article = if self == Self::Aggregate { "an" } else { "a" };
        format!("{article} {}", self.noun())
    }
}

/// What SHOW or DESCRIBE tells of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// All things of a kind, a row each; the first column has their names.
    All(RelationKind),
    /// The columns of a relation.
    Columns(String),
}

/// Where the text of a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretSource {
    /// In the statement.
    Text(Secret),
    /// In a file, less the newline at its end.
    File(String),
    /// In a variable of the environment.
    Env(String),
}

/// What SHOW tells of queries that run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Running {
    /// One row per query.
    Queries,
    /// One row per partition of each stream.
    Watermarks,
    /// One row per input of each query.
    State,
    /// One row per executor of the server.
    Executors,
}

/// What can be done to a query that runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// It takes no more rows in until it is resumed.
    Pause,
    /// It goes on.
    Resume,
    /// It ends after the epoch in hand.
    Stop,
}

impl Control {
    pub(crate) const ALL: [Self; 3] = [Self::Pause, Self::Resume, Self::Stop];

    /// The word for it: `PAUSE`.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Pause => "PAUSE",
            Self::Resume => "RESUME",
            Self::Stop => "STOP",
        }
    }
}

/// A query whose names are not looked up yet.
#[derive(Debug, Clone)]
pub(crate) struct ParsedQuery {
    pub(crate) query: Box<Query>,
    /// The names that its WITH clause gives.
    pub(crate) with_names: Arc<[String]>,
    /// The windows by the number that stands for each in `query`.
    pub(crate) windows: Arc<[WindowClause]>,
    /// What it gives of its results.
    pub(crate) emission: Emission,
    /// The sink for rows that are too late.
    pub(crate) late_sink: Option<Arc<NamedSink>>,
    /// The calls of window functions by the number that stands for each in `query`.
    pub(crate) calls: Arc<[WindowCall]>,
    /// Its as-of clauses by the number that stands for each in `query`.
    pub(crate) as_of: Arc<[AsOf]>,
    /// The tokens as typed, for the user's words and their places.
    pub(crate) tokens: Arc<[TokenWithSpan]>,
    /// The query as typed.
    pub(crate) text: String,
}

/// One statement, ready to be carried out; compiling it has changed nothing.
#[derive(Debug, Clone)]
pub enum Statement {
    /// Declares a stream.
    CreateStream {
        /// The stream.
        definition: Arc<StreamDefinition>,
        /// Whether a stream of that name, if there is one, is replaced.
        or_replace: bool,
    },
    /// Declares a static table, whose rows the options tell where to find.
    CreateTable {
        /// The table; it has no event time.
        definition: Arc<StreamDefinition>,
        /// Whether a table of that name, if there is one, is replaced.
        or_replace: bool,
    },
    /// Names a query.
    CreateView {
        /// The view.
        definition: Arc<ViewDefinition>,
        /// Whether a view of that name, if there is one, is replaced.
        or_replace: bool,
    },
    /// Names a query, runs it and keeps its results.
    CreateMaterializedView {
        /// The view.
        definition: Arc<ViewDefinition>,
        /// Its query, which reads a stream.
        query: StreamQuery,
        /// How long before the last instant that has rows the results of an instant are kept; for ever unless set.
        retain: Option<Span>,
    },
    /// Declares a destination.
    CreateSink {
        /// The sink.
        definition: Arc<SinkDefinition>,
        /// Whether a sink of that name, if there is one, is replaced.
        or_replace: bool,
    },
    /// Names a text that nobody sees.
    CreateSecret {
        /// The name.
        name: String,
        /// Where the text is.
        source: SecretSource,
        /// Whether a secret of that name, if there is one, is replaced.
        or_replace: bool,
    },
    /// Declares a function or an aggregate.
    CreateFunction {
        /// The function.
        definition: Arc<FunctionDefinition>,
        /// Whether one of that name, if there is one, is replaced.
        or_replace: bool,
    },
    /// Runs a query into a sink.
    Insert {
        /// The sink.
        sink: Arc<SinkDefinition>,
        /// The query.
        query: StreamQuery,
    },
    /// Runs a query and shows its rows.
    Select(StreamQuery),
    /// Shows how a query would run.
    Explain(StreamQuery),
    /// Runs a query, drops its rows, and shows its plans with what they have done.
    ExplainAnalyze(StreamQuery),
    /// Forgets a stream, table, view, sink, secret, function or aggregate, which exists.
    Drop {
        /// Which of them it is.
        kind: RelationKind,
        /// Its name.
        name: String,
    },
    /// Rows that answer SHOW or DESCRIBE.
    Show {
        /// What they tell of.
        of: Shown,
        /// The rows.
        rows: RecordBatch,
    },
    /// Rows that tell of queries that run.
    ShowRunning(Running),
    /// Does something to a query that runs.
    Control {
        /// What to do.
        action: Control,
        /// The query's name.
        query: String,
        /// Where the name stands.
        location: Option<Location>,
    },
    /// Follows a materialized view: its rows, and those that come.
    Subscribe {
        /// The view's name.
        view: String,
        /// Its rows.
        rows: Arc<dyn MaterializedRows>,
        /// The epoch whose rows, and those before, are not wanted again.
        after: Option<u64>,
    },
    /// Follows a SELECT that runs on a server, from after an epoch on.
    SubscribeQuery {
        /// What the metadata of its rows call it.
        query: String,
        /// The epoch whose rows, and those before, are not wanted again.
        after: Option<u64>,
    },
    /// Changes a setting, which exists and accepts the value.
    Set {
        /// The setting, in lower case.
        key: String,
        /// The value as text.
        value: String,
    },
    /// Nothing to do: IF NOT EXISTS of a name that exists, or IF EXISTS of one that does not.
    Nothing {
        /// Why, for the user.
        note: String,
    },
}

/// A query over streams, static tables, or both.
#[derive(Debug, Clone)]
pub struct StreamQuery {
    /// The plan before analysis and optimisation.
    ///
    /// Its stream leaves scan [`StreamTable`](millstream_engine::plan::StreamTable)s under
    /// [`scan_name`](millstream_engine::plan::StreamTable::scan_name).
    pub logical: LogicalPlan,
    /// The query as typed.
    pub text: String,
    /// What it gives of its results.
    pub emission: Emission,
    /// Where rows go that come too late for every window, with the columns of the streams.
    pub late_sink: Option<Arc<SinkDefinition>>,
    /// Whether a stream is read; if not, the query runs once over static tables.
    pub is_streaming: bool,
    /// Whether rows are read that other queries keep: materialized views or states.
    pub reads_kept_rows: bool,
    /// The relations that the text itself names, and not those that views read, and `state('query')` of the states.
    pub relations: BTreeSet<String>,
}

impl ParsedQuery {
    /// The first place where one of the words stands, in any case.
    pub(crate) fn find(&self, words: &[&str]) -> Option<Location> {
        self.tokens.iter().find(|token| is_one_of(&token.token, words)).and_then(|token| location(token.span.start))
    }

    /// The last place where one of the words stands, in any case.
    pub(crate) fn find_last(&self, words: &[&str]) -> Option<Location> {
        self.tokens.iter().rfind(|token| is_one_of(&token.token, words)).and_then(|token| location(token.span.start))
    }

    /// The token at a place as typed.
    pub(crate) fn typed_word(&self, place: Option<Location>) -> Option<String> {
        let token = self.tokens.iter().find(|token| place.is_some() && location(token.span.start) == place)?;
        Some(token.token.to_string())
    }
}

fn is_one_of(token: &Token, words: &[&str]) -> bool {
    matches!(token, Token::Word(word) if words.iter().any(|other| word.value.eq_ignore_ascii_case(other)))
}
