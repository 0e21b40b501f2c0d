//! Inner joins on equalities taken apart into their leaves, and put together again over the grouped leaves.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema, DFSchemaRef, NullEquality, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, ExprSchemable, Join, JoinType, LogicalPlan, LogicalPlanBuilder, SubqueryAlias};

use super::grouping::Grouping;
use super::safe::never_fails;

/// The leaves of a tree of joins and what joins them.
#[derive(Debug)]
pub(super) struct Joined {
    pub(super) leaves: Vec<Leaf>,
    equalities: Vec<Equality>,
    /// What the columns of the joined rows are, over those of the leaves.
    columns: Vec<Expr>,
    /// The schema that `columns` belongs to.
    shown: DFSchemaRef,
    /// The columns of all leaves.
    pub(super) schema: DFSchema,
}

/// A scan with its filters and projections, and what is kept of it.
#[derive(Debug)]
pub(super) struct Leaf {
    plan: LogicalPlan,
    name: String,
    pub(super) grouping: Grouping,
}

/// Two leaves and the columns of their groupings that are equal.
#[derive(Debug)]
struct Equality {
    sides: [(usize, Expr); 2],
}

/// The leaves whose columns an expression reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    None,
    One(usize),
    Many,
}

impl Joined {
    /// Takes `plan` apart; `None` if it is anything but inner joins on equalities.
    pub(super) fn read(plan: &LogicalPlan) -> DataFusionResult<Option<Self>> {
        let shown = Arc::clone(plan.schema());
        let (leaves, equalities) = (Vec::new(), Vec::new());
        let mut joined = Self { leaves, equalities, columns: Vec::new(), shown, schema: DFSchema::empty() };
        let Some(columns) = joined.add(plan)? else { return Ok(None) };
        joined.columns = columns;
        Ok((joined.leaves.len() > 1).then_some(joined))
    }

    /// Adds the leaves and equalities of `plan`; its columns, over those of the leaves.
    fn add(&mut self, plan: &LogicalPlan) -> DataFusionResult<Option<Vec<Expr>>> {
        if is_leaf(plan) {
            return self.add_leaf(plan).map(Some);
        }
        match plan {
            LogicalPlan::Join(join) if is_plain(join) => self.add_join(join),
            LogicalPlan::SubqueryAlias(alias) => self.add(&alias.input),
            LogicalPlan::Projection(projection) => {
                let Some(columns) = self.add(&projection.input)? else { return Ok(None) };
                let over_leaves = |expression: &Expr| resolve(expression, projection.input.schema(), &columns);
                projection.expr.iter().map(over_leaves).collect::<DataFusionResult<_>>().map(Some)
            }
            _ => Ok(None),
        }
    }

    fn add_leaf(&mut self, plan: &LogicalPlan) -> DataFusionResult<Vec<Expr>> {
        let name = format!("factored_{}", self.leaves.len() + 1);
        // Under names of their own the columns of two scans of one stream are told apart.
        let alias = SubqueryAlias::try_new(Arc::new(plan.clone()), name.as_str())?;
        let columns = alias.schema.columns().into_iter().map(Expr::Column).collect();
        self.schema.merge(&alias.schema);
        let grouping = Grouping::new(name.clone());
        self.leaves.push(Leaf { plan: LogicalPlan::SubqueryAlias(alias), name, grouping });
        Ok(columns)
    }

    fn add_join(&mut self, join: &Join) -> DataFusionResult<Option<Vec<Expr>>> {
        let before = self.leaves.len();
        let Some(mut columns) = self.add(&join.left)? else { return Ok(None) };
        let between = self.leaves.len();
        let Some(right_columns) = self.add(&join.right)? else { return Ok(None) };
        let after = self.leaves.len();
        for (left, right) in &join.on {
            // The join itself computes a key for every row of a leaf, so there it may fail as it did.
            let left = self.join_key(resolve(left, join.left.schema(), &columns)?, between - before == 1)?;
            let right = self.join_key(resolve(right, join.right.schema(), &right_columns)?, after - between == 1)?;
            let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
            self.equalities.push(Equality { sides: [left, right] });
        }
        columns.extend(right_columns);
        Ok(Some(columns))
    }

    /// The leaf of a join key and the column of its grouping.
    fn join_key(&mut self, key: Expr, may_fail: bool) -> DataFusionResult<Option<(usize, Expr)>> {
        let Side::One(leaf) = self.side(&key) else { return Ok(None) };
        let kind = key.get_type(&self.schema)?;
        // Groups hold values to be equal that joins tell apart, such as 0.0 and -0.0.
        if kind.is_floating() || kind.is_nested() || key.is_volatile() {
            return Ok(None);
        }
        if !may_fail && !never_fails(&key, &self.schema)? {
            return Ok(None);
        }
        Ok(self.leaves.get_mut(leaf).map(|known| (leaf, known.grouping.key(key))))
    }

    /// The column of a leaf's grouping that holds the group key `key`, an expression over the joined rows.
    pub(super) fn group_key(&mut self, key: &Expr) -> DataFusionResult<Option<Expr>> {
        let key = self.over_leaves(key)?;
        let Side::One(leaf) = self.side(&key) else { return Ok(None) };
        if !never_fails(&key, &self.schema)? {
            return Ok(None);
        }
        Ok(self.leaves.get_mut(leaf).map(|known| known.grouping.key(key)))
    }

    /// An expression over the joined rows as one over the columns of the leaves.
    pub(super) fn over_leaves(&self, expression: &Expr) -> DataFusionResult<Expr> {
        resolve(expression, &self.shown, &self.columns)
    }

    /// The leaves that an expression over their columns reads.
    pub(super) fn side(&self, expression: &Expr) -> Side {
        let references = expression.column_refs();
        let names: BTreeSet<_> = references.iter().filter_map(|c| Some(c.relation.as_ref()?.table())).collect();
        let found: Vec<_> = (0..).zip(&self.leaves).filter(|(_, leaf)| names.contains(leaf.name.as_str())).collect();
        match found.as_slice() {
            [] => Side::None,
            [(leaf, _)] => Side::One(*leaf),
            _ => Side::Many,
        }
    }

    /// The join of the grouped leaves; `None` if it would not be one by equalities throughout.
    pub(super) fn into_plan(self) -> DataFusionResult<Option<LogicalPlan>> {
        let mut waiting = Vec::new();
        for (number, leaf) in self.leaves.into_iter().enumerate() {
            waiting.push((number, leaf.grouping.over(leaf.plan)?));
        }
        let (first, mut plan) = waiting.remove(0);
        let mut placed = BTreeSet::from([first]);
        while !waiting.is_empty() {
            let reachable = waiting.iter().position(|(leaf, _)| !keys(&self.equalities, &placed, *leaf).0.is_empty());
            let Some(next) = reachable else { return Ok(None) };
            let (leaf, right) = waiting.remove(next);
            let on = keys(&self.equalities, &placed, leaf);
            plan = LogicalPlanBuilder::from(plan).join(right, JoinType::Inner, on, None)?.build()?;
            placed.insert(leaf);
        }
        Ok(Some(plan))
    }
}

/// The columns that join the leaf `new` to those in `placed`.
fn keys(equalities: &[Equality], placed: &BTreeSet<usize>, new: usize) -> (Vec<Column>, Vec<Column>) {
    let mut keys = (Vec::new(), Vec::new());
    for Equality { sides: [left, right] } in equalities {
        for ((known, known_key), (other, other_key)) in [(left, right), (right, left)] {
            let (Expr::Column(known_key), Expr::Column(other_key)) = (known_key, other_key) else { continue };
            if placed.contains(known) && *other == new {
                keys.0.push(known_key.clone());
                keys.1.push(other_key.clone());
            }
        }
    }
    keys
}

/// Whether `plan` is a scan under filters and projections.
fn is_leaf(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::TableScan(scan) => scan.fetch.is_none(),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().into_iter().all(is_leaf)
        }
        _ => false,
    }
}

fn is_plain(join: &Join) -> bool {
    join.join_type == JoinType::Inner
        && join.filter.is_none()
        && join.null_equality == NullEquality::NullEqualsNothing
        && !join.on.is_empty()
}

/// `expression` over `schema`, with its columns replaced by what they are.
fn resolve(expression: &Expr, schema: &DFSchema, columns: &[Expr]) -> DataFusionResult<Expr> {
    // What the optimiser computes once for several expressions keeps their names inside of them.
    let resolved = expression.clone().unalias_nested().data.transform(|part| match &part {
        Expr::Column(column) => match columns.get(schema.index_of_column(column)?) {
            Some(known) => Ok(Transformed::yes(known.clone())),
            None => internal_err!("a join shows no column {column}"),
        },
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(resolved.data)
}
