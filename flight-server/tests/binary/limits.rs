//! Limits that a user sets: memory of state and of plans, rows per second, sizes of files, and what a log survives.

use std::time::{Duration, Instant};

use super::process::{Folder, Running, rows, run, run_sql};

/// Rows of a run with as many keys as `codes`, under `settings`.
fn sums(settings: &str, codes: u32) -> String {
    let sql = format!(
        "{settings} CREATE STREAM transaction (
           szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
           WATERMARK FOR eventTime AS eventTime
         ) WITH (connector = 'generate', rows = 300000, codes = {codes}, event_rate = 2000);
         SELECT szcode, COUNT(*) AS n, SUM(Turnover) AS s FROM transaction [Range 60 s, Slide 30 s] GROUP BY szcode"
    );
    run_sql(&sql).silent()
}

#[test]
fn state_that_does_not_fit_into_its_memory_gives_the_same_rows() {
    let (ample, scarce) = (sums("", 100_000), sums("SET state_memory = '1 MiB';", 100_000));
    assert!(rows(&ample).len() > 100_000, "{} rows", rows(&ample).len());
    assert_eq!(rows(&scarce), rows(&ample));
}

#[test]
fn a_plan_that_does_not_fit_into_its_memory_names_the_setting() {
    let sql = "SET plan_memory = '1 MiB'; CREATE STREAM transaction (
                 szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
                 WATERMARK FOR eventTime AS eventTime
               ) WITH (connector = 'generate', rows = 1000000, codes = 400000);
               CREATE SINK nowhere WITH (connector = 'blackhole');
               INSERT INTO nowhere SELECT szcode, userID, SUM(Price) FROM transaction [Range 60 s, Slide 60 s]
               GROUP BY szcode, userID";
    run_sql(sql).check_error(1, &["Resources exhausted", "SET plan_memory = '4 GiB'"]);
}

const COLUMNS: &str = "(k VARCHAR, eventTime TIMESTAMP(3), v BIGINT, WATERMARK FOR eventTime AS eventTime)";

/// Four files of fifty rows, a minute of event time apart.
fn four_files() -> Folder {
    let folder = Folder::new();
    for minute in 0..4 {
        let line = |row| format!("k{},2024-01-02T09:3{minute}:{row:02},{row}\n", row % 3);
        let text: String = (0..50).map(line).collect();
        folder.write(&format!("{minute}.csv"), format!("k,eventTime,v\n{text}"));
    }
    folder
}

/// The statement that makes a stream of the files in a folder, with more options.
fn stream(folder: &Folder, more: &str) -> String {
    format!("CREATE STREAM t {COLUMNS} WITH (connector = 'files', path = '{}'{more});", folder.path(""))
}

#[test]
fn a_rate_limit_slows_rows_down_and_changes_none() {
    let folder = four_files();
    let select = "SELECT k, COUNT(*) AS n FROM t [Range 60 s, Slide 60 s] GROUP BY k";
    let expected = run_sql(&(stream(&folder, "") + select)).silent();
    let begun = Instant::now();
    let limited = run_sql(&(stream(&folder, ", rate_limit = '500'") + select)).silent();
    // Of 200 rows all but the last file's wait for a tenth of a second each.
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert_eq!(rows(&limited), rows(&expected));
}

#[test]
fn small_files_are_put_together_and_hold_every_row() {
    let (folder, out) = (four_files(), Folder::new());
    let sink = |more: &str| {
        format!(
            "SET batch_rows = 50; SET batch_interval = '1 ms'; CREATE SINK r WITH (connector = 'files', path = '{}'{more});
             INSERT INTO r SELECT k, COUNT(*) AS n FROM t [Range 60 s, Slide 10 s] GROUP BY k",
            out.path("r")
        )
    };
    run_sql(&(stream(&folder, "") + &sink(", compact_after = '1 s'"))).check_error(1, &["add compact = '32 MiB'"]);
    run_sql(&(stream(&folder, "") + &sink(", compact = '1 MiB', compact_after = '1 ms'"))).check();
    let parts = std::fs::read_dir(out.path("r")).into_iter().flatten().flatten();
    let parts = parts.filter(|entry| entry.file_name().to_string_lossy().starts_with("part-")).count();
    assert!(parts <= 2, "{parts} files");
    let table = format!("CREATE TABLE r (k VARCHAR, n BIGINT) WITH (connector = 'files', path = '{}');", out.path("r"));
    let kept = run_sql(&(table + "SELECT * FROM r")).silent();
    let direct = stream(&folder, "") + "SELECT k, COUNT(*) AS n FROM t [Range 60 s, Slide 10 s] GROUP BY k";
    assert_eq!(rows(&kept), rows(&run_sql(&direct).silent()));
    let watching = format!(
        "CREATE STREAM r (k VARCHAR, n BIGINT, eventTime TIMESTAMP(3)) WITH (connector = 'files', path = '{}', watch_interval = '5 ms');",
        out.path("r")
    );
    run_sql(&(watching + "SELECT * FROM r")).check_error(1, &["may have been read before", "leave watch_interval out"]);
}

#[test]
fn a_log_survives_what_its_stream_says() {
    let (folder, state) = (four_files(), Folder::new());
    let select = "SELECT k, COUNT(*) AS n FROM t [Range 60 s, Slide 60 s] GROUP BY k";
    let run_kept = |sql: &str| run(&["run", "-e", sql, "--format", "csv", "--state-dir", &state.path("s")]);
    let replayable = run_kept(&(stream(&folder, ", durability = 'process_crash'") + select));
    replayable.check_error(1, &["its rows are read again from their source", "leave durability out"]);
    let unknown = run_kept(&(stream(&folder, ", durability = 'maybe'") + select));
    unknown.check_error(1, &["durability is 'maybe'", "'power_loss', 'process_crash' or 'none'"]);
    let generator = ["generate", "transaction", "--rows", "1000", "--rate", "100000", "--listen", "127.0.0.1:0"];
    for (durability, is_logged) in [("none", false), ("process_crash", true)] {
        let mut server = Running::start(&generator);
        let address = server.wait_for_note("127.0.0.1:");
        let address = address.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap_or_default();
        let address = address.trim_end_matches([',', '.', ';']);
        let state = Folder::new();
        let sql = format!(
            "CREATE STREAM transaction (szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT,
               Price DOUBLE, WATERMARK FOR eventTime AS eventTime
             ) WITH (connector = 'socket', address = '{address}', reconnect = 'false', durability = '{durability}');
             SELECT COUNT(*) AS n FROM transaction [Range 1 h, Slide 1 h]"
        );
        let finished = run(&["run", "-e", &sql, "--format", "csv", "--state-dir", &state.path("s")]);
        finished.check();
        assert!(finished.stdout.contains("1000"), "{finished:?}");
        let logged = std::fs::read_dir(state.path("s/streams")).is_ok_and(|mut streams| streams.next().is_some());
        assert_eq!(logged, is_logged, "{durability}: {finished:?}");
        assert_eq!(finished.stderr.contains("keeps nothing"), !is_logged, "{finished:?}");
        drop(server);
    }
}
