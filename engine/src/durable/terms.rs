//! Terms: the reigns of a query's drivers. A file that exactly one of them can make begins each, and fences those before.

use std::time::Duration;

use super::files::Files;
use super::journal::failed;
use super::record::write_single;
use crate::error::{Error, Result};

/// How often what is kept is read while another driver may still be changing it, and how far apart.
const TAKEOVER_ATTEMPTS: u32 = 4;
const TAKEOVER_PAUSE: Duration = Duration::from_millis(500);

/// Reads what a driver before may still be changing, until it can be read.
///
/// # Errors
/// As `read` fails in the end; on a disk of its own at once.
pub(super) fn taking_over<T>(files: &dyn Files, read: impl Fn() -> Result<T>) -> Result<T> {
    for _ in 1..TAKEOVER_ATTEMPTS {
        match read() {
            Err(error) if files.is_shared() => {
                tracing::info!(%error, "reading once more what a driver before may have changed meanwhile");
                std::thread::sleep(TAKEOVER_PAUSE);
            }
            ended => return ended,
        }
    }
    read()
}

fn term_path(folder: &str, term: u64) -> String {
    format!("{folder}/terms/{term:010}")
}

/// Begins the next term: the file is made by exactly one driver.
pub(super) fn begin_term(files: &dyn Files, folder: &str) -> Result<u64> {
    let terms = terms_of(files, folder)?;
    let mut term = terms.iter().max().copied().unwrap_or(0) + 1;
    // Unique, so that a store tells this driver's put from another's.
    let driver = uuid::Uuid::new_v4().to_string();
    loop {
        let path = term_path(folder, term);
        let note = write_single(&serde_json::json!({ "term": term, "process": std::process::id(), "driver": driver }))?;
        if files.create(&path, &note).map_err(|error| failed(files, &path, error))? {
            break;
        }
        term += 1;
    }
    // The terms before are over; one is left as a witness, so that numbers never go back.
    for old in terms.into_iter().filter(|old| old + 1 < term) {
        let path = term_path(folder, old);
        files.remove(&path).map_err(|error| failed(files, &path, error))?;
    }
    Ok(term)
}

/// Refuses to go on once a later driver than that of `term` has begun.
pub(super) fn check_term(files: &dyn Files, folder: &str, term: u64) -> Result<()> {
    let terms = terms_of(files, folder)?;
    if terms.iter().any(|later| *later > term) {
        let message =
            format!("the query with its state at {} was taken over by another process", files.describe(folder));
        return Err(Error::state(message, "let only one process use a state directory"));
    }
    Ok(())
}

/// The terms that have begun; the last two of them at least.
fn terms_of(files: &dyn Files, folder: &str) -> Result<Vec<u64>> {
    let path = format!("{folder}/terms");
    let names = files.list(&path).map_err(|error| failed(files, &path, error))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}
