//! Every statement in `queries/refused` is refused with exactly the words in the file beside it.
//!
//! `-- bind n = 5 minutes` in a statement's file binds a parameter. With `BLESS=1` in the environment the expected
//! words are written anew, to be reviewed like code.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{run, session};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../queries/refused")
}

fn refusal(text: &str) -> String {
    let mut session = session();
    for line in text.lines() {
        if let Some((name, value)) = line.strip_prefix("-- bind ").and_then(|bound| bound.split_once('=')) {
            session.bind_parameter(name.trim(), value.trim());
        }
    }
    match run(&mut session, text) {
        Ok(_) => "accepted\n".to_owned(),
        Err(error) => format!("{}\n", error.render(text)),
    }
}

#[test]
fn every_refusal_says_what_to_type_instead() {
    let mut wrong = Vec::new();
    let mut count = 0;
    for entry in fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "sql") || path.ends_with("schema.sql") {
            continue;
        }
        count += 1;
        let found = refusal(&fs::read_to_string(&path).unwrap());
        let expected = path.with_extension("expected");
        if std::env::var_os("BLESS").is_some() {
            fs::write(&expected, &found).unwrap();
        }
        if found == "accepted\n" || fs::read_to_string(&expected).unwrap_or_default() != found {
            wrong.push(format!("{}:\n{found}", path.display()));
        }
    }
    assert!(count > 50, "only {count} refusals were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
