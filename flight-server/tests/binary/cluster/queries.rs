//! All queries of the language's forms, of Nexmark and of the classics, asked of a server whose executors are processes:
//! the rows that were reviewed, or that the server gives without executors.

use std::time::Instant;

use crate::difference::difference;
use crate::kept::sorted;
use crate::nexmark::totals;
use crate::plans::queries;
use crate::process::{Folder, root};
use crate::serve::Server;

/// The folders of queries, and what is declared for them.
const FOLDERS: [(&str, &str); 3] = [
    ("classic", "queries/classic/schema.sql"),
    ("forms", "docs/examples/schema.sql"),
    ("nexmark", "queries/nexmark/schema.sql"),
];

/// Queries whose rows do not come to who asks, and why.
const ELSEWHERE: [(&str, &str); 1] =
    [("forms/late_data", "the rows go into a sink, and the late ones to the stdout of the server")];

/// A query as it is asked of a server.
struct Asked {
    name: String,
    /// What it needs besides the schema of its folder, in order.
    declared: Vec<String>,
    /// The query, behind its settings.
    text: String,
}

impl Asked {
    fn read(folder: &str, query: &str) -> Self {
        let name = format!("{folder}/{query}");
        // Servers know no parameters by name.
        let text = statements(&format!("queries/{name}.sql")).replace("[Range n, Slide s]", "[Range 10, Slide 5]");
        let parts = text.split(';').map(str::trim).filter(|part| !part.is_empty());
        let (declared, asked): (Vec<String>, Vec<String>) =
            parts.map(str::to_owned).partition(|part| part.starts_with("CREATE "));
        Self { name, declared, text: asked.join("; ") }
    }

    /// Its rows in one order, or why there are none.
    fn rows(&self, server: &Server, settings: &str) -> Result<Vec<String>, String> {
        if !self.declared.is_empty() {
            server.ask(&self.declared.join("; "));
            // Materialized views are read when they are whole.
            until_idle(server);
        }
        let found = server.ask_as("", &format!("{settings}{}", self.text));
        if !self.declared.is_empty() {
            until_idle(server);
            let dropped: Vec<String> = self.declared.iter().rev().map(|statement| drop_of(statement)).collect();
            server.ask(&dropped.join("; "));
        }
        if found.code != Some(0) {
            return Err(found.stderr);
        }
        let rows = sorted(&found.stdout);
        Ok(if self.name == "nexmark/q12" { totals(&rows) } else { rows })
    }

    /// The rows that were reviewed, or else those that the server gives alone.
    fn expected(&self, server: &Server) -> Vec<String> {
        let reviewed = std::fs::read_to_string(root().join(format!("queries/{}.expected.csv", self.name)));
        let Ok(reviewed) = reviewed else { return self.rows(server, "SET executors = 'off'; ").unwrap() };
        // Only those of the forms have a header.
        let header = usize::from(self.name.starts_with("forms/"));
        reviewed.lines().skip(header).map(str::to_owned).collect()
    }

    /// What is wrong with its rows, if something is.
    fn fault(&self, server: &Server) -> Option<String> {
        match self.rows(server, "") {
            Ok(rows) => difference(&rows, &self.expected(server)),
            Err(reason) => Some(reason),
        }
    }
}

/// The text of a file of SQL without its comments, which have semicolons too.
fn statements(path: &str) -> String {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    text.lines().filter(|line| !line.starts_with("--")).map(|line| format!("{line}\n")).collect()
}

/// What takes `CREATE kind name …` back.
fn drop_of(statement: &str) -> String {
    let words: Vec<&str> = statement.split_whitespace().collect();
    let kind = if words[1] == "MATERIALIZED" { "MATERIALIZED VIEW" } else { words[1] };
    let name = words[1 + kind.split(' ').count()].split('(').next().unwrap();
    format!("DROP {kind} {name}")
}

fn until_idle(server: &Server) {
    server.ask_until("SHOW QUERIES", |rows| rows.lines().count() == 1);
}

#[test]
fn every_query_gives_on_processes_what_was_reviewed() {
    let (data, begun) = (Folder::new(), Instant::now());
    let server = Server::with_executors(&data, 3);
    let (mut checked, mut wrong, mut faults) = (0, Vec::new(), String::new());
    for (folder, schema) in FOLDERS {
        server.ask(&statements(schema));
        for query in queries(&root().join("queries").join(folder)) {
            let asked = Asked::read(folder, &query);
            if let Some(fault) = asked.fault(&server) {
                faults += &format!("{}: {fault}\n", asked.name);
                wrong.push(asked.name);
            }
            checked += 1;
        }
    }
    println!("{checked} queries in {:?}", begun.elapsed());
    assert!(checked >= 100, "only {checked} queries were found");
    assert_eq!(wrong, ELSEWHERE.map(|(name, _)| name), "{faults}");
    server.executors_until(|executors| executors.len() == 3 && executors.iter().all(|executor| executor.rows > 0));
}
