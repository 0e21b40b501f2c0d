//! State on an object store: an S3 server in this process, and runs that are killed while they use it.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::path::Path;

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use super::crashes::check_steps_in_turn;
use super::kept::{Destination, Place, Scenario, Sqlite};
use super::process::{Finished, Folder, Running, rows};

const KEY: &str = "key";
const SECRET: &str = "secret";

/// A server, until it is dropped.
struct Store {
    folder: Folder,
    address: SocketAddr,
    _runtime: Runtime,
}

impl Store {
    fn start() -> Self {
        let folder = Folder::new();
        let mut builder = S3ServiceBuilder::new(FileSystem::new(Path::new(&folder.path(""))).unwrap());
        builder.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        runtime.spawn(serve(listener, builder.build()));
        Self { folder, address, _runtime: runtime }
    }

    /// Makes a bucket: this server lists all of one to find the names with a prefix.
    fn make_bucket(&self, name: &str) {
        std::fs::create_dir(self.folder.path(name)).unwrap();
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        vec![
            ("AWS_ACCESS_KEY_ID", KEY.to_owned()),
            ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ENDPOINT_URL", format!("http://{}", self.address)),
        ]
    }

    fn run(&self, arguments: &[&str]) -> Finished {
        self.run_with(arguments, &[])
    }

    /// Runs the binary with variables in place of the store's own.
    fn run_with(&self, arguments: &[&str], changed: &[(&str, &str)]) -> Finished {
        let variables = self.variables();
        let variables = variables.iter().map(|(key, value)| (*key, value.as_str())).chain(changed.iter().copied());
        Running::start_with(arguments, &variables.collect::<Vec<_>>()).finish()
    }
}

async fn serve(listener: TcpListener, service: S3Service) {
    while let Ok((socket, _)) = listener.accept().await {
        // A client that was killed breaks its connection off.
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), service.clone()));
    }
}

/// A sink whose query has its state in the store.
struct InStore<'a>(&'a Store);

impl Destination for InStore<'_> {
    fn place(&self) -> Box<dyn Place> {
        let results = Sqlite.place();
        self.0.make_bucket(&results.folder().name());
        Box::new(InStorePlace { results, variables: self.0.variables() })
    }
}

struct InStorePlace {
    results: Box<dyn Place>,
    variables: Vec<(&'static str, String)>,
}

impl Place for InStorePlace {
    fn folder(&self) -> &Folder {
        self.results.folder()
    }

    fn state(&self) -> String {
        format!("s3://{}/a/prefix", self.folder().name())
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        self.variables.clone()
    }

    fn sink(&self) -> String {
        self.results.sink()
    }

    fn rows(&self, scenario: &Scenario) -> Vec<String> {
        self.results.rows(scenario)
    }
}

#[test]
fn a_query_with_state_in_a_store_survives_a_kill_at_each_step_in_turn() {
    check_steps_in_turn(&Scenario::group_by(40), &InStore(&Store::start()));
}

#[test]
fn state_in_a_store_is_shown_checked_read_and_forgotten() {
    // Late enough for a checkpoint, early enough for windows that are still open: which step that is depends on timing.
    let is_shown = |step: u64| {
        let store = Store::start();
        let (scenario, destination) = (Scenario::group_by(40), InStore(&store));
        let place = destination.place();
        scenario.run_to_crash(place.as_ref(), step) && is_checked_and_read(&store, &place.state())
    };
    assert!([80, 70, 60, 90, 50, 100, 40].into_iter().any(is_shown), "no step leaves a checkpoint with open windows");
}

/// Looks into the state at `place`; whether there is a checkpoint with rows.
fn is_checked_and_read(store: &Store, place: &str) -> bool {
    let shown = store.run(&["state", "inspect", place]).silent();
    assert!(shown.contains(place), "{shown}");
    if !shown.contains("checkpoint before epoch") {
        return false;
    }
    let checked = store.run(&["state", "verify", place]).silent();
    assert!(checked.starts_with("checked "), "{checked}");
    let sql = format!(
        "CREATE TABLE kept (szcode VARCHAR, key_partition BIGINT)
           WITH (connector = 'state', path = '{place}', query = 'r'); SELECT DISTINCT szcode FROM kept",
    );
    let read = store.run(&["run", "-e", &sql, "--format", "csv"]).silent();
    if rows(&read) != ["c0", "c1", "c2", "c3", "c4"] {
        return false;
    }
    assert_eq!(store.run(&["state", "forget", place, "r"]).silent(), "forgot r\n");
    assert_eq!(store.run(&["state", "inspect", place]).silent(), "no queries\n");
    true
}

#[test]
fn a_second_process_takes_the_query_over_and_the_first_one_stops() {
    let store = Store::start();
    let (scenario, destination) = (Scenario::group_by(4_000), InStore(&store));
    let place = destination.place();
    let mut first = scenario.start_kept(place.as_ref());
    first.wait_for_note("r: begins");
    let second = scenario.start_kept(place.as_ref());
    let first = first.finish();
    second.finish().check();
    if first.code != Some(0) {
        first.check_error(1, &["process"]);
    }
    assert_eq!(place.rows(&scenario), scenario.undisturbed());
}

#[test]
fn a_store_that_cannot_be_used_is_named_with_what_to_do() {
    let store = Store::start();
    store.make_bucket("bucket");
    let place = "s3://bucket/state";
    let run = ["run", "-e", "SELECT 1", "--state-dir", place];
    let refused = store.run_with(&run, &[("AWS_SECRET_ACCESS_KEY", "wrong")]);
    refused.check_error(1, &["opening state directory s3://bucket/state", "AWS_SECRET_ACCESS_KEY"]);
    // Nothing listens on a port that was free a moment ago.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let unreachable = store.run_with(&run, &[("AWS_ENDPOINT_URL", &format!("http://{free}"))]);
    unreachable.check_error(1, &["opening state directory s3://bucket/state", "AWS_ENDPOINT_URL"]);
    let nothing = store.run(&["state", "inspect", place]);
    nothing.check_error(1, &["s3://bucket/state is no state directory"]);
    let unsynced = store.run(&[&run[..], &["--durability", "process_crash"]].concat());
    unsynced.check_error(1, &["leave --durability out"]);
    let unknown = store.run(&["run", "-e", "SELECT 1", "--state-dir", "gs://bucket/state"]);
    unknown.check_error(2, &["state cannot be kept at"]);
}
