//! A query run by the engine in several ways, and by DataFusion over each window: the same rows and columns.

use millstream_engine::plan::Emission;
use millstream_engine::testing::run_scripts;

use super::Log;
use super::batch::{AtInstant, Relation, logical_plan, results};
use super::cut::Way;
use super::table::{Cells, cells_of, columns_of, difference};

/// A query over windowed tables.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) sql: &'static str,
    /// The same where DataFusion does not order by itself what the engine orders by position or by all columns.
    pub(crate) ordered: &'static str,
    /// How much further apart doubles may lie than sums of the window's doubles.
    pub(crate) slack: f64,
}

/// A query that DataFusion answers in one way only.
pub(crate) const fn query(sql: &'static str) -> Query {
    Query { sql, ordered: sql, slack: 1.0 }
}

impl Query {
    /// The relations it names.
    pub(crate) fn relations(&self, all: &[Relation]) -> Vec<Relation> {
        let words: Vec<_> = self.sql.split(|c: char| !c.is_alphanumeric() && c != '.').collect();
        let reads = |table: &str| words.windows(2).any(|pair| ["FROM", "JOIN"].contains(&pair[0]) && pair[1] == table);
        all.iter().filter(|relation| reads(&relation.table)).cloned().collect()
    }
}

/// Runs `query` in all `ways`; says what differs from the batch query over each window.
pub(crate) async fn check(query: &Query, logs: &[Log], relations: &[Relation], ways: &[Way]) -> Result<(), String> {
    let relations = query.relations(relations);
    let results = results(query.ordered, &relations).await;
    let of_instant = |result: &AtInstant| cells_of(&result.batches, result.slack * query.slack);
    let expected: Vec<_> = results.values().flat_map(of_instant).collect();
    let columns = results.values().find_map(|result| columns_of(&result.batches));
    for way in ways {
        let differs = |difference: String| {
            let windows: Vec<_> = relations.iter().map(|relation| (&relation.table, relation.window)).collect();
            format!("{windows:?} {way:?}\n{}\n{difference}", query.sql)
        };
        let (actual, found) = answer(query, logs, &relations, way).await.map_err(differs)?;
        difference(&actual, &expected).map_err(differs)?;
        if found != columns {
            return Err(differs(format!("  columns {found:?}\n  are not {columns:?}")));
        }
    }
    Ok(())
}

type Columns = Option<Vec<(String, datafusion::arrow::datatypes::DataType)>>;

/// What the engine answers.
async fn answer(
    query: &Query,
    logs: &[Log],
    relations: &[Relation],
    way: &Way,
) -> Result<(Vec<Cells>, Columns), String> {
    let logical = logical_plan(query.sql, relations).await;
    let scripts: Vec<_> = logs.iter().map(Log::script).collect();
    let run =
        run_scripts(&logical, &scripts, &mut way.cut(), way.options_of(&logical, Emission::default()), None).await;
    let batches = run.map_err(|error| format!("  {error}: {error:?}"))?.batches();
    Ok((cells_of(&batches, 0.0), columns_of(&batches)))
}
