//! Lines as a person types them: history, completion, and statements of several lines.

use std::borrow::Cow;
use std::path::PathBuf;

use rustyline::completion::Completer;
use rustyline::error::ReadlineError;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::history::FileHistory;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{CompletionType, Config, Context, Editor, Helper};

use super::backend::Names;
use super::text::{is_whole, names_secret};
use crate::error::{Error, Result};

const PROMPT: &str = "millstream> ";
const HISTORY: &str = ".millstream_history";

/// The words that are completed besides names.
const WORDS: [&str; 62] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "HAVING",
    "ORDER BY",
    "LIMIT",
    "JOIN",
    "LEFT JOIN",
    "FULL JOIN",
    "ON",
    "AS",
    "AND",
    "OR",
    "NOT",
    "NULL",
    "IN",
    "BETWEEN",
    "EXISTS",
    "DISTINCT",
    "UNION ALL",
    "WITH",
    "CASE",
    "WHEN",
    "THEN",
    "ELSE",
    "END",
    "COUNT",
    "SUM",
    "AVG",
    "MIN",
    "MAX",
    "INTERVAL",
    "TIMESTAMP",
    "CREATE STREAM",
    "CREATE TABLE",
    "CREATE VIEW",
    "CREATE MATERIALIZED VIEW",
    "CREATE SINK",
    "CREATE SECRET",
    "CREATE FUNCTION",
    "CREATE AGGREGATE",
    "INSERT INTO",
    "DROP",
    "SHOW STREAMS",
    "SHOW QUERIES",
    "SHOW STATE",
    "SHOW WATERMARKS",
    "DESCRIBE",
    "EXPLAIN",
    "EXPLAIN ANALYZE",
    "WATERMARK FOR",
    "RETAIN",
    "EMIT CHANGES",
    "SUBSCRIBE",
    "EMIT EVERY",
    "ISTREAM",
    "DSTREAM",
    "Range",
    "Slide",
    "Partition By",
    "Session Gap",
];

/// What a person has typed.
#[derive(Debug)]
pub(super) enum Typed {
    Text(String),
    /// Ctrl-C: what was typed is thrown away.
    Nothing,
    /// Ctrl-D.
    End,
}

/// Reads from the terminal.
pub(super) struct Typing {
    editor: Editor<Words, FileHistory>,
    history: Option<PathBuf>,
}

impl Typing {
    /// The terminal, with what was typed in earlier shells.
    ///
    /// # Errors
    /// Fails if the terminal cannot be set up.
    pub(super) fn new(names: Names) -> Result<Self> {
        let config = Config::builder().completion_type(CompletionType::List).build();
        let mut editor = Editor::with_config(config).map_err(failed)?;
        editor.set_helper(Some(Words { names }));
        let history = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(HISTORY));
        if let Some(path) = &history {
            // There is none yet, or it cannot be read: nothing that a person could not type again.
            let _ = editor.load_history(path);
        }
        Ok(Self { editor, history })
    }

    /// Waits for a command or statements.
    ///
    /// # Errors
    /// Fails as the terminal does.
    pub(super) fn next(&mut self) -> Result<Typed> {
        match self.editor.readline(PROMPT) {
            Ok(text) => {
                if !names_secret(&text) {
                    self.remember(&text);
                }
                Ok(Typed::Text(text))
            }
            Err(ReadlineError::Interrupted) => Ok(Typed::Nothing),
            Err(ReadlineError::Eof) => Ok(Typed::End),
            Err(error) => Err(failed(error)),
        }
    }

    /// Keeps what was typed for later shells; nothing is lost that a person could not type again.
    fn remember(&mut self, text: &str) {
        let _ = self.editor.add_history_entry(text);
        if let Some(path) = &self.history {
            let _ = self.editor.append_history(path);
        }
    }
}

impl std::fmt::Debug for Typing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Typing").field("history", &self.history).finish_non_exhaustive()
    }
}

fn failed(error: ReadlineError) -> Error {
    Error::Io { context: "cannot read from the terminal".to_owned(), source: std::io::Error::other(error) }
}

/// What completes words and tells whether a statement goes on.
struct Words {
    names: Names,
}

impl Completer for Words {
    type Candidate = String;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let typed = line.get(..pos).unwrap_or(line);
        let start = typed
            .rfind(|c: char| !c.is_alphanumeric() && c != '_' && c != '$')
            .map_or(0, |at| at + typed.get(at..).and_then(|rest| rest.chars().next()).map_or(1, char::len_utf8));
        let word = typed.get(start..).unwrap_or_default().to_lowercase();
        if word.is_empty() {
            return Ok((pos, Vec::new()));
        }
        let names = self.names.all();
        let all = names.iter().map(String::as_str).chain(WORDS);
        let mut found: Vec<String> =
            all.filter(|name| name.to_lowercase().starts_with(&word)).map(str::to_owned).collect();
        found.sort_unstable();
        found.dedup();
        Ok((start, found))
    }
}

impl Validator for Words {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        let is_whole = is_whole(context.input());
        Ok(if is_whole { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

impl Hinter for Words {
    type Hint = String;
}

impl Highlighter for Words {
    fn highlight_prompt<'b, 's: 'b, 'p: 'b>(&'s self, prompt: &'p str, _: bool) -> Cow<'b, str> {
        Cow::Owned(format!("\x1b[1m{prompt}\x1b[0m"))
    }
}

impl Helper for Words {}
