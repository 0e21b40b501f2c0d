//! A writer's reign over a table: its commits, and what becomes of them when other programs commit meanwhile.
//!
//! An epoch adds rows and reads none, so that it goes in on whatever another program has made of the table, as by rows
//! deleted, files rewritten or properties set. The protocol's conflict check cannot know that, and stops a commit on
//! most of these. The table is read again then, and the same file committed again, unless the log says that
//!
//! - a newer run writes, which has entered its term;
//! - the epoch is in already;
//! - the table no longer fits the rows.

use std::sync::Arc;

use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::protocol::checkpoints::create_checkpoint;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::config::TablePropertiesExt;
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableError};
use millstream_engine::Result;
use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::sink::SinkWriter;

use super::super::relation::{epoch_of, signed};
use super::super::taken_over;
use super::Target;

/// How often a commit is tried while other programs keep coming first.
const COMMIT_ATTEMPTS: usize = 20;

/// A table under one writer.
#[derive(Debug)]
pub(super) struct Reign {
    pub(super) writer: SinkWriter,
    /// The last epoch that is in.
    pub(super) last: Option<Epoch>,
    target: Target,
    log: LogStoreRef,
    state: DeltaTableState,
}

impl Reign {
    /// Enters the writer's term in the log of a table that has been read.
    ///
    /// # Errors
    /// Refuses a table that does not fit the rows, and an older term than that in the log.
    pub(super) async fn begin(target: &Target, table: &DeltaTable, writer: &SinkWriter) -> Result<Self> {
        let state = table.snapshot().map_err(|error| target.failed(error))?.clone();
        let mut reign =
            Self { writer: writer.clone(), last: None, target: target.clone(), log: table.log_store(), state };
        reign.read_log().await?;
        durable_step("delta.begin");
        let mut attempt = 1;
        // The writer before commits until it finds the term.
        while let Err(error) = reign.write(None).await {
            reign.make_way(error, attempt).await?;
            reign.read_log().await?;
            attempt += 1;
        }
        Ok(reign)
    }

    /// Adds a file to the table as the rows of an epoch.
    ///
    /// # Errors
    /// Fails once a newer run has begun, and if another program has made a table of it that does not fit the rows.
    pub(super) async fn commit(&mut self, epoch: Epoch, file: &Add) -> Result<()> {
        let mut attempt = 1;
        while let Err(error) = self.write(Some((epoch, file))).await {
            self.make_way(error, attempt).await?;
            if self.is_in(epoch).await? {
                break;
            }
            attempt += 1;
        }
        self.last = Some(epoch);
        Ok(())
    }

    /// Reads which epochs are in, before the term is entered.
    async fn read_log(&mut self) -> Result<()> {
        self.target.check(&self.state, &self.writer.query)?;
        if self.logged(term_id(&self.writer.query)).await? > Some(signed(self.writer.term)) {
            return Err(taken_over(&self.target.place()));
        }
        self.last = self.logged(epoch_id(&self.writer.query)).await?.map(epoch_of);
        Ok(())
    }

    /// Whether an epoch is in after all; if not, it may go in.
    async fn is_in(&self, epoch: Epoch) -> Result<bool> {
        if self.logged(term_id(&self.writer.query)).await? != Some(signed(self.writer.term)) {
            return Err(taken_over(&self.target.place()));
        }
        if self.logged(epoch_id(&self.writer.query)).await? >= Some(signed(epoch.0)) {
            return Ok(true);
        }
        self.target.check(&self.state, &self.writer.query)?;
        Ok(false)
    }

    /// What the log says under an id, as of the commit that was read last.
    async fn logged(&self, id: String) -> Result<Option<i64>> {
        let version = self.state.transaction_version(self.log.as_ref(), id).await;
        version.map_err(|error| self.target.failed(error))
    }

    /// Reads the table again if a commit of another program was in the way of an attempt, counted from 1.
    ///
    /// # Errors
    /// Returns `error` if it is something else, or the last attempt's.
    async fn make_way(&mut self, error: DeltaTableError, attempt: usize) -> Result<()> {
        let is_conflict = matches!(error, DeltaTableError::Transaction { source: TransactionError::CommitConflict(_) });
        if !is_conflict || attempt == COMMIT_ATTEMPTS {
            return Err(self.target.failed(error));
        }
        tracing::info!(%error, attempt, "another program has committed, the table is read again");
        let state = DeltaTableState::try_new(self.log.as_ref(), None).await;
        self.state = state.map_err(|error| self.target.failed(error))?;
        Ok(())
    }

    /// Commits the writer's term, and with it the file of an epoch if there is one.
    async fn write(&mut self, added: Option<(Epoch, &Add)>) -> Result<(), DeltaTableError> {
        let SinkWriter { query, term } = &self.writer;
        let mut transactions = vec![Transaction::new(term_id(query), signed(*term))];
        transactions.extend(added.map(|(epoch, _)| Transaction::new(epoch_id(query), signed(epoch.0))));
        let properties = CommitProperties::default()
            .with_application_transactions(transactions)
            // Once the epoch is in, the commit is not to fail; a checkpoint may.
            .with_create_checkpoint(false)
            .with_cleanup_expired_logs(Some(false));
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let actions = added.into_iter().map(|(_, file)| Action::Add(file.clone())).collect();
        let commit = CommitBuilder::from(properties).with_actions(actions).build(
            Some(&self.state),
            Arc::clone(&self.log),
            operation,
        );
        let committed = commit.await?;
        self.state = committed.snapshot();
        self.checkpoint_if_due().await;
        Ok(())
    }

    /// Writes a checkpoint of the log where the table wants one, by default at every hundredth commit. Without it
    /// readers only have more of the log to read.
    async fn checkpoint_if_due(&self) {
        let (version, interval) = (self.state.version(), self.state.table_config().checkpoint_interval());
        if !(version + 1).is_multiple_of(interval.get()) {
            return;
        }
        let mut table = DeltaTable::new(Arc::clone(&self.log));
        table.state = Some(self.state.clone());
        durable_step("delta.checkpoint");
        if let Err(error) = create_checkpoint(&table, None).await {
            tracing::warn!(%error, version, table = %self.target.place(), "the log has got no checkpoint");
        }
    }
}

/// Under which id the log says which epochs of a query are in.
fn epoch_id(query: &str) -> String {
    format!("millstream-{query}")
}

/// Under which id the log says who may write the next.
fn term_id(query: &str) -> String {
    format!("millstream-{query}-term")
}
