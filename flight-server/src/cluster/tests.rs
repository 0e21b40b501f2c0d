//! Every form of the language on executors of this process, which are reached as those of other machines are: the rows
//! that one process gives.

use std::path::{Path, PathBuf};
use std::time::Duration;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_engine::state::machine_bytes;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::link::Links;
use super::{Cluster, ClusterOptions, run_executor};
use crate::cli::{Durability, ExecutorArgs, LinkArgs, StateArgs};
use crate::embed::{Answer, Engine};
use crate::session::Script;

const EXECUTORS: usize = 3;
/// What is waited for comes within this time unless something hangs.
const DEADLINE: Duration = Duration::from_secs(120);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// An engine, and the executors that its queries have.
struct Trial {
    engine: Engine,
    executors: JoinSet<()>,
    stop: watch::Sender<bool>,
    _folder: tempfile::TempDir,
}

impl Trial {
    async fn start(executors: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let args = StateArgs { durability: Durability::ProcessCrash, ..StateArgs::default() };
        let options = (executors > 0).then(|| options(folder.path()));
        let (engine, cluster) = Engine::open(folder.path(), &args, None, options).await.unwrap();
        let mut trial = Self { engine, executors: JoinSet::new(), stop: watch::channel(false).0, _folder: folder };
        if let Some(cluster) = cluster {
            for number in 0..executors {
                trial.join(&cluster, number);
            }
            cluster.wait_for(executors).await.unwrap();
        }
        trial
    }

    fn join(&mut self, cluster: &Cluster, number: usize) {
        let args = ExecutorArgs {
            driver: cluster.url().to_owned(),
            listen: "127.0.0.1:0".parse().unwrap(),
            name: Some(format!("executor-{number}")),
            advertise: None,
            memory_limit: Some(machine_bytes() as u64 / 8),
            spill_dir: None,
            insecure: false,
            end_with_parent: false,
            links: LinkArgs::default(),
        };
        let stop = self.stop.subscribe();
        self.executors.spawn(async move { run_executor(&args, stop).await.unwrap() });
    }

    /// The rows of the SELECTs of a text, each as a line, in one order; none if it has other statements that run.
    async fn rows(&self, text: &str) -> Option<Vec<String>> {
        let mut script = Script::typed(text);
        let mut lines = Vec::new();
        for parsed in self.engine.statements(&script).unwrap() {
            if let Some(setting) = parsed.text.strip_prefix("SET ") {
                let (key, value) = setting.split_once('=').unwrap();
                let value = value.trim().trim_matches('\'');
                script.settings.insert(key.trim().to_owned(), value.to_owned());
                continue;
            }
            match self.engine.answer(&parsed, &script).await.unwrap() {
                Answer::Rows(rows) => {
                    let collected = tokio::time::timeout(DEADLINE, rows.collect()).await.unwrap();
                    lines.extend(lines_of(&collected.unwrap()));
                }
                Answer::Done => {}
                _ => return None,
            }
        }
        lines.sort_unstable();
        Some(lines)
    }

    async fn end(mut self) {
        self.engine.stop().await;
        self.stop.send_replace(true);
        while self.executors.join_next().await.is_some() {}
    }
}

fn options(folder: &Path) -> ClusterOptions {
    ClusterOptions {
        local: None,
        listen: "127.0.0.1:0".parse().unwrap(),
        advertise: None,
        // Other tests keep both cores busy.
        timeout: Duration::from_secs(10),
        settling: Duration::ZERO,
        memory: None,
        links: Links::plain(),
        link_arguments: Vec::new(),
        folder: folder.to_owned(),
    }
}

fn lines_of(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = Vec::new();
    for batch in batches {
        let options = FormatOptions::default().with_null("NULL");
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        lines.extend(
            (0..batch.num_rows())
                .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|")),
        );
    }
    lines
}

/// The declarations of the examples and every form over them, with the parameters of windows in their places.
fn forms() -> Vec<(String, String)> {
    let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
    let schema = read(root().join("docs/examples/schema.sql"));
    let mut forms = Vec::new();
    for entry in std::fs::read_dir(root().join("queries/forms")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "sql") {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = format!("{schema}\n{}", read(path));
            let folder = format!("'{}/", root().display());
            let text =
                text.replace("'docs/", &format!("{folder}docs/")).replace("'queries/", &format!("{folder}queries/"));
            forms.push((name, text.replace("[Range n, Slide s]", "[Range 10, Slide 5]")));
        }
    }
    forms.sort_unstable();
    forms
}

#[tokio::test(flavor = "multi_thread")]
async fn every_form_gives_on_executors_what_it_gives_in_one_process() {
    let (mut checked, mut wrong) = (0, Vec::new());
    for (name, text) in forms() {
        let here = Trial::start(0).await;
        let Some(expected) = here.rows(&text).await else { continue };
        here.end().await;
        let spread = Trial::start(EXECUTORS).await;
        let found = spread.rows(&text).await.unwrap();
        spread.end().await;
        checked += 1;
        if found != expected {
            wrong.push(format!("{name}\n  here {expected:?}\n  at executors {found:?}"));
        }
    }
    assert!(checked >= 60, "only {checked} forms have rows");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
