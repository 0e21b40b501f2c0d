//! Joins of endless streams within bounds of time.

use millstream_engine::plan::EmissionMode;

use crate::{leaves, query, session};

#[test]
fn bounds_on_both_sides_make_windows_as_long_as_rows_may_wait() {
    let same = [
        "t.eventTime BETWEEN s.eventTime - INTERVAL '10' SECOND AND s.eventTime + INTERVAL '5' SECOND",
        "t.eventTime >= s.eventTime - INTERVAL '10 seconds' AND t.eventTime <= s.eventTime + INTERVAL '5 seconds'",
        "s.eventTime <= t.eventTime + INTERVAL '10 seconds' AND t.eventTime - INTERVAL '5 seconds' <= s.eventTime",
        "s.eventTime BETWEEN t.eventTime - INTERVAL '5' SECOND AND t.eventTime + INTERVAL '10' SECOND AND t.price > 1",
    ];
    for condition in same {
        for text in [
            format!(
                "SELECT t.price, s.lastPrice FROM TRANSACTION t JOIN STOCK s ON t.szcode = s.szcode AND {condition}"
            ),
            format!("SELECT * FROM TRANSACTION t, STOCK s WHERE t.szcode = s.szcode AND {condition}"),
        ] {
            let query = query(&session(), &text);
            assert_eq!(query.emission.mode, EmissionMode::Pairs, "{text}");
            let expected = [
                "transaction[range 10000000001 nanoseconds]".to_owned(),
                "stock[range 5000000001 nanoseconds]".to_owned(),
            ];
            assert_eq!(leaves(&query.logical), expected, "{text}");
            assert!(!query.logical.schema().fields().iter().any(|field| field.name() == "window_end"), "{text}");
        }
    }
}

#[test]
fn outer_joins_within_bounds_wait_for_partners_as_their_condition_says() {
    const BOUNDS: &str =
        "t.szcode = s.szcode AND t.eventTime BETWEEN s.eventTime - INTERVAL '10' SECOND AND s.eventTime";
    let from_t = "SELECT t.price, s.lastPrice FROM TRANSACTION t";
    // What is filtered afterwards has no say in how long a row waits.
    let filter = "WHERE t.eventTime >= s.eventTime - INTERVAL '1' SECOND OR s.lastPrice IS NULL";
    let texts =
        ["LEFT", "RIGHT OUTER", "FULL"].map(|kind| format!("{from_t} {kind} JOIN STOCK s ON {BOUNDS} {filter}"));
    let with_table = format!("{from_t} LEFT JOIN STOCK s ON {BOUNDS} JOIN codes c ON c.szcode = t.szcode");
    for text in texts.into_iter().chain([with_table]) {
        let query = query(&session(), &text);
        assert_eq!(query.emission.mode, EmissionMode::Pairs, "{text}");
        assert_eq!(leaves(&query.logical), ["transaction[range 10000000001 nanoseconds]", "stock[now]"], "{text}");
    }
}
