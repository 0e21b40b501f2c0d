//! Queries that nothing keeps and whose state lies at executors: what they need to outlive those is kept for as long as
//! this process lives.

use millstream_engine::Error as EngineError;
use millstream_engine::durable::{Durability, Misfit};
use millstream_engine::query::{Handles, PlannedQuery, Query, Recipe};

use super::engine::Engine;
use super::running::{Begun, Held, Job, unplanned};
use crate::declarations::StreamSides;
use crate::error::{Error, Result};

impl Engine {
    /// Whether all that a query reads can be read again when an executor is lost, and its late rows go nowhere.
    pub(super) fn can_be_read_again(&self, query: &PlannedQuery, sides: &StreamSides) -> Result<bool> {
        let mut is_replayable = query.late_guarantee().is_none();
        for stream in query.streams() {
            is_replayable &= self.open_stream(stream, sides)?.is_replayable();
        }
        Ok(is_replayable)
    }

    /// Begins a query that nothing keeps and whose state lies at executors.
    pub(super) fn begin_spread(&self, job: Job, sides: &StreamSides) -> Result<Begun> {
        let Job { query, sink, stop, kept } = job;
        let (name, recipe) = (query.name().to_owned(), query.recipe());
        let (query, held) = self.placed_for_now(query, sides)?;
        Ok(Begun { name, query, recipe: Some(recipe), sink, stop, held, kept })
    }

    /// Gives a query a place for as long as this process lives.
    fn placed_for_now(&self, query: PlannedQuery, sides: &StreamSides) -> Result<(Query, Held)> {
        let cluster = self.shared.cluster.as_ref().ok_or_else(|| EngineError::internal("there are no executors"))?;
        let (directory, place) = cluster.scratch();
        let query = query.stored_at(place, Durability::ProcessCrash);
        // Paced as those that are kept.
        let policy = self.shared.home.as_ref().map(|home| home.state().policy).unwrap_or_default();
        self.placed(query, directory, policy, Misfit::Refuse, sides)
    }

    /// Begins a query anew that has lost executors, where the lineage says it was.
    pub(super) async fn again(&self, recipe: &Recipe, handles: &Handles) -> millstream_engine::Result<(Query, Held)> {
        let query = recipe.plan().await?;
        let sides = self.declared().sides.clone();
        let (query, held) = self.placed_for_now(query, &sides).map_err(|error| match error {
            Error::Engine(error) => error,
            other => unplanned(&other),
        })?;
        Ok((query.continuing(handles), held))
    }

    /// Forgets what was kept of a query for as long as it ran.
    pub(super) fn forget_for_good(&self, name: &str) {
        let Some(cluster) = &self.shared.cluster else { return };
        if let Err(error) = cluster.scratch().0.forget_query(name) {
            tracing::warn!(query = name, %error, "what is left of a query could not be removed");
        }
    }
}
