//! What an engine with a folder keeps there: declarations, queries that run on, the rows of pushed streams.
//!
//! ```text
//! DIR/catalog/   what is declared and what runs, as JSON; each change is a new file
//! DIR/state/     the state directory of the queries, with the rows of materialized views
//! DIR/streams/   the logs of pushed streams
//! ```
//!
//! Statements are kept as they were typed and carried out again when the engine is opened; the queries among them go on
//! from their own checkpoints.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use datafusion::common::runtime::SpawnedTask;
use millstream_connectors::is_pushed;
use millstream_connectors::push::LoggedPush;
use millstream_engine::Error as EngineError;
use millstream_engine::durable::{Durability, Files, LocalFiles, RowLog, StatePlace};
use millstream_engine::ingest::Ingest;
use millstream_engine::plan::{StreamDefinition, StreamDurability};
use millstream_engine::side::SideTables;
use millstream_engine::source::Offset;
use millstream_engine::time::SystemClock;
use millstream_sql::{ParsedStatement, Relation, RelationKind, Statement};
use serde::{Deserialize, Serialize};

use super::engine::{Declared, Engine, Shared};
use super::running::unplanned;
use crate::cli::{self, StateArgs};
use crate::cluster::{Cluster, ClusterOptions, Declaration};
use crate::declarations::{declare, prepare};
use crate::error::{Error, Result};
use crate::session::Script;
use crate::state::State;

/// The version of the catalog's form.
const VERSION: u32 = 1;
const CATALOG: &str = "catalog";
/// How often it is looked whether streams have rows that they need not keep.
const TRIM_INTERVAL: Duration = Duration::from_secs(60);
/// The kind of a statement that is a query into a sink.
const QUERY: &str = "query";

/// A statement that holds until it is taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct KeptStatement {
    /// What it declares: `stream`, `view`, …, or `query`.
    kind: String,
    /// The name of that.
    name: String,
    /// The statement as typed.
    text: String,
    /// The settings that it was typed under.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    settings: BTreeMap<String, String>,
    /// The query that it runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) query: String,
    /// The sink of that query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) sink: Option<String>,
    /// The streams that it reads.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) reads: Vec<String>,
    /// The folder of the rows of a pushed stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    log: Option<String>,
}

/// The statements in the order in which they were made.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Catalog {
    version: u32,
    statements: Vec<KeptStatement>,
}

/// The folder of an engine, which this process owns.
#[derive(Debug)]
pub(super) struct Home {
    folder: PathBuf,
    files: Arc<dyn Files>,
    state: State,
    /// The catalog, and the number of its file.
    catalog: Mutex<(Catalog, u64)>,
    streams: Mutex<BTreeMap<String, LoggedPush>>,
}

impl KeptStatement {
    fn of(kind: &str, name: &str, parsed: &ParsedStatement, script: &Script) -> Self {
        Self {
            kind: kind.to_owned(),
            name: name.to_owned(),
            text: parsed.text.clone(),
            settings: script.settings.clone(),
            query: String::new(),
            sink: None,
            reads: Vec::new(),
            log: None,
        }
    }

    /// The query of that name, which a statement runs.
    pub(super) fn query(compiled: &Statement, query: String, parsed: &ParsedStatement, script: &Script) -> Self {
        match compiled {
            Statement::CreateMaterializedView { definition, .. } => {
                let kind = RelationKind::MaterializedView.noun();
                Self { query, ..Self::of(kind, &definition.name, parsed, script) }
            }
            Statement::Insert { sink, .. } => {
                let sink = Some(sink.name.clone());
                Self { sink, query: query.clone(), ..Self::of(QUERY, &query, parsed, script) }
            }
            _ => Self { query: query.clone(), ..Self::of(QUERY, &query, parsed, script) },
        }
    }

    /// The materialized view that it declares.
    pub(super) fn view(&self) -> Option<&str> {
        (self.kind == RelationKind::MaterializedView.noun()).then_some(self.name.as_str())
    }

    fn is(&self, kind: &str, name: &str) -> bool {
        self.kind == kind && self.name == name
    }
}

impl Home {
    /// Opens the folder, or makes it.
    ///
    /// # Errors
    /// Fails if another process has it, and if what is in it cannot be read.
    fn open(folder: &Path, args: &StateArgs) -> Result<Self> {
        let unusable = |source| Error::Io { context: format!("cannot use {}", folder.display()), source };
        private_folder(folder).map_err(unusable)?;
        let place = StatePlace::Folder(folder.join("state"));
        // It locks the folder for this process.
        let state = State::open(&place, args)?;
        let durability = match args.durability {
            cli::Durability::PowerLoss => Durability::PowerLoss,
            cli::Durability::ProcessCrash => Durability::ProcessCrash,
        };
        let files: Arc<dyn Files> = Arc::new(LocalFiles::open(folder, durability).map_err(unusable)?);
        files.create_folder(CATALOG).map_err(unusable)?;
        let catalog = Mutex::new(read_catalog(files.as_ref())?);
        Ok(Self { folder: folder.to_owned(), files, state, catalog, streams: Mutex::default() })
    }

    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// Where the rows of the materialized view of that query are.
    pub(super) fn view_file(&self, query: &str) -> Result<PathBuf> {
        self.state.view_file(query)
    }

    fn catalog(&self) -> MutexGuard<'_, (Catalog, u64)> {
        // It is changed only after the file is.
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn streams(&self) -> MutexGuard<'_, BTreeMap<String, LoggedPush>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is declared, in the order in which it was.
    pub(super) fn declarations(&self) -> Vec<Declaration> {
        let catalog = self.catalog();
        let declared = catalog.0.statements.iter().filter(|kept| kept.query.is_empty());
        declared.map(|kept| Declaration { text: kept.text.clone(), settings: kept.settings.clone() }).collect()
    }

    /// Whether a query of that name is kept.
    pub(super) fn has_query(&self, name: &str) -> bool {
        self.catalog().0.statements.iter().any(|kept| kept.query == name)
    }

    /// Keeps a statement, in place of the one that declared the same.
    ///
    /// # Errors
    /// As the disk fails; nothing has changed then.
    pub(super) fn add(&self, statement: &KeptStatement) -> Result<()> {
        self.change(|statements| {
            match statements.iter_mut().find(|kept| kept.is(&statement.kind, &statement.name)) {
                Some(kept) => *kept = statement.clone(),
                None => statements.push(statement.clone()),
            };
        })
    }

    /// Keeps a statement no longer.
    ///
    /// # Errors
    /// As the disk fails; nothing has changed then.
    pub(super) fn remove(&self, kind: &str, name: &str) -> Result<()> {
        self.change(|statements| statements.retain(|kept| !kept.is(kind, name)))
    }

    /// Takes back that a query is kept.
    pub(super) fn forget(&self, kept: &KeptStatement) -> Result<()> {
        self.remove(&kept.kind, &kept.name)
    }

    fn change(&self, change: impl FnOnce(&mut Vec<KeptStatement>)) -> Result<()> {
        let mut catalog = self.catalog();
        let (Catalog { statements, .. }, number) = &*catalog;
        let mut statements = statements.clone();
        change(&mut statements);
        let (next, number) = (Catalog { version: VERSION, statements }, *number);
        let json = serde_json::to_vec_pretty(&next)
            .map_err(|error| EngineError::internal(format!("a catalog is no JSON: {error}")))?;
        let path = catalog_file(number + 1);
        let failed = |source| Error::Io { context: format!("cannot write {}", self.files.describe(&path)), source };
        if !self.files.create(&path, &json).map_err(failed)? {
            let message = format!("{} is there already: another process uses the folder", self.files.describe(&path));
            return Err(EngineError::state(message, "stop one of the two").into());
        }
        // What remains of it after a crash is older than the new one.
        self.files.remove(&catalog_file(number)).map_err(failed)?;
        *catalog = (next, number + 1);
        Ok(())
    }

    /// Keeps a declaration that is about to be carried out, or keeps what it drops no longer.
    ///
    /// # Errors
    /// As the disk fails.
    pub(super) fn note(&self, compiled: &Statement, parsed: &ParsedStatement, script: &Script) -> Result<()> {
        let (kind, name) = match compiled {
            Statement::CreateStream { definition, .. } => return self.note_stream(definition, parsed, script),
            Statement::CreateTable { definition, .. } => (RelationKind::Table, &definition.name),
            Statement::CreateView { definition, .. } => (RelationKind::View, &definition.name),
            Statement::CreateSink { definition, .. } => (RelationKind::Sink, &definition.name),
            Statement::CreateSecret { name, .. } => (RelationKind::Secret, name),
            Statement::CreateFunction { definition, .. } => (definition.kind(), &definition.name),
            Statement::Drop { kind, name } => return self.drop_named(*kind, name),
            _ => return Ok(()),
        };
        self.add(&KeptStatement::of(kind.noun(), name, parsed, script))
    }

    fn note_stream(&self, definition: &StreamDefinition, parsed: &ParsedStatement, script: &Script) -> Result<()> {
        let kind = RelationKind::Stream.noun();
        let mut kept = KeptStatement::of(kind, &definition.name, parsed, script);
        let before = self.log_of(&definition.name);
        if before.is_some() && self.pushed(&definition.name).is_none() {
            let message =
                format!("stream \"{}\" was declared before, and its rows could not be opened", definition.name);
            let hint = "the log of the server says why; DROP STREAM removes them, another name leaves them";
            return Err(EngineError::state(message, hint).into());
        }
        let mut opened = None;
        if is_pushed(definition) {
            let log = format!("streams/{}", uuid::Uuid::new_v4());
            opened = Some(self.open_log(definition, &log)?);
            kept.log = Some(log);
        }
        self.add(&kept)?;
        self.replace_log(&definition.name, opened);
        self.erase(before)
    }

    /// Puts the log of a stream in the place of the one before, which takes no rows any more.
    fn replace_log(&self, stream: &str, opened: Option<LoggedPush>) {
        let mut streams = self.streams();
        let before = match opened {
            Some(opened) => streams.insert(stream.to_owned(), opened),
            None => streams.remove(stream),
        };
        drop(streams);
        before.inspect(LoggedPush::close);
    }

    fn log_of(&self, stream: &str) -> Option<String> {
        let catalog = self.catalog();
        let kept = catalog.0.statements.iter().find(|kept| kept.is(RelationKind::Stream.noun(), stream));
        kept.and_then(|kept| kept.log.clone())
    }

    fn drop_named(&self, kind: RelationKind, name: &str) -> Result<()> {
        let log = if kind == RelationKind::Stream { self.log_of(name) } else { None };
        self.remove(kind.noun(), name)?;
        if log.is_some() {
            self.replace_log(name, None);
        }
        self.erase(log)
    }

    fn erase(&self, log: Option<String>) -> Result<()> {
        let Some(log) = log else { return Ok(()) };
        RowLog::erase(self.files.as_ref(), &log)?;
        // The folder is empty, and nothing is lost if it stays.
        let _ = std::fs::remove_dir(self.folder.join(log));
        Ok(())
    }

    fn open_log(&self, definition: &StreamDefinition, folder: &str) -> Result<LoggedPush> {
        let durability = match definition.durability {
            None => None,
            Some(StreamDurability::PowerLoss) => Some(Durability::PowerLoss),
            Some(StreamDurability::ProcessCrash) => Some(Durability::ProcessCrash),
            Some(StreamDurability::None) => {
                let message =
                    format!("stream \"{}\" has durability = 'none', and pushed rows are kept", definition.name);
                let hint = "leave durability out, or say 'process_crash' for rows that a power cut may take";
                return Err(EngineError::query(message, hint).into());
            }
        };
        let files = durability.and_then(|durability| self.files.surviving(durability));
        let files = files.unwrap_or_else(|| Arc::clone(&self.files));
        Ok(LoggedPush::new(definition, RowLog::open(&files, folder)?, folder)?)
    }

    fn pushed(&self, stream: &str) -> Option<LoggedPush> {
        self.streams().get(stream).cloned()
    }

    /// Makes the ingestion of a pushed stream; nothing is read yet.
    pub(super) fn open_pushed(
        &self,
        stream: &Arc<StreamDefinition>,
        side: SideTables,
    ) -> millstream_engine::Result<Ingest> {
        let pushed = self.pushed(&stream.name);
        let pushed = pushed.ok_or_else(|| EngineError::internal(format!("stream {} has no log", stream.name)))?;
        Ok(Ingest::new(Arc::clone(stream), Arc::new(pushed), Arc::new(SystemClock), side))
    }

    /// Drops rows of pushed streams that are older than their streams keep them and that no query, running or stopped,
    /// may have to read again.
    ///
    /// # Errors
    /// The first failure of the disk, after all streams were tried.
    pub(super) fn trim_streams(&self) -> Result<()> {
        let streams = self.streams().clone();
        let trimmed = streams.iter().map(|(stream, pushed)| {
            pushed.trim(|| Ok(self.state.directory.needed_from(stream)?.unwrap_or(Offset(u64::MAX))))
        });
        let failures: Vec<_> = trimmed.filter_map(millstream_engine::Result::err).collect();
        failures.into_iter().next().map_or(Ok(()), |error| Err(error.into()))
    }

    /// Forgets all that is kept of the query of a materialized view that is dropped.
    pub(super) fn forget_view(&self, query: &str) -> Result<()> {
        self.state.directory.forget_query(query)?;
        let path = self.view_file(query)?;
        match std::fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Io { context: format!("cannot remove {}", path.display()), source })
            }
            _ => Ok(()),
        }
    }
}

/// Drops what streams need not keep, as long as the engine is there.
async fn trim_now_and_then(shared: Weak<Shared>) {
    loop {
        tokio::time::sleep(TRIM_INTERVAL).await;
        let Some(shared) = shared.upgrade() else { return };
        let trimming = SpawnedTask::spawn_blocking(move || shared.home.as_ref().map_or(Ok(()), Home::trim_streams));
        if let Ok(Err(error)) = trimming.join().await {
            tracing::warn!(%error, "the rows of a stream could not be trimmed");
        }
    }
}

/// Makes a folder, unless it is there, that its owner alone can look into: statements hold passwords.
fn private_folder(folder: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn catalog_file(number: u64) -> String {
    format!("{CATALOG}/{number:020}.json")
}

/// The newest catalog, and its number.
fn read_catalog(files: &dyn Files) -> Result<(Catalog, u64)> {
    let failed = |source| Error::Io { context: format!("cannot read {}", files.describe(CATALOG)), source };
    let names = files.list(CATALOG).map_err(failed)?;
    let Some(number) = names.iter().filter_map(|name| name.strip_suffix(".json")?.parse::<u64>().ok()).max() else {
        return Ok((Catalog { version: VERSION, statements: Vec::new() }, 0));
    };
    let path = catalog_file(number);
    let place = files.describe(&path);
    let damaged = |reason: &dyn std::fmt::Display| {
        Error::Engine(EngineError::state(format!("{place}: {reason}"), "restore the data directory from a copy"))
    };
    let catalog: Catalog =
        serde_json::from_slice(&files.read(&path).map_err(failed)?).map_err(|error| damaged(&error))?;
    if catalog.version != VERSION {
        let version = catalog.version;
        return Err(damaged(&format!("version {version}, and this program knows version {VERSION}")));
    }
    Ok((catalog, number))
}

impl Engine {
    /// Opens an engine that keeps in `folder` what is declared and what runs, and goes on where an earlier process left
    /// it. The plans of one query take half of the memory of all plans, or as many bytes as are given; the state of queries
    /// lies at executors if `cluster` says how there are some.
    ///
    /// # Errors
    /// Fails if another process has the folder, and if what is in it cannot be read. What of it cannot be carried out
    /// any more is logged and stays.
    pub(crate) async fn open(
        folder: &Path,
        args: &StateArgs,
        query_memory: Option<usize>,
        cluster: Option<ClusterOptions>,
    ) -> Result<(Self, Option<Arc<Cluster>>)> {
        // Another process has the executors as long as it has the folder.
        let home = Home::open(folder, args)?;
        let cluster = match cluster {
            Some(options) => Some(Arc::new(Cluster::start(options).await?)),
            None => None,
        };
        let engine = Self::within(Some(home), cluster.clone());
        engine.declared().memory.limit_queries(query_memory);
        if let Some(home) = &engine.shared.home {
            engine.declared().language.read_states(home.state.states());
            let statements = home.catalog().0.statements.clone();
            engine.carry_out_again(home, statements.into_iter().map(Arc::new).collect()).await;
        }
        tokio::spawn(trim_now_and_then(Arc::downgrade(&engine.shared)));
        Ok((engine, cluster))
    }

    /// Carries kept statements out; one may need another that was replaced after it.
    async fn carry_out_again(&self, home: &Home, mut waiting: Vec<Arc<KeptStatement>>) {
        loop {
            let (count, mut failed) = (waiting.len(), Vec::new());
            for kept in waiting {
                let done = if kept.query.is_empty() {
                    self.declare_kept(home, &kept).await
                } else {
                    self.start_kept(&kept).await
                };
                if let Err(error) = done {
                    failed.push((kept, error));
                }
            }
            if failed.is_empty() {
                return;
            }
            if failed.len() == count {
                return failed.iter().for_each(|(kept, error)| self.tell_of_lost(kept, error));
            }
            waiting = failed.into_iter().map(|(kept, _)| kept).collect();
        }
    }

    /// Says that a kept statement cannot be carried out any more; it stays in the catalog.
    fn tell_of_lost(&self, kept: &Arc<KeptStatement>, error: &Error) {
        if kept.query.is_empty() {
            tracing::error!("the {} \"{}\" is not there: {}", kept.kind, kept.name, error);
        } else {
            self.note_trouble(kept, &unplanned(error));
        }
    }

    async fn declare_kept(&self, home: &Home, kept: &KeptStatement) -> Result<()> {
        let (parsed, script) = self.parsed(kept)?;
        let compiled = self.compile(&parsed, &script)?;
        let prepared = prepare(&compiled).await?;
        if let (Statement::CreateStream { definition, .. }, Some(log)) = (&compiled, &kept.log) {
            let opened = home.open_log(definition, log)?;
            home.replace_log(&definition.name, Some(opened));
        }
        let mut declared = self.declared();
        let Declared { language, sides, memory, .. } = &mut *declared;
        declare(language, sides, memory, compiled, prepared).map(drop)
    }

    /// A kept statement as it was typed.
    pub(super) fn parsed(&self, kept: &KeptStatement) -> Result<(ParsedStatement, Script)> {
        let settings = kept.settings.clone();
        let script = Script { settings, ..Script::new(&format!("{} {}", kept.kind, kept.name), &kept.text) };
        let parsed = self.statements(&script)?.pop();
        let parsed = parsed.ok_or_else(|| EngineError::internal(format!("{} has no statement", script.origin)))?;
        Ok((parsed, script))
    }

    /// The stream of that name, declared with `connector = 'push'`, whose rows this engine keeps.
    ///
    /// # Errors
    /// Fails if there is none.
    pub(crate) fn pushed(&self, name: &str) -> Result<(Arc<StreamDefinition>, LoggedPush)> {
        let declared = self.declared();
        let catalog = declared.language.catalog();
        let folded = name.to_lowercase();
        let name = if catalog.relation(name).is_some() { name } else { &folded };
        let relation = catalog.expect_relation(name).map_err(|error| Error::Engine(error.into()))?;
        let pushed = self.shared.home.as_ref().and_then(|home| home.pushed(name));
        match (relation, pushed) {
            (Relation::Stream(stream), Some(pushed)) => Ok((Arc::clone(stream), pushed)),
            (other, _) => {
                let message = format!("the {} \"{name}\" takes no rows from clients", other.kind().noun());
                Err(EngineError::query(message, "declare a stream WITH (connector = 'push')").into())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, StringArray};
    use datafusion::arrow::record_batch::RecordBatch;

    use super::*;

    /// More than half of a segment.
    const BYTES: usize = 40 << 20;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_stream_keeps_what_its_queries_need_and_its_retention_says() {
        let folder = tempfile::tempdir().unwrap();
        let args = StateArgs { durability: cli::Durability::ProcessCrash, ..StateArgs::default() };
        let (engine, _) = Engine::open(folder.path(), &args, None, None).await.unwrap();
        let declare = "CREATE STREAM words (word VARCHAR) WITH (connector = 'push', retention = '1 ns');
             CREATE STREAM kept (word VARCHAR) WITH (connector = 'push');
             CREATE MATERIALIZED VIEW counts AS SELECT COUNT(*) AS n FROM words";
        let script = Script::typed(declare);
        for parsed in engine.statements(&script).unwrap() {
            drop(engine.answer(&parsed, &script).await.unwrap());
        }
        let long = "x".repeat(BYTES);
        let word: ArrayRef = Arc::new(StringArray::from(vec![long]));
        let rows = RecordBatch::try_from_iter([("word", word)]).unwrap();
        let [words, kept] = ["words", "kept"].map(|name| engine.pushed(name).unwrap().1);
        for _ in 0..6 {
            words.append(&rows, None).await.unwrap();
            kept.append(&rows, None).await.unwrap();
        }
        let home = engine.shared.home.as_ref().unwrap();
        home.trim_streams().unwrap();
        // Without two checkpoints the query may have to begin again.
        assert_eq!((words.first_row(), kept.first_row()), (0, 0));
        let script = Script::typed("DROP MATERIALIZED VIEW counts");
        let parsed = engine.statements(&script).unwrap();
        drop(engine.answer(&parsed[0], &script).await.unwrap());
        home.trim_streams().unwrap();
        assert_eq!((words.first_row(), words.rows(), kept.first_row()), (4, 6, 0));
        let mut rows = engine.query("SELECT COUNT(*) AS n FROM words EMIT CHANGES").await.unwrap();
        let first = rows.next().await.unwrap().unwrap();
        assert!(first.num_rows() > 0, "a query begins with the oldest row there is");
        engine.stop().await;
    }
}
