//! `millstream demo` into a pipe.

use super::process::run;

#[test]
fn the_demo_is_plain_text_and_ends_with_a_summary() {
    let shown = run(&["demo", "--seconds", "2", "--rate", "20000"]).silent();
    assert!(!shown.contains(['\x1b', '\r']), "{shown:?}");
    assert!(shown.contains("window_end") && shown.contains("FROM TRANSACTION [Range 5 seconds"), "{shown}");
    let end: Vec<&str> = shown.lines().rev().take(2).collect();
    // How long the query itself ran is the machine's affair: planning takes some of the two seconds.
    for part in [" rows in ", " s (", "rows/s", "windows closed", "result rows"] {
        assert!(end[1].contains(part), "no {part:?} in {shown}");
    }
    assert!(end[0].starts_with("latency") && end[0].contains("median"), "{shown}");
}
