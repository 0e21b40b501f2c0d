//! Every kind of window, in each of its spellings.

use crate::{leaves, query, session};

#[test]
fn brackets_and_functions_describe_every_kind_of_window() {
    let same = [
        ("stock [Now]", "now"),
        ("stock [Range 1 minute]", "range 1 minute"),
        ("stock [Range 60]", "range 1 minute"),
        ("stock [Range Unbounded]", ""),
        ("stock [Rows 7]", "rows 7"),
        ("stock [Rows 7, Slide 1 minute]", "rows 7 slide 1 minute"),
        ("stock [Rows 7 Slide 1 minute Offset 5 seconds]", "rows 7 slide 1 minute offset 5 seconds"),
        ("stock [Partition By szcode Rows 1]", "partition by szcode rows 1"),
        (
            "stock [Partition By szcode, lastPrice Rows 2 Slide 60 s]",
            "partition by szcode, lastprice rows 2 slide 1 minute",
        ),
        (
            "stock [Partition By szcode, Rows 2, Closed Right, Slide 60 s]",
            "partition by szcode rows 2 slide 1 minute closed right",
        ),
        ("stock [Session Gap 1 minute Partition By szcode]", "partition by szcode session gap 1 minute"),
        ("stock [Session Gap 60]", "session gap 1 minute"),
        (
            "SESSION(TABLE stock PARTITION BY szcode, DESCRIPTOR(eventTime), INTERVAL '1' MINUTE)",
            "partition by szcode session gap 1 minute",
        ),
        (
            "SESSION(TABLE stock PARTITION BY szcode, lastPrice, DESCRIPTOR(eventTime), 1 minute)",
            "partition by szcode, lastprice session gap 1 minute",
        ),
        (
            "SESSION(TABLE stock PARTITION BY (szcode, lastPrice), DESCRIPTOR(eventTime), 1 minute)",
            "partition by szcode, lastprice session gap 1 minute",
        ),
        (
            "SESSION(TABLE stock, DESCRIPTOR(eventTime), DESCRIPTOR(szcode), 1 minute)",
            "partition by szcode session gap 1 minute",
        ),
        ("SESSION(stock PARTITION BY szcode, eventTime, 1 minute)", "partition by szcode session gap 1 minute"),
        (
            "TABLE(SESSION(DATA => TABLE stock, TIMECOL => DESCRIPTOR(eventTime), GAP => INTERVAL '1 minute'))",
            "session gap 1 minute",
        ),
        (
            "CUMULATE(TABLE stock, DESCRIPTOR(eventTime), INTERVAL '1' MINUTE, INTERVAL '1' HOUR)",
            "cumulate step 1 minute size 1 hour",
        ),
        (
            "CUMULATE(DATA => TABLE stock, TIMECOL => DESCRIPTOR(eventTime), STEP => 1 minute, SIZE => 1 hour, \
             OFFSET => 5 minutes)",
            "cumulate step 1 minute size 1 hour offset 5 minutes",
        ),
    ];
    for (relation, window) in same {
        let plan = query(&session(), &format!("SELECT COUNT(*) FROM {relation}")).logical;
        let expected = if window.is_empty() { "stock".to_owned() } else { format!("stock[{window}]") };
        assert_eq!(leaves(&plan), [expected], "{relation}");
    }
}

#[test]
fn a_window_of_the_latest_rows_has_an_end_only() {
    let columns = |relation: &str| {
        let plan = query(&session(), &format!("SELECT * FROM {relation}")).logical;
        plan.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(columns("stock [Rows 5]"), "szcode eventtime lastprice window_end");
    assert_eq!(columns("stock [Session Gap 5]"), "szcode eventtime lastprice window_start window_end");
}

#[test]
fn sessions_of_other_dialects_are_windows_too() {
    let same = [
        (
            "SELECT szcode, COUNT(*) FROM STOCK WINDOW SESSION (60 SECONDS) GROUP BY szcode",
            "partition by szcode session gap 1 minute",
        ),
        (
            "SELECT session(interval '5 minutes') AS window, szcode, COUNT(*) FROM STOCK GROUP BY 1, szcode",
            "partition by szcode session gap 5 minutes",
        ),
        (
            "SELECT session_window.start, szcode, COUNT(*) FROM STOCK GROUP BY session_window(eventTime, '5 minutes'), 2",
            "partition by szcode session gap 5 minutes",
        ),
        (
            "SELECT SESSION_START(eventTime, INTERVAL '5' MINUTE), COUNT(*) FROM STOCK \
             GROUP BY SESSION(eventTime, INTERVAL '5' MINUTE)",
            "session gap 5 minutes",
        ),
    ];
    for (text, window) in same {
        assert_eq!(leaves(&query(&session(), text).logical), [format!("stock[{window}]")], "{text}");
    }
}

#[test]
fn as_of_joins_look_the_current_row_up() {
    let is_lookup = ["stock[partition by szcode rows 1]", "transaction[now]"];
    for text in [
        "SELECT t.price, s.lastPrice FROM TRANSACTION t ASOF JOIN STOCK s MATCH_CONDITION (t.eventTime >= s.eventTime) \
         ON t.szcode = s.szcode",
        "SELECT t.price, s.lastPrice FROM TRANSACTION AS t LEFT ASOF JOIN STOCK AS s \
         MATCH_CONDITION (s.eventTime <= t.eventTime) ON s.szcode = t.szcode AND t.price > s.lastPrice",
        "SELECT t.price, s.lastPrice FROM TRANSACTION t LEFT JOIN STOCK FOR SYSTEM_TIME AS OF t.eventTime AS s \
         ON t.szcode = s.szcode",
        "SELECT price, lastPrice FROM TRANSACTION ASOF JOIN STOCK \
         MATCH_CONDITION (TRANSACTION.eventTime >= STOCK.eventTime) USING (szcode)",
    ] {
        let mut found = leaves(&query(&session(), text).logical);
        found.sort();
        assert_eq!(found, is_lookup, "{text}");
    }
    let table = "SELECT t.price, c.name FROM TRANSACTION t JOIN codes FOR SYSTEM_TIME AS OF t.eventTime AS c \
                 ON t.szcode = c.szcode";
    assert_eq!(leaves(&query(&session(), table).logical), ["transaction"], "a table is current at all times");
}
