//! The window spellings of other systems: each has the plan of the brackets.

use crate::{leaves, query, run, session};

/// Checks that each query has the plan of the one in brackets.
#[track_caller]
fn same(bracket: &str, spellings: &[&str]) {
    let mut session = session();
    session.bind_parameter("n", "5 minutes");
    session.bind_parameter("s", "1 minute");
    let expected = query(&session, bracket).logical.display_indent().to_string();
    for text in spellings {
        let found = query(&session, text).logical.display_indent().to_string();
        assert_eq!(found, expected, "{text}");
    }
}

/// Checks which window the only leaf of the query has.
#[track_caller]
fn window(text: &str, expected: &str) {
    assert_eq!(leaves(&query(&session(), text).logical), [expected], "{text}");
}

#[track_caller]
fn columns(text: &str, expected: &[&str]) {
    let plan = query(&session(), text).logical;
    let names: Vec<_> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, expected, "{text}");
}

const HOPPING: &str = "SELECT named_struct('start', window_start, 'end', window_end) AS window, szcode, sum(Price) \
                       FROM transaction [Range 5 minutes, Slide 1 minute] GROUP BY window_start, window_end, szcode";

#[test]
fn arroyos_functions_are_the_bracket() {
    same(
        HOPPING,
        &[
            "SELECT hop(interval '1 minute', interval '5 minutes') AS window, szcode, sum(Price) FROM transaction GROUP BY 1, szcode",
            "SELECT hop(interval '1 minute', interval '5 minutes'), szcode, sum(Price) FROM transaction GROUP BY 1, szcode",
            "SELECT HOP(INTERVAL '1' MINUTE, INTERVAL '5' MINUTE) AS window, szcode, sum(Price) FROM transaction GROUP BY window, szcode",
            "SELECT hop(1 minute, 5 minutes) AS \"window\", szcode, sum(Price) FROM transaction \
             GROUP BY hop(1 minute, 5 minutes), szcode",
            "SELECT hop(1m, 5m) AS window, szcode, sum(Price) FROM transaction GROUP BY 1, szcode",
            "SELECT hop(s, n) AS window, szcode, sum(Price) FROM transaction GROUP BY 1, szcode",
            "SELECT hop($s, $n) AS window, szcode, sum(Price) FROM transaction GROUP BY 1, szcode",
        ],
    );
    same(
        "SELECT szcode, count(*) FROM stock [Range 1 minute, Slide 1 minute] GROUP BY window_start, window_end, szcode",
        &[
            "SELECT szcode, count(*) FROM stock GROUP BY tumble(interval '1 minute'), szcode",
            "SELECT szcode, count(*) FROM stock GROUP BY TUMBLE(INTERVAL '1' MINUTE), 1",
        ],
    );
    window("SELECT count(*) FROM clicks GROUP BY tumble(interval '1 minute')", "clicks[range 1 minute slide 1 minute]");
    window("SELECT tumble(interval '1 minute') AS w, page FROM clicks", "clicks[range 1 minute slide 1 minute]");
}

#[test]
fn sparks_window_is_the_bracket_with_the_size_first() {
    same(
        HOPPING,
        &[
            "SELECT window, szcode, sum(Price) FROM transaction GROUP BY window(eventTime, '5 minutes', '1 minute'), szcode",
            "SELECT window(eventTime, '5 minutes', '1 minute'), szcode, sum(Price) FROM transaction GROUP BY window, szcode",
            "SELECT window, szcode, sum(Price) FROM transaction \
             GROUP BY window(transaction.eventTime, '5 minutes', '1 minute', '0 seconds'), szcode",
            "SELECT window, szcode, sum(Price) FROM transaction GROUP BY window('5 minutes', '1 minute'), szcode",
        ],
    );
    same(
        "SELECT window_start AS start, window_end AS \"end\", max(window_end) FROM stock [Range 10 s, Slide 10 s] AS t \
         GROUP BY window_start, window_end ORDER BY window_end, window_start, window_end",
        &[
            "SELECT window.start, window.end, max(window.end) FROM stock AS t GROUP BY window(t.eventTime, '10 seconds') \
             ORDER BY window.end, window",
            "SELECT window.start, window.end, max(window.end) FROM stock AS t \
             GROUP BY window.start, window(eventTime, '10 seconds') ORDER BY window.end, window",
        ],
    );
    columns(
        "SELECT window(eventTime, '10 seconds') AS w, window_time(window), window.start, count(*) AS n FROM stock GROUP BY w",
        &["w", "window_time", "start", "n"],
    );
    window(
        "SELECT count(*) FROM stock GROUP BY window(eventTime, '1 day', '1 day', '8 hours')",
        "stock[range 1 day slide 1 day offset 8 hours]",
    );
    // Spark counts starts from 1970, so the ends are moved where the slide does not divide the size.
    window(
        "SELECT count(*) FROM stock GROUP BY window(eventTime, '10 seconds', '4 seconds')",
        "stock[range 10 seconds slide 4 seconds offset 2 seconds]",
    );
}

#[test]
fn flinks_group_windows_are_the_bracket() {
    same(
        "SELECT window_start AS a, window_end AS b, szcode, count(*) FROM stock [Range 1 minute, Slide 1 minute] \
         GROUP BY window_start, window_end, szcode HAVING window_end > TIMESTAMP '2024-01-01 00:00:00'",
        &[
            "SELECT TUMBLE_START(eventTime, INTERVAL '1' MINUTE) AS a, TUMBLE_END(eventTime, INTERVAL '1' MINUTE) AS b, \
             szcode, count(*) FROM stock GROUP BY TUMBLE(eventTime, INTERVAL '1' MINUTE), szcode \
             HAVING TUMBLE_END(eventTime, INTERVAL '1' MINUTE) > TIMESTAMP '2024-01-01 00:00:00'",
            "SELECT HOP_START(eventTime, INTERVAL '1' MINUTE, INTERVAL '1' MINUTE) AS a, \
             HOP_END(eventTime, INTERVAL '1' MINUTE, INTERVAL '1' MINUTE) AS b, szcode, count(*) FROM stock \
             GROUP BY HOP(eventTime, INTERVAL '1' MINUTE, INTERVAL '1' MINUTE), szcode \
             HAVING window_end > TIMESTAMP '2024-01-01 00:00:00'",
        ],
    );
    same(
        "SELECT szcode, sum(Price) FROM transaction [Range 5 minutes, Slide 1 minute] \
         GROUP BY szcode, window_start, window_end",
        &[
            "SELECT szcode, sum(Price) FROM transaction GROUP BY szcode, HOP(eventTime, INTERVAL '1 MINUTE', INTERVAL '5 MINUTES')",
            "SELECT szcode, sum(Price) FROM transaction GROUP BY szcode, HOP(eventTime, s, n)",
            "SELECT szcode, sum(Price) FROM transaction GROUP BY szcode, HOP(eventTime, SIZE => n, SLIDE => s)",
            "SELECT szcode, sum(Price) FROM transaction GROUP BY szcode, HOP(TIMECOL := eventTime, SIZE := n, SLIDE := s)",
        ],
    );
    columns(
        "SELECT TUMBLE_START(eventTime, 5 s), TUMBLE_END(eventTime, 5 s), TUMBLE_ROWTIME(eventTime, 5 s) FROM stock \
         GROUP BY TUMBLE(eventTime, 5 s)",
        &["window_start", "window_end", "window_time"],
    );
    window(
        "SELECT sum(n) FROM v_minutes GROUP BY TUMBLE(window_end, INTERVAL '1' HOUR)",
        "v_minutes[range 1 hour slide 1 hour]",
    );
    window(
        "SELECT sum(n) FROM v_minutes GROUP BY TUMBLE(window_time, INTERVAL '1' HOUR)",
        "v_minutes[range 1 hour slide 1 hour]",
    );
    window(
        "SELECT count(*) FROM stock GROUP BY HOP(eventTime, SLIDE => 10 s, SIZE => 1 s)",
        "stock[range 1 second slide 10 seconds]",
    );
}

#[test]
fn ksqldbs_clause_is_the_bracket() {
    same(
        "SELECT szcode, sum(Price) FROM transaction [Range 5 minutes, Slide 1 minute] WHERE Price > 1 GROUP BY szcode",
        &[
            "SELECT szcode, sum(Price) FROM transaction WINDOW HOPPING (SIZE 5 MINUTES, ADVANCE BY 1 MINUTE) \
             WHERE Price > 1 GROUP BY szcode",
            "SELECT szcode, sum(Price) FROM transaction WINDOW HOPPING (ADVANCE BY s, SIZE n) WHERE Price > 1 GROUP BY szcode",
        ],
    );
    same(
        "SELECT szcode, window_start AS windowstart, window_end AS windowend, count(*) FROM stock [Range 10, Slide 10] t \
         GROUP BY szcode, window_start, window_end HAVING count(*) > 1",
        &[
            "SELECT szcode, WINDOWSTART, WINDOWEND, count(*) FROM stock t WINDOW TUMBLING (SIZE 10 SECONDS) \
             GROUP BY szcode HAVING count(*) > 1",
            "SELECT szcode, t.windowstart, windowend, count(*) FROM stock AS t WINDOW TUMBLING (SIZE 10 SECONDS) \
             GROUP BY szcode, windowstart HAVING count(*) > 1",
        ],
    );
    window(
        "SELECT count(*) FROM market.\"Odd name\" WINDOW TUMBLING (SIZE 1 HOUR)",
        "market.Odd name[range 1 hour slide 1 hour]",
    );
    window(
        "SELECT n FROM (SELECT szcode, count(*) AS n FROM stock WINDOW TUMBLING (SIZE 1 HOUR) GROUP BY szcode) d",
        "stock[range 1 hour slide 1 hour]",
    );
    window(
        "SELECT count(*) FROM stock WINDOW HOPPING (SIZE 10 SECONDS, ADVANCE BY 4 SECONDS)",
        "stock[range 10 seconds slide 4 seconds offset 2 seconds]",
    );
}

#[test]
fn views_may_be_written_in_any_spelling() {
    let mut session = session();
    let views = "CREATE VIEW a AS SELECT hop(1 s, 2 s) AS w, szcode, count(*) AS n FROM stock GROUP BY 1, szcode;
                 CREATE VIEW b AS SELECT szcode, WINDOWEND AS e FROM stock WINDOW TUMBLING (SIZE 3 SECONDS) GROUP BY szcode";
    run(&mut session, views).unwrap();
    let found = query(&session, "SELECT a.w.start, b.e FROM a JOIN b ON a.szcode = b.szcode");
    assert_eq!(
        leaves(&found.logical),
        ["stock[range 2 seconds slide 1 second]", "stock[range 3 seconds slide 3 seconds]"]
    );
    let found = query(&session, "SELECT sum(n) FROM a GROUP BY window(window_end, '1 minute'), szcode");
    assert_eq!(leaves(&found.logical), ["a[range 1 minute slide 1 minute]"]);
}

#[test]
fn the_standards_window_clause_and_names_stay_what_they_are() {
    let one = "stock[range 1 second slide 1 second]";
    for text in [
        "SELECT sum(lastPrice) OVER w FROM stock [Range 1 Slide 1] WINDOW w AS (ORDER BY eventTime)",
        "SELECT sum(lastPrice) OVER tumbling FROM stock [Range 1 Slide 1] WINDOW tumbling AS (ORDER BY eventTime)",
        "WITH session(a) AS (SELECT szcode FROM stock [Range 1 Slide 1]) SELECT a FROM session",
        "WITH x AS (SELECT 1 AS y), hop(a, b) AS (SELECT szcode, lastPrice FROM stock [Range 1 Slide 1]) SELECT a FROM hop, x",
        "SELECT w.a FROM stock [Range 1 Slide 1] AS window(a, b, c, d, e), codes w(a, b)",
    ] {
        window(text, one);
    }
    window("SELECT window FROM odd [Range 1 Slide 1]", "odd[range 1 second slide 1 second]");
}

#[test]
fn each_select_has_its_own_window() {
    let found = query(
        &session(),
        "WITH a AS (SELECT szcode, count(*) AS n FROM stock GROUP BY szcode, tumble(1 s)), \
              b AS (SELECT szcode, count(*) AS n FROM stock WINDOW HOPPING (SIZE 4 s, ADVANCE BY 2 s) GROUP BY szcode) \
         SELECT a.n, b.n FROM a JOIN b USING (szcode) UNION ALL \
         SELECT count(*), 0 FROM stock GROUP BY window(eventTime, '3 s') UNION ALL \
         SELECT 1, lastPrice FROM stock [Range 5 s, Slide 5 s] \
         WHERE szcode IN (SELECT szcode FROM position GROUP BY szcode, hop(eventTime, 6 s, 6 s))",
    );
    let mut leaves = leaves(&found.logical);
    leaves.sort_unstable();
    let expected = [
        "position[range 6 seconds slide 6 seconds]",
        "stock[range 1 second slide 1 second]",
        "stock[range 3 seconds slide 3 seconds]",
        "stock[range 4 seconds slide 2 seconds]",
        "stock[range 5 seconds slide 5 seconds]",
    ];
    assert_eq!(leaves, expected);
}

#[test]
fn the_last_point_of_a_window_is_one_tick_before_its_end() {
    let from = "FROM stock [Range 1 minute, Slide 1 minute]";
    same(
        &format!(
            "SELECT window_end - INTERVAL '1 millisecond' AS window_time, count(*) {from} GROUP BY window_start, window_end"
        ),
        &[
            &format!("SELECT window_time, count(*) {from} GROUP BY window_start, window_end, window_time"),
            "SELECT TUMBLE_ROWTIME(eventTime, 1 minute), count(*) FROM stock GROUP BY TUMBLE(eventTime, 1 minute)",
            "SELECT window_time(window), count(*) FROM stock GROUP BY window(eventTime, '1 minute')",
        ],
    );
    columns(
        "SELECT * FROM TUMBLE(stock, eventTime, 5 s) WHERE window_time > TIMESTAMP '2024-01-01 00:00:00'",
        &["szcode", "eventtime", "lastprice", "window_start", "window_end"],
    );
    columns(
        "SELECT b.window_time, c.name FROM stock [Range 1, Slide 1] AS b JOIN codes c ON b.szcode = c.szcode",
        &["window_time", "name"],
    );
    columns("SELECT window_time FROM odd [Range 1, Slide 1]", &["window_time"]);
    columns("SELECT window_time FROM market.\"Odd name\" [Range 1, Slide 1]", &["window_time"]);
}

#[test]
fn table_functions_take_the_arguments_of_other_systems() {
    let five = "stock[range 5 seconds slide 5 seconds]";
    for from in [
        "TUMBLE(stock, eventTime, INTERVAL '5 seconds')",
        "tumble(stock, eventTime, 5s)",
        "tumble(stock, 5s)",
        "hop(stock, 5s, 5s)",
        "TUMBLE(DATA := TABLE stock, TIMECOL := DESCRIPTOR(eventTime), SIZE := 5s)",
        "TUMBLE(DATA => TABLE stock, SIZE => 5s)",
        "TUMBLE(TABLE stock, DESCRIPTOR(eventTime), 5s, TIMEZONE => 'Asia/Shanghai')",
    ] {
        window(&format!("SELECT count(*) FROM {from}"), five);
    }
    window("SELECT count(*) FROM hop(clicks, 2s, 10s)", "clicks[range 10 seconds slide 2 seconds]");
}

#[test]
fn days_begin_at_midnight_of_the_time_zone() {
    let shanghai = "stock[range 1 day slide 1 day offset 16 hours]";
    for text in [
        "SELECT count(*) FROM stock [Range 1 day, Slide 1 day, Offset -8 hours]",
        "SELECT count(*) FROM stock [Range 1 day, Slide 1 day, Time Zone 'Asia/Shanghai']",
        "SELECT count(*) FROM stock [Range 86400 Time Zone '+08:00' Slide 1 day]",
        "SELECT count(*) FROM TUMBLE(TABLE stock, DESCRIPTOR(eventTime), INTERVAL '1' DAY, TIMEZONE => 'Asia/Shanghai')",
        "SELECT count(*) FROM HOP(stock, eventTime, INTERVAL '1' DAY, INTERVAL '1' DAY, TIMEZONE => 'Asia/Shanghai')",
        "SELECT count(*) FROM stock GROUP BY TUMBLE(eventTime, INTERVAL '1' DAY, TIMEZONE => 'Asia/Shanghai')",
        "SELECT count(*) FROM stock GROUP BY window(eventTime, '1 day', TIMEZONE => 'Asia/Singapore')",
    ] {
        window(text, shanghai);
    }
    let cases = [
        ("[Range 1 day, Slide 1 day, Time Zone 'UTC']", "stock[range 1 day slide 1 day]"),
        (
            "[Range 1 day, Slide 1 day, Offset 1 hour, Time Zone 'Asia/Shanghai']",
            "stock[range 1 day slide 1 day offset 17 hours]",
        ),
        ("[Range 1 day, Slide 1 hour, Time Zone 'America/New_York']", "stock[range 1 day slide 1 hour]"),
        (
            "[Range 1 hour, Slide 1 hour, Time Zone 'Asia/Kolkata']",
            "stock[range 1 hour slide 1 hour offset 30 minutes]",
        ),
        ("[Range 1 hour, Slide 30 minutes, Time Zone 'Australia/Lord_Howe']", "stock[range 1 hour slide 30 minutes]"),
    ];
    for (bracket, expected) in cases {
        window(&format!("SELECT count(*) FROM stock {bracket}"), expected);
    }
}

/// Every query of `docs/dialects.md` is accepted, and those in one row of windows read the same window.
#[test]
fn the_table_of_dialects_holds_queries_that_run() {
    let mut session = session();
    run(
        &mut session,
        "CREATE STREAM s (ts TIMESTAMP(3), k VARCHAR, v BIGINT, WATERMARK FOR ts) WITH (connector = 'x')",
    )
    .unwrap();
    let mut count = 0;
    for row in include_str!("../../../docs/dialects.md").lines().filter(|line| line.starts_with("| ")) {
        let mut windows = std::collections::BTreeSet::new();
        for text in row.split('`').filter(|text| text.starts_with("SELECT ")) {
            let found = leaves(&query(&session, text).logical);
            assert!(!found.is_empty(), "{text}");
            windows.extend(found);
            count += 1;
        }
        let is_one_window = windows.len() <= 1 || row.starts_with("| join");
        assert!(is_one_window, "{windows:?}");
    }
    assert!(count > 20, "only {count} queries were found");
}
