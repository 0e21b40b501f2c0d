//! The declared functions by name, each compiled with what it calls.
//!
//! What one function calls is looked up when it is declared. One that is replaced has those that call it compiled
//! anew, so that all always fit together; for the same reason none is dropped that another calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::execution::session_state::SessionState;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::function::{Body, FunctionDefinition, aggregate, scalar};
use crate::scope::Names;
use crate::statement::RelationKind;
use crate::suggest::{list, nearest};

/// The declared functions.
#[derive(Debug, Clone, Default)]
pub(crate) struct Functions {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    definition: Arc<FunctionDefinition>,
    compiled: Compiled,
}

#[derive(Debug, Clone)]
enum Compiled {
    Scalar(Arc<ScalarUDF>),
    Aggregate(Arc<AggregateUDF>),
}

impl Functions {
    /// What is declared under the name.
    pub(crate) fn get(&self, name: &str) -> Option<&Arc<FunctionDefinition>> {
        self.entries.get(name).map(|entry| &entry.definition)
    }

    /// All, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<FunctionDefinition>> {
        self.entries.values().map(|entry| &entry.definition)
    }

    /// The function that plans call by the name.
    pub(crate) fn scalar(&self, name: &str) -> Option<&Arc<ScalarUDF>> {
        match &self.entries.get(name)?.compiled {
            Compiled::Scalar(function) => Some(function),
            Compiled::Aggregate(_) => None,
        }
    }

    /// The aggregate that plans call by the name.
    pub(crate) fn aggregate(&self, name: &str) -> Option<&Arc<AggregateUDF>> {
        match &self.entries.get(name)?.compiled {
            Compiled::Aggregate(function) => Some(function),
            Compiled::Scalar(_) => None,
        }
    }

    /// The names of the functions, or of the aggregates.
    pub(crate) fn names(&self, kind: RelationKind) -> impl Iterator<Item = &str> {
        self.iter().filter(move |definition| definition.kind() == kind).map(|definition| definition.name.as_str())
    }

    /// The functions with `definition`, in place of the one of its name.
    ///
    /// # Errors
    /// It cannot be computed, calls itself, or one that calls it does not fit it.
    pub(crate) fn with(
        state: &Arc<SessionState>,
        catalog: &Catalog,
        definition: &Arc<FunctionDefinition>,
    ) -> Result<Self> {
        check_name(state, definition)?;
        let mut catalog = catalog.clone();
        catalog.functions.entries.remove(&definition.name);
        catalog.functions.refuse_recursion(definition)?;
        let callers = catalog.functions.callers(&definition.name);
        catalog = with_compiled(state, catalog, definition)?;
        for caller in callers {
            catalog = with_compiled(state, catalog, &caller).map_err(|error| Error {
                message: format!("\"{}\", which calls it, does not fit: {}", caller.name, error.message),
                location: None,
                ..error
            })?;
        }
        Ok(catalog.functions)
    }

    /// Forgets what has the name; whether there was something.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.entries.remove(name).is_some()
    }

    /// Checks that no other function calls the one of this name.
    ///
    /// # Errors
    /// One does.
    pub(crate) fn check_unused(&self, name: &str) -> Result<()> {
        let callers = self.callers(name);
        let Some(caller) = callers.first() else { return Ok(()) };
        let (noun, caller) = (caller.kind().noun(), &caller.name);
        Err(Error::new(format!("the {noun} \"{caller}\" calls \"{name}\""))
            .hint(format!("write DROP {} {caller} first", noun.to_uppercase())))
    }

    /// The error of a name that is not declared.
    pub(crate) fn unknown(&self, name: &str, kind: RelationKind) -> Error {
        let error = Error::new(format!("there is no {} \"{name}\"", kind.noun()));
        let names: Vec<&str> = self.entries.keys().map(String::as_str).collect();
        error.hint(match nearest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None if names.is_empty() => format!("declare it by CREATE {}", kind.noun().to_uppercase()),
            None => format!("there is {}", list(&names, "and")),
        })
    }

    /// Those that call `name`, directly or not, in an order in which each comes after what it calls.
    fn callers(&self, name: &str) -> Vec<Arc<FunctionDefinition>> {
        let mut found: Vec<Arc<FunctionDefinition>> = Vec::new();
        let mut names = vec![name.to_owned()];
        while let Some(name) = names.pop() {
            for caller in self.iter().filter(|definition| definition.call_of(&name).is_some()) {
                // One that is met again calls what was met since, so it goes behind that.
                found.retain(|known| known.name != caller.name);
                found.push(Arc::clone(caller));
                names.push(caller.name.clone());
            }
        }
        found
    }

    fn refuse_recursion(&self, definition: &FunctionDefinition) -> Result<()> {
        let name = &definition.name;
        let hint = "declare it by what it computes: the expression takes the place of each call";
        if let Some(place) = definition.call_of(name) {
            return Err(Error::new(format!("\"{name}\" calls itself")).hint(hint).at(place));
        }
        for caller in self.callers(name) {
            if let Some(place) = definition.call_of(&caller.name) {
                let message = format!("\"{name}\" calls itself by way of \"{}\"", caller.name);
                return Err(Error::new(message).hint(hint).at(place));
            }
        }
        Ok(())
    }
}

/// The catalog with `definition` compiled against what is in it.
fn with_compiled(
    state: &Arc<SessionState>,
    mut catalog: Catalog,
    definition: &Arc<FunctionDefinition>,
) -> Result<Catalog> {
    let names = Names::new(Arc::clone(state), Arc::new(catalog.clone()));
    let compiled = match &definition.body {
        Body::Function(body) => Compiled::Scalar(Arc::new(scalar::compile(&names, definition, body)?)),
        Body::Aggregate(body) => Compiled::Aggregate(Arc::new(aggregate::compile(&names, definition, body)?)),
    };
    let entry = Entry { definition: Arc::clone(definition), compiled };
    catalog.functions.entries.insert(definition.name.clone(), entry);
    Ok(catalog)
}

/// Checks that the name does not hide a function that is there anyway.
fn check_name(state: &SessionState, definition: &FunctionDefinition) -> Result<()> {
    let name = &definition.name;
    let is_known = name == "unnest"
        || state.scalar_functions().contains_key(name)
        || state.aggregate_functions().contains_key(name)
        || state.window_functions().contains_key(name)
        || state.higher_order_functions().contains_key(name);
    if !is_known {
        return Ok(());
    }
    Err(Error::new(format!("there is a function \"{name}\" already, which cannot be replaced"))
        .hint("give yours another name"))
}
