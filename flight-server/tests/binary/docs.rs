//! The examples of the documentation: every block of SQL, with the rows that the page shows below it.
//!
//! A block ```` ```sql ```` runs behind `docs/examples/schema.sql`; the block ```` ```csv ```` that comes next is what it
//! prints, to the letter. The pages say so too.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use super::process::{root, run};

/// A query of a page, and the rows below it.
#[derive(Debug)]
struct Example {
    /// Where the query begins.
    line: usize,
    sql: String,
    expected: String,
}

/// The examples of `page`; every query has rows below it, and all rows belong to a query.
fn examples(page: &str) -> Vec<Example> {
    let mut examples = Vec::<Example>::new();
    let mut is_answered = true;
    let mut lines = page.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let block = lines.by_ref().take_while(|(line, _)| *line != "```").map(|(line, _)| format!("{line}\n"));
        let block: String = block.collect();
        match (kind, is_answered, examples.last_mut()) {
            ("sql", true, _) => examples.push(Example { line: number + 1, sql: block, expected: String::new() }),
            ("csv", false, Some(example)) => example.expected = block,
            ("sql" | "csv", ..) => panic!("line {number}: one block of sql, then one of csv"),
            _ => continue,
        }
        is_answered = !is_answered;
    }
    assert!(is_answered, "the last example has no rows");
    examples
}

/// Runs every example of a page and checks what it prints.
fn check(name: &str, least: usize) {
    let page = std::fs::read_to_string(root().join("docs").join(name)).unwrap();
    let examples = examples(&page);
    assert!(examples.len() >= least, "only {} examples were found in {name}", examples.len());
    let mut wrong = String::new();
    for Example { line, sql, expected } in &examples {
        let parameters = ["-p", "n=10 seconds", "-p", "s=5 seconds"];
        let finished =
            run(&[&["run", "docs/examples/schema.sql", "-e", sql, "--format", "csv"], parameters.as_slice()].concat());
        if finished.code != Some(0) || finished.stdout != *expected {
            wrong += &format!("docs/{name}:{line}\n{sql}gave\n{}{}not\n{expected}\n", finished.stdout, finished.stderr);
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
}

#[test]
fn the_examples_of_the_language_give_the_rows_below_them() {
    check("sql.md", 30);
}

#[test]
fn the_examples_of_the_semantics_give_the_rows_below_them() {
    check("semantics.md", 15);
}
