//! What a query gives of its results, and where its late rows go.

use std::time::Duration;

use millstream_engine::plan::{Emission, EmissionMode};
use millstream_engine::time::Span;

use crate::{query, session};

/// What the query of a text gives of its results.
fn emission(text: &str) -> Emission {
    query(&session(), text).emission
}

#[test]
fn what_a_query_gives_stands_in_front_or_at_the_end() {
    const WINDOW: &str = "FROM stock [Range 5 minutes, Slide 1 minute]";
    let changes = |every| EmissionMode::Changes { every };
    let modes = [
        (format!("SELECT szcode {WINDOW}"), EmissionMode::Results),
        (format!("SELECT RSTREAM szcode {WINDOW}"), EmissionMode::Results),
        (format!("SELECT ISTREAM szcode {WINDOW}"), EmissionMode::Insertions),
        (format!("SELECT ISTREAM * {WINDOW}"), EmissionMode::Insertions),
        (format!("dstream (SELECT szcode {WINDOW})"), EmissionMode::Deletions),
        (format!("SELECT szcode {WINDOW} EMIT FINAL"), EmissionMode::Results),
        (format!("SELECT szcode {WINDOW} EMIT ON WINDOW CLOSE"), EmissionMode::Results),
        (format!("SELECT szcode {WINDOW} EMIT AFTER WATERMARK"), EmissionMode::Results),
        (format!("SELECT szcode {WINDOW} EMIT CHANGES"), changes(None)),
        (format!("SELECT szcode {WINDOW} emit on update"), changes(None)),
        (format!("SELECT szcode {WINDOW} EMIT EVERY INTERVAL '5' SECOND"), changes(Some(Duration::from_secs(5)))),
        (format!("SELECT szcode {WINDOW} EMIT PERIODIC 500ms"), changes(Some(Duration::from_millis(500)))),
    ];
    for (text, mode) in modes {
        assert_eq!(emission(&text), Emission { mode, ..Emission::default() }, "{text}");
    }
    let text = format!("SELECT COUNT(*) {WINDOW} WITH EMPTY WINDOWS EMIT FINAL ALLOW LATENESS 1 minute");
    let expected = Emission { empty_windows: true, lateness: Some(Span::seconds(60)), ..Emission::default() };
    assert_eq!(emission(&text), expected);
    // None of these words is taken from those who use them as names.
    let names = "SELECT emit.final, emit.istream AS every FROM (SELECT szcode AS final, szcode AS istream FROM stock \
                 [Range 5 minutes, Slide 1 minute]) emit";
    assert_eq!(emission(names), Emission::default());
}

#[test]
fn late_rows_go_to_the_sink_that_stands_behind_the_query() {
    const WINDOW: &str = "FROM stock [Range 5 minutes, Slide 1 minute]";
    let late_sink = |text: &str| query(&session(), text).late_sink.map(|sink| sink.name.clone());
    assert_eq!(late_sink(&format!("SELECT szcode {WINDOW}")), None);
    for text in [
        format!("SELECT szcode {WINDOW} LATE DATA TO out"),
        format!("SELECT szcode {WINDOW} WHERE lastPrice > 1 late data to OUT EMIT CHANGES"),
        format!("SELECT szcode {WINDOW} EMIT FINAL ALLOW LATENESS 1 minute LATE DATA TO out WITH EMPTY WINDOWS"),
        "SELECT szcode FROM v_minutes LATE DATA TO out".to_owned(),
        "SELECT szcode FROM v_minutes [Range 1 hour, Slide 1 hour] LATE DATA TO out".to_owned(),
        format!("SELECT a.szcode {WINDOW} a JOIN stock [Range 1 minute] b ON a.szcode = b.szcode LATE DATA TO out"),
    ] {
        assert_eq!(late_sink(&text).as_deref(), Some("out"), "{text}");
    }
    let text = format!("SELECT szcode {WINDOW} EMIT CHANGES LATE DATA TO out");
    assert_eq!(emission(&text), emission(&format!("SELECT szcode {WINDOW} EMIT CHANGES")));
    // None of these words is taken from those who use them as names.
    assert_eq!(late_sink("SELECT late.data FROM (SELECT szcode AS data FROM v_dear) late"), None);
}
