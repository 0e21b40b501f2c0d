//! The plans of every query in `queries`, as EXPLAIN shows them, against those that were reviewed.
//!
//! With `BLESS=1` in the environment the expected plans are written anew, to be reviewed like code.

use std::path::Path;

use super::process::{root, run};

/// The folders of queries, and the files in them that are no query.
const FOLDERS: [&str; 4] = ["classic", "forms", "nexmark", "stock"];
const OTHERS: [&str; 2] = ["schema.sql", "kept.sql"];

/// The names of the queries of a folder, in order.
pub(crate) fn queries(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let is_query =
        |name: &String| name.ends_with(".sql") && !name.ends_with(".test.sql") && !OTHERS.contains(&name.as_str());
    let mut queries: Vec<_> = names.filter(is_query).map(|name| name.trim_end_matches(".sql").to_owned()).collect();
    queries.sort_unstable();
    queries
}

#[test]
fn the_plans_of_all_queries_are_those_that_were_reviewed() {
    let (mut checked, mut wrong) = (0, String::new());
    for folder in FOLDERS {
        let path = format!("queries/{folder}");
        for query in queries(&root().join(&path)) {
            let schema = if folder == "forms" { "docs/examples/schema.sql" } else { &format!("{path}/schema.sql") };
            let file = format!("{path}/{query}.sql");
            let parameters = ["-p", "n=5 minutes", "-p", "s=1 minute"];
            let found = run(&[&["explain", schema, &file], parameters.as_slice()].concat());
            let expected = root().join(format!("{path}/plans/{query}.txt"));
            if std::env::var_os("BLESS").is_some() && found.code == Some(0) {
                std::fs::write(&expected, &found.stdout).unwrap_or_else(|error| unreachable!("{error}"));
            }
            if std::fs::read_to_string(&expected).unwrap_or_default() != found.stdout || found.code != Some(0) {
                wrong += &format!("{file} gave\n{}{}\n", found.stdout, found.stderr);
            }
            checked += 1;
        }
    }
    assert!(checked >= 30, "only {checked} queries were found");
    assert!(wrong.is_empty(), "{wrong}");
}
