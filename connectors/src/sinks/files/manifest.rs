//! What the ledger says of an epoch: who wrote it, and which files hold it.

use millstream_engine::batch::Epoch;
use millstream_engine::sink::SinkWriter;
use serde::{Deserialize, Serialize};

/// One committed epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) query: String,
    pub(super) term: u64,
    /// The first epoch, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) first: Option<Epoch>,
    /// The epoch, or the last of several.
    pub(super) epoch: Epoch,
    pub(super) files: Vec<ManifestFile>,
}

/// One file of an epoch; its temporary name was [`temporary_name`] of the manifest's writer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ManifestFile {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) crc32: u32,
}

impl Manifest {
    /// Who wrote it.
    pub(super) fn writer(&self) -> SinkWriter {
        SinkWriter { query: self.query.clone(), term: self.term }
    }

    /// The first of its epochs.
    pub(super) fn first(&self) -> Epoch {
        self.first.unwrap_or(self.epoch)
    }

    /// The size of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether another one stands in its place.
    pub(super) fn is_replaced_by(&self, other: &Self) -> bool {
        let is_within = other.first() <= self.first() && self.epoch <= other.epoch;
        is_within && (self.first(), self.epoch) != (other.first(), other.epoch)
    }

    /// The name of its own file.
    pub(super) fn name(&self) -> String {
        match self.first {
            Some(first) => format!("{:010}-{:010}.json", first.0, self.epoch.0),
            None => format!("{:010}.json", self.epoch.0),
        }
    }
}

/// The name of a file before its commit. Query and term are in it, so that neither a writer that was thought dead nor
/// another query in the same folder writes into it.
pub(super) fn temporary_name(name: &str, writer: &SinkWriter) -> String {
    format!(".{name}.{}.{}.tmp", writer.query, writer.term)
}
