//! What a server keeps to itself and from whom: secrets, what roles are not granted, what statements may not take.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::path::Path;
use std::time::Instant;

use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::FlightSqlServiceClient;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use tonic::transport::Endpoint;

use super::process::{Folder, Running, run};
use super::serve::{DEADLINE, FIRST, Server, TOTALS, TRADES, hashed};

/// What no output may show.
const CANARIES: [&str; 6] =
    ["canary-text", "canary-file", "canary-env", "canary-password", "canary-login", "canary-address"];

/// Whether a file below a folder holds a text.
fn holds(folder: &Path, text: &str) -> bool {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.into_iter().any(|path| match std::fs::read(&path) {
        Ok(bytes) => bytes.windows(text.len()).any(|part| part == text.as_bytes()),
        Err(_) => holds(&path, text),
    })
}

/// A server that logs all that it can, with secrets in its environment.
fn talkative(folder: &Folder, config: &str) -> Server {
    let data = folder.path("data");
    let arguments = ["serve", "--listen", "127.0.0.1:0", "--data-dir", &data, "--config", config];
    Server::of(Running::start_with(&arguments, &[("HIDDEN", CANARIES[2]), ("RUST_LOG", "trace")]))
}

#[test]
fn secrets_show_in_no_output() {
    let folder = Folder::new();
    let file = folder.write("secret.txt", format!("postgres://me:{}@127.0.0.1:1/db\n", CANARIES[3]));
    let of_file = folder.write("other.txt", CANARIES[1]);
    let of_address = folder.write("address.txt", format!("{}.invalid:1", CANARIES[5]));
    let login = hashed(CANARIES[4]);
    let text = format!("[[users]]\nname = 'ann'\nrole = 'admin'\npassword = '{login}'\n");
    let config = folder.write("server.toml", text);
    let server = talkative(&folder, &config);
    let user = format!("ann:{}@", CANARIES[4]);
    let mut seen = String::new();
    let mut ask = |server: &Server, sql: &str| {
        let answer = server.ask_as(&user, sql);
        seen.push_str(&answer.stdout);
        seen.push_str(&answer.stderr);
        answer
    };
    let secrets = [
        format!("CREATE SECRET text AS '{}'", CANARIES[0]),
        format!("CREATE SECRET of_file FROM FILE '{of_file}'"),
        "CREATE SECRET of_env FROM ENV 'HIDDEN'".to_owned(),
        format!("CREATE SECRET database FROM FILE '{file}'"),
        format!("CREATE SECRET address FROM FILE '{of_address}'"),
    ];
    for secret in &secrets {
        ask(&server, secret).silent();
    }
    ask(&server, TRADES).silent();
    let sink = "CREATE SINK kept WITH (connector = 'postgres', url = SECRET database, table = 'kept')";
    ask(&server, sink).silent();
    ask(&server, "INSERT INTO kept SELECT szcode, price FROM trades").silent();
    // What is kept of a query tells the options of its streams.
    let stream = "CREATE STREAM ticks (a INT) WITH (connector = 'socket', address = SECRET address)";
    ask(&server, stream).silent();
    ask(&server, "CREATE MATERIALIZED VIEW counted AS SELECT COUNT(*) AS n FROM ticks").silent();
    // Options that are wrong, or not even options.
    for wrong in [
        "CREATE SINK x WITH (connector = 'webhook', url = SECRET text)",
        "CREATE SINK x WITH (connector = SECRET of_file)",
        "CREATE STREAM x (a INT) WITH (connector = 'push', rate_limit = SECRET of_env)",
        "CREATE STREAM x (a INT) WITH (connector = 'files', path = SECRET of_file, format = SECRET text)",
        "CREATE SECRET text AS 'other'",
        "CREATE SECRET x AS 'abc'",
        "CREATE SECRET x FROM ENV 'NOT_THERE'",
        "CREATE SECRET x FROM FILE '/not/there'",
        "DROP SECRET database",
        "SELECT nothing FROM trades",
    ] {
        assert_eq!(ask(&server, wrong).code, Some(1), "{wrong}");
    }
    assert_eq!(ask(&server, "SHOW SECRETS").stdout, "secret\naddress\ndatabase\nof_env\nof_file\ntext\n");
    for told in ["SHOW SINKS", "DESCRIBE trades", "EXPLAIN SELECT * FROM trades", "SHOW QUERIES", "SHOW STREAMS"] {
        assert_eq!(ask(&server, told).code, Some(0), "{told}");
    }
    // It cannot be reached, and says where it is.
    let end = Instant::now() + DEADLINE;
    let failure = loop {
        let answer = ask(&server, "SHOW QUERIES").stdout;
        if answer.contains("restarting") {
            break answer;
        }
        assert!(Instant::now() < end, "{answer}");
    };
    assert!(failure.contains("kept,restarting"), "{failure}");
    let log = server.process.kill();
    // What was typed out is there, and nothing else.
    assert!(holds(Path::new(&folder.path("data")), CANARIES[0]));
    for canary in &CANARIES[1..] {
        assert!(!holds(Path::new(&folder.path("data")), canary), "{canary} is in the data directory");
    }
    // What names a secret is carried out again after a restart.
    let server = talkative(&folder, &config);
    let answer = ask(&server, "SHOW SINKS; SHOW QUERIES");
    assert!(answer.stdout.contains("kept,postgres"), "{answer:?}");
    ask(&server, "STOP QUERY kept; DROP SINK kept; DROP SECRET database").silent();
    let second = server.process.kill();
    for text in [seen, log.stdout, log.stderr, second.stdout, second.stderr] {
        for canary in CANARIES {
            let line = text.lines().find(|line| line.contains(canary));
            assert_eq!(line, None, "{canary}");
        }
    }
}

/// The names that the metadata tell a user, who is to know of each table's columns too.
async fn tables(server: &Server, user: &str, password: &str) -> Vec<String> {
    let channel = Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap();
    let mut client = FlightSqlServiceClient::new(channel);
    client.handshake(user, password).await.unwrap();
    let wanted = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
    let info = client.get_tables(wanted).await.unwrap();
    let ticket = info.endpoint[0].ticket.clone().unwrap();
    let batches: Vec<RecordBatch> = client.do_get(ticket).await.unwrap().try_collect().await.unwrap();
    let names = batches.iter().flat_map(|rows| rows.column_by_name("table_name").unwrap().as_string::<i32>().iter());
    names.flatten().map(str::to_owned).collect()
}

#[test]
fn a_role_sees_what_it_is_granted() {
    let folder = Folder::new();
    let password = hashed("pass-word");
    let user = |name: &str, role: &str| format!("[[users]]\nname='{name}'\nrole='{role}'\npassword='{password}'\n");
    let text = [
        "[[roles]]\nname = 'desk'\nread = ['totals']\nappend = ['trades']\nwrite = ['out']\n".to_owned(),
        user("ann", "admin"),
        user("dan", "desk"),
    ];
    let config = folder.write("server.toml", text.concat());
    let server = Server::start(&folder, &["--config", &config]);
    let (ann, dan) = ("ann:pass-word@", "dan:pass-word@");
    let database = folder.path("out.db");
    let declare = format!(
        "{TRADES}; {TOTALS}; CREATE VIEW private AS SELECT turnover FROM totals;
         CREATE SINK out WITH (connector = 'sqlite', path = '{database}');
         CREATE SINK other WITH (connector = 'blackhole')"
    );
    server.ask_as(ann, &declare).silent();
    server.ask_as(dan, "SELECT COUNT(*) AS n FROM totals").silent();
    for (sql, deed) in [
        ("SELECT * FROM trades", "may not read \"trades\""),
        ("SELECT * FROM private", "may not read \"private\""),
        ("SELECT COUNT(*) AS n FROM totals WHERE turnover IN (SELECT turnover FROM private)", "read \"private\""),
        ("EXPLAIN SELECT * FROM trades", "may not read \"trades\""),
        ("DESCRIBE private", "may not read \"private\""),
        ("INSERT INTO other SELECT * FROM totals", "may not write into the sink \"other\""),
        ("SHOW QUERIES", "may not hear of all queries"),
        ("SHOW SECRETS", "needs the role admin"),
        ("CREATE VIEW mine AS SELECT * FROM totals", "needs the role admin"),
    ] {
        server.ask_as(dan, sql).check_error(1, &["\"dan\"", deed]);
    }
    assert_eq!(server.ask_as(dan, "SHOW VIEWS").silent(), "view,query\n");
    assert!(server.ask_as(dan, "SHOW STREAMS").silent().contains("trades"), "it may send rows there");
    assert_eq!(server.ask_as(dan, "SHOW SINKS").silent(), "sink,connector\nout,sqlite\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    assert_eq!(runtime.block_on(tables(&server, "dan", "pass-word")), ["totals", "trades"]);
    let encoded = "authorization: Basic ZGFuOnBhc3Mtd29yZA==";
    let post = |path: &str| server.post(path, &["content-type: text/csv", encoded], FIRST);
    assert!(post("/v1/streams/trades").starts_with("HTTP/1.1 200"));
    assert!(post("/v1/streams/private").starts_with("HTTP/1.1 403"));
    server.ask_as(dan, "INSERT INTO out SELECT szcode, turnover FROM totals").silent();
    let wrong = folder.write("wrong.toml", user("ron", "desk"));
    run(&["serve", "--config", &wrong]).check_error(2, &["\"ron\" has the role \"desk\""]);
}

#[test]
fn a_statement_takes_no_more_than_it_may() {
    let folder = Folder::new();
    let text = "max_statement_seconds = 1\nmax_result_bytes = 20000\nmax_query_memory_bytes = 1000000\n";
    let config = folder.write("server.toml", text);
    let server = Server::start(&folder, &["--config", &config]);
    let digits = "WITH d AS (SELECT * FROM (VALUES (0), (1), (2), (3), (4), (5), (6), (7), (8), (9)) AS v(i))";
    let product = |count: usize| (0..count).map(|index| format!("d AS d{index}")).collect::<Vec<_>>().join(", ");
    let long = format!("{digits} SELECT SUM(d0.i * d1.i + d9.i) AS s FROM {}", product(12));
    server.ask_as("", &long).check_error(1, &["has run for 1 s, which is max_statement_seconds"]);
    server.ask_until("SHOW QUERIES", |rows| rows.lines().count() == 1);
    let wide = format!("{digits} SELECT d0.i + d1.i AS n FROM {}", product(4));
    server.ask_as("", &wide).check_error(1, &["the result has more than 20000 bytes"]);
    let number = "d0.i + 10 * d1.i + 100 * d2.i + 1000 * d3.i + 10000 * d4.i";
    let numbers = format!("{digits}, p AS (SELECT {number} AS n FROM {})", product(5));
    let held = format!("{numbers} SELECT COUNT(*) AS c FROM p JOIN p AS q ON p.n = q.n");
    server.ask_as("", &held).check_error(1, &["memory"]);
    assert_eq!(server.ask(&format!("{digits} SELECT COUNT(*) AS n FROM {}", product(3))), "n\n1000\n");
}
