//! Exit codes, and what a person reads when something is wrong.

use super::process::{run, run_sql};

#[test]
fn what_is_done_ends_with_0() {
    assert_eq!(run_sql("SELECT 1 + 1 AS two").silent(), "two\n2\n");
    for arguments in [vec!["--help"], vec!["--version"], vec!["help", "run"]] {
        assert_eq!(run(&arguments).code, Some(0), "{arguments:?}");
    }
    for command in ["run", "demo", "explain", "generate"] {
        let help = run(&[command, "--help"]).silent();
        assert!(help.contains("Example"), "{help}");
    }
}

#[test]
fn a_refused_query_ends_with_1_and_shows_its_place() {
    let refused = run_sql("SELECT 1;\nSELECT * FROM nowhere");
    let shown = "--> line 2, column 15\n  |\n2 | SELECT * FROM nowhere\n  |               ^\n";
    refused.check_error(1, &["there is no stream, table or view \"nowhere\"", shown]);
    let alias = "SELECT c.userID FROM TRANSACTION p";
    let alias = run(&["run", "queries/stock/small/schema.sql", "-e", alias]);
    alias.check_error(1, &["undefined alias \"c\" in c.userID", "line 1, column 8", "write p.userID"]);
    let unbound = run(&["run", "queries/stock/small/schema.sql", "queries/stock/groupby.sql", "-p", "n=60"]);
    unbound.check_error(1, &["queries/stock/groupby.sql", "parameter \"s\" is not bound", "line 4", "-p s="]);
    assert_eq!(unbound.stdout, "");
}

#[test]
fn what_ran_before_a_refused_statement_is_printed() {
    let folder = super::process::Folder::new();
    let good = folder.write("good.sql", "SELECT 1 AS one;");
    let refused = run(&["run", &good, "-e", "SELECT +", "--format", "csv"]);
    refused.check_error(1, &["-e: error: ", "line 1"]);
    assert_eq!(refused.stdout, "one\n1\n");
}

#[test]
fn an_unknown_option_is_refused_where_it_stands_with_the_nearest_one() {
    let cases = [
        ("CREATE STREAM t (a INT) WITH (connector = 'files', pth = 'x')", "unknown option \"pth\"", "\"path\""),
        ("CREATE STREAM t (a INT) WITH (connector = 'file', path = 'x')", "unknown connector \"file\"", "\"files\""),
        ("CREATE SINK s WITH (connector = 'consol')", "unknown connector \"consol\"", "\"console\""),
        ("CREATE SINK s WITH (connector = 'files', path = 'x', fromat = 'csv')", "\"fromat\"", "\"format\""),
        ("SET batch_intervall = '1 s'", "unknown setting \"batch_intervall\"", "batch_interval"),
    ];
    for (sql, message, nearest) in cases {
        let nearest = format!("did you mean {nearest}");
        run_sql(sql).check_error(1, &[message, &nearest, "--> line 1, column "]);
    }
    run_sql(cases[0].0).check_error(1, &["line 1, column 52\n"]);
}

#[test]
fn a_file_that_is_not_there_is_named() {
    run(&["run", "no-such.sql"]).check_error(1, &["cannot read no-such.sql", "because: "]);
    let sql = "CREATE STREAM t (a INT) WITH (connector = 'files', path = 'no-such.csv'); SELECT a FROM t";
    run_sql(sql).check_error(1, &["no-such.csv"]);
}

#[test]
fn wrong_usage_ends_with_2() {
    for arguments in [
        vec![],
        vec!["run"],
        vec!["explain"],
        vec!["walk"],
        vec!["run", "--no-such-flag"],
        vec!["run", "-e", "SELECT 1", "-p", "n"],
        vec!["run", "-e", "SELECT 1", "--batch-interval", "soon"],
        vec!["run", "-e", "SELECT 1", "--format", "xml"],
        vec!["generate", "transaction"],
        vec!["generate", "transaction", "--out", "x"],
        vec!["generate", "bonds", "--listen", "127.0.0.1:0"],
        vec!["demo", "--seconds", "0"],
    ] {
        let refused = run(&arguments);
        assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!refused.stderr.is_empty(), "{arguments:?}");
    }
}

#[cfg(unix)]
mod interrupts {
    use std::process::Command;
    use std::sync::mpsc::channel;
    use std::time::{Duration, Instant};

    use crate::process::{Finished, Running, send_lines, serve};

    /// Interrupts a run as Ctrl-C does; gives what it left, and checks that it did not take long.
    fn interrupt(running: Running) -> Finished {
        let begun = Instant::now();
        let killed = Command::new("kill").args(["-INT", &running.id().to_string()]).status();
        assert!(killed.is_ok_and(|status| status.success()));
        let finished = running.finish();
        assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?}", begun.elapsed());
        finished
    }

    #[test]
    fn an_endless_socket_ends_with_130_and_the_results_so_far() {
        let (end, ended) = channel::<()>();
        let (address, sending) = serve(move |client| {
            send_lines(client, "a,2024-01-01T00:00:01,1\nb,2024-01-01T00:00:02,2\nc,2024-01-01T00:00:12,4");
            // The connection stays open until the test is over.
            let _ = ended.recv();
        });
        let sql = format!(
            "CREATE STREAM t (k VARCHAR, ts TIMESTAMP(3), i BIGINT, WATERMARK FOR ts AS ts)
             WITH (connector = 'socket', address = '{address}');
             SELECT window_end, SUM(i) AS s FROM t [Range 10 s, Slide 10 s] GROUP BY window_end"
        );
        let mut running = Running::start(&["run", "-e", &sql, "--format", "csv"]);
        running.wait_for_line("2024-01-01T00:00:10,3");
        let finished = interrupt(running);
        drop(end);
        sending.join().unwrap();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(130), ""));
        // The window up to 00:00:20 is not closed, and not printed.
        assert_eq!(finished.stdout, "window_end,s\n2024-01-01T00:00:10,3\n");
    }

    #[test]
    fn an_endless_generator_ends_with_130_and_whole_rows() {
        // The last one ends its first micro-batches by their size, and is interrupted while it waits for the next.
        let cases =
            [("", "100ms", "00.100"), (", rate = 20000", "1ms", "00.100"), (", rate = 200000", "60s", "window_end")];
        for (pace, interval, line) in cases {
            let sql = format!(
                "CREATE STREAM transaction (szcode VARCHAR, eventTime TIMESTAMP(3), WATERMARK FOR eventTime AS eventTime)
                 WITH (connector = 'generate', event_rate = 100000{pace});
                 SELECT window_end, COUNT(*) AS n FROM transaction [Range 100 ms, Slide 100 ms] GROUP BY window_end"
            );
            let arguments = ["run", "-e", &sql, "--format", "csv", "--batch-interval", interval];
            let mut running = Running::start(&arguments);
            running.wait_for_line(line);
            let finished = interrupt(running);
            assert_eq!((finished.code, finished.stderr.as_str()), (Some(130), ""), "{pace} {interval}");
            assert!(finished.stdout.ends_with('\n'));
            for row in finished.stdout.lines().skip(1) {
                assert!(row.ends_with(",10000"), "{pace} {interval}: {row}");
            }
        }
    }

    #[test]
    fn a_generator_that_nobody_reads_ends_with_130() {
        let mut running = Running::start(&["generate", "stock", "--listen", "127.0.0.1:0"]);
        running.wait_for_note("127.0.0.1:");
        assert_eq!(interrupt(running).code, Some(130));
    }

    #[test]
    fn the_statements_behind_an_interrupted_one_do_not_run() {
        let sql = "CREATE STREAM stock (szcode VARCHAR, eventTime TIMESTAMP(3), WATERMARK FOR eventTime AS eventTime)
                   WITH (connector = 'generate', rate = 1000);
                   SELECT szcode FROM stock; SELECT 'afterwards' AS never";
        let mut running = Running::start(&["run", "-e", sql, "--format", "csv"]);
        running.wait_for_line("6");
        let finished = interrupt(running);
        assert_eq!(finished.code, Some(130));
        assert!(!finished.stdout.contains("never"), "{}", finished.stdout);
    }
}

#[test]
fn a_query_that_fails_stops_the_others_of_its_run() {
    let sql = "CREATE STREAM transaction (szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT,
                 Price DOUBLE, WATERMARK FOR eventTime AS eventTime) WITH (connector = 'generate', rate = '10000');
               CREATE SINK a WITH (connector = 'blackhole'); CREATE SINK b WITH (connector = 'blackhole');
               INSERT INTO a SELECT COUNT(*) AS n FROM transaction [Range 1 s, Slide 1 s];
               INSERT INTO b SELECT Turnover * 9223372036854775807 AS n FROM transaction";
    // The stream has no end, so that neither has the first query.
    run_sql(sql).check_error(1, &["verflow"]);
}
