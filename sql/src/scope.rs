//! What a query's names mean: relations from the catalog, functions from DataFusion.
//!
//! DataFusion's planner asks a [`Scope`] for every name, and asks it first for every relation of a FROM clause,
//! so that a relation with a window becomes a [`StreamTable`] leaf of its own.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Schema, SchemaRef};
use datafusion::common::config::ConfigOptions;
use datafusion::common::{DFSchema, DataFusionError, Result as DataFusionResult, TableReference};
use datafusion::datasource::provider_as_source;
use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::planner::{
    ContextProvider, ExprPlanner, PlannedRelation, RelationPlanner, RelationPlannerContext, RelationPlanning,
    TypePlanner,
};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    AggregateUDF, Expr, ExprSchemable, HigherOrderUDF, LogicalPlan, LogicalPlanBuilder, ScalarUDF, TableSource,
    WindowUDF,
};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::planner::{ParserOptions, PlannerContext, SqlToRel};
use datafusion::sql::sqlparser::ast::{
    Expr as SqlExpr, FunctionArg, FunctionArgExpr, ObjectName, Spanned, Statement as SqlStatement, TableFactor,
    TableFunctionArgs,
};
use millstream_engine::plan::{Input, Location, StreamTable, WINDOW_END, WindowedView};
use millstream_engine::results::QueryStates;

use crate::as_of::resolve_as_of;
use crate::catalog::{Catalog, Relation, ViewDefinition};
use crate::check::is_windowed;
use crate::error::{Error, Result, location};
use crate::function::{expand_expression, expand_plan};
use crate::group_window::{WINDOW_TIME, resolve};
use crate::plan_error::planning_error;
use crate::push_window::Passing;
use crate::reads::Reads;
use crate::refused::{refuse_ignored, refuse_lateral_unnest};
use crate::rewrite::WINDOW_ARGUMENT;
use crate::statement::{ParsedQuery, RelationKind};
use crate::suggest::{list, nearest};
use crate::window::{ColumnName, WindowClause};

const TABLE_FUNCTIONS: &str = "the table functions are TUMBLE, HOP, CUMULATE, SESSION and state";

/// How deep views may read views.
const MAX_VIEW_DEPTH: usize = 32;

/// The names a query may use.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    pub(crate) state: Arc<SessionState>,
    pub(crate) catalog: Arc<Catalog>,
    /// The windows of the query's text, by number.
    windows: Arc<[WindowClause]>,
    /// The names of the query's WITH clause.
    with_names: Arc<[String]>,
    /// The views being planned, outermost first.
    views: Vec<String>,
    /// What the query reads of relations that change.
    reads: Arc<Reads>,
    states: Option<Arc<dyn QueryStates>>,
}

/// [`Names`] as DataFusion's planner wants them.
#[derive(Debug)]
struct Scope {
    names: Arc<Names>,
    planners: [Arc<dyn RelationPlanner>; 1],
}

/// A view as a relation, which the planner replaces by its plan.
struct ViewSource {
    plan: LogicalPlan,
}

impl Names {
    /// The names of a query that is no view.
    pub(crate) fn new(state: Arc<SessionState>, catalog: Arc<Catalog>) -> Self {
        Self {
            state,
            catalog,
            windows: Arc::default(),
            with_names: Arc::default(),
            views: Vec::new(),
            reads: Arc::default(),
            states: None,
        }
    }

    /// The same names, which read the states of queries there.
    pub(crate) fn reading(self, states: Option<Arc<dyn QueryStates>>) -> Self {
        Self { states, ..self }
    }

    /// What is read of relations that change.
    pub(crate) fn reads(&self) -> &Reads {
        &self.reads
    }

    /// Plans `query`, without checking that it can be run.
    ///
    /// # Errors
    /// A name is unknown or ambiguous, a type does not fit, or a window is over something that can have none.
    pub(crate) fn plan(&self, query: &ParsedQuery) -> Result<LogicalPlan> {
        let is_aggregate = |name: &str| self.state.aggregate_functions().contains_key(name);
        let resolved = resolve(query, &self.catalog)?;
        let resolved = resolve_as_of(resolved, &query.as_of, &self.catalog, &is_aggregate)?;
        let names =
            Arc::new(Self { windows: resolved.windows, with_names: Arc::clone(&query.with_names), ..self.clone() });
        let planner: Arc<dyn RelationPlanner> = Arc::clone(&names) as Arc<dyn RelationPlanner>;
        let scope = Scope { names, planners: [planner] };
        let options = ParserOptions::from(&self.state.config_options().sql_parser);
        SqlToRel::new_with_options(&scope, options)
            .sql_statement_to_plan_with_context(SqlStatement::Query(resolved.query), &mut PlannerContext::new())
            .and_then(|plan| expand_plan(plan, query))
            .map_err(|error| planning_error(error, query, &self.catalog))
    }

    /// Plans an expression of `query` over columns of `schema`: types are made to agree, declared functions replaced.
    ///
    /// # Errors
    /// A name is unknown, or a type does not fit.
    pub(crate) fn plan_expression(
        &self,
        query: &ParsedQuery,
        expression: &SqlExpr,
        schema: &DFSchema,
    ) -> Result<(Expr, DataType)> {
        let names = Arc::new(self.clone());
        let planner: Arc<dyn RelationPlanner> = Arc::clone(&names) as Arc<dyn RelationPlanner>;
        let scope = Scope { names, planners: [planner] };
        let options = ParserOptions::from(&self.state.config_options().sql_parser);
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build());
        SqlToRel::new_with_options(&scope, options)
            .sql_to_expr(expression.clone(), schema, &mut PlannerContext::new())
            .and_then(|planned| expand_expression(planned, schema, query))
            .and_then(|planned| simplifier.coerce(planned, schema))
            .and_then(|planned| planned.get_type(schema).map(|kind| (planned, kind)))
            // How streams spell their columns has nothing to do with the names of arguments.
            .map_err(|error| planning_error(error, query, &Catalog::default()))
    }

    /// Checks that a view that was just declared can be read.
    ///
    /// # Errors
    /// It reads itself, or something that is not there.
    pub(crate) fn check_view(&self, view: &ViewDefinition) -> Result<()> {
        self.plan_view(view).map(drop)
    }

    /// The plan of a view, whose errors speak of the view and not of places in its text.
    fn plan_view(&self, view: &ViewDefinition) -> Result<LogicalPlan> {
        if self.views.contains(&view.name) || self.views.len() >= MAX_VIEW_DEPTH {
            let error = Error::new(format!("the view \"{}\" reads itself", view.name));
            return Err(error.hint("take its own name out of its query"));
        }
        let mut names = self.clone();
        names.views.push(view.name.clone());
        names.plan(&view.query).map_err(|error| Error {
            message: format!("in the view \"{}\": {}", view.name, error.message),
            location: None,
            ..error
        })
    }

    /// The relation of that name, which is noted if the query itself names it.
    fn named(&self, name: &str) -> Result<&Relation> {
        let relation = self.catalog.expect_relation(name)?;
        if self.views.is_empty() {
            self.reads.note(name);
        }
        Ok(relation)
    }

    /// A relation without a window.
    fn source(&self, name: &str) -> Result<Arc<dyn TableSource>> {
        Ok(match self.named(name)? {
            Relation::Stream(stream) => {
                provider_as_source(Arc::new(StreamTable::new(Input::Stream(Arc::clone(stream)), None)))
            }
            Relation::Table { provider, .. } => provider_as_source(Arc::clone(provider)),
            Relation::View(view) => Arc::new(ViewSource { plan: self.plan_view(view)? }),
            Relation::MaterializedView { rows, .. } => provider_as_source(self.reads.view(name, rows)),
        })
    }

    /// A relation seen through a window.
    fn windowed(&self, name: &str, clause: &WindowClause) -> Result<StreamTable> {
        let is_view =
            matches!(self.catalog.expect_relation(name)?.kind(), RelationKind::View | RelationKind::MaterializedView);
        if clause.spec.is_none() && is_view {
            let error = Error::new(format!("\"{name}\" is a view, and is read as a whole without a window"));
            return Err(error.hint("leave the bracket out").at(clause.location));
        }
        let input = match self.catalog.expect_relation(name)? {
            Relation::Stream(stream) => {
                let event_time = stream.event_time.and_then(|rule| stream.schema.fields().get(rule.column));
                check_time_column(name, clause, event_time.map(|field| self.catalog.spelling(field.name())))?;
                Input::Stream(Arc::clone(stream))
            }
            Relation::Table { .. } => {
                let error = Error::new(format!("the table \"{name}\" is static and cannot have a window"));
                let hint = "leave the window out: a windowed stream can be joined with the whole table";
                return Err(error.hint(hint).at(clause.location));
            }
            Relation::View(view) | Relation::MaterializedView { definition: view, .. } => {
                // Flink's name for the event time of such rows.
                if clause.time_column.as_ref().is_none_or(|(column, _)| column != WINDOW_TIME) {
                    check_time_column(name, clause, Some(WINDOW_END))?;
                }
                Input::View(Arc::new(self.windowed_view(view, clause)?))
            }
        };
        let keys = self.keys(name, &input.schema(), clause)?;
        Ok(StreamTable::new(input, clause.spec).keyed_by(keys))
    }

    /// The columns that a window keeps apart, by their place in its input, which has the columns of `schema`.
    fn keys(&self, name: &str, schema: &Schema, clause: &WindowClause) -> Result<Vec<usize>> {
        let key = |(column, place): &ColumnName| {
            let position = schema.fields().iter().position(|field| field.name() == column);
            position.ok_or_else(|| {
                let error = Error::new(format!("\"{name}\" has no column \"{column}\" to keep rows apart by"));
                let names = schema.fields().iter().map(|field| self.catalog.spelling(field.name()));
                let names = names.collect::<Vec<_>>();
                let hint = match nearest(column, names.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None => format!("it has {}", list(&names, "and")),
                };
                error.hint(hint).at(*place)
            })
        };
        clause.keys.iter().map(key).collect()
    }

    /// A view that has windows of its own, and so an event time.
    fn windowed_view(&self, view: &ViewDefinition, clause: &WindowClause) -> Result<WindowedView> {
        let query = self.plan_view(view)?;
        if !is_windowed(&query) {
            let error =
                Error::unsupported(format!("a window over the view \"{}\", which has none inside", view.name), "");
            return Err(error.hint("put the window on the stream that the view reads").at(clause.location));
        }
        Ok(WindowedView { name: view.name.clone(), query })
    }

    /// The relation of a FROM clause that stands with a window, as a plan under its own name.
    fn plan_windowed(&self, table: TableReference, clause: &WindowClause) -> Result<LogicalPlan> {
        let name = table.to_string();
        if let Some(plan) = self.plan_pushed(&name, clause)? {
            return LogicalPlanBuilder::from(plan).alias(table).and_then(LogicalPlanBuilder::build).map_err(unplanned);
        }
        let leaf = self.windowed(&name, clause)?;
        // Scans are compared by name: under the stream's name two windows over it would be one.
        let scan = TableReference::bare(leaf.scan_name());
        LogicalPlanBuilder::scan(scan, provider_as_source(Arc::new(leaf)), None)
            .and_then(|plan| plan.alias(table))
            .and_then(LogicalPlanBuilder::build)
            .map_err(unplanned)
    }

    /// The rows of a view through which a stream passes, with the window on the stream; none for any other relation.
    fn plan_pushed(&self, name: &str, clause: &WindowClause) -> Result<Option<LogicalPlan>> {
        let relation = self.named(name)?;
        let (Relation::View(view) | Relation::MaterializedView { definition: view, .. }, Some(_)) =
            (relation, &clause.spec)
        else {
            return Ok(None);
        };
        self.plan_passing(&self.plan_view(view)?, name, clause)
    }

    /// The same of a name that a WITH clause gives to `plan`.
    fn plan_with_name(&self, plan: &LogicalPlan, name: &str, clause: &WindowClause) -> Result<LogicalPlan> {
        if clause.spec.is_none() {
            let error = Error::new(format!("\"{name}\" is read as a whole without a window"));
            return Err(error.hint("leave the bracket out").at(clause.location));
        }
        self.plan_passing(plan, name, clause)?.ok_or_else(|| {
            let error = Error::unsupported(format!("a window over \"{name}\" of the WITH clause"), "");
            error.hint("put the window on the stream inside it").at(clause.location)
        })
    }

    /// The rows of a plan through which a stream passes, with the window on the stream; none for any other plan.
    fn plan_passing(&self, plan: &LogicalPlan, name: &str, clause: &WindowClause) -> Result<Option<LogicalPlan>> {
        let Some((passing, stream)) = Passing::of(plan).and_then(|passing| Some((passing, passing.stream()?))) else {
            return Ok(None);
        };
        let Input::Stream(definition) = stream.input() else { return Ok(None) };
        let selects = clause.spec.is_some_and(|spec| spec.is_by_row() || spec.selects_rows());
        if selects && !passing.keeps_rows() {
            let message = format!("a window that depends on single rows over \"{name}\", which filters or joins them");
            let hint = "put the window on the stream that it reads, or give it a range and a slide";
            return Err(Error::unsupported(message, hint).at(clause.location));
        }
        let event_time = definition.event_time.map(|rule| rule.column);
        let shown = (0..plan.schema().fields().len()).find(|index| passing.source_column(*index) == event_time);
        let shown = shown.filter(|_| event_time.is_some()).map(|index| plan.schema().field(index).name().as_str());
        check_time_column(name, clause, shown)?;
        let keys = self.keys(name, plan.schema().inner(), clause)?.into_iter().map(|key| {
            passing.source_column(key).ok_or_else(|| {
                let column = plan.schema().field(key).name();
                let error = Error::new(format!("\"{column}\" of \"{name}\" is no column of its stream"));
                error.hint("keep rows apart by a column that is shown as it is").at(clause.location)
            })
        });
        let keys = keys.collect::<Result<Vec<_>>>()?;
        passing.windowed(clause.spec, &keys).map(Some).map_err(unplanned)
    }
}

fn unplanned(error: DataFusionError) -> Error {
    Error { source: Some(Arc::new(error)), ..Error::new("the window cannot be planned") }
}

/// Checks that the column a window names as its time is the one that has the watermark.
fn check_time_column(name: &str, clause: &WindowClause, event_time: Option<&str>) -> Result<()> {
    let Some((column, place)) = &clause.time_column else { return Ok(()) };
    if event_time.is_some_and(|event_time| event_time == column || event_time.to_lowercase() == *column) {
        return Ok(());
    }
    let message = match event_time {
        Some(other) => format!("\"{name}\" has its watermark for \"{other}\", not for \"{column}\""),
        None => format!("stream \"{name}\" has no watermark for \"{column}\""),
    };
    let hint = match event_time {
        Some(other) => format!("write {other} in its place"),
        None => format!("add WATERMARK FOR {column} AS {column} - INTERVAL '5 seconds' to its CREATE STREAM"),
    };
    Err(Error::new(message).hint(hint).at(*place))
}

impl Names {
    /// The relation `state('query')` or `state('query', 'input')`.
    fn plan_state(&self, args: &TableFunctionArgs) -> Result<LogicalPlan> {
        let (query, input) = match args.args.iter().map(text_argument).collect::<Option<Vec<_>>>().as_deref() {
            Some([query]) => (query.clone(), None),
            Some([query, input]) => (query.clone(), Some(input.clone())),
            _ => {
                let error = Error::new("state takes the name of a query");
                return Err(error.hint("write state('name'), or state('name', 'input') if it has several inputs"));
            }
        };
        let Some(states) = &self.states else {
            let error = Error::new(format!("there is no state of \"{query}\" to read: nothing is kept"));
            return Err(error.hint("give a state directory: --state-dir DIR"));
        };
        let rows = states.state(&query, input.as_deref()).map_err(|error| {
            let hint = error.hint().unwrap_or_default().to_owned();
            Error::new(error.to_string()).hint(hint)
        })?;
        let name = match input {
            None => format!("state('{query}')"),
            Some(input) => format!("state('{query}', '{input}')"),
        };
        if self.views.is_empty() {
            self.reads.note(&name);
        }
        let rows = self.reads.fixed(&name, rows);
        let scanned = LogicalPlanBuilder::scan(TableReference::bare(name), provider_as_source(rows), None)
            .and_then(|plan| plan.alias("state"))
            .and_then(LogicalPlanBuilder::build);
        scanned.map_err(|error| Error { source: Some(Arc::new(error)), ..Error::new("the state cannot be read") })
    }

    /// What a WITH clause that is in force calls `name`; none if the name is the catalog's.
    fn with_name(
        &self,
        relation: &TableFactor,
        name: &str,
        context: &mut dyn RelationPlannerContext,
    ) -> Option<DataFusionResult<LogicalPlan>> {
        let mut bare = relation.clone();
        if let TableFactor::Table { args, alias, .. } = &mut bare {
            (*args, *alias) = (None, None);
        }
        match self.catalog.relation(name) {
            // The planner looks into the WITH clauses first, which a scan of the relation itself does not come from.
            Some(Relation::Stream(_) | Relation::Table { .. }) => {
                let plan = context.plan(bare);
                (!matches!(plan, Ok(LogicalPlan::TableScan(_)))).then_some(plan)
            }
            Some(_) if self.with_names.contains(&name.to_owned()) => {
                let error = Error::new(format!("\"{name}\" is a view, and a name of the WITH clause too"));
                Some(Err(external(error.hint("give one of them another name"))))
            }
            Some(_) => None,
            None => context.plan(bare).ok().map(Ok),
        }
    }
}

impl RelationPlanner for Names {
    fn plan_relation(
        &self,
        relation: TableFactor,
        context: &mut dyn RelationPlannerContext,
    ) -> DataFusionResult<RelationPlanning> {
        refuse_ignored(&relation)?;
        refuse_lateral_unnest(&relation)?;
        let TableFactor::Table { name, alias, args: Some(args), .. } = &relation else {
            return Ok(RelationPlanning::Original(Box::new(relation)));
        };
        if name.to_string().eq_ignore_ascii_case("state") {
            let plan = self.plan_state(args).map_err(|error| external(error.at(place(name))))?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))));
        }
        let Some(clause) = window_number(args).and_then(|number| self.windows.get(number)) else {
            let error = Error::unsupported(format!("the table function {name}"), TABLE_FUNCTIONS);
            return Err(external(error.at(place(name))));
        };
        let table = context.object_name_to_table_reference(name.clone())?;
        if let Some(plan) = self.with_name(&relation, &table.to_string(), context) {
            let plan = self.plan_with_name(&plan?, &table.to_string(), clause);
            let plan = plan.map_err(|error| external(error.at(place(name))))?;
            let plan = LogicalPlanBuilder::from(plan).alias(table)?.build()?;
            return Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))));
        }
        let plan = self.plan_windowed(table, clause).map_err(|error| external(error.at(place(name))))?;
        Ok(RelationPlanning::Planned(Box::new(PlannedRelation::new(plan, alias.clone()))))
    }
}

/// The text in quotes that an argument is.
fn text_argument(argument: &FunctionArg) -> Option<String> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Value(value))) => value.value.clone().into_string(),
        _ => None,
    }
}

/// The number in the argument that stands for a window.
fn window_number(args: &TableFunctionArgs) -> Option<usize> {
    match args.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(SqlExpr::Identifier(name)))] => {
            name.value.strip_prefix(WINDOW_ARGUMENT)?.parse().ok()
        }
        _ => None,
    }
}

pub(crate) fn place(name: &ObjectName) -> Option<Location> {
    location(name.span().start)
}

pub(crate) fn external(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}

impl TableSource for ViewSource {
    fn schema(&self) -> SchemaRef {
        Arc::clone(self.plan.schema().inner())
    }

    fn get_logical_plan(&'_ self) -> Option<Cow<'_, LogicalPlan>> {
        Some(Cow::Borrowed(&self.plan))
    }
}

impl ContextProvider for Scope {
    fn get_table_source(&self, name: TableReference) -> DataFusionResult<Arc<dyn TableSource>> {
        self.names.source(&name.to_string()).map_err(external)
    }

    fn get_table_function_source(&self, name: &str, _args: Vec<Expr>) -> DataFusionResult<Arc<dyn TableSource>> {
        let error = Error::unsupported(format!("the table function {name}"), TABLE_FUNCTIONS);
        Err(external(error))
    }

    fn get_expr_planners(&self) -> &[Arc<dyn ExprPlanner>] {
        self.names.state.expr_planners()
    }

    fn get_relation_planners(&self) -> &[Arc<dyn RelationPlanner>] {
        &self.planners
    }

    fn get_type_planner(&self) -> Option<Arc<dyn TypePlanner>> {
        None
    }

    fn get_function_meta(&self, name: &str) -> Option<Arc<ScalarUDF>> {
        let declared = self.names.catalog.functions.scalar(name);
        declared.or_else(|| self.names.state.scalar_functions().get(name)).cloned()
    }

    fn get_higher_order_meta(&self, name: &str) -> Option<Arc<HigherOrderUDF>> {
        self.names.state.higher_order_functions().get(name).cloned()
    }

    fn get_aggregate_meta(&self, name: &str) -> Option<Arc<AggregateUDF>> {
        let declared = self.names.catalog.functions.aggregate(name);
        declared.or_else(|| self.names.state.aggregate_functions().get(name)).cloned()
    }

    fn get_window_meta(&self, name: &str) -> Option<Arc<WindowUDF>> {
        self.names.state.window_functions().get(name).cloned()
    }

    fn get_variable_type(&self, _variable_names: &[String]) -> Option<DataType> {
        None
    }

    fn options(&self) -> &ConfigOptions {
        self.names.state.config_options()
    }

    fn udf_names(&self) -> Vec<String> {
        let declared = self.names.catalog.functions.names(RelationKind::Function).map(str::to_owned);
        declared.chain(self.names.state.scalar_functions().keys().cloned()).collect()
    }

    fn higher_order_function_names(&self) -> Vec<String> {
        self.names.state.higher_order_functions().keys().cloned().collect()
    }

    fn udaf_names(&self) -> Vec<String> {
        let declared = self.names.catalog.functions.names(RelationKind::Aggregate).map(str::to_owned);
        declared.chain(self.names.state.aggregate_functions().keys().cloned()).collect()
    }

    fn udwf_names(&self) -> Vec<String> {
        self.names.state.window_functions().keys().cloned().collect()
    }
}
