//! Destinations that are folders: the sinks `files` and `delta`, and what killed runs have left in them.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::kept::{Destination, Place, Scenario, sorted};
use super::process::{Folder, run_sql};

/// A destination with everything in the place's folder, so that a copy of the folder is a place as well.
pub(crate) trait InFolder: Destination {
    /// A place in a folder that may have been one before.
    fn place_in(&self, folder: Folder) -> Box<dyn Place>;
}

/// Options that put files together as soon as there are two.
const COMPACT: &str = ", compact = '3 KiB', compact_after = '1 ms'";

/// The sink `files`.
pub(crate) struct Files {
    format: &'static str,
    /// Further options, each with a comma before it.
    options: &'static str,
}

impl Files {
    /// A Parquet file for each epoch.
    pub(crate) const AN_EPOCH: Self = Self { format: "parquet", options: "" };
    /// Parquet files that are put together.
    pub(crate) const COMPACTED: Self = Self { format: "parquet", options: COMPACT };
    /// CSV files that are put together.
    pub(crate) const COMPACTED_CSV: Self = Self { format: "csv", options: COMPACT };
    /// JSON files that are put together.
    pub(crate) const COMPACTED_JSON: Self = Self { format: "json", options: COMPACT };
}

impl Destination for Files {
    fn place(&self) -> Box<dyn Place> {
        self.place_in(Folder::new())
    }
}

impl InFolder for Files {
    fn place_in(&self, folder: Folder) -> Box<dyn Place> {
        Box::new(FilesPlace { folder, format: self.format, options: self.options })
    }
}

struct FilesPlace {
    folder: Folder,
    format: &'static str,
    options: &'static str,
}

impl Place for FilesPlace {
    fn folder(&self) -> &Folder {
        &self.folder
    }

    fn sink(&self) -> String {
        let Self { format, options, .. } = self;
        let path = self.folder.path("out");
        format!("CREATE SINK r WITH (connector = 'files', path = '{path}', format = '{format}'{options});")
    }

    fn rows(&self, scenario: &Scenario) -> Vec<String> {
        rows_of_files(&self.folder.path("out"), self.format, scenario.columns)
    }
}

/// The rows of all files in a folder, in one order.
pub(crate) fn rows_of_files(folder: &str, format: &str, columns: &str) -> Vec<String> {
    let options = format!("connector = 'files', path = '{folder}', format = '{format}'");
    sorted(&run_sql(&format!("CREATE TABLE r ({columns}) WITH ({options}); SELECT * FROM r")).silent())
}

/// The sink `delta`.
pub(crate) struct Delta;

impl Destination for Delta {
    fn place(&self) -> Box<dyn Place> {
        self.place_in(Folder::new())
    }
}

impl InFolder for Delta {
    fn place_in(&self, folder: Folder) -> Box<dyn Place> {
        Box::new(DeltaPlace(folder))
    }
}

struct DeltaPlace(Folder);

impl DeltaPlace {
    /// The files that the newest version of the table has.
    fn files(&self) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let url = deltalake_core::ensure_table_uri(self.0.path("out")).unwrap();
            let table = deltalake_core::DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap();
            table.get_file_uris().unwrap().collect()
        })
    }
}

impl Place for DeltaPlace {
    fn folder(&self) -> &Folder {
        &self.0
    }

    fn sink(&self) -> String {
        format!("CREATE SINK r WITH (connector = 'delta', path = '{}');", self.0.path("out"))
    }

    fn rows(&self, scenario: &Scenario) -> Vec<String> {
        let folder = Folder::new();
        for (number, file) in self.files().iter().enumerate() {
            std::fs::copy(file.trim_start_matches("file://"), folder.path(&format!("{number}.parquet"))).unwrap();
        }
        rows_of_files(&folder.path(""), "parquet", scenario.columns)
    }
}

/// Places that a killed run has left, each a copy of the first.
pub(crate) struct LeftBehind<'a> {
    destination: &'a dyn InFolder,
    first: Box<dyn Place>,
}

impl<'a> LeftBehind<'a> {
    /// What a run leaves that is killed at the durable step `step`, `n:name`.
    pub(crate) fn by_kill(scenario: &Scenario, destination: &'a dyn InFolder, step: &str) -> Self {
        let first = destination.place();
        assert!(scenario.run_to_crash_at(first.as_ref(), step), "no step {step}");
        Self { destination, first }
    }
}

impl LeftBehind<'static> {
    /// Delta tables whose log gets a checkpoint at every second commit instead of at every hundredth.
    pub(crate) fn with_log_checkpoints(scenario: &Scenario) -> Self {
        let left = Self::by_kill(scenario, &Delta, "1:delta.begin");
        let (folder, name) = (left.first.folder(), "out/_delta_log/00000000000000000000.json");
        let made = std::fs::read_to_string(folder.path(name)).unwrap();
        let interval = "\"configuration\":{\"delta.checkpointInterval\":\"2\",";
        let changed = made.replacen("\"configuration\":{", interval, 1);
        assert_ne!(made, changed);
        folder.write(name, changed);
        left
    }
}

impl Destination for LeftBehind<'_> {
    fn place(&self) -> Box<dyn Place> {
        self.destination.place_in(self.first.folder().copied())
    }
}
