//! Functions and aggregates that are declared in SQL, JSON in columns, and arrays that become rows.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use super::process::{Folder, Running, rows, run, run_sql};

const WAVG: &str = "CREATE AGGREGATE wavg(v DOUBLE, w DOUBLE) RETURNS DOUBLE (
    STATE (s DOUBLE = 0, n DOUBLE = 0), UPDATE (s + v * w, n + w), MERGE (s + other.s, n + other.n),
    INVERSE (s - v * w, n - w), FINISH s / NULLIF(n, 0));";

/// Twenty trades of three codes in a minute.
fn declarations(folder: &Folder) -> String {
    let line =
        |number: u32| format!("c{},2024-01-01T00:00:{:02},{},{number}\n", number % 3, number * 3, number * number % 7);
    let text: String = (0..20).map(line).collect();
    let path = folder.write("trades.csv", format!("code,ts,price,n\n{text}"));
    format!(
        "CREATE STREAM trades (code VARCHAR, ts TIMESTAMP(3), price DOUBLE, n BIGINT, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{path}'); {WAVG}
         CREATE FUNCTION worth(price DOUBLE, n BIGINT) RETURNS DOUBLE AS price * n;
         CREATE FUNCTION class(code VARCHAR, large BOOLEAN) RETURNS VARCHAR AS upper(code) || CASE WHEN large THEN '+' ELSE '' END;
         CREATE AGGREGATE total(v BIGINT) RETURNS BIGINT
           (STATE (s BIGINT = 0), UPDATE (s + v), MERGE (s + other.s), INVERSE (s - v), FINISH s);"
    )
}

/// Ways to cut the input and to spread the work.
const WAYS: [&str; 4] = [
    "",
    "SET batch_rows = 1; SET batch_interval = '1 ms';",
    "SET batch_rows = 3; SET batch_interval = '1 ms'; SET tasks = 1;",
    "SET batch_rows = 7; SET batch_interval = '1 ms'; SET tasks = 3;",
];

/// Checks that two queries give the same rows, however the input is cut.
#[track_caller]
fn same(declared: &str, typed: &str) {
    let folder = Folder::new();
    let declarations = declarations(&folder);
    let expected = run_sql(&[&declarations, typed].concat()).silent();
    assert!(rows(&expected).len() > 1, "{expected}");
    for settings in WAYS {
        let found = run_sql(&[settings, &declarations, declared].concat()).silent();
        assert_eq!(rows(&found), rows(&expected), "{settings} {declared}");
    }
}

#[test]
fn a_function_gives_what_its_expression_gives() {
    same(
        "SELECT worth(price, n) AS x FROM trades WHERE worth(price, n) > 5",
        "SELECT price * n AS x FROM trades WHERE price * n > 5",
    );
    same(
        "SELECT window_end, class(code, sum(worth(price, n)) > 20) AS c, sum(worth(price, n)) AS s
         FROM trades [Range 20 s, Slide 10 s] GROUP BY window_end, code",
        "SELECT window_end, upper(code) || CASE WHEN sum(price * n) > 20 THEN '+' ELSE '' END AS c, sum(price * n) AS s
         FROM trades [Range 20 s, Slide 10 s] GROUP BY window_end, code",
    );
    same(
        "SELECT class(code, n > 9) AS c, count(*) AS x FROM trades [Range 20 s, Slide 10 s] GROUP BY class(code, n > 9)",
        "SELECT upper(code) || CASE WHEN n > 9 THEN '+' ELSE '' END AS c, count(*) AS x
         FROM trades [Range 20 s, Slide 10 s] GROUP BY 1",
    );
    same(
        "SELECT a.n, b.n AS m FROM trades [Range 9 s, Slide 9 s] a JOIN trades [Range 9 s, Slide 9 s] b
         ON class(a.code, true) = class(b.code, true)",
        "SELECT a.n, b.n AS m FROM trades [Range 9 s, Slide 9 s] a JOIN trades [Range 9 s, Slide 9 s] b ON a.code = b.code",
    );
}

#[test]
fn an_aggregate_gives_the_same_however_the_input_is_cut() {
    same(
        "SELECT window_end, code, wavg(price, n) AS x FROM trades [Range 20 s, Slide 10 s] GROUP BY window_end, code",
        "SELECT window_end, code, sum(price * n) / nullif(sum(n), 0) AS x FROM trades [Range 20 s, Slide 10 s]
         GROUP BY window_end, code",
    );
    same(
        "SELECT window_end, wavg(price, n) FILTER (WHERE code <> 'c1') AS x, total(n) AS t FROM trades [Range 30 s, Slide 10 s] GROUP BY window_end",
        "SELECT window_end, sum(price * n) FILTER (WHERE code <> 'c1') / sum(n) FILTER (WHERE code <> 'c1') AS x,
         sum(n) AS t FROM trades [Range 30 s, Slide 10 s] GROUP BY window_end",
    );
    same(
        "SELECT n, total(n) OVER (PARTITION BY code ORDER BY ts ROWS 1 PRECEDING) AS t,
         wavg(price, 1) OVER (ORDER BY ts) AS w FROM trades [Range 20 s, Slide 20 s]",
        "SELECT n, sum(n) OVER (PARTITION BY code ORDER BY ts ROWS 1 PRECEDING) AS t,
         avg(price) OVER (ORDER BY ts) AS w FROM trades [Range 20 s, Slide 20 s]",
    );
}

#[test]
fn an_unbounded_group_by_ends_with_what_a_batch_gives() {
    let folder = Folder::new();
    let last = |settings: &str, select: &str| {
        let found = run_sql(&[settings, &declarations(&folder), select].concat()).silent();
        let last: BTreeMap<String, String> =
            found.lines().skip(1).map(|row| (row.split_once(',').unwrap().0.to_owned(), row.to_owned())).collect();
        last.into_values().collect::<Vec<_>>()
    };
    for settings in WAYS {
        let found = last(settings, "SELECT code, total(n) AS t, wavg(price, n) AS x FROM trades GROUP BY code");
        let wanted = last(settings, "SELECT code, sum(n) AS t, sum(price * n) / sum(n) AS x FROM trades GROUP BY code");
        assert_eq!(found, wanted, "{settings}");
        assert_eq!(found.len(), 3, "one row for each code");
    }
}

#[test]
fn exact_aggregates_fail_where_they_overflow() {
    let folder = Folder::new();
    let select = "SELECT total(9223372036854775807) AS t FROM trades [Range 20 s, Slide 10 s]";
    run_sql(&[&declarations(&folder), select].concat()).check_error(1, &["verflow"]);
}

#[test]
fn a_view_and_a_window_over_it_call_declared_functions() {
    let views = "CREATE VIEW averages AS SELECT window_end, code, wavg(price, n) AS x, total(n) AS t
                   FROM trades [Range 10 s, Slide 10 s] GROUP BY window_end, code;
                 CREATE VIEW plain AS SELECT window_end, code, sum(price * n) / sum(n) AS x, sum(n) AS t
                   FROM trades [Range 10 s, Slide 10 s] GROUP BY window_end, code;";
    let select = |view: &str, sum: &str| {
        format!(
            "{views} SELECT window_end, {sum}(t) AS t, max(x) AS x FROM {view} [Range 30 s, Slide 30 s] GROUP BY window_end"
        )
    };
    same(&select("averages", "total"), &select("plain", "sum"));
}

/// The words of lines of text.
fn lines(folder: &Folder) -> String {
    let text = "ts,line\n2024-01-01T00:00:01,to be or\n2024-01-01T00:00:04,not to be\n2024-01-01T00:00:14,that is\n\
                2024-01-01T00:00:31,to\n2024-01-01T00:00:32,\n";
    let path = folder.write("lines.csv", text);
    format!(
        "CREATE STREAM lines (ts TIMESTAMP(3), line VARCHAR, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{path}');"
    )
}

#[test]
fn words_are_counted_in_windows_that_slide() {
    let folder = Folder::new();
    let select = "SELECT window_end, word, count(*) AS n FROM
                  (SELECT window_end, unnest(string_to_array(line, ' ')) AS word FROM lines [Range 30 s, Slide 10 s])
                  WHERE word LIKE 't%' GROUP BY window_end, word";
    let expected = [
        "2024-01-01T00:00:10,to,2",
        "2024-01-01T00:00:20,that,1",
        "2024-01-01T00:00:20,to,2",
        "2024-01-01T00:00:30,that,1",
        "2024-01-01T00:00:30,to,2",
        "2024-01-01T00:00:40,that,1",
        "2024-01-01T00:00:40,to,1",
        "2024-01-01T00:00:50,to,1",
        "2024-01-01T00:01:00,to,1",
    ];
    for settings in WAYS {
        assert_eq!(rows(&run_sql(&[settings, &lines(&folder), select].concat()).silent()), expected, "{settings}");
    }
    let select = "SELECT word, count(*) FROM (SELECT unnest(string_to_array(line, ' ')) AS word
                  FROM lines [Range 30 s, Slide 10 s]) GROUP BY word";
    assert!(rows(&run_sql(&[&lines(&folder), select].concat()).silent()).contains(&"to,2"));
    let explained = run_sql(&[&lines(&folder), "EXPLAIN ", select].concat()).silent();
    assert!(explained.contains("one partial aggregate for each group and pane"), "{explained}");
}

#[test]
fn words_pass_and_are_counted_for_ever() {
    let folder = Folder::new();
    for settings in WAYS {
        let select = "SELECT ts, unnest(string_to_array(line, ' ')) AS word FROM lines WHERE line LIKE '% be%'";
        let found = run_sql(&[settings, &lines(&folder), select].concat()).silent();
        let words: Vec<_> = rows(&found).iter().map(|row| row.split_once(',').unwrap().1.to_owned()).collect();
        assert_eq!(words, ["be", "or", "to", "be", "not", "to"], "{settings}");
        let select = "SELECT word, count(*) AS n FROM (SELECT unnest(string_to_array(line, ' ')) AS word FROM lines) GROUP BY word";
        let found = run_sql(&[settings, &lines(&folder), select].concat()).silent();
        let last: BTreeMap<_, _> = found.lines().skip(1).filter_map(|row| row.split_once(',')).collect();
        let counts: Vec<_> =
            ["be", "is", "not", "or", "that", "to"].map(|word| last.get(word).copied().unwrap()).into();
        assert_eq!(counts, ["2", "1", "1", "1", "1", "3"], "{settings}");
    }
}

#[test]
fn json_of_a_stream_is_read_and_unnested() {
    let folder = Folder::new();
    let documents = [
        r#"{"user": {"name": "ann"}, "items": [{"n": 2}, {"n": 3.0}], "ok": true}"#,
        r#"{"user": {"name": "bob"}, "items": [], "ok": null}"#,
        r#"{"user": {"name": "ann"}, "items": [{"n": 4}]}"#,
        r#"{"user":"#,
    ];
    let quoted = documents.map(|document| format!("2024-01-01T00:00:01,\"{}\"\n", document.replace('"', "\"\"")));
    let path = folder.write("docs.csv", format!("ts,doc\n{}", quoted.concat()));
    let stream = format!(
        "CREATE STREAM docs (ts TIMESTAMP(3), doc VARCHAR, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{path}');"
    );
    let find = |select: &str| run_sql(&[&stream, select].concat()).silent();
    let found = find(
        "SELECT doc -> 'user' ->> 'name' AS name, json_get_bool(doc, 'ok') AS ok, json_length(doc, 'items') AS n FROM docs",
    );
    assert_eq!(rows(&found), [",,", "ann,,1", "ann,true,2", "bob,,0"]);
    let select = "SELECT name, sum(json_get_int(item, 'n')) AS n FROM
                  (SELECT doc -> 'user' ->> 'name' AS name, unnest(json_get_array(doc, 'items')) AS item
                   FROM docs [Range 10 s, Slide 10 s]) GROUP BY name";
    assert_eq!(rows(&find(select)), ["ann,9"]);
    assert_eq!(
        rows(&find("SELECT count(*) AS n FROM docs [Range 10 s, Slide 10 s] WHERE doc -> 'user' ->> 'name' = 'ann'")),
        ["2"]
    );
}

/// Arguments for a query with a state directory, that a function or an aggregate makes the state of.
fn kept(folder: &Folder, watches: bool, declarations: &str, select: &str) -> Vec<String> {
    let watch = if watches { ", watch_interval = '5 ms'" } else { "" };
    let (trades, out) = (folder.path("in"), folder.path("out"));
    let sql = format!(
        "CREATE STREAM t (code VARCHAR, ts TIMESTAMP(3), v BIGINT, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{trades}'{watch});
         CREATE SINK r WITH (connector = 'files', path = '{out}'); {declarations} INSERT INTO r {select}"
    );
    ["run", "-e", &sql, "--state-dir", &folder.path("state")].map(str::to_owned).into()
}

fn start(arguments: &[String]) -> Running {
    Running::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Runs it until there are results, and stops it.
fn run_and_stop(folder: &Folder, declarations: &str, select: &str) {
    let mut running = start(&kept(folder, true, declarations, select));
    let has_results = || {
        let names = std::fs::read_dir(folder.path("out")).into_iter().flatten();
        names.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("part-"))
    };
    while !has_results() {
        assert!(running.is_running(), "it ended");
        std::thread::yield_now();
    }
    running.terminate();
    assert_eq!(running.finish().code, Some(130));
}

#[test]
fn a_changed_aggregate_of_a_kept_query_is_noticed() {
    let aggregate = "CREATE AGGREGATE agg(v BIGINT) RETURNS BIGINT
                       (STATE (s BIGINT = 0), UPDATE (s + v), MERGE (s + other.s), FINISH s);";
    let called = "CREATE FUNCTION g(v BIGINT) RETURNS BIGINT AS v + 5;
                  CREATE AGGREGATE agg(v BIGINT) RETURNS BIGINT
                    (STATE (s BIGINT = 0), UPDATE (s + g(v)), MERGE (s + other.s), FINISH s);";
    let view = "CREATE VIEW w AS SELECT window_end, code, agg(v) AS s FROM t [Range 9 s, Slide 3 s] GROUP BY window_end, code;";
    let view = [aggregate, view].concat();
    let aggregated = "SELECT code, agg(v) AS s FROM t [Range 9 s, Slide 3 s] GROUP BY code";
    let cases = [
        (aggregate, aggregated, "(s + v)", "(s + v + 1)"),
        (aggregate, aggregated, "FINISH s", "FINISH s + 1"),
        (called, aggregated, "v + 5", "v + 6"),
        (&view, "SELECT max(s) AS s FROM w [Range 9 s, Slide 9 s]", "other.s)", "other.s + 1)"),
    ];
    for (declarations, select, from, to) in cases {
        check_noticed(declarations, select, (from, to));
    }
}

#[test]
fn a_changed_function_of_a_kept_query_is_noticed() {
    let function = "CREATE FUNCTION f(v BIGINT) RETURNS BIGINT AS v * 2;";
    for aggregate in ["sum(f(v))", "sum(v) FILTER (WHERE f(v) > 20)", "array_agg(v ORDER BY f(v))"] {
        let select = format!("SELECT code, {aggregate} AS s FROM t [Range 9 s, Slide 3 s] GROUP BY code");
        check_noticed(function, &select, ("* 2", "* 3"));
    }
}

/// Checks that a query that is kept is refused once its declarations have changed, and goes on as it was.
fn check_noticed(declarations: &str, select: &str, (from, to): (&str, &str)) {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("in")).unwrap();
    let line = |second: u32| format!("c{},2024-01-01T00:00:{second:02},{second}\n", second % 2);
    folder.write("in/1.csv", format!("code,ts,v\n{}", (0..40).map(line).collect::<String>()));
    run_and_stop(&folder, declarations, select);
    let changed = start(&kept(&folder, false, &declarations.replace(from, to), select)).finish();
    changed.check_error(1, &["query \"r\" has changed so that its state does not fit", "  - ", "  + "]);
    start(&kept(&folder, false, declarations, select)).finish().check();
}

#[test]
fn functions_are_listed_and_dropped() {
    let sql = "CREATE FUNCTION f(x DOUBLE) RETURNS DOUBLE AS x + 1; SHOW FUNCTIONS; DROP FUNCTION f; SHOW FUNCTIONS;
               CREATE FUNCTION IF NOT EXISTS f(x BIGINT) RETURNS BIGINT AS x + 2; SELECT f(1) AS x";
    let header = "function,kind,signature,definition\n";
    let expected = format!("{header}f,function,f(x DOUBLE) RETURNS DOUBLE,x + 1\n{header}x\n3\n");
    assert_eq!(run_sql(sql).silent(), expected);
}

/// The fenced blocks of a page: their languages and texts.
fn blocks(page: &str) -> Vec<(&str, &str)> {
    let fenced = page.split("```").skip(1).step_by(2);
    fenced.filter_map(|block| block.split_once('\n')).collect()
}

#[test]
fn the_examples_of_the_page_on_functions_run() {
    let page = std::fs::read_to_string(super::process::root().join("docs/functions.md")).unwrap();
    let blocks = blocks(&page);
    let examples: Vec<_> =
        blocks.windows(2).filter(|pair| pair.iter().map(|(language, _)| *language).eq(["sql", "text"])).collect();
    assert!(examples.len() >= 7, "{} examples", examples.len());
    for example in examples {
        let [(_, sql), (_, expected)] = example else { continue };
        let found = run(&["run", "queries/stock/small/schema.sql", "-e", sql, "--format", "csv"]).silent();
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort_unstable();
            lines
        };
        assert_eq!(sorted(&found), sorted(expected), "{sql}\n{found}");
    }
}
