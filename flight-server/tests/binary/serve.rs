//! `millstream serve`, asked by `millstream sql --connect` and plain HTTP.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::process::{Finished, Folder, Running, root, run};

/// What is waited for comes within this time unless something hangs.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) const TRADES: &str = "CREATE STREAM trades (szcode VARCHAR, price DOUBLE, turnover BIGINT, ts TIMESTAMP(3),
                      WATERMARK FOR ts AS ts) WITH (connector = 'push')";
pub(crate) const TOTALS: &str =
    "CREATE MATERIALIZED VIEW totals AS SELECT window_end, szcode, SUM(turnover) AS turnover
                      FROM trades [Range 10 seconds, Slide 10 seconds] GROUP BY window_end, szcode";

/// A server, killed when it is dropped.
pub(crate) struct Server {
    pub(crate) process: Running,
    pub(crate) address: String,
}

impl Server {
    pub(crate) fn start(folder: &Folder, arguments: &[&str]) -> Self {
        let data = folder.path("data");
        let given = [&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data], arguments].concat();
        Self::of(Running::start(&given))
    }

    pub(crate) fn of(mut process: Running) -> Self {
        let line = process.wait_for_line("listens on");
        let address = line.trim().rsplit_once("://").map(|(_, address)| address.to_owned()).unwrap_or_default();
        Self { process, address }
    }

    pub(crate) fn ask_as(&self, user: &str, sql: &str) -> Finished {
        run(&["sql", "--connect", &format!("grpc://{user}{}", self.address), "-e", sql, "--format", "csv"])
    }

    /// The rows of a statement that succeeds.
    #[track_caller]
    pub(crate) fn ask(&self, sql: &str) -> String {
        self.ask_as("", sql).silent()
    }

    /// Asks until the rows are there.
    #[track_caller]
    pub(crate) fn ask_until(&self, sql: &str, is_there: impl Fn(&str) -> bool) -> String {
        let end = Instant::now() + DEADLINE;
        loop {
            let rows = self.ask(sql);
            if is_there(&rows) {
                return rows;
            }
            assert!(Instant::now() < end, "{sql}: {rows}");
        }
    }

    /// Posts a body; the answer with its status line.
    pub(crate) fn post(&self, path: &str, headers: &[&str], body: &str) -> String {
        let address = &self.address;
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
        );
        let mut answer = String::new();
        let talked = TcpStream::connect(address).and_then(|mut connection| {
            connection.write_all(request.as_bytes())?;
            connection.read_to_string(&mut answer)
        });
        talked.map_or_else(|error| error.to_string(), |_| answer)
    }

    /// Posts trades as CSV.
    #[track_caller]
    pub(crate) fn push(&self, rows: &str) {
        let answer = self.post("/v1/streams/trades", &["content-type: text/csv"], rows);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

pub(crate) const FIRST: &str = "A,1,10,2026-01-01T00:00:01\nB,2,20,2026-01-01T00:00:02\nA,3,30,2026-01-01T00:00:12\n";
const ASKED: &str = "SELECT szcode, turnover FROM totals ORDER BY window_end, szcode";

/// A secret as the configuration has it.
pub(crate) fn hashed(secret: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_millstream"));
    child.arg("hash").stdin(Stdio::piped()).stdout(Stdio::piped()).current_dir(root());
    let ended = child.spawn().and_then(|mut child| {
        child.stdin.take().map_or(Ok(()), |mut stdin| writeln!(stdin, "{secret}"))?;
        child.wait_with_output()
    });
    String::from_utf8_lossy(&ended.map(|ended| ended.stdout).unwrap_or_default()).trim().to_owned()
}

#[test]
fn what_was_declared_and_pushed_is_there_after_a_restart() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    server.ask(&format!("{TRADES}; {TOTALS}; CREATE VIEW dear AS SELECT * FROM totals WHERE turnover > 15"));
    server.push(FIRST);
    server.ask_until(ASKED, |rows| rows == "szcode,turnover\nA,10\nB,20\n");
    // The window that is open has rows that were acknowledged.
    server.process.kill().check_killed();
    let server = Server::start(&folder, &[]);
    server.push("A,4,40,2026-01-01T00:00:13\nB,5,50,2026-01-01T00:00:25\n");
    server.ask_until(ASKED, |rows| rows == "szcode,turnover\nA,10\nB,20\nA,70\n");
    assert_eq!(server.ask("SELECT COUNT(*) AS n FROM dear"), "n\n2\n");
    server.process.terminate();
    let ended = server.process.finish();
    assert_eq!(ended.code, Some(130));
    // Who did what, and nothing else.
    assert!(ended.stderr.lines().all(|line| line.contains("millstream::audit")), "{}", ended.stderr);
    let server = Server::start(&folder, &[]);
    assert_eq!(server.ask(ASKED), "szcode,turnover\nA,10\nB,20\nA,70\n");
    server.ask("DROP VIEW dear; DROP MATERIALIZED VIEW totals; DROP STREAM trades");
    drop(server);
    let server = Server::start(&folder, &[]);
    assert_eq!(server.ask("SHOW STREAMS").lines().count(), 1);
    let left = std::fs::read_dir(folder.path("data/streams")).map(Iterator::count);
    assert_eq!(left.unwrap_or_default(), 0, "the rows of a stream that was dropped are gone");
}

#[test]
fn what_a_query_needs_cannot_be_dropped_until_it_is_stopped() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    let database = folder.path("results.db");
    server.ask(&format!("{TRADES}; CREATE SINK kept WITH (connector = 'sqlite', path = '{database}')"));
    server.ask("INSERT INTO kept SELECT szcode, price FROM trades");
    for (wrong, name) in [("DROP STREAM trades", "trades"), ("DROP SINK kept", "kept")] {
        server.ask_as("", wrong).check_error(1, &[&format!("\"{name}\" is used by query 'kept'"), "STOP QUERY"]);
    }
    server.push(FIRST);
    let count = || -> Option<i64> {
        let database = rusqlite::Connection::open(&database).ok()?;
        database.query_row("SELECT COUNT(*) FROM kept", [], |row| row.get(0)).ok()
    };
    let end = Instant::now() + DEADLINE;
    while count() != Some(3) {
        assert!(Instant::now() < end, "{:?}", count());
    }
    server.ask("STOP QUERY kept");
    server.ask_until("SHOW QUERIES", |rows| rows.lines().count() == 1);
    // It goes on where it was, and has read no row twice.
    server.ask("INSERT INTO kept SELECT szcode, price FROM trades");
    server.push("A,9,90,2026-01-01T00:00:30\n");
    while count() != Some(4) {
        assert!(Instant::now() < end, "{:?}", count());
    }
    server.ask("STOP QUERY kept");
    server.ask_until("SHOW QUERIES", |rows| rows.lines().count() == 1);
    server.ask("DROP SINK kept; DROP STREAM trades");
}

#[test]
fn a_query_that_fails_of_something_outside_is_begun_again() {
    let folder = Folder::new();
    let database = folder.path("later/results.db");
    let server = Server::start(&folder, &[]);
    server.ask(&format!("{TRADES}; CREATE SINK kept WITH (connector = 'sqlite', path = '{database}')"));
    server.ask("INSERT INTO kept SELECT szcode, price FROM trades");
    server.push(FIRST);
    let found = server.ask_until("SHOW QUERIES", |rows| rows.contains("restarting"));
    assert!(found.contains("results.db"), "{found}");
    // Over a restart too.
    server.process.kill().check_killed();
    let server = Server::start(&folder, &[]);
    server.ask_until("SHOW QUERIES", |rows| rows.contains("kept,restarting"));
    assert!(std::fs::create_dir(folder.path("later")).is_ok());
    server.ask_until("SHOW QUERIES", |rows| rows.contains("kept,running") && rows.contains(",3,3,"));
}

#[test]
fn a_standby_takes_over_when_the_first_one_dies() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    server.ask(TRADES);
    let data = folder.path("data");
    let refused = run(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data]);
    refused.check_error(1, &["is in use by process"]);
    let mut standby = Running::start(&["serve", "--listen", "127.0.0.1:0", "--data-dir", &data, "--standby"]);
    standby.wait_for_line("stands by");
    server.process.kill().check_killed();
    let server = Server::of(standby);
    assert!(server.ask("SHOW STREAMS").contains("trades"));
}

#[test]
fn users_may_do_what_their_role_lets_them() {
    let folder = Folder::new();
    let (password, token) = (hashed("se:cret"), hashed("t0ken"));
    let config = folder.write(
        "server.toml",
        format!(
            "[[users]]\nname = 'ann'\nrole = 'admin'\npassword = '{password}'\n
             [[users]]\nname = 'ron'\nrole = 'reader'\npassword = '{password}'\n
             [[users]]\nname = 'wil'\nrole = 'writer'\ntokens = ['{token}']\n"
        ),
    );
    let server = Server::start(&folder, &["--config", &config]);
    server.ask_as("ann:se:cret@", TRADES).silent();
    assert!(server.ask_as("ron:se:cret@", "SHOW STREAMS").silent().contains("trades"));
    server.ask_as("ron:se:cret@", "DROP STREAM trades").check_error(1, &["\"ron\"", "needs the role admin"]);
    server.ask_as("ron:wrong@", "SELECT 1").check_error(1, &["the name, password or token is wrong"]);
    server.ask_as("", "SELECT 1").check_error(1, &["send a token"]);
    let post = |headers: &[&str]| server.post("/v1/streams/trades", headers, FIRST);
    assert!(post(&["content-type: text/csv"]).starts_with("HTTP/1.1 401"));
    assert!(post(&["content-type: text/csv", "authorization: Bearer wrong"]).starts_with("HTTP/1.1 401"));
    let answer = post(&["content-type: text/csv", "authorization: Bearer t0ken"]);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"rows\":3"), "{answer}");
    let printed = run(&["serve", "--config", &config, "--print-config"]).silent();
    assert!(printed.contains("name = \"wil\""), "{printed}");
}

#[test]
fn connectors_go_where_they_are_allowed_to() {
    let folder = Folder::new();
    let inside = folder.path("in");
    assert!(std::fs::create_dir(&inside).is_ok());
    folder.write("in/t.csv", "1\n2\n");
    let text = format!("allowed_paths = ['{inside}']\nallowed_hosts = ['127.0.0.1:9']\n");
    let config = folder.write("server.toml", text);
    let server = Server::start(&folder, &["--config", &config]);
    let table = |name: &str, path: &str| {
        format!("CREATE TABLE {name} (n BIGINT) WITH (connector = 'files', path = '{}')", folder.path(path))
    };
    server.ask(&table("held", "in/*.csv"));
    assert_eq!(server.ask("SELECT SUM(n) AS n FROM held"), "n\n3\n");
    server
        .ask_as("", &table("elsewhere", "server.toml"))
        .check_error(1, &["under none of the folders that are allowed"]);
    let hook = "CREATE SINK s WITH (connector = 'webhook', url = 'http://10.0.0.1/hook', authorization = 'Bearer x')";
    server.ask_as("", hook).check_error(1, &["a host that is not allowed"]);
    assert_eq!(server.ask("SHOW SINKS").lines().count(), 1);
}

#[test]
fn a_view_is_followed_and_goes_on_after_an_epoch() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    server.ask(&format!("{TRADES}; {TOTALS}"));
    let connect = format!("grpc://{}", server.address);
    let follow = |sql: &str| Running::start(&["sql", "--connect", &connect, "-e", sql, "--format", "csv"]);
    let mut first = follow("SUBSCRIBE totals");
    server.push(FIRST);
    let row = first.wait_for_line("B,20,");
    let epoch = row.trim().rsplit(',').next().unwrap_or_default().to_owned();
    first.kill().check_killed();
    let mut second = follow(&format!("SUBSCRIBE totals AS OF EPOCH {epoch}"));
    server.push("A,9,90,2026-01-01T00:00:30\n");
    second.wait_for_line("A,30,");
    let seen = second.kill().stdout;
    assert!(!seen.contains("B,20,"), "{seen}");
}

#[test]
fn a_server_is_not_open_to_the_network_by_accident() {
    let refused = run(&["serve", "--listen", "0.0.0.0:0"]);
    refused.check_error(2, &["0.0.0.0:0 is open to other machines", "--insecure"]);
    let folder = Folder::new();
    let config = folder.write("server.toml", "listne = '127.0.0.1:1'");
    run(&["serve", "--config", &config]).check_error(2, &["server.toml", "listne"]);
}
