//! The state of a query that does not run, as rows.

use datafusion::arrow::record_batch::RecordBatch;

use super::checkpoint_files::{read_manifests, read_state_file};
use super::directory::list_queries;
use super::place::StatePlace;
use crate::checkpoint::read_current;
use crate::error::{Error, Result};

/// The state that one input of a query has in the newest checkpoint.
#[derive(Debug)]
pub struct KeptState {
    /// The input: the number of its stage and its own within that, `0-0`.
    pub input: String,
    /// Its rows with the columns of the file, in order of files; each batch is that of a whole file.
    pub rows: Vec<RecordBatch>,
}

/// Reads the state of the query `name` as its newest checkpoint has it.
///
/// # Errors
/// Fails if there is no such query, it has no checkpoint, or what is needed is damaged.
pub fn read_state(place: &StatePlace, name: &str) -> Result<Vec<KeptState>> {
    let files = place.look()?;
    let queries = list_queries(&files)?;
    let Some((_, id)) = queries.iter().find(|(known, _)| known == name) else {
        let known: Vec<_> = queries.iter().map(|(name, _)| name.as_str()).collect();
        let message = format!("{place} keeps no query \"{name}\"");
        return Err(Error::query(message, format!("it keeps: {}", known.join(", "))));
    };
    let folder = format!("queries/{id}");
    let Some((_, manifest)) = read_manifests(files.as_ref(), &folder)?.pop() else {
        let message = format!("query \"{name}\" has no checkpoint yet");
        return Err(Error::state(message, "a checkpoint is written every 10 s and when the query is stopped"));
    };
    let manifest = manifest?;
    let mut kept = Vec::new();
    for (number, stage) in manifest.stages.iter().enumerate() {
        for (index, leaf) in stage.leaves.iter().enumerate() {
            let mut rows = Vec::new();
            for part in &leaf.parts {
                let known = manifest.files.iter().find(|file| file.name == part.file);
                let file = known.ok_or_else(|| Error::internal(format!("{} is not listed", part.file)))?;
                rows.push(read_current(read_state_file(files.as_ref(), &folder, file)?, &part.panes)?);
            }
            kept.push(KeptState { input: format!("{number}-{index}"), rows });
        }
    }
    Ok(kept)
}
