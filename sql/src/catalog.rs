//! What statements have declared: streams, static tables, views, sinks, secrets and functions, by name.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use millstream_engine::plan::{StreamDefinition, WithOption};
use millstream_engine::results::MaterializedRows;
use millstream_engine::secret::Secret;

use crate::error::{Error, Result};
use crate::function::{FunctionDefinition, Functions};
use crate::statement::{ParsedQuery, RelationKind};
use crate::suggest::{list, nearest};

/// A named query; its text is planned anew wherever it is read.
#[derive(Debug, Clone)]
pub struct ViewDefinition {
    /// The name, folded to lower case unless it was quoted.
    pub name: String,
    /// The query as typed.
    pub text: String,
    pub(crate) query: ParsedQuery,
}

/// A declared destination.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkDefinition {
    /// The name, folded to lower case unless it was quoted.
    pub name: String,
    /// The connector and its options, unread.
    pub options: Vec<WithOption>,
}

/// Something that a query can read.
#[derive(Debug, Clone)]
pub enum Relation {
    /// An endless input.
    Stream(Arc<StreamDefinition>),
    /// A static table and its rows.
    Table {
        /// How it was declared.
        definition: Arc<StreamDefinition>,
        /// Its rows.
        provider: Arc<dyn TableProvider>,
    },
    /// A named query.
    View(Arc<ViewDefinition>),
    /// A named query whose results are kept.
    MaterializedView {
        /// The query.
        definition: Arc<ViewDefinition>,
        /// Its results so far.
        rows: Arc<dyn MaterializedRows>,
    },
}

impl Relation {
    /// Which kind of relation it is.
    pub const fn kind(&self) -> RelationKind {
        match self {
            Self::Stream(_) => RelationKind::Stream,
            Self::Table { .. } => RelationKind::Table,
            Self::View(_) => RelationKind::View,
            Self::MaterializedView { .. } => RelationKind::MaterializedView,
        }
    }

    /// The declaration of a stream or table.
    pub const fn definition(&self) -> Option<&Arc<StreamDefinition>> {
        match self {
            Self::Stream(definition) | Self::Table { definition, .. } => Some(definition),
            Self::View(_) | Self::MaterializedView { .. } => None,
        }
    }
}

/// The declared relations, sinks, secrets and functions; each of the four has names of its own.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    relations: BTreeMap<String, Relation>,
    sinks: BTreeMap<String, Arc<SinkDefinition>>,
    secrets: BTreeMap<String, Secret>,
    pub(crate) functions: Functions,
}

impl Catalog {
    /// The relation of that name.
    pub fn relation(&self, name: &str) -> Option<&Relation> {
        self.relations.get(name)
    }

    /// The relations, by name.
    pub fn relations(&self) -> impl Iterator<Item = (&str, &Relation)> {
        self.relations.iter().map(|(name, relation)| (name.as_str(), relation))
    }

    /// The sink of that name.
    pub fn sink(&self, name: &str) -> Option<&Arc<SinkDefinition>> {
        self.sinks.get(name)
    }

    /// The sinks, by name.
    pub fn sinks(&self) -> impl Iterator<Item = &Arc<SinkDefinition>> {
        self.sinks.values()
    }

    /// The function or aggregate of that name.
    pub fn function(&self, name: &str) -> Option<&Arc<FunctionDefinition>> {
        self.functions.get(name)
    }

    /// The functions and aggregates, by name.
    pub fn functions(&self) -> impl Iterator<Item = &Arc<FunctionDefinition>> {
        self.functions.iter()
    }

    /// The names of the secrets.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.keys().map(String::as_str)
    }

    /// What `name` stands for when something of kind `kind` is meant.
    pub fn kind_of(&self, name: &str, kind: RelationKind) -> Option<RelationKind> {
        match kind {
            RelationKind::Sink => self.sinks.contains_key(name).then_some(RelationKind::Sink),
            RelationKind::Secret => self.secrets.contains_key(name).then_some(RelationKind::Secret),
            RelationKind::Function | RelationKind::Aggregate => {
                self.functions.get(name).map(|definition| definition.kind())
            }
            _ => self.relations.get(name).map(Relation::kind),
        }
    }

    pub(crate) fn insert(&mut self, name: String, relation: Relation) {
        self.relations.insert(name, relation);
    }

    pub(crate) fn insert_sink(&mut self, sink: Arc<SinkDefinition>) {
        self.sinks.insert(sink.name.clone(), sink);
    }

    pub(crate) fn insert_secret(&mut self, name: String, secret: Secret) {
        self.secrets.insert(name, secret);
    }

    /// Forgets what has the name; whether there was something.
    pub(crate) fn remove(&mut self, name: &str, kind: RelationKind) -> bool {
        match kind {
            RelationKind::Sink => self.sinks.remove(name).is_some(),
            RelationKind::Secret => self.secrets.remove(name).is_some(),
            RelationKind::Function | RelationKind::Aggregate => self.functions.remove(name),
            _ => self.relations.remove(name).is_some(),
        }
    }

    /// The relation of that name.
    ///
    /// # Errors
    /// There is none; the hint offers the nearest.
    pub fn expect_relation(&self, name: &str) -> Result<&Relation> {
        self.relation(name).ok_or_else(|| {
            let error = Error::new(format!("there is no stream, table or view \"{name}\""));
            let names: Vec<&str> = self.relations.keys().map(String::as_str).collect();
            error.hint(known(name, &names, "declare it by CREATE STREAM"))
        })
    }

    /// The sink of that name.
    ///
    /// # Errors
    /// There is none; the hint offers the nearest.
    pub(crate) fn expect_sink(&self, name: &str) -> Result<&Arc<SinkDefinition>> {
        self.sink(name).ok_or_else(|| {
            let error = Error::new(format!("there is no sink \"{name}\""));
            let names: Vec<&str> = self.sinks.keys().map(String::as_str).collect();
            error.hint(known(name, &names, "declare it by CREATE SINK"))
        })
    }

    /// The secret of that name.
    ///
    /// # Errors
    /// There is none; the hint offers the nearest.
    pub(crate) fn expect_secret(&self, name: &str) -> Result<&Secret> {
        self.secrets.get(name).ok_or_else(|| {
            let error = Error::new(format!("there is no secret \"{name}\""));
            let names: Vec<&str> = self.secrets().collect();
            error.hint(known(name, &names, "declare it by CREATE SECRET"))
        })
    }

    /// The options with the texts of the secrets that they name.
    ///
    /// # Errors
    /// There is no such secret.
    pub(crate) fn revealed(&self, options: &[WithOption]) -> Result<Vec<WithOption>> {
        let revealed = |option: &WithOption| match &option.secret {
            None => Ok(option.clone()),
            Some(name) => {
                let secret = self.expect_secret(name).map_err(|error| error.at(option.location))?;
                Ok(WithOption { value: secret.reveal().to_owned(), ..option.clone() })
            }
        };
        options.iter().map(revealed).collect()
    }

    /// The stream, table or sink that has an option with the secret of that name, if one has.
    pub(crate) fn user_of_secret(&self, name: &str) -> Option<String> {
        let names = |options: &[WithOption]| options.iter().any(|option| option.secret.as_deref() == Some(name));
        let relation = self.relations.iter().find_map(|(known, relation)| {
            let uses = relation.definition().is_some_and(|definition| names(&definition.options));
            uses.then(|| format!("{} \"{known}\"", relation.kind().noun()))
        });
        relation.or_else(|| {
            let sink = self.sinks.values().find(|sink| names(&sink.options));
            sink.map(|sink| format!("sink \"{}\"", sink.name))
        })
    }

    /// The column `name` as a declaration spells it; `name` itself if none does.
    pub(crate) fn spelling<'a>(&'a self, name: &'a str) -> &'a str {
        let definitions = self.relations.values().filter_map(Relation::definition);
        let mut declared = definitions.flat_map(|definition| &definition.declared).map(String::as_str);
        declared.find(|declared| declared.to_lowercase() == name).unwrap_or(name)
    }
}

fn known(name: &str, names: &[&str], otherwise: &str) -> String {
    match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None if names.is_empty() => otherwise.to_owned(),
        None => format!("there is {}", list(names, "and")),
    }
}
