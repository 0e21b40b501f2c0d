//! Streams that are declared without SQL.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use millstream_engine::plan::{BadData, EventTimeRule, StreamDefinition, WINDOW_END, WINDOW_START, WithOption};
use millstream_engine::time::Span;
use millstream_engine::{Error, Result};

/// The declaration of a pushed stream, in place of `CREATE STREAM … WITH (connector = 'push')`.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
/// use millstream::embed::{Engine, StreamSpec};
///
/// # fn main() -> millstream::Result<()> {
/// let schema = Schema::new(vec![
///     Field::new("szcode", DataType::Utf8, false),
///     Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
/// ]);
/// let spec = StreamSpec::new("trades", Arc::new(schema)).event_time("ts", Duration::from_secs(5));
/// let trades = Engine::new().create_stream(spec)?;
/// assert_eq!(trades.name(), "trades");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct StreamSpec {
    name: String,
    schema: SchemaRef,
    event_time: Option<(String, Duration)>,
}

impl StreamSpec {
    /// A stream with these columns whose event time is arrival time. Names are folded to lower case, as SQL does.
    pub fn new(name: impl Into<String>, schema: SchemaRef) -> Self {
        Self { name: name.into().to_lowercase(), schema, event_time: None }
    }

    /// Takes event time from a column, a timestamp; rows come at most `disorder` out of order.
    #[must_use]
    pub fn event_time(mut self, column: impl Into<String>, disorder: Duration) -> Self {
        self.event_time = Some((column.into().to_lowercase(), disorder));
        self
    }

    /// The declaration as the language makes it.
    ///
    /// # Errors
    /// Fails if two columns share a name, one has the name of a window's bounds, or the event time is no timestamp.
    pub(super) fn definition(&self) -> Result<StreamDefinition> {
        let mut names = BTreeSet::new();
        let mut fields = Vec::new();
        for field in self.schema.fields() {
            let name = field.name().to_lowercase();
            if [WINDOW_START, WINDOW_END].contains(&name.as_str()) || !names.insert(name.clone()) {
                let message = format!("stream {:?} cannot have the column {:?}", self.name, field.name());
                let hint = "every window has columns window_start and window_end; others have one name each";
                return Err(Error::query(message, hint));
            }
            fields.push(Field::new(name, field.data_type().clone(), field.is_nullable()));
        }
        let schema = Arc::new(Schema::new(fields));
        Ok(StreamDefinition {
            name: self.name.clone(),
            declared: self.schema.fields().iter().map(|field| field.name().clone()).collect(),
            event_time: self.event_time.as_ref().map(|rule| self.rule(rule, &schema)).transpose()?,
            schema,
            bad_data: BadData::default(),
            durability: None,
            rate_limit: None,
            refresh: None,
            options: vec![WithOption::new("connector", "push", None)],
        })
    }

    fn rule(&self, (column, disorder): &(String, Duration), schema: &Schema) -> Result<EventTimeRule> {
        let index = schema
            .fields()
            .iter()
            .position(|field| field.name() == column && matches!(field.data_type(), DataType::Timestamp(_, _)));
        let Some(column) = index else {
            let message = format!("stream {:?} has no column {column:?} that is a timestamp", self.name);
            return Err(Error::query(message, "name a column of type Timestamp as the event time"));
        };
        let delay = Span(i64::try_from(disorder.as_nanos()).unwrap_or(i64::MAX));
        Ok(EventTimeRule { column, delay, max_future_skew: None, idle_timeout: None })
    }
}
