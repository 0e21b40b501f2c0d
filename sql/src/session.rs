//! A session: what was declared and set so far, and how further statements are read against it.

use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::common::HashSet;
use datafusion::execution::FunctionRegistry;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::{AggregateUDF, LogicalPlan, ScalarUDF};
use datafusion::prelude::SessionConfig;
use millstream_engine::json::json_functions;
use millstream_engine::plan::{Emission, EmissionMode, Location, StreamDefinition};
use millstream_engine::results::{MaterializedRows, QueryStates};
use millstream_engine::secret::Secret;

use crate::catalog::{Catalog, Relation, SinkDefinition, ViewDefinition};
use crate::check::{check, is_windowed};
use crate::ddl::REFRESH_INTERVAL;
use crate::duration::Parameters;
use crate::emission::place_of_emit;
use crate::error::{Error, Result};
use crate::function::{FunctionDefinition, Functions};
use crate::interval::{self, interval_join};
use crate::late::{check_apart, late_sink};
use crate::materialized::check_reads;
use crate::over::over_rows;
use crate::parse::parse;
use crate::plan_error::planning_error;
use crate::scope::Names;
use crate::settings::check_setting;
use crate::show::{describe, describe_columns, show};
use crate::statement::{Body, Create, ParsedQuery, ParsedStatement, RelationKind, Shown, Statement, StreamQuery};
use crate::test_block::{RowList, TestItem, parse_tests};
use crate::time_pattern::check_time_patterns;

/// Reads statements; what they declare is registered by the caller once it is carried out.
///
/// ```
/// use millstream_sql::{Session, Statement};
///
/// # fn main() -> millstream_sql::Result<()> {
/// let mut session = Session::new();
/// for parsed in session.parse("CREATE STREAM trades (price DOUBLE) WITH (connector = 'socket'); SELECT * FROM trades")? {
///     match session.compile(&parsed)? {
///         Statement::CreateStream { definition, .. } => session.register_stream(definition),
///         Statement::Select(query) => assert!(query.is_streaming),
///         other => unreachable!("{other:?}"),
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Session {
    catalog: Arc<Catalog>,
    settings: Parameters,
    parameters: Parameters,
    state: Arc<SessionState>,
    query_states: Option<Arc<dyn QueryStates>>,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session in which nothing is declared.
    pub fn new() -> Self {
        let mut config = SessionConfig::new().with_information_schema(false);
        config.options_mut().sql_parser.collect_spans = true;
        let mut state = SessionStateBuilder::new_with_default_features().with_config(config).build();
        for function in json_functions() {
            // A state takes every function.
            let _ = state.register_udf(Arc::new(function));
        }
        Self {
            catalog: Arc::default(),
            settings: Parameters::new(),
            parameters: Parameters::new(),
            state: Arc::new(state),
            query_states: None,
        }
    }

    /// Binds a name that windows may use as a duration: `n` to `5 minutes`.
    ///
    /// Texts parsed before keep the old value.
    pub fn bind_parameter(&mut self, name: &str, value: impl Into<String>) {
        self.parameters.insert(name.to_lowercase(), value.into());
    }

    /// Says where `state('query')` finds its rows.
    pub fn read_states(&mut self, states: Arc<dyn QueryStates>) {
        self.query_states = Some(states);
    }

    /// Splits a text into its statements.
    ///
    /// All places in errors are places in `text`.
    ///
    /// # Errors
    /// The first statement that is no SQL; then none of them should be carried out.
    pub fn parse(&self, text: &str) -> Result<Vec<ParsedStatement>> {
        parse(text, &self.parameters)
    }

    /// Splits a file of tests into its statements and tests.
    ///
    /// # Errors
    /// The first part that cannot be read.
    pub fn parse_tests(&self, text: &str) -> Result<Vec<TestItem>> {
        parse_tests(text, &self.parameters)
    }

    /// Plans the rows of a test as they are written: a plan over no relation, whose types are those of the values.
    ///
    /// # Errors
    /// A value cannot be planned, or those of a column have no common type.
    pub fn compile_rows(&self, rows: &RowList) -> Result<LogicalPlan> {
        let planned = Names::new(Arc::clone(&self.state), Arc::default()).plan(&rows.query);
        planned.map_err(|error| error.at(rows.location))
    }

    /// Looks the statement's names up and checks that it can be carried out. Changes nothing.
    ///
    /// Planning takes about a millisecond and waits for nothing: the catalog is in memory.
    ///
    /// # Errors
    /// The statement cannot be carried out as it stands.
    pub fn compile(&self, statement: &ParsedStatement) -> Result<Statement> {
        // A message without a place at least names the statement.
        self.compile_body(&statement.body).map_err(|error| error.at(Some(statement.location)))
    }

    /// What is declared.
    pub fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    /// DataFusion's state with the functions and options that queries are planned with.
    pub fn state(&self) -> &Arc<SessionState> {
        &self.state
    }

    /// Declares a stream, in place of the relation of that name.
    pub fn register_stream(&mut self, definition: Arc<StreamDefinition>) {
        let name = definition.name.clone();
        Arc::make_mut(&mut self.catalog).insert(name, Relation::Stream(definition));
    }

    /// Declares a static table with its rows, in place of the relation of that name.
    pub fn register_table(&mut self, definition: Arc<StreamDefinition>, provider: Arc<dyn TableProvider>) {
        let name = definition.name.clone();
        Arc::make_mut(&mut self.catalog).insert(name, Relation::Table { definition, provider });
    }

    /// Declares a view, in place of the relation of that name.
    pub fn register_view(&mut self, definition: Arc<ViewDefinition>) {
        let name = definition.name.clone();
        Arc::make_mut(&mut self.catalog).insert(name, Relation::View(definition));
    }

    /// Declares a materialized view with where its rows are kept, in place of the relation of that name.
    pub fn register_materialized_view(&mut self, definition: Arc<ViewDefinition>, rows: Arc<dyn MaterializedRows>) {
        let name = definition.name.clone();
        Arc::make_mut(&mut self.catalog).insert(name, Relation::MaterializedView { definition, rows });
    }

    /// Declares a sink, in place of the one of that name.
    pub fn register_sink(&mut self, definition: Arc<SinkDefinition>) {
        Arc::make_mut(&mut self.catalog).insert_sink(definition);
    }

    /// Names a secret, in place of the one of that name; what is declared already keeps the text of that.
    pub fn register_secret(&mut self, name: &str, secret: Secret) {
        Arc::make_mut(&mut self.catalog).insert_secret(name.to_owned(), secret);
    }

    /// Declares a function or aggregate, in place of the one of that name; those that call it are adapted.
    ///
    /// # Errors
    /// It does not fit what it calls, or what calls it, as that is declared now.
    pub fn declare_function(&mut self, definition: &Arc<FunctionDefinition>) -> Result<()> {
        let functions = Functions::with(&self.state, &self.catalog, definition)?;
        Arc::make_mut(&mut self.catalog).functions = functions;
        Ok(())
    }

    /// Makes a function of one row known under its name, in place of the one that had it.
    ///
    /// A volatile one is refused in queries over streams, as its answers would depend on when they are asked for.
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use datafusion::arrow::datatypes::DataType;
    /// use datafusion::logical_expr::{ColumnarValue, Volatility, create_udf};
    ///
    /// let same = Arc::new(|arguments: &[ColumnarValue]| Ok(arguments[0].clone()));
    /// let mut session = millstream_sql::Session::new();
    /// session.register_function(create_udf("same", vec![DataType::Int64], DataType::Int64, Volatility::Immutable, same));
    /// assert!(session.compile(&session.parse("SELECT same(1)").unwrap()[0]).is_ok());
    /// ```
    pub fn register_function(&mut self, function: ScalarUDF) {
        // A state takes every function.
        let _ = Arc::make_mut(&mut self.state).register_udf(Arc::new(function));
    }

    /// Makes an aggregate known under its name, in place of the one that had it.
    ///
    /// Its result must not depend on the order of the rows, and merging its states in any way must give the same.
    pub fn register_aggregate(&mut self, aggregate: AggregateUDF) {
        // A state takes every aggregate.
        let _ = Arc::make_mut(&mut self.state).register_udaf(Arc::new(aggregate));
    }

    /// Forgets what has the name; whether there was something.
    pub fn unregister(&mut self, kind: RelationKind, name: &str) -> bool {
        Arc::make_mut(&mut self.catalog).remove(name, kind)
    }

    /// Changes a setting.
    ///
    /// # Errors
    /// There is no such setting, or it does not accept the value.
    pub fn set(&mut self, key: &str, value: &str) -> Result<()> {
        check_setting(key, value)?;
        self.settings.insert(key.to_owned(), value.to_owned());
        Ok(())
    }

    /// The value of a setting that was changed.
    pub fn setting(&self, key: &str) -> Option<&str> {
        self.settings.get(key).map(String::as_str)
    }

    fn compile_body(&self, body: &Body) -> Result<Statement> {
        match body {
            Body::CreateRelation { kind, definition, create } => self.create_relation(*kind, definition, create),
            Body::CreateView { name, query, create } => self.create_view(name, query, create),
            Body::CreateMaterializedView { name, query, retain, create } => {
                self.create_materialized_view(name, query, *retain, create)
            }
            Body::CreateSink { name, options, create } => {
                let definition = SinkDefinition { name: name.clone(), options: self.catalog.revealed(options)? };
                let (definition, or_replace) = (Arc::new(definition), create.or_replace);
                self.create(RelationKind::Sink, name, create, Statement::CreateSink { definition, or_replace })
            }
            Body::CreateSecret { name, source, create } => {
                let (name, source, or_replace) = (name.clone(), source.clone(), create.or_replace);
                let statement = Statement::CreateSecret { name: name.clone(), source, or_replace };
                self.create(RelationKind::Secret, &name, create, statement)
            }
            Body::CreateFunction { definition, create } => self.create_function(definition, create),
            Body::Insert { sink, sink_location, query } => {
                let sink = Arc::clone(self.catalog.expect_sink(sink).map_err(|error| error.at(*sink_location))?);
                check_apart(&sink, query)?;
                Ok(Statement::Insert { sink, query: self.query(query)? })
            }
            Body::Select(query) => Ok(Statement::Select(self.query(query)?)),
            Body::Explain(query) => Ok(Statement::Explain(self.query(query)?)),
            Body::ExplainAnalyze(query) => Ok(Statement::ExplainAnalyze(self.query(query)?)),
            Body::Drop { kind, name, name_location, if_exists } => {
                self.drop_statement(*kind, name, *name_location, *if_exists)
            }
            Body::Show(kind) => Ok(Statement::Show { of: Shown::All(*kind), rows: show(&self.catalog, *kind)? }),
            Body::ShowRunning(running) => Ok(Statement::ShowRunning(*running)),
            Body::Control { action, query, query_location } => {
                Ok(Statement::Control { action: *action, query: query.clone(), location: *query_location })
            }
            Body::Describe { name, name_location } => self.describe(name).map_err(|error| error.at(*name_location)),
            Body::Subscribe { view, view_location, after } => {
                self.subscribe(view, *after).map_err(|error| error.at(*view_location))
            }
            Body::SubscribeQuery { query, after } => {
                Ok(Statement::SubscribeQuery { query: query.clone(), after: *after })
            }
            Body::Set { key, value } => {
                check_setting(key, value)?;
                Ok(Statement::Set { key: key.clone(), value: value.clone() })
            }
        }
    }

    fn create_relation(
        &self,
        kind: RelationKind,
        definition: &Arc<StreamDefinition>,
        create: &Create,
    ) -> Result<Statement> {
        let mut definition = Arc::clone(definition);
        if definition.options.iter().any(|option| option.secret.is_some()) {
            let options = self.catalog.revealed(&definition.options)?;
            Arc::make_mut(&mut definition).options = options;
        }
        let (name, or_replace) = (definition.name.clone(), create.or_replace);
        if let (RelationKind::Stream, Some(_)) = (kind, definition.refresh) {
            let option = definition.options.iter().find(|option| option.key == REFRESH_INTERVAL);
            let error = Error::new(format!("a stream has no {REFRESH_INTERVAL}: its rows are read as they come"));
            let hint = "leave it out, or declare a table without a watermark by CREATE TABLE";
            return Err(error.hint(hint).at(option.and_then(|option| option.location)));
        }
        let statement = match kind {
            RelationKind::Table => Statement::CreateTable { definition, or_replace },
            _ => Statement::CreateStream { definition, or_replace },
        };
        self.create(kind, &name, create, statement)
    }

    fn create_view(&self, name: &str, query: &ParsedQuery, create: &Create) -> Result<Statement> {
        if query.emission != Emission::default() || query.late_sink.is_some() {
            let error = Error::unsupported("EMIT, ISTREAM, DSTREAM or LATE DATA TO in a view", "");
            return Err(error.hint("a view is text: put it on the query that reads the view").at(create.name_location));
        }
        let definition = view_definition(name, query, &self.query(query)?, create)?;
        let statement = Statement::CreateView { definition, or_replace: create.or_replace };
        let statement = self.create(RelationKind::View, name, create, statement)?;
        if create.or_replace {
            self.check_view_cycle(&statement, create.name_location)?;
        }
        Ok(statement)
    }

    fn create_function(&self, definition: &Arc<FunctionDefinition>, create: &Create) -> Result<Statement> {
        let statement = Statement::CreateFunction { definition: Arc::clone(definition), or_replace: create.or_replace };
        let statement = self.create(definition.kind(), &definition.name, create, statement)?;
        if matches!(statement, Statement::CreateFunction { .. }) {
            Functions::with(&self.state, &self.catalog, definition).map_err(|error| error.at(create.name_location))?;
        }
        Ok(statement)
    }

    /// A view that replaces another may come to read itself.
    fn check_view_cycle(&self, statement: &Statement, place: Option<Location>) -> Result<()> {
        let Statement::CreateView { definition, .. } = statement else { return Ok(()) };
        let mut replaced = self.clone();
        replaced.register_view(Arc::clone(definition));
        Names::new(Arc::clone(&replaced.state), Arc::clone(&replaced.catalog))
            .check_view(definition)
            .map_err(|error| Error { location: place, ..error })
    }

    /// `statement`, if the name is free or CREATE says what to do about it.
    pub(crate) fn create(
        &self,
        kind: RelationKind,
        name: &str,
        create: &Create,
        statement: Statement,
    ) -> Result<Statement> {
        let Some(existing) = self.catalog.kind_of(name, kind) else { return Ok(statement) };
        let noun = existing.noun();
        if create.if_not_exists {
            return Ok(Statement::Nothing { note: format!("the {noun} \"{name}\" exists already") });
        }
        if create.or_replace && existing == kind {
            return Ok(statement);
        }
        let error = Error::new(format!("the {noun} \"{name}\" exists already"));
        let hint = format!("write DROP {} {name} first, or CREATE OR REPLACE", noun.to_uppercase());
        let hint = if existing == kind { hint } else { format!("write DROP {} {name} first", noun.to_uppercase()) };
        Err(error.hint(hint).at(create.name_location))
    }

    fn drop_statement(
        &self,
        kind: RelationKind,
        name: &str,
        place: Option<Location>,
        if_exists: bool,
    ) -> Result<Statement> {
        match self.catalog.kind_of(name, kind) {
            Some(existing) if existing == kind => {
                if kind.is_function() {
                    self.catalog.functions.check_unused(name).map_err(|error| error.at(place))?;
                }
                if let (RelationKind::Secret, Some(user)) = (kind, self.catalog.user_of_secret(name)) {
                    let error = Error::new(format!("the {user} uses the secret \"{name}\""));
                    return Err(error.hint("drop that first").at(place));
                }
                Ok(Statement::Drop { kind, name: name.to_owned() })
            }
            Some(existing) => {
                let (is, not) = (existing.with_article(), kind.with_article());
                let error = Error::new(format!("\"{name}\" is {is}, not {not}"));
                Err(error.hint(format!("write DROP {} {name}", existing.noun().to_uppercase())).at(place))
            }
            None if if_exists => Ok(Statement::Nothing { note: format!("there is no {} \"{name}\"", kind.noun()) }),
            None if kind.is_function() => Err(self.catalog.functions.unknown(name, kind).at(place)),
            None if kind == RelationKind::Secret => Err(expected_error(self.catalog.expect_secret(name)).at(place)),
            None if kind == RelationKind::Sink => Err(expected_error(self.catalog.expect_sink(name)).at(place)),
            None => Err(expected_error(self.catalog.expect_relation(name)).at(place)),
        }
    }

    fn describe(&self, name: &str) -> Result<Statement> {
        let batch = match self.catalog.expect_relation(name)? {
            Relation::View(view) | Relation::MaterializedView { definition: view, .. } => {
                describe_columns(self.query(&view.query)?.logical.schema().inner())?
            }
            Relation::Stream(definition) | Relation::Table { definition, .. } => describe(definition)?,
        };
        Ok(Statement::Show { of: Shown::Columns(name.to_owned()), rows: batch })
    }

    fn subscribe(&self, name: &str, after: Option<u64>) -> Result<Statement> {
        match self.catalog.expect_relation(name)? {
            Relation::MaterializedView { rows, .. } => {
                Ok(Statement::Subscribe { view: name.to_owned(), rows: Arc::clone(rows), after })
            }
            Relation::Stream(_) => {
                Err(Error::new(format!("\"{name}\" is a stream")).hint(format!("SELECT * FROM {name} follows it")))
            }
            other => {
                let error = Error::new(format!("\"{name}\" is a {} and does not grow", other.kind().noun()));
                Err(error.hint("subscribe to a materialized view"))
            }
        }
    }

    /// Plans and checks a query.
    pub(crate) fn query(&self, query: &ParsedQuery) -> Result<StreamQuery> {
        let names = Names::new(Arc::clone(&self.state), Arc::clone(&self.catalog));
        let names = names.reading(self.query_states.clone());
        let logical = names.plan(query)?;
        check_time_patterns(&logical, query)?;
        let mut emission = query.emission;
        if emission.mode == EmissionMode::Results && !is_windowed(&logical) {
            refuse_final(query)?;
        }
        let logical = match over_rows(&logical, query)? {
            None => logical,
            Some(_) if emission != Emission::default() => {
                let error = Error::new("OVER an endless stream gives each row once, when its time has come");
                return Err(error.hint("leave EMIT, ISTREAM, DSTREAM and what belongs to them out"));
            }
            Some(windowed) => windowed,
        };
        let logical = match interval_join(&logical, query)? {
            None => logical,
            Some(_) if emission != Emission::default() => {
                let error = Error::new("a join within bounds of time gives each combination of rows once");
                return Err(error.hint("leave EMIT, ISTREAM, DSTREAM and what belongs to them out"));
            }
            Some(windowed) => {
                emission.mode = interval::MODE;
                windowed
            }
        };
        let is_streaming = check(&logical, query)?;
        if is_streaming {
            check_reads(names.reads(), query)?;
        }
        // Types that do not fit are found by the analyzer; better here than when the query is started.
        self.state
            .analyzer()
            .execute_and_check(logical.clone(), self.state.config_options(), |_, _| {})
            .map_err(|error| planning_error(error, query, &self.catalog))?;
        if !is_streaming && query.emission != Emission::default() {
            let error = Error::new("a query that reads no stream gives its result once");
            return Err(error.hint("leave EMIT, ISTREAM, DSTREAM and what belongs to them out"));
        }
        let late_sink = late_sink(&self.catalog, &logical, query)?;
        let reads_kept_rows = names.reads().first_name().is_some();
        let (text, relations) = (query.text.clone(), names.reads().named());
        Ok(StreamQuery { logical, text, emission, late_sink, is_streaming, reads_kept_rows, relations })
    }
}

/// A view of a query that is planned, if its columns can be told apart.
pub(crate) fn view_definition(
    name: &str,
    query: &ParsedQuery,
    planned: &StreamQuery,
    create: &Create,
) -> Result<Arc<ViewDefinition>> {
    let mut names = HashSet::new();
    for field in planned.logical.schema().fields() {
        if !names.insert(field.name()) {
            let error = Error::new(format!("the view has two columns called \"{}\"", field.name()));
            return Err(error.hint("give one of them a name of its own: x AS a").at(create.name_location));
        }
    }
    Ok(Arc::new(ViewDefinition { name: name.to_owned(), text: query.text.clone(), query: query.clone() }))
}

/// Refuses to wait for the end of windows that a query does not have.
fn refuse_final(query: &ParsedQuery) -> Result<()> {
    let Some(place) = place_of_emit(&query.tokens) else { return Ok(()) };
    let error = Error::new("the results of windows are to be given as they close, but the query has no window");
    Err(error.hint("leave EMIT out, or give the stream a window: t [Range 5 minutes, Slide 1 minute]").at(Some(place)))
}

/// The error of a lookup that is known to fail.
fn expected_error<T>(looked_up: Result<T>) -> Error {
    looked_up.err().unwrap_or_else(|| Error::new("the name exists"))
}
