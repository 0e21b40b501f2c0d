//! Queries that are accepted, and the windows they read.

use millstream_sql::Statement;

use crate::{leaves, query, run, session};

/// Checks that each query reads exactly these leaves.
fn check(cases: &[(&str, &[&str])]) {
    let mut session = session();
    session.bind_parameter("n", "5 minutes");
    session.bind_parameter("S", "INTERVAL '1' MINUTE");
    for (text, expected) in cases {
        assert_eq!(leaves(&query(&session, text).logical), *expected, "{text}");
    }
}

const FIVE_ONE: &[&str] = &["transaction[range 5 minutes slide 1 minute]"];

#[test]
fn every_spelling_of_a_bracket_is_the_same_window() {
    let brackets = [
        "[Range 5 minutes, Slide 1 minute]",
        "[Range 5 minutes Slide 1 minute]",
        "[RANGE 5 MINUTES SLIDE 1 MINUTE]",
        "[range 300, slide 60]",
        "[range 300s slide 60s]",
        "[range 5m slide 1m]",
        "[range 300000 ms slide 60000ms]",
        "[range '5' minutes slide '1' minute]",
        "[range '5 minutes' slide '60']",
        "[range INTERVAL '5 minutes', slide INTERVAL '1' MINUTE]",
        "[range INTERVAL '5' MINUTE slide interval 1 minute]",
        "[range 4 minutes 60 seconds slide 0.5 minutes 30 s]",
        "[range 5.0 minutes, slide 1.00 min,]",
        "[, slide 1 minute, range 5 minutes]",
        "[Range n, Slide s]",
        "[Range N Slide S]",
        "[Range $n, Slide $s]",
        "[range 5 min, slide 1 min, closed left]",
        "[range 5 min slide 1 min offset 0]",
        "[range 5 min slide 1 min offset 2 minutes]",
        "[range 5 min slide 1 min on eventTime]",
        "[Range /* five */ 5 minutes, -- and\n Slide 1 minute]",
    ];
    for bracket in brackets {
        for text in [
            format!("SELECT szcode, SUM(Price*Turnover) FROM TRANSACTION {bracket} GROUP BY szcode"),
            format!("SELECT t.szcode, count(*) FROM TRANSACTION{bracket} AS t GROUP BY t.szcode"),
            format!("SELECT t.szcode FROM \"transaction\" {bracket} t WHERE t.price > 1"),
        ] {
            check(&[(text.as_str(), FIVE_ONE)]);
        }
    }
}

#[test]
fn the_rest_of_a_bracket_is_read_too() {
    check(&[
        (
            "SELECT * FROM stock [Range 5 minutes, Slide 1 minute, Closed Right]",
            &["stock[range 5 minutes slide 1 minute closed right]"],
        ),
        (
            "SELECT * FROM stock [Range 5 minutes Slide 1 minute Offset 10 s Closed Right]",
            &["stock[range 5 minutes slide 1 minute offset 10 seconds closed right]"],
        ),
        (
            "SELECT * FROM stock [Range 5 minutes Slide 1 minute Offset -10s]",
            &["stock[range 5 minutes slide 1 minute offset 50 seconds]"],
        ),
        ("SELECT * FROM stock [Range 1 s, Slide 1 hour]", &["stock[range 1 second slide 1 hour]"]),
        ("SELECT * FROM stock [Range 1.5, Slide 0.25 s]", &["stock[range 1500 milliseconds slide 250 milliseconds]"]),
        ("SELECT * FROM clicks [Range 1 week, Slide 1 d]", &["clicks[range 7 days slide 1 day]"]),
        (
            "SELECT * FROM market.\"Odd name\" [Range 5, Slide 1] o",
            &["market.Odd name[range 5 seconds slide 1 second]"],
        ),
    ]);
}

#[test]
fn table_functions_are_the_same_window() {
    let sources = [
        "HOP(TABLE TRANSACTION, DESCRIPTOR(eventTime), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)",
        "hop(table transaction, descriptor(eventtime), interval '1 minute', interval '5 minutes') AS t",
        "TABLE(HOP(TABLE TRANSACTION, DESCRIPTOR(eventTime), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)) t",
        "HOP(TRANSACTION, eventTime, INTERVAL '1 MINUTE', INTERVAL '5 MINUTES') t",
        "HOP(DATA => TABLE TRANSACTION, TIMECOL => DESCRIPTOR(eventTime), SIZE => n, SLIDE => s)",
        "HOP(TABLE TRANSACTION, DESCRIPTOR(eventTime), 1 minute, 5 minutes, 0 s)",
    ];
    for source in sources {
        let text = format!("SELECT window_end, szcode, SUM(Price*Turnover) FROM {source} GROUP BY 1, 2");
        check(&[(text.as_str(), FIVE_ONE)]);
    }
    check(&[
        (
            "SELECT count(*) FROM TUMBLE(TABLE stock, DESCRIPTOR(eventTime), INTERVAL '10' SECOND)",
            &["stock[range 10 seconds slide 10 seconds]"],
        ),
        (
            "SELECT count(*) FROM TUMBLE(TABLE stock, DESCRIPTOR(eventTime), INTERVAL '10' SECOND, INTERVAL '2' SECOND)",
            &["stock[range 10 seconds slide 10 seconds offset 2 seconds]"],
        ),
        (
            "SELECT count(*) FROM HOP(DATA => TABLE stock, TIMECOL => DESCRIPTOR(eventTime), \
             SLIDE => INTERVAL '10' SECOND, SIZE => INTERVAL '1' SECOND)",
            &["stock[range 1 second slide 10 seconds]"],
        ),
        (
            "SELECT count(*) FROM HOP(TABLE v_minutes, DESCRIPTOR(window_end), INTERVAL '1' HOUR, INTERVAL '2' HOUR)",
            &["v_minutes[range 2 hours slide 1 hour]"],
        ),
    ]);
}

const PAIR: &[&str] = &["position[range 5 minutes slide 1 minute]", "stock[range 5 minutes slide 1 minute]"];

#[test]
fn the_papers_join_runs_as_printed() {
    check(&[
        (
            "SELECT p.userID,SUM(s.lastPrice* openInterest)\nFROM POSITION[Range n,Slide s] as p,STOCK[Range n,Slide s] as s,\n\
             ON p.szcode = s.szcode\nGROUP BY p.userID",
            PAIR,
        ),
        (
            "SELECT p.userID, SUM(s.lastPrice * openInterest) FROM POSITION [Range n Slide s] p \
             JOIN STOCK [Range n Slide s] s ON p.szcode = s.szcode GROUP BY p.userID",
            PAIR,
        ),
        (
            "SELECT p.userID FROM POSITION [Range n Slide s] p, STOCK [Range n Slide s] s WHERE p.szcode = s.szcode",
            PAIR,
        ),
    ]);
}

#[test]
fn comma_and_on_join_three_relations() {
    check(&[
        (
            "SELECT a.szcode FROM STOCK [Range n, Slide s] a, POSITION [Range n, Slide s] b, STOCK [Range 10, Slide s] c \
             ON a.szcode = c.szcode AND b.szcode = c.szcode",
            &[
                "stock[range 5 minutes slide 1 minute]",
                "position[range 5 minutes slide 1 minute]",
                "stock[range 10 seconds slide 1 minute]",
            ],
        ),
        (
            "SELECT a.szcode FROM STOCK [Range 1 Slide 1] a JOIN STOCK [Range 2 Slide 1] b ON a.szcode = b.szcode, \
             STOCK [Range 3 Slide 1] c ON a.szcode = c.szcode",
            &[
                "stock[range 1 second slide 1 second]",
                "stock[range 2 seconds slide 1 second]",
                "stock[range 3 seconds slide 1 second]",
            ],
        ),
        (
            "SELECT a.szcode FROM STOCK [Range 1 Slide 1] a LEFT JOIN (STOCK [Range 2 Slide 1] b CROSS JOIN codes c) \
             ON a.szcode = b.szcode",
            &["stock[range 1 second slide 1 second]", "stock[range 2 seconds slide 1 second]"],
        ),
    ]);
}

const ONE: &str = "stock[range 1 second slide 1 second]";
const TWO: &str = "stock[range 2 seconds slide 1 second]";

#[test]
fn windows_stand_wherever_relations_do() {
    check(&[
        ("WITH c AS (SELECT * FROM stock [Range 1 Slide 1]) SELECT szcode FROM c", &[ONE]),
        ("SELECT x FROM (SELECT lastPrice AS x FROM stock [Range 1 Slide 1]) d WHERE x > 1", &[ONE]),
        (
            "SELECT szcode FROM stock [Range 1 Slide 1] UNION ALL SELECT szcode FROM stock [Range 2 Slide 1]",
            &[ONE, TWO],
        ),
        (
            "SELECT * FROM stock [Range 1 Slide 1] WHERE szcode IN (SELECT szcode FROM stock [Range 2 Slide 1])",
            &[TWO, ONE],
        ),
        (
            "SELECT (SELECT max(lastPrice) FROM stock [Range 1 Slide 1]) - (SELECT max(lastPrice) FROM stock [Range 2 Slide 1])",
            &[ONE, TWO],
        ),
        ("SELECT s.szcode, c.name FROM stock [Range 1 Slide 1] s JOIN codes c ON s.szcode = c.szcode", &[ONE]),
        ("SELECT szcode FROM stock [Range 1 Slide 1] ORDER BY lastPrice DESC LIMIT 3", &[ONE]),
        ("SELECT rank() OVER (PARTITION BY szcode ORDER BY lastPrice) FROM stock [Range 1 Slide 1]", &[ONE]),
        (
            "SELECT sum(lastPrice) OVER (ORDER BY eventTime ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM stock [Range 1 Slide 1]",
            &[ONE],
        ),
        (
            "SELECT szcode FROM stock [Range 1 Slide 1] INTERSECT SELECT szcode FROM stock [Range 1 Slide 1]",
            &[ONE, ONE],
        ),
        ("EXPLAIN SELECT * FROM stock [Range 1 Slide 1]", &[ONE]),
        ("INSERT INTO out SELECT * FROM stock [Range 1 Slide 1]", &[ONE]),
        (
            "SELECT extract(second FROM eventTime), trim(both 'x' FROM szcode), ['a', szcode][1] FROM stock [Range 1 Slide 1]",
            &[ONE],
        ),
        ("SELECT count(*) FILTER (WHERE name IS DISTINCT FROM 'a') FROM stock [Range 1 Slide 1], codes", &[ONE]),
        ("SELECT [range, 1][rows] FROM odd [Range 1 Slide 1]", &["odd[range 1 second slide 1 second]"]),
    ]);
}

#[test]
fn keywords_are_names_where_only_names_can_stand() {
    let all = "timestamp, start, end, window, range, rows";
    let odd: &[&str] = &["odd"];
    check(&[
        (&format!("SELECT {all} FROM odd"), odd),
        ("SELECT o.timestamp, o.start, o.end, o.window, o.range, o.rows FROM odd o", odd),
        ("SELECT end FROM odd WHERE start < end AND range BETWEEN 1 AND rows OR NOT window = 1", odd),
        ("SELECT CASE WHEN end > 1 THEN end ELSE end END, (range), (rows + end) * end FROM odd", odd),
        ("SELECT max(end), min(start), start FROM odd GROUP BY start, window, rows HAVING max(end) > start", odd),
        ("SELECT timestamp > TIMESTAMP '2024-01-01 00:00:00', CAST(start AS TIMESTAMP), end::TIMESTAMP FROM odd", odd),
        ("SELECT END, Start AS rows FROM odd AS window", odd),
        (
            "SELECT start, rows FROM odd [Range 1 Slide 1] ORDER BY end, timestamp DESC",
            &["odd[range 1 second slide 1 second]"],
        ),
        (
            "SELECT sum(rows) OVER (RANGE UNBOUNDED PRECEDING) FROM odd [Range 1 Slide 1]",
            &["odd[range 1 second slide 1 second]"],
        ),
        ("SELECT szcode FROM TRANSACTION", &["transaction"]),
        ("SELECT szcode, position.userID FROM POSITION", &["position"]),
    ]);
}

#[test]
fn endless_streams_may_pass_or_be_grouped() {
    check(&[
        ("SELECT szcode, lastPrice * 2 FROM stock WHERE lastPrice > 1", &["stock"]),
        ("SELECT s.*, c.name FROM stock s LEFT JOIN codes c ON s.szcode = c.szcode", &["stock"]),
        ("SELECT s.*, c.name FROM codes c RIGHT JOIN stock s ON s.szcode = c.szcode", &["stock"]),
        ("SELECT * FROM stock WHERE szcode IN (SELECT szcode FROM codes)", &["stock"]),
        ("SELECT * FROM stock s, codes c WHERE s.szcode = c.szcode", &["stock"]),
        ("SELECT szcode FROM stock UNION ALL SELECT szcode FROM transaction", &["stock", "transaction"]),
        ("SELECT szcode, count(*) AS n FROM stock GROUP BY szcode HAVING count(*) > 3", &["stock"]),
        (
            "SELECT n + 1 FROM (SELECT count(*) AS n FROM stock s JOIN codes c ON s.szcode = c.szcode) WHERE n > 2",
            &["stock"],
        ),
        ("SELECT DISTINCT szcode FROM stock", &["stock"]),
        ("SELECT szcode FROM v_dear", &["stock"]),
    ]);
}

#[test]
fn static_queries_may_be_anything() {
    let session = session();
    for text in [
        "SELECT 1",
        "SELECT now(), random(), current_date",
        "SELECT name FROM codes ORDER BY name LIMIT 1",
        "SELECT c.name, row_number() OVER (ORDER BY c.name) FROM codes c, codes d",
        "VALUES (1, 'a'), (2, 'b')",
    ] {
        assert!(!query(&session, text).is_streaming, "{text}");
    }
    assert!(query(&session, "SELECT szcode FROM stock").is_streaming);
}

#[test]
fn a_view_is_its_text() {
    check(&[
        ("SELECT * FROM v_minutes", &["stock[range 1 minute slide 1 minute]"]),
        ("SELECT v.n FROM v_minutes v JOIN codes c ON v.szcode = c.szcode", &["stock[range 1 minute slide 1 minute]"]),
        (
            "SELECT szcode, sum(n) FROM v_minutes [Range 1 hour, Slide 1 minute] GROUP BY szcode",
            &["v_minutes[range 1 hour slide 1 minute]"],
        ),
    ]);
    let mut session = session();
    run(&mut session, "DROP STREAM stock; CREATE STREAM stock (szcode VARCHAR, lastPrice DECIMAL(10, 2), x INT)")
        .unwrap();
    let text = "SELECT * FROM v_dear";
    assert_eq!(query(&session, text).logical.schema().fields().len(), 3, "a view follows the stream it reads");
}

#[test]
fn the_window_columns_come_after_the_streams() {
    let plan = query(&session(), "SELECT * FROM stock [Range 1 Slide 1] AS s").logical;
    let names: Vec<_> = plan.schema().fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["szcode", "eventtime", "lastprice", "window_start", "window_end"]);
}

#[test]
fn statements_know_their_text_and_place() {
    let session = session();
    let text = "-- first\nSELECT 'ä;b' ;\n\n  SELECT\n 2 -- end\n;;";
    let parsed = session.parse(text).unwrap();
    let found: Vec<_> =
        parsed.iter().map(|parsed| (parsed.text.as_str(), parsed.location.line, parsed.location.column)).collect();
    assert_eq!(found, [("SELECT 'ä;b'", 2, 1), ("SELECT\n 2", 4, 3)]);
    assert_eq!(query(&session, "EXPLAIN  SELECT 1").text, "SELECT 1");
}

#[test]
fn a_materialized_view_is_rows_without_a_window_and_its_query_with_one() {
    let mut session = session();
    let view = "SELECT window_end, szcode, COUNT(*) AS n FROM STOCK [Range 1 minute, Slide 1 minute]
                GROUP BY window_end, szcode";
    let created = run(&mut session, &format!("CREATE MATERIALIZED VIEW m AS {view} RETAIN 1 hour")).unwrap();
    let [Statement::CreateMaterializedView { retain, .. }] = created.as_slice() else { panic!("{created:?}") };
    assert_eq!(retain.unwrap().to_string(), "1 hour");
    assert!(!query(&session, "SELECT * FROM m JOIN codes ON m.szcode = codes.szcode").is_streaming);
    assert!(!query(&session, "SELECT * FROM m AS a JOIN m AS b ON a.szcode = b.szcode").is_streaming);
    assert!(query(&session, "SELECT SUM(n) FROM m [Range 1 hour, Slide 1 hour]").is_streaming);
    // The word has its meaning at the end of this statement only.
    let named = "CREATE MATERIALIZED VIEW r AS SELECT szcode AS retain FROM STOCK [Now] WHERE lastPrice > 1";
    let created = run(&mut session, named).unwrap();
    assert!(matches!(created.as_slice(), [Statement::CreateMaterializedView { retain: None, .. }]));
    for query in ["retain FROM STOCK AS s WHERE retain", "s.szcode FROM STOCK AS retain JOIN codes AS s ON TRUE"] {
        let text = format!("CREATE MATERIALIZED VIEW other AS SELECT {query}");
        // It fails for what it reads, and not for a duration.
        let error = run(&mut session, &text).map(|_| String::new()).unwrap_or_else(|error| error.message);
        assert!(!error.contains("duration"), "{error}");
    }
    assert!(run(&mut session, "DROP VIEW m").is_err());
    run(&mut session, "DROP MATERIALIZED VIEW m").unwrap();
    assert!(run(&mut session, "SELECT * FROM m").is_err());
}

#[test]
fn queries_that_run_are_named_as_words_or_texts() {
    for (text, word, name) in [
        ("PAUSE QUERY sums", "PAUSE", "sums"),
        ("resume query 'query 1'", "RESUME", "query 1"),
        ("STOP QUERY \"A\"", "STOP", "A"),
    ] {
        let session = session();
        let parsed = session.parse(text).unwrap();
        let compiled = session.compile(&parsed[0]).unwrap();
        let Statement::Control { action, query, .. } = compiled else { panic!("{compiled:?}") };
        assert_eq!((action.word(), query.as_str()), (word, name));
    }
}

#[test]
fn a_materialized_view_is_followed_from_an_epoch_on() {
    let mut session = session();
    let view = "CREATE MATERIALIZED VIEW m AS SELECT COUNT(*) AS n FROM STOCK [Range 1 minute, Slide 1 minute]";
    run(&mut session, view).unwrap();
    for (text, expected) in
        [("SUBSCRIBE m", None), ("SUBSCRIBE TO m AS OF EPOCH 0", Some(0)), ("subscribe m as of epoch 7", Some(7))]
    {
        match run(&mut session, text).unwrap().remove(0) {
            Statement::Subscribe { view, after, .. } => assert_eq!((view.as_str(), after), ("m", expected), "{text}"),
            other => panic!("{text}: {other:?}"),
        }
    }
}

#[test]
fn a_window_over_a_view_without_one_is_that_of_its_stream() {
    let mut session = session();
    let views = "CREATE VIEW v_named AS SELECT eventTime AS at, s.szcode AS code, name, lastPrice * 2 AS twice
                   FROM v_dear AS s JOIN codes ON s.szcode = codes.szcode WHERE name <> 'x';
                 CREATE VIEW v_twice AS SELECT eventTime, szcode AS code, lastPrice * 2 AS twice FROM STOCK;";
    run(&mut session, views).unwrap();
    for (text, leaf) in [
        (
            "SELECT SUM(lastPrice) FROM v_dear [Range 5 minutes, Slide 1 minute]",
            "stock[range 5 minutes slide 1 minute]",
        ),
        ("SELECT window_end, SUM(v.twice) FROM v_twice [Now] AS v GROUP BY window_end", "stock[now]"),
        ("SELECT code, twice FROM v_twice [Partition By code Rows 1]", "stock[partition by szcode rows 1]"),
        (
            "SELECT window_start, COUNT(*) FROM TUMBLE(TABLE v_named, DESCRIPTOR(at), INTERVAL '1' MINUTE)
             GROUP BY window_start",
            "stock[range 1 minute slide 1 minute]",
        ),
    ] {
        assert_eq!(leaves(&query(&session, text).logical), [leaf], "{text}");
    }
    // A name of a WITH clause too, which comes before that of a stream.
    let text = "WITH stock AS (SELECT * FROM stock WHERE lastPrice > 1), dear AS (SELECT szcode FROM stock)
                SELECT COUNT(*) FROM dear [Range 5 minutes, Slide 1 minute]";
    let planned = query(&session, text).logical;
    assert_eq!(leaves(&planned), ["stock[range 5 minutes slide 1 minute]"]);
    assert!(planned.display_indent().to_string().contains("Filter: stock.lastprice >"), "{planned}");
    let text = "WITH stock AS (SELECT * FROM stock WHERE lastPrice > 1)
                SELECT COUNT(*) FROM stock [Range 1 minute, Slide 1 minute]";
    let planned = query(&session, text).logical;
    assert!(planned.display_indent().to_string().contains("Filter: stock.lastprice >"), "{planned}");
    // Both windows of one view in one query.
    let text = "SELECT * FROM v_dear [Range 5 minutes, Slide 1 minute] AS a
                JOIN v_dear [Range 1 minute, Slide 1 minute] AS b ON a.szcode = b.szcode";
    let both = leaves(&query(&session, text).logical);
    assert_eq!(both, ["stock[range 5 minutes slide 1 minute]", "stock[range 1 minute slide 1 minute]"]);
}
