//! What users may do: roles, and what each is granted on streams, views and sinks.

use std::collections::BTreeSet;

use millstream_sql::{RelationKind, Shown, Statement, StreamQuery};
use serde::{Deserialize, Serialize};

/// What a statement or call needs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Right {
    /// To read a stream, table or view.
    Read(String),
    /// To send rows to a stream.
    Append(String),
    /// To have a query write into a sink.
    Write(String),
    /// To hear of all queries that run.
    Watch,
    /// To declare, drop, start and stop.
    Administer,
}

/// What a user with this role may do. A name may end in `*`, which stands for any rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Role {
    pub(super) name: String,
    /// The streams, tables and views that may be read; a view without what it reads.
    #[serde(default)]
    read: Vec<String>,
    /// The streams that rows may be sent to.
    #[serde(default)]
    append: Vec<String>,
    /// The sinks that queries may write into.
    #[serde(default)]
    write: Vec<String>,
    /// Everything.
    #[serde(default)]
    administer: bool,
}

impl Role {
    /// The roles that there are without being declared: `reader`, `writer`, `admin`, each with all that the one before
    /// may do.
    pub(super) fn built_in() -> [Self; 3] {
        let all = || vec!["*".to_owned()];
        let role = |name: &str, append, administer| Self {
            name: name.to_owned(),
            read: all(),
            append,
            write: Vec::new(),
            administer,
        };
        [role("reader", Vec::new(), false), role("writer", all(), false), role("admin", all(), true)]
    }

    /// The role of everybody where there are no users.
    pub(super) fn of_anybody() -> Self {
        let [_, _, admin] = Self::built_in();
        admin
    }

    /// Whether the role has a right.
    pub(super) fn permits(&self, right: &Right) -> bool {
        let is_one = |granted: &[String], name: &str| granted.iter().any(|pattern| fits(pattern, name));
        self.administer
            || match right {
                Right::Read(name) => is_one(&self.read, of_stream(name)),
                Right::Append(name) => is_one(&self.append, name),
                Right::Write(name) => is_one(&self.write, name),
                Right::Watch => self.read.iter().any(|pattern| pattern == "*"),
                Right::Administer => false,
            }
    }

    /// Whether a thing of that kind and name is shown in lists.
    pub(super) fn sees(&self, kind: RelationKind, name: &str) -> bool {
        match kind {
            RelationKind::Function | RelationKind::Aggregate => true,
            RelationKind::Sink => self.permits(&Right::Write(name.to_owned())) || self.permits(&Right::Watch),
            _ => self.permits(&Right::Read(name.to_owned())) || self.permits(&Right::Append(name.to_owned())),
        }
    }
}

/// The stream whose late or bad rows a table has, which go with it; or the name itself.
fn of_stream(name: &str) -> &str {
    name.strip_suffix("$late").or_else(|| name.strip_suffix("$dead")).unwrap_or(name)
}

/// Whether a name is one that a pattern stands for.
fn fits(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix('*').map_or(pattern == name, |start| name.starts_with(start))
}

impl Right {
    /// What it is to have the right, after "may not".
    pub(super) fn deed(&self) -> String {
        match self {
            Self::Read(name) => format!("read {name:?}"),
            Self::Append(name) => format!("send rows to {name:?}"),
            Self::Write(name) => format!("write into the sink {name:?}"),
            Self::Watch => "hear of all queries that run: it needs read = [\"*\"]".to_owned(),
            Self::Administer => "do this: it needs the role admin".to_owned(),
        }
    }
}

/// What one must be allowed to do for a statement.
pub(super) fn rights_for(statement: &Statement) -> BTreeSet<Right> {
    match statement {
        Statement::Select(query) | Statement::Explain(query) | Statement::ExplainAnalyze(query) => of_query(query),
        Statement::Insert { sink, query } => {
            let mut rights = of_query(query);
            rights.insert(Right::Write(sink.name.clone()));
            rights
        }
        Statement::Subscribe { view, .. } => BTreeSet::from([Right::Read(view.clone())]),
        Statement::Show { of: Shown::Columns(name), .. } => BTreeSet::from([Right::Read(name.clone())]),
        Statement::Show { of: Shown::All(RelationKind::Secret), .. } => BTreeSet::from([Right::Administer]),
        Statement::ShowRunning(_) => BTreeSet::from([Right::Watch]),
        // Whose query it is comes out when it is found; lists are cut to what the user may see.
        Statement::SubscribeQuery { .. }
        | Statement::Show { .. }
        | Statement::Set { .. }
        | Statement::Nothing { .. } => BTreeSet::new(),
        _ => BTreeSet::from([Right::Administer]),
    }
}

fn of_query(query: &StreamQuery) -> BTreeSet<Right> {
    // The state of a query is that of all it reads.
    let read = |name: &String| if name.starts_with("state('") { Right::Watch } else { Right::Read(name.clone()) };
    let reads = query.relations.iter().map(read);
    reads.chain(query.late_sink.iter().map(|sink| Right::Write(sink.name.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str) -> Right {
        Right::Read(name.to_owned())
    }

    #[test]
    fn a_role_may_what_it_is_granted_and_nothing_else() {
        let desk: Role = toml::from_str("name = 'desk'\nread = ['prices', 'desk_*']\nappend = ['orders']").unwrap();
        assert!(desk.permits(&read("prices")) && desk.permits(&read("desk_1")) && desk.permits(&read("prices$late")));
        assert!(!desk.permits(&read("orders")) && !desk.permits(&read("price")) && !desk.permits(&read("prices$x")));
        assert!(
            desk.permits(&Right::Append("orders".to_owned())) && !desk.permits(&Right::Append("prices".to_owned()))
        );
        assert!(!desk.permits(&Right::Write("orders".to_owned())));
        assert!(!desk.permits(&Right::Watch) && !desk.permits(&Right::Administer));
        assert!(desk.sees(RelationKind::Stream, "orders") && !desk.sees(RelationKind::View, "other"));
    }

    #[test]
    fn each_built_in_role_includes_those_before_it() {
        let [reader, writer, admin] = Role::built_in();
        assert!(reader.permits(&read("x")) && reader.permits(&Right::Watch));
        assert!(!reader.permits(&Right::Append("x".to_owned())));
        assert!(writer.permits(&read("x")) && writer.permits(&Right::Append("x".to_owned())));
        assert!(!writer.permits(&Right::Write("x".to_owned())) && !writer.permits(&Right::Administer));
        assert!(admin.permits(&Right::Write("x".to_owned())) && admin.permits(&Right::Administer));
    }

    #[test]
    fn a_statement_needs_what_its_text_names() {
        let mut language = millstream_sql::Session::new();
        let declare = "CREATE STREAM trades (a INT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts) WITH (connector = 'x');
             CREATE VIEW v AS SELECT a FROM trades; CREATE SINK out WITH (connector = 'blackhole')";
        for parsed in language.parse(declare).unwrap() {
            match language.compile(&parsed).unwrap() {
                Statement::CreateStream { definition, .. } => language.register_stream(definition),
                Statement::CreateView { definition, .. } => language.register_view(definition),
                Statement::CreateSink { definition, .. } => language.register_sink(definition),
                other => panic!("{other:?}"),
            }
        }
        let rights = |text: &str| {
            let parsed = language.parse(text).unwrap();
            rights_for(&language.compile(&parsed[0]).unwrap())
        };
        assert_eq!(rights("SELECT 1"), BTreeSet::new());
        assert_eq!(rights("SELECT * FROM v"), BTreeSet::from([read("v")]));
        assert_eq!(rights("SELECT x.a FROM (SELECT a FROM trades) x"), BTreeSet::from([read("trades")]));
        assert_eq!(rights("WITH c AS (SELECT a FROM v) SELECT a FROM c"), BTreeSet::from([read("v")]));
        assert_eq!(
            rights("SELECT a FROM trades UNION ALL SELECT a FROM v"),
            BTreeSet::from([read("trades"), read("v")])
        );
        let windowed = "SELECT window_end, COUNT(*) FROM v [Range 5 seconds, Slide 5 seconds] GROUP BY window_end";
        assert_eq!(rights(windowed), BTreeSet::from([read("v")]), "and not what the view reads");
        let windowed = "SELECT window_end, COUNT(*) FROM trades [Range 5 seconds, Slide 5 seconds] GROUP BY window_end";
        assert_eq!(rights(windowed), BTreeSet::from([read("trades")]));
        let written = BTreeSet::from([read("trades"), Right::Write("out".to_owned())]);
        assert_eq!(rights("INSERT INTO out SELECT a FROM trades"), written);
        assert_eq!(rights("EXPLAIN SELECT a FROM trades"), BTreeSet::from([read("trades")]));
        assert_eq!(rights("DESCRIBE v"), BTreeSet::from([read("v")]));
        assert_eq!(rights("SHOW QUERIES"), BTreeSet::from([Right::Watch]));
        for administers in ["DROP VIEW v", "CREATE VIEW w AS SELECT a FROM v", "SHOW SECRETS", "STOP QUERY q"] {
            assert_eq!(rights(administers), BTreeSet::from([Right::Administer]), "{administers}");
        }
    }
}
