//! `millstream test`: the project's own tests in SQL, and how failures and mistakes are said.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::process::{Finished, Folder, root, run};

/// The files of tests below `queries/`, as the command line names them.
fn files() -> Vec<String> {
    let mut folders = vec![root().join("queries")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(".test.sql") {
                files.push(path.strip_prefix(root()).unwrap().display().to_string());
            }
        }
    }
    files.sort();
    files
}

#[test]
fn the_tests_of_the_projects_queries_pass() {
    let files = files();
    assert!(files.len() >= 3, "{files:?}");
    let mut arguments = vec!["test", "--cuts", "8", "--restarts", "3"];
    arguments.extend(files.iter().map(String::as_str));
    let found = run(&arguments).silent();
    assert!(found.contains("12 tests passed, 0 failed"), "{found}");
    assert!(found.starts_with("seed 42: each answer is also found in 8 random cuts and over 3 restarts\n"), "{found}");
}

/// Runs a file of tests over a small stream.
fn run_tests(tests: &str, more: &[&str]) -> Finished {
    let folder = Folder::new();
    let schema = "CREATE STREAM t (k VARCHAR, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts);";
    let (schema, tests) = (folder.write("schema.sql", schema), folder.write("t.test.sql", tests));
    run(&[&["test", &schema, &tests], more].concat())
}

/// A test named `a` with these steps.
fn run_steps(steps: &str) -> Finished {
    run_tests(&format!("TEST a BEGIN\n{steps}\nEND;"), &[])
}

#[test]
fn a_failure_shows_the_place_and_the_rows_that_differ() {
    let found = run_steps(
        "INSERT INTO t VALUES ('a', 1, 1000), ('b', 2, 2000);
         ASSERT SELECT k, v FROM t RETURNS ('b', 2), ('c', 3);",
    );
    found.check_error(1, &["error: 1 of 1 tests failed"]);
    for part in [
        "  FAILED  a\n",
        "error: the query gives other rows",
        "--> line 3, column 10",
        "      k  v\n    - c  3\n    + a  1\n    1 missing (-), 1 extra (+), 1 as they should be\n",
        "0 tests passed, 1 failed\n",
    ] {
        assert!(found.stdout.contains(part), "no {part:?} in {}", found.stdout);
    }
}

#[test]
fn order_counts_where_the_query_says_it() {
    let insert = "INSERT INTO t VALUES ('a', 1, 1000), ('b', 2, 2000); ADVANCE WATERMARK TO END;";
    let query = "SELECT k, v FROM t [Range 1 minute, Slide 1 minute]";
    run_steps(&format!("{insert} ASSERT {query} RETURNS ('b', 2), ('a', 1);")).check();
    run_steps(&format!("{insert} ASSERT {query} ORDER BY k RETURNS ('a', 1), ('b', 2);")).check();
    let found = run_steps(&format!("{insert} ASSERT {query} ORDER BY k RETURNS ('b', 2), ('a', 1);"));
    assert_eq!(found.code, Some(1), "{found:?}");
}

#[test]
fn every_step_that_cannot_be_done_says_why() {
    for (steps, message) in [
        ("INSERT INTO u VALUES (1);", "there is no stream, table or view \"u\""),
        ("INSERT INTO t (k, w) VALUES ('a', 1);", "\"t\" has no column \"w\""),
        ("INSERT INTO t (k, k) VALUES ('a', 'b');", "the column \"k\" is named twice"),
        ("INSERT INTO t VALUES ('a', 1);", "a row has 2 values for 3 columns"),
        ("INSERT INTO t (k, v) VALUES ('a', 1.5);", "column \"v\" is BIGINT: 1.5 does not fit"),
        ("INSERT INTO t (k, v) VALUES ('a', 'x');", "column \"v\" is BIGINT"),
        ("ADVANCE WATERMARK FOR u TO 5;", "there is no stream, table or view \"u\""),
        ("ADVANCE WATERMARK TO END; INSERT INTO t (k) VALUES ('a');", "stream \"t\" has ended"),
        ("ASSERT SELECT k FROM t RETURNS ('a', 1);", "a row has 2 values for 1 column"),
        ("ASSERT SELECT w FROM t RETURNS (1);", "unknown column \"w\""),
        ("ASSERT FILE 'none.sql' RETURNS (1);", "none.sql"),
        ("ASSERT ERROR SELECT k FROM t LIKE '%';", "the statement does not fail"),
        ("ASSERT ERROR SELECT w FROM t LIKE '%overflow%';", "not like '%overflow%'"),
        ("ASSERT NO ROWS SELECT 1 / 0;", "ivide by zero"),
    ] {
        let found = run_steps(steps);
        assert_eq!(found.code, Some(1), "{steps}: {found:?}");
        assert!(found.stdout.contains(message), "{steps}: no {message:?} in {}", found.stdout);
        assert!(found.stdout.contains("--> line "), "{steps}: no place in {}", found.stdout);
    }
}

#[test]
fn tests_are_chosen_by_their_names_and_stand_alone() {
    let tests = "
        TEST first BEGIN INSERT INTO t (k, ts) VALUES ('a', 1); ASSERT SELECT k FROM t RETURNS ('a'); END
        TEST second BEGIN ASSERT NO ROWS SELECT k FROM t; END
        SELECT k FROM t;
        TEST third BEGIN ASSERT SELECT 1 RETURNS (2); END;";
    let found = run_tests(tests, &["--filter", "second"]);
    found.check();
    assert!(found.stdout.contains("1 test passed, 0 failed"), "{found:?}");
    assert!(found.stderr.contains("1 query outside of tests checked and not run"), "{found:?}");
    let found = run_tests(tests, &["--cuts", "2", "--seed", "7"]);
    found.check_error(1, &["1 of 3 tests failed"]);
    assert!(found.stdout.starts_with("seed 7: each answer is also found in 2 random cuts"), "{found:?}");
    run_tests(tests, &["--filter", "fourth"]).check_error(2, &["no test has \"fourth\" in its name"]);
    run_tests("SELECT 1;", &[]).check_error(2, &["there is no test"]);
}

#[test]
fn a_mistake_outside_of_tests_ends_the_run_with_its_place() {
    let found = run_tests("CREATE STREAM t (k VARCHAR);", &[]);
    found.check_error(1, &["t.test.sql: error: the stream \"t\" exists already", "--> line 1"]);
    let found = run_tests("INCLUDE 'schema.sql';", &[]);
    found.check_error(1, &["schema.sql: error: the stream \"t\" exists already"]);
    run_tests("INCLUDE 'none.sql';", &[]).check_error(1, &["cannot read"]);
    run_tests("INCLUDE 't.test.sql';", &[]).check_error(1, &["include each other"]);
    run(&["run", "-e", "TEST a BEGIN ASSERT SELECT 1 RETURNS (1); END"]).check_error(1, &["millstream test"]);
}

#[test]
fn streams_without_event_time_have_the_time_of_the_last_watermark() {
    let tests = "
        CREATE STREAM a (v BIGINT) WITH (connector = 'push');
        TEST arrival BEGIN
          INSERT INTO a VALUES (1);
          ADVANCE WATERMARK TO 5000;
          INSERT INTO a VALUES (2), (3);
          ADVANCE WATERMARK TO 10000;
          ASSERT SELECT window_end, SUM(v) FROM a [Range 5 seconds, Slide 5 seconds] GROUP BY window_end
          RETURNS (5000, 1), (10000, 5);
        END;";
    run_tests(tests, &[]).check();
}

#[test]
fn the_example_of_the_documentation_passes() {
    let page = std::fs::read_to_string(root().join("docs/testing.md")).unwrap();
    let example = page.split("```sql\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = Folder::new();
    folder.write("schema.sql", std::fs::read(root().join("queries/stock/schema.sql")).unwrap());
    let file = folder.write("example.test.sql", example);
    assert!(run(&["test", &file]).silent().contains("1 test passed, 0 failed"));
}
