//! What the state of a query means, and whether a query can go on with it.
//!
//! A contract is the text of all that decides it: the declarations of the streams, windows, the plans that make state,
//! its columns. Every checkpoint has that of its state; `query.json` has that of the query as it was first started, for
//! the time before the first checkpoint.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::files::Files;
use super::journal::failed;
use super::record::{read_single, write_single};
use crate::checkpoint::Manifest;
use crate::error::{Error, Result};
use crate::executor::stream_contract;
use crate::plan::StreamDefinition;

/// What becomes of state that does not fit its query any more.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Misfit {
    /// The query is refused.
    #[default]
    Refuse,
    /// The query goes on in its input without it: windows that are open lack the rows that were read before.
    Drop,
}

/// The version of DataFusion and the contracts of all stages, views first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Contract {
    datafusion: String,
    text: String,
}

impl Contract {
    /// That of a query as this program runs it.
    pub(super) fn new<'a>(stages: impl Iterator<Item = &'a str>) -> Self {
        Self { datafusion: datafusion::DATAFUSION_VERSION.to_owned(), text: stages.collect() }
    }

    /// That of a checkpoint.
    pub(super) fn of(manifest: &Manifest) -> Self {
        let text = manifest.stages.iter().map(|stage| stage.contract.as_str()).collect();
        Self { datafusion: manifest.datafusion.clone(), text }
    }

    /// That of the query in `folder` as it was first started, which is this one if it has never been.
    pub(super) fn first(&self, files: &dyn Files, folder: &str) -> Result<Self> {
        let path = query_path(folder);
        let fail = |error| failed(files, &path, error);
        if files.create(&path, &write_single(self)?).map_err(fail)? {
            return Ok(self.clone());
        }
        read_query(files, folder)
    }

    /// Whether the query `name` of this contract can go on with state of the contract `kept`.
    ///
    /// # Errors
    /// Names what differs if it cannot.
    pub(super) fn check(&self, name: &str, kept: &Self) -> Result<()> {
        let hint = format!(
            "run the earlier version; or begin anew from the input: `millstream state forget DIR \"{name}\"` drops what \
             is kept of the query, and its results must go elsewhere; or go on in the input without the state: \
             --drop-state"
        );
        let (theirs, ours) = (major(&kept.datafusion), major(&self.datafusion));
        if theirs != ours {
            let message = format!(
                "the state of query \"{name}\" was made by DataFusion {theirs}, which {ours} cannot be sure to read"
            );
            return Err(Error::state(message, hint));
        }
        if kept.text == self.text {
            return Ok(());
        }
        let diff = diff(&kept.text, &self.text);
        let message = format!("query \"{name}\" has changed so that its state does not fit:\n{diff}");
        Err(Error::state(message, hint))
    }

    /// Refuses to go on in the input of a stream that is not the one that was read.
    ///
    /// # Errors
    /// Names the first of `streams` that was read before and has another declaration now.
    pub(super) fn check_streams(&self, name: &str, streams: &[Arc<StreamDefinition>]) -> Result<()> {
        for stream in streams {
            let declaration = stream_contract(stream);
            let was_read = self.text.contains(&format!("stream {}\n", stream.name));
            // What a scan begins with ends the declaration.
            if was_read && !self.text.contains(&format!("{declaration}scan ")) {
                let message = format!(
                    "query \"{name}\" cannot go on without its state: stream \"{}\" is not declared as it was when it \
                     was read, so that its place means nothing",
                    stream.name
                );
                let hint = "declare it as before, or begin anew: `millstream state forget`";
                return Err(Error::state(message, hint));
            }
        }
        Ok(())
    }
}

fn query_path(folder: &str) -> String {
    format!("{folder}/query.json")
}

/// The contract of the query in `folder` as it was first started.
pub(super) fn read_query(files: &dyn Files, folder: &str) -> Result<Contract> {
    let path = query_path(folder);
    let bytes = files.read(&path).map_err(|error| failed(files, &path, error))?;
    read_single(&files.describe(&path), &bytes)
}

fn major(version: &str) -> &str {
    version.split('.').next().unwrap_or_default()
}

/// The lines that only one of two texts has: `-` before, `+` now.
fn diff(before: &str, now: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), now.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("  - {}", line.trim()));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("  + {}", line.trim()));
    gone.chain(come).collect::<Vec<_>>().join("\n")
}
