//! Checkpoints: the state of a query at the end of an epoch, as Parquet files and a manifest.
//!
//! ```text
//!   stage ─ image ─► changed panes ─► state/….parquet ─┐
//!                    all else                          ├─► checkpoints/….json (the manifest, written last)
//!                    unchanged panes: files of earlier ┘
//! ```
//!
//! Taking an image shares the batches and costs no copy; writing it happens beside the epochs that follow. A pane
//! that did not change since the last checkpoint is not written again: the manifest says which panes of which file
//! are current. A checkpoint is there when its manifest is.

mod image;
mod manifest;
mod pane_file;

pub(crate) use image::{LeafImage, PaneEntry, PaneTag, StageImage};
pub(crate) use manifest::LeafRecord;
pub(crate) use manifest::{Counters, FileRecord, MANIFEST_VERSION, Manifest, PartRecord, Saved, StageRecord};
pub(crate) use pane_file::{read_current, read_panes, write_panes};
