//! What `EXPLAIN ANALYZE` shows: the plans of a query with what they have done.

use std::fmt;

use crate::executor::stage::StageCounts;
use crate::program::Explanation;

/// A query, or a view that it reads through windows, after a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageAnalysis {
    /// The view; none for the query itself.
    pub view: Option<String>,
    /// Its plans, whose operators say what they have done in all executions together.
    pub explanation: Explanation,
    /// Where its rows went, and what its state cost.
    pub counts: StageCounts,
}

impl fmt::Display for StageAnalysis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(view) = &self.view {
            writeln!(f, "view {view}")?;
        }
        write!(f, "{}", self.explanation)?;
        writeln!(f, "rows")?;
        for (input, rows) in &self.counts.inputs {
            writeln!(
                f,
                "  {input}: read={}, used={}, filtered={}, late={}, outside={}",
                rows.read, rows.used, rows.filtered, rows.late, rows.outside
            )?;
        }
        let StageCounts { instants, state_rows_read, state_bytes, most_state_bytes, .. } = self.counts;
        writeln!(f, "run")?;
        writeln!(f, "  instants={instants}, state_rows_read={state_rows_read}")?;
        writeln!(f, "  state_bytes={state_bytes}, most_state_bytes={most_state_bytes}")
    }
}
