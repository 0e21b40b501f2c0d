//! What can go wrong with a job, and how it is told from one process to another.
//!
//! Between processes errors become text: their types are lost on the way, and where they arose too. What the driver
//! must know is therefore written into the text, behind one of three words; the outermost of them counts.

use datafusion::error::DataFusionError;
use url::Url;

/// Before the URL of a process that could not be reached, or not any longer.
const PEER_LOST: &str = "PEER_LOST ";
/// Before why a task is not for the process that it came to.
const STALE: &str = "STALE ";
/// Before why a task cannot be done.
const FAILED: &str = "FAILED ";

/// How much of a message is sent: errors travel in headers, which HTTP/2 clients take up to 16 KiB of, and grow by a
/// third on the way.
const MESSAGE_CHARS: usize = 2000;

/// Why an executor did not do its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WorkError {
    /// It is not the one that was meant, or the driver's term is over.
    #[error("stale: {0}")]
    Stale(String),
    /// It would fail again: what was sent is wrong.
    #[error("{0}")]
    Failed(String),
}

/// Why a job has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    /// A process could not be reached: worth one more attempt, then it is gone.
    #[error("{url} is lost: {reason}")]
    Lost {
        /// Its data address, as the job named it.
        url: String,
        /// What the connection said.
        reason: String,
    },
    /// A task came to an executor that was not meant: placement is to be looked up again.
    #[error("the job came too late: {reason}")]
    Stale {
        /// What the executor said.
        reason: String,
    },
    /// It would fail again.
    #[error("{0}")]
    Failed(String),
    /// It was not done in time.
    #[error("the job was not done in time")]
    Deadline,
}

impl JobError {
    /// What an error says, wherever it arose.
    pub(crate) fn read(error: &DataFusionError) -> Self {
        Self::read_text(&error.to_string())
    }

    fn read_text(text: &str) -> Self {
        let places = [PEER_LOST, STALE, FAILED].into_iter().filter_map(|word| Some((text.find(word)?, word)));
        let Some((_, word)) = places.min() else { return Self::Failed(text.to_owned()) };
        let said = text.split_once(word).map_or(text, |(_, said)| said);
        match word {
            PEER_LOST => {
                let (url, reason) = said.split_once(char::is_whitespace).unwrap_or((said, ""));
                let reason = reason.trim_start_matches("caused by").trim().trim_start_matches("Execution error: ");
                Self::Lost { url: url.to_owned(), reason: reason.to_owned() }
            }
            STALE => Self::Stale { reason: said.to_owned() },
            _ => Self::Failed(said.to_owned()),
        }
    }
}

impl From<DataFusionError> for JobError {
    fn from(error: DataFusionError) -> Self {
        Self::read(&error)
    }
}

impl From<WorkError> for DataFusionError {
    fn from(error: WorkError) -> Self {
        match error {
            WorkError::Stale(reason) => stale(&reason),
            WorkError::Failed(reason) => failed(&reason),
        }
    }
}

/// The error of a task that is not for this process.
pub(crate) fn stale(reason: &str) -> DataFusionError {
    told(STALE, reason)
}

/// The error of a task that cannot be done.
pub(crate) fn failed(reason: &str) -> DataFusionError {
    told(FAILED, reason)
}

/// The error of a connection, with the process that it was to; contexts survive the way through other processes.
pub(crate) fn lost(url: &Url, error: &DataFusionError) -> DataFusionError {
    DataFusionError::Execution(last_cause(error)).context(format!("{PEER_LOST}{url}"))
}

/// What lies at the bottom of an error: those above it say no more than that there was a transport error.
fn last_cause(error: &DataFusionError) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn told(word: &str, reason: &str) -> DataFusionError {
    let reason: String = reason.chars().take(MESSAGE_CHARS).collect();
    DataFusionError::Execution(format!("{word}{reason}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn errors_are_read_back_through_what_wraps_them() {
        let wrapped = DataFusionError::Shared(Arc::new(failed("no such pane\nat all").context("polling")));
        assert!(matches!(JobError::read(&wrapped), JobError::Failed(said) if said == "no such pane\nat all"));
        let old = stale("term 3").context("polling");
        assert!(matches!(JobError::read(&old), JobError::Stale { reason } if reason == "term 3"));
    }

    #[test]
    fn a_lost_peer_is_named_as_the_job_named_it() {
        let url = Url::parse("http://127.0.0.1:5/").unwrap();
        let error = lost(&url, &DataFusionError::Execution("reset".to_owned())).context("pulling");
        let JobError::Lost { url: named, reason } = JobError::read(&error) else { panic!("{error}") };
        assert_eq!(named, url.as_str());
        assert!(reason.ends_with("reset"), "{reason}");
    }

    #[test]
    fn the_outermost_word_counts_and_errors_without_one_have_failed() {
        let quoting = failed("the text was: STALE ");
        assert!(matches!(JobError::read(&quoting), JobError::Failed(said) if said.ends_with("STALE ")));
        let other = DataFusionError::Plan("odd".to_owned());
        assert!(matches!(JobError::read(&other), JobError::Failed(said) if said.contains("odd")));
    }
}
