//! The commands of the shell, which begin with a backslash.

use std::time::Duration;

use clap::ValueEnum;

use crate::cli::Format;
use crate::error::{Error, Result};

/// What `\?` shows.
pub(crate) const HELP: &str = "\
\\?            this help                    \\q            ends the shell
\\d            what is declared             \\d NAME       columns of a relation
\\dt           tables                       \\ds           streams
\\dv           views                        \\dm           materialized views
\\dk           sinks                        \\df           functions and aggregates
\\queries      queries that run             \\watermarks   what holds windows back
\\i FILE       runs the SQL of a file       \\format F     table, csv or json
\\timing       shows how long it took, or not
\\watch N SQL  runs a query every N seconds, until Ctrl-C
\\live SQL     shows the newest rows of a query in place, until Ctrl-C
Statements end with a semicolon and may have several lines; Ctrl-C stops a query, Ctrl-D ends the shell.
INSERT and materialized views run on: SHOW QUERIES tells of them, STOP QUERY name; ends one.
";

/// A command.
#[derive(Debug, PartialEq)]
pub(crate) enum Command {
    Help,
    Quit,
    /// Statements that tell of what there is.
    Show(Vec<String>),
    Include(String),
    Format(Format),
    Timing,
    Watch(Duration, String),
    Live(String),
}

impl Command {
    /// Reads a line that begins with a backslash.
    ///
    /// # Errors
    /// There is no such command, or it has not what it needs.
    pub(crate) fn read(line: &str) -> Result<Self> {
        let line = line.trim();
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let rest = rest.trim().trim_end_matches(';').trim_end();
        let show = |statements: &[&str]| Ok(Self::Show(statements.iter().map(|text| (*text).to_owned()).collect()));
        match (name, rest) {
            ("\\?" | "\\h" | "\\help", _) => Ok(Self::Help),
            ("\\q" | "\\quit", _) => Ok(Self::Quit),
            ("\\d", "") => {
                show(&["SHOW STREAMS", "SHOW TABLES", "SHOW VIEWS", "SHOW MATERIALIZED VIEWS", "SHOW SINKS"])
            }
            ("\\d", name) => Ok(Self::Show(vec![format!("DESCRIBE {name}")])),
            ("\\dt", _) => show(&["SHOW TABLES"]),
            ("\\ds", _) => show(&["SHOW STREAMS"]),
            ("\\dv", _) => show(&["SHOW VIEWS"]),
            ("\\dm", _) => show(&["SHOW MATERIALIZED VIEWS"]),
            ("\\dk", _) => show(&["SHOW SINKS"]),
            ("\\df", _) => show(&["SHOW FUNCTIONS", "SHOW AGGREGATES"]),
            ("\\queries", _) => show(&["SHOW QUERIES"]),
            ("\\watermarks", _) => show(&["SHOW WATERMARKS"]),
            ("\\i", file) if !file.is_empty() => Ok(Self::Include(file.to_owned())),
            ("\\format", format) => match Format::from_str(format, true) {
                Ok(format) => Ok(Self::Format(format)),
                Err(_) => Err(Error::Usage(format!("no format {format:?}: \\format table, csv or json"))),
            },
            ("\\timing", _) => Ok(Self::Timing),
            ("\\watch", rest) => watch(rest),
            ("\\live", sql) if !sql.is_empty() => Ok(Self::Live(sql.to_owned())),
            ("\\i" | "\\live", _) => Err(Error::Usage(format!("{name} of what? \\? shows how it is written"))),
            _ => Err(Error::Usage(format!("no command {name}: \\? shows all there are"))),
        }
    }
}

/// `N SQL`.
fn watch(rest: &str) -> Result<Command> {
    let (seconds, sql) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    let interval = seconds.parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    match interval {
        Some(interval) if !interval.is_zero() && !sql.trim().is_empty() => {
            Ok(Command::Watch(interval, sql.trim().to_owned()))
        }
        _ => Err(Error::Usage("write \\watch SECONDS SELECT …".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read_with_what_they_need() {
        let read = |line| Command::read(line).ok();
        assert_eq!(read("\\d t;"), Some(Command::Show(vec!["DESCRIBE t".to_owned()])));
        assert_eq!(read("\\format CSV"), Some(Command::Format(Format::Csv)));
        assert_eq!(
            read("\\watch 0.5 SELECT 1;"),
            Some(Command::Watch(Duration::from_millis(500), "SELECT 1".to_owned()))
        );
        for wrong in ["\\i", "\\live ", "\\watch 0 SELECT 1", "\\watch 1", "\\format xml", "\\nothing"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
