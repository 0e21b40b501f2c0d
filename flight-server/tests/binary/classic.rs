//! The queries in `queries/classic` over their small data: the rows that were worked out without the engine, however
//! input is cut.

#![expect(clippy::panic, reason = "tests")]

use super::difference::difference;
use super::process::{Folder, root, run};

const SCHEMA: &str = "queries/classic/schema.sql";

/// Settings that cut input into many micro-batches, into one, and into one for each row.
const CUTS: [&str; 3] =
    ["SET batch_interval = '1 ms'", "SET batch_interval = '10 s'", "SET batch_rows = 1; SET batch_interval = '1 ms'"];

#[track_caller]
fn check(query: &str) {
    let expected = std::fs::read_to_string(root().join(format!("queries/classic/{query}.expected.csv")));
    let expected: Vec<String> = expected.unwrap_or_default().lines().map(str::to_owned).collect();
    assert!(!expected.is_empty(), "queries/classic/{query}.expected.csv has no rows");
    let folder = Folder::new();
    for (number, cut) in CUTS.iter().enumerate() {
        let settings = folder.write(&format!("settings{number}.sql"), cut);
        let found =
            run(&["run", &settings, SCHEMA, &format!("queries/classic/{query}.sql"), "--format", "csv"]).silent();
        let found: Vec<String> = found.lines().skip(1).map(str::to_owned).collect();
        if let Some(difference) = difference(&found, &expected) {
            panic!("{query} with {cut}: {difference}");
        }
    }
}

#[test]
fn grep_counts_lines_that_match() {
    check("grep");
}

#[test]
fn wordcount_counts_words_over_sliding_windows() {
    check("wordcount");
}

#[test]
fn topkcount_gives_the_most_frequent_words_of_each_window() {
    check("topkcount");
}

#[test]
fn the_three_products_that_sold_best_are_found_in_each_category() {
    check("top_products");
}

#[test]
fn visits_of_those_on_the_blacklist_are_left_out() {
    check("blacklist");
}

#[test]
fn sessions_of_viewers_are_summed_up_by_region_and_network() {
    check("video_sessions");
}

#[test]
fn traffic_is_estimated_from_now_and_from_earlier_days() {
    check("traffic");
}
