//! Every form of the language in `queries/forms`: the rows that were reviewed, however input is cut.
//!
//! With `BLESS=1` in the environment the expected rows are written anew, to be reviewed like code.

use super::difference::difference;
use super::plans::queries;
use super::process::{Folder, root, run};

const SCHEMA: &str = "docs/examples/schema.sql";

/// Settings that cut input into many micro-batches, into one, and into one for each file.
const CUTS: [&str; 3] =
    ["SET batch_interval = '1 ms'", "SET batch_interval = '10 s'", "SET batch_rows = 1; SET batch_interval = '1 ms'"];

#[test]
fn every_form_gives_the_rows_that_were_reviewed() {
    let folder = Folder::new();
    let settings: Vec<_> =
        CUTS.iter().enumerate().map(|(number, cut)| folder.write(&format!("{number}.sql"), cut)).collect();
    let (mut checked, mut wrong) = (0, String::new());
    for query in queries(&root().join("queries/forms")) {
        let file = format!("queries/forms/{query}.sql");
        let expected_file = root().join(format!("queries/forms/{query}.expected.csv"));
        // What depends on the cut says itself which it wants.
        let sets = std::fs::read_to_string(root().join(&file)).is_ok_and(|text| text.contains("\nSET "));
        let cuts = if sets { settings.get(..1) } else { settings.get(..) };
        for cut in cuts.unwrap_or_default() {
            let found = run(&["run", cut, SCHEMA, &file, "--format", "csv", "-p", "n=10 s", "-p", "s=5 s"]);
            if std::env::var_os("BLESS").is_some() && found.code == Some(0) {
                std::fs::write(&expected_file, &found.stdout).unwrap_or_else(|error| unreachable!("{error}"));
            }
            let expected = std::fs::read_to_string(&expected_file).unwrap_or_default();
            let lines = |text: &str| text.lines().map(str::to_owned).collect::<Vec<_>>();
            match difference(&lines(&found.stdout), &lines(&expected)) {
                None if found.code == Some(0) && !expected.is_empty() => {}
                difference => wrong += &format!("{file}: {}{}\n", difference.unwrap_or_default(), found.stderr),
            }
        }
        checked += 1;
    }
    assert!(checked >= 70, "only {checked} forms were found");
    assert!(wrong.is_empty(), "{wrong}");
}
