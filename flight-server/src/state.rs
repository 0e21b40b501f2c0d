//! State directories: opened by `run`, looked into by `state`.

use std::path::PathBuf;
use std::sync::Arc;

use datafusion::catalog::TableProvider;

use millstream_engine::CheckpointPolicy;
use millstream_engine::durable::{self, Misfit, StateDirectory, StatePlace};
use millstream_engine::results::QueryStates;

use crate::cli::{Durability, StateArgs, StateCommand};
use crate::error::{Error, Result};
use crate::queries::thousands;

/// A state directory and how queries use it.
#[derive(Debug)]
pub struct State {
    /// The directory.
    pub directory: StateDirectory,
    place: StatePlace,
    /// What its files survive.
    pub durability: durable::Durability,
    /// When its queries are checkpointed.
    pub policy: CheckpointPolicy,
    /// What becomes of the state of a query that has changed.
    pub misfit: Misfit,
}

impl State {
    /// Opens the directory at `place`, or makes it.
    ///
    /// # Errors
    /// Fails if another process has it, or it cannot be used.
    pub fn open(place: &StatePlace, args: &StateArgs) -> Result<Self> {
        let durability = match args.durability {
            Durability::PowerLoss => durable::Durability::PowerLoss,
            Durability::ProcessCrash => durable::Durability::ProcessCrash,
        };
        let usual = CheckpointPolicy::default();
        let policy = CheckpointPolicy {
            interval: args.checkpoint_interval.unwrap_or(usual.interval),
            recovery_target: args.recovery_target.unwrap_or(usual.recovery_target),
            epochs: args.checkpoint_epochs.unwrap_or(usual.epochs),
            ..usual
        };
        let log_limit = args.log_limit.unwrap_or(durable::WAL_LIMIT_BYTES);
        let misfit = if args.drop_state { Misfit::Drop } else { Misfit::Refuse };
        let directory = StateDirectory::open(place, durability)?.with_log_limit(log_limit);
        Ok(Self { directory, place: place.clone(), durability, policy, misfit })
    }
}

impl State {
    /// Where it is.
    pub(crate) const fn place(&self) -> &StatePlace {
        &self.place
    }

    /// The states of its queries.
    pub(crate) fn states(&self) -> Arc<CheckpointedStates> {
        Arc::new(CheckpointedStates(self.place.clone()))
    }

    /// Where the rows of a materialized view are kept, by the name of its query.
    ///
    /// # Errors
    /// Fails where the state directory is no folder.
    pub(crate) fn view_file(&self, query: &str) -> Result<PathBuf> {
        let StatePlace::Folder(folder) = &self.place else {
            let message = format!("{query} cannot keep its rows in {}", self.place);
            let hint = "keep state in a folder, or write INSERT INTO a sink";
            return Err(millstream_engine::Error::state(message, hint).into());
        };
        Ok(folder.join("views").join(format!("{}.sqlite", durable::file_name(query))))
    }
}

/// The states of the queries of a directory, as their newest checkpoints have them.
#[derive(Debug)]
pub(crate) struct CheckpointedStates(StatePlace);

impl QueryStates for CheckpointedStates {
    fn state(&self, query: &str, input: Option<&str>) -> millstream_engine::Result<Arc<dyn TableProvider>> {
        millstream_connectors::state_table(&self.0, query, input)
    }
}

/// Carries out a `state` command; what it finds goes to stdout.
///
/// # Errors
/// Fails if the directory cannot be read, and for `verify` if anything in it is damaged.
pub fn run(command: &StateCommand) -> Result<()> {
    match command {
        StateCommand::Inspect { dir } => inspect(dir),
        StateCommand::Verify { dir } => verify(dir),
        StateCommand::Forget { dir, query } => forget(dir, query),
    }
}

fn inspect(dir: &StatePlace) -> Result<()> {
    let mut text = String::new();
    for query in durable::inspect(dir)? {
        text.push_str(&format!("{}  id {}\n", query.name, query.id));
        text.push_str(&format!("  committed epochs {}, open {}\n", thousands(query.committed), query.open));
        text.push_str(&format!(
            "  rows read {}, written {}\n",
            thousands(query.rows_read),
            thousands(query.rows_written)
        ));
        text.push_str(&format!("  epochs since the last checkpoint {}\n", thousands(query.lineage)));
        for checkpoint in &query.checkpoints {
            text.push_str(&format!(
                "  checkpoint before epoch {}: watermark {}, {} file(s), {} rows, {} bytes\n",
                checkpoint.epoch,
                checkpoint.watermark,
                checkpoint.files.len(),
                thousands(checkpoint.files.iter().map(|file| file.rows).sum()),
                thousands(checkpoint.files.iter().map(|file| file.bytes).sum()),
            ));
            for file in &checkpoint.files {
                text.push_str(&format!("    {}\n", file.path));
            }
        }
    }
    if text.is_empty() {
        text.push_str("no queries\n");
    }
    print(&text)
}

fn verify(dir: &StatePlace) -> Result<()> {
    let report = durable::verify(dir)?;
    let mut text = String::new();
    for fault in &report.faults {
        text.push_str(&format!("{fault}\n"));
    }
    text.push_str(&format!("checked {} files, {} bytes\n", report.files, thousands(report.bytes)));
    print(&text)?;
    match report.faults.len() {
        0 => Ok(()),
        count => Err(millstream_engine::Error::state(
            format!("{count} of the files in {dir} cannot be used"),
            "a damaged checkpoint is replaced by the one before it; for anything else restore the directory from a copy",
        )
        .into()),
    }
}

fn forget(dir: &StatePlace, query: &str) -> Result<()> {
    let directory = StateDirectory::open(dir, durable::Durability::PowerLoss)?;
    if directory.forget_query(query)? {
        return print(&format!("forgot {query}\n"));
    }
    let known: Vec<_> = directory.queries().into_keys().collect();
    let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
    Err(Error::Usage(format!("{dir} keeps no query {query:?}; it keeps {known}")))
}

fn print(text: &str) -> Result<()> {
    use std::io::Write as _;
    let written = std::io::stdout().write_all(text.as_bytes());
    written.map_err(|source| Error::Io { context: "cannot write to stdout".to_owned(), source })
}
