//! What the language front end hands over: declared streams, and logical plans whose leaves are [`StreamTable`]s.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::nodes::SlotExec;
use crate::secret::REDACTED;
use crate::time::Span;
use crate::window::{Contents, Frame, WindowSpec};

/// The column that holds the first point of a row's window.
pub const WINDOW_START: &str = "window_start";
/// The column that holds the instant of a row's window, the first point after it.
pub const WINDOW_END: &str = "window_end";

/// The columns that tell where a row stands in its stream, for plans that need a total order: partition, offset.
pub(crate) const ORDER_COLUMNS: [&str; 2] = ["__partition", "__offset"];

/// A place in a text, both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Location {
    /// The line.
    pub line: u64,
    /// The character within the line.
    pub column: u64,
}

/// One `key = 'value'` or `key = SECRET name` of a `WITH` clause.
#[derive(Clone, PartialEq, Eq)]
pub struct WithOption {
    /// The key, in lower case.
    pub key: String,
    /// The value as text; of a secret once it has been looked up.
    pub value: String,
    /// The name of the secret that the value is.
    pub secret: Option<String>,
    /// Where the key stands, for messages.
    pub location: Option<Location>,
}

impl WithOption {
    /// An option whose value stands in the statement.
    pub fn new(key: &str, value: &str, location: Option<Location>) -> Self {
        Self { key: key.to_owned(), value: value.to_owned(), secret: None, location }
    }

    /// The value for messages.
    pub fn shown(&self) -> &str {
        if self.is_secret() { REDACTED } else { &self.value }
    }

    /// Whether the value is nothing for other eyes: a secret, or of a key that speaks of one.
    pub fn is_secret(&self) -> bool {
        let speaks_of_one = |word: &&str| self.key.contains(*word);
        self.secret.is_some()
            || ["password", "secret", "token", "credential", "authorization"].iter().any(speaks_of_one)
    }
}

impl fmt::Debug for WithOption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} = {:?}", self.key, self.shown())
    }
}

/// How event time is taken from the rows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventTimeRule {
    /// The index of the event-time column, a timestamp.
    pub column: usize,
    /// How far the watermark stays behind the greatest event time seen.
    pub delay: Span,
    /// The most that one row may move the watermark; `None` for no bound.
    pub max_future_skew: Option<Span>,
    /// How long a partition may be silent before it no longer holds the watermark back; `None` for ever.
    pub idle_timeout: Option<Span>,
}

/// What to do with a row that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadData {
    /// Stop the query with an error that names the row.
    Fail,
    /// Count the row and go on.
    Skip,
    /// Count the row, keep it in `name$dead` and go on.
    #[default]
    DeadLetter,
}

/// What the rows of a stream survive that cannot be read again, where there is a state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamDurability {
    /// The power going off, whatever the state directory says.
    PowerLoss,
    /// The death of the process. A power cut may take rows that a query has used, which must then begin anew.
    ProcessCrash,
    /// Nothing: queries on the stream keep no state and begin anew with each start.
    None,
}

/// A declared input relation.
#[derive(Debug, Clone, PartialEq)]
pub struct StreamDefinition {
    /// The name, folded to lower case unless it was quoted.
    pub name: String,
    /// The columns; names folded as above.
    pub schema: SchemaRef,
    /// The columns' names as declared, which map CSV headers and JSON keys.
    pub declared: Vec<String>,
    /// Event time; `None` means arrival time.
    pub event_time: Option<EventTimeRule>,
    /// What to do with rows that cannot be used.
    pub bad_data: BadData,
    /// What its rows survive, if it cannot be read again; as the state directory says unless set.
    pub durability: Option<StreamDurability>,
    /// The most rows it takes in per second; above 0.
    pub rate_limit: Option<f64>,
    /// How long a static table is good until it is read again; a stream, and a table that is read once, have none.
    pub refresh: Option<Span>,
    /// The connector and its options, unread.
    pub options: Vec<WithOption>,
}

/// Where the rows of a leaf come from.
#[derive(Debug, Clone)]
pub enum Input {
    /// A declared stream.
    Stream(Arc<StreamDefinition>),
    /// The rows of a windowed view: those of instant `e` have the event time `e − 1` tick.
    View(Arc<WindowedView>),
}

/// The column that tells how often a window's rows have been corrected, where late rows may do so; 0 at first.
pub const REVISION: &str = "revision";

/// What a windowed query gives of its results.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Emission {
    /// All of them, or how they differ from others.
    pub mode: EmissionMode,
    /// Whether a window without rows is evaluated too, once there has been one with rows.
    pub empty_windows: bool,
    /// How long rows that are behind the watermark still count in windows that have closed: such a window's whole
    /// result is given again, with the next [`REVISION`].
    pub lateness: Option<Span>,
}

/// Which rows of its results a windowed query gives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EmissionMode {
    /// The whole result of each instant (RSTREAM).
    #[default]
    Results,
    /// The rows that the result before does not have (ISTREAM).
    Insertions,
    /// The rows that only the result before has (DSTREAM).
    Deletions,
    /// After every micro-batch the new rows of each window that it changed, open ones too.
    ///
    /// What is given is right for the rows so far; which rows those are depends on the cut into micro-batches.
    Changes {
        /// The least time between two results of open windows.
        every: Option<Duration>,
    },
    /// Each combination of rows once, as the last of them comes in: for joins of windows by row under filters and
    /// expressions. Of an outer join of two, rows beside NULLs are given once no partner can come any more. Rows behind
    /// the watermark of their partition are late.
    Pairs,
}

/// A windowed query that another one reads through a window of its own.
#[derive(Debug)]
pub struct WindowedView {
    /// The view's name.
    pub name: String,
    /// Its query; the leaves are again [`StreamTable`]s, with at least one window among them.
    pub query: LogicalPlan,
}

impl Input {
    /// The name of the stream or view.
    pub fn name(&self) -> &str {
        match self {
            Self::Stream(stream) => &stream.name,
            Self::View(view) => &view.name,
        }
    }

    /// The columns of the stream or view.
    pub fn schema(&self) -> SchemaRef {
        match self {
            Self::Stream(stream) => Arc::clone(&stream.schema),
            Self::View(view) => Arc::clone(view.query.schema().inner()),
        }
    }
}

/// A leaf of a streaming plan: a stream or windowed view, seen through a window or as its endless rows.
///
/// A windowed leaf has the columns of its input and then `window_start` and `window_end`
/// (`Timestamp(Nanosecond)`, not null); input columns of those two names are hidden by them. A window of the latest
/// rows has no start, and `window_end` only.
/// Two leaves with the same input and window are the same relation.
///
/// DataFusion compares table scans by name only: scan every leaf under [`StreamTable::scan_name`], or two windows
/// over one stream are merged into one.
#[derive(Debug, Clone)]
pub struct StreamTable {
    input: Input,
    window: Option<WindowSpec>,
    keys: Vec<usize>,
    columns: Vec<usize>,
    has_order_columns: bool,
    schema: SchemaRef,
}

impl StreamTable {
    /// The leaf for `input` seen through `window`, or for its endless rows.
    pub fn new(input: Input, window: Option<WindowSpec>) -> Self {
        let bounds = match &window {
            None => [].as_slice(),
            Some(window) if window.is_latest() => &[WINDOW_END],
            Some(_) => &[WINDOW_START, WINDOW_END],
        };
        let source = input.schema();
        let (columns, mut fields): (Vec<_>, Vec<_>) = source
            .fields()
            .iter()
            .cloned()
            .enumerate()
            .filter(|(_, field)| !bounds.contains(&field.name().as_str()))
            .unzip();
        for name in bounds {
            fields.push(Arc::new(Field::new(*name, DataType::Timestamp(TimeUnit::Nanosecond, None), false)));
        }
        let schema = Arc::new(Schema::new(fields));
        Self { input, window, keys: Vec::new(), columns, has_order_columns: false, schema }
    }

    /// The same leaf with the input's columns whose values its window keeps apart: the keys of the latest rows, or of
    /// sessions.
    #[must_use]
    pub fn keyed_by(mut self, keys: Vec<usize>) -> Self {
        self.keys = keys;
        self
    }

    /// The input's columns whose values its window keeps apart.
    pub fn keys(&self) -> &[usize] {
        &self.keys
    }

    /// The same leaf with the position of each row as two more columns at its end.
    #[must_use]
    pub(crate) fn with_order_columns(mut self) -> Self {
        if !self.has_order_columns {
            let mut fields = self.schema.fields().to_vec();
            for (name, kind) in ORDER_COLUMNS.iter().zip([DataType::UInt32, DataType::UInt64]) {
                fields.push(Arc::new(Field::new(*name, kind, false)));
            }
            self.schema = Arc::new(Schema::new(fields));
            self.has_order_columns = true;
        }
        self
    }

    /// The input's columns that the leaf shows, in order.
    pub fn columns(&self) -> &[usize] {
        &self.columns
    }

    /// The stream or view behind the leaf.
    pub const fn input(&self) -> &Input {
        &self.input
    }

    /// The window it is seen through.
    pub const fn window(&self) -> Option<&WindowSpec> {
        self.window.as_ref()
    }

    /// A name that tells this relation from every other: `transaction[range 5 minutes slide 1 minute]`.
    pub fn scan_name(&self) -> String {
        match &self.window {
            None => self.input.name().to_owned(),
            Some(window) => format!("{}[{}]", self.input.name(), self.window_text(window)),
        }
    }

    fn window_text(&self, window: &WindowSpec) -> String {
        let mut parts = Vec::new();
        if !self.keys.is_empty() {
            let schema = self.input.schema();
            let names = self.keys.iter().filter_map(|key| Some(schema.fields().get(*key)?.name().as_str()));
            parts.push(format!("partition by {}", names.collect::<Vec<_>>().join(", ")));
        }
        let (range, slide) = (window.range(), window.slide());
        match window.contents() {
            Contents::Sliding if *window == WindowSpec::now() => parts.push("now".to_owned()),
            Contents::Sliding if window.is_by_row() => parts.push(format!("range {range}")),
            Contents::Sliding => parts.push(format!("range {range} slide {slide}")),
            Contents::Cumulating => parts.push(format!("cumulate step {slide} size {range}")),
            Contents::Session => parts.push(format!("session gap {range}")),
            Contents::Latest(rows) if window.is_by_row() => parts.push(format!("rows {rows}")),
            Contents::Latest(rows) => parts.push(format!("rows {rows} slide {slide}")),
            Contents::Preceding(Frame::Rows(rows)) => parts.push(format!("each row with {rows} before")),
            Contents::Preceding(Frame::Range(range)) => parts.push(format!("each row with {range} before")),
            Contents::Counted { rows, slide } => parts.push(format!("rows {rows} slide {slide}")),
        }
        if window.offset().0 != 0 {
            parts.push(format!("offset {}", window.offset()));
        }
        if window.is_closed_right() && !window.is_by_row() {
            parts.push("closed right".to_owned());
        }
        parts.join(" ")
    }
}

#[async_trait]
impl TableProvider for StreamTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(SlotExec::for_table(self.clone(), projection.cloned())?))
    }
}
