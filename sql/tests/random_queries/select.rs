//! Random queries over one or two windowed relations.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::{IndexedRandom, SliceRandom};

use crate::expression::{Column, SHOWN, Scope, Type};
use crate::query::{Query, Select, Top};
use crate::relation::{Inputs, Windowed};

/// A FROM clause and what it brings into scope.
struct Joined {
    parts: Vec<String>,
    scope: Scope,
    /// The columns that tell the rows of the first relation apart.
    identity: Vec<String>,
}

/// A random query.
pub(crate) fn random_query(inputs: &Inputs, rng: &mut StdRng) -> Query {
    let columns = rng.random_range(1..5);
    let kinds: Vec<Type> = (0..columns).map(|_| *SHOWN.choose(rng).unwrap_or(&Type::Integer)).collect();
    let branches = if !inputs.is_read_once() && rng.random_bool(0.15) { 2 } else { 1 };
    let branches = (0..branches).map(|_| random_select(inputs, &kinds, rng)).collect();
    let mut query = Query::of(branches);
    if rng.random_bool(0.25) {
        let mut numbers: Vec<_> = (0..columns).collect();
        numbers.shuffle(rng);
        numbers.truncate(rng.random_range(1..=columns));
        let directions = ["", " DESC", " NULLS FIRST", " DESC NULLS LAST"];
        let by = numbers.into_iter().map(|number| (number, directions[rng.random_range(0..4)])).collect();
        query.top = Some(Top { by, rows: rng.random_range(1..6) });
    }
    query
}

/// A SELECT of the given types.
fn random_select(inputs: &Inputs, kinds: &[Type], rng: &mut StdRng) -> Select {
    let from = random_from(inputs, rng);
    let filters = random_filters(inputs, &from.scope, rng);
    let mut select = Select { from: from.parts.clone(), filters, ..Select::default() };
    match rng.random_range(0..10) {
        0..5 => group(&mut select, &from.scope, kinds, rng),
        5 => select.items = kinds.iter().map(|kind| over(&from, *kind, rng)).collect(),
        shape => {
            select.items = kinds.iter().map(|kind| from.scope.expression(*kind, 3, rng)).collect();
            select.is_distinct = shape == 6;
        }
    }
    select
}

/// A SELECT of rows, without groups, for tests that compare parts of it: its items and its scope.
pub(crate) fn random_rows(inputs: &Inputs, rng: &mut StdRng) -> (Select, Scope) {
    let from = random_from(inputs, rng);
    let kinds: Vec<Type> = (0..3).map(|_| *SHOWN.choose(rng).unwrap_or(&Type::Integer)).collect();
    let items = kinds.iter().map(|kind| from.scope.expression(*kind, 2, rng)).collect();
    (Select { from: from.parts, items, ..Select::default() }, from.scope)
}

fn windowed<'a>(inputs: &'a Inputs, rng: &mut StdRng) -> (usize, &'a Windowed) {
    let number = rng.random_range(0..inputs.windowed.len());
    (number, &inputs.windowed[number])
}

fn random_from(inputs: &Inputs, rng: &mut StdRng) -> Joined {
    let (number, first) = windowed(inputs, rng);
    let identity = first.identity().into_iter().map(|column| format!("a.{column}")).collect();
    let scope = first.scope("a");
    let alone = Joined { parts: vec![format!("@{number} AS a")], scope, identity };
    let share = if inputs.windowed.len() == 2 { 0.7 } else { 0.15 };
    if inputs.is_read_once() || !rng.random_bool(share) {
        return alone;
    }
    let other = if inputs.windowed.len() == 2 { 1 - number } else { number };
    let (relation, scope) = if rng.random_bool(0.25) {
        grouped_relation(other, &inputs.windowed[other], rng)
    } else {
        (format!("@{other} AS b"), inputs.windowed[other].scope("b"))
    };
    let both = alone.scope.and(&scope);
    let kind = ["JOIN", "JOIN", "JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"].choose(rng).unwrap_or(&"JOIN");
    let mut condition = ["a.k = b.k", "a.k = b.k AND a.i = b.i", "a.i = b.i", "a.k = b.k AND a.d = b.d"]
        .choose(rng)
        .unwrap_or(&"a.k = b.k")
        .to_string();
    if rng.random_bool(0.3) {
        condition.push_str(&format!(" AND {}", both.condition(1, rng)));
    }
    let mut parts = alone.parts;
    parts.push(format!("{kind} {relation} ON {condition}"));
    Joined { parts, scope: both, identity: Vec::new() }
}

/// The groups of a windowed relation as `b`.
fn grouped_relation(number: usize, windowed: &Windowed, rng: &mut StdRng) -> (String, Scope) {
    let scope = windowed.scope("z");
    let filter = if rng.random_bool(0.3) { format!(" WHERE {}", scope.condition(1, rng)) } else { String::new() };
    let [count, least] = [Type::Integer, Type::Decimal].map(|kind| aggregate(&scope, kind, rng));
    let text = format!("(SELECT z.k, {count} AS i, {least} AS d FROM @{number} AS z{filter} GROUP BY z.k) AS b");
    (text, Scope::of_relation("b", &[("k", Type::Text), ("i", Type::Integer), ("d", Type::Decimal)]))
}

fn random_filters(inputs: &Inputs, scope: &Scope, rng: &mut StdRng) -> Vec<String> {
    let mut filters = Vec::new();
    while rng.random_bool(0.35) && filters.len() < 2 {
        filters.push(scope.condition(2, rng));
    }
    if !inputs.is_read_once() && rng.random_bool(0.2) {
        filters.push(subquery(inputs, rng));
    }
    filters
}

/// A condition on `a` that asks a windowed relation.
fn subquery(inputs: &Inputs, rng: &mut StdRng) -> String {
    let (number, windowed) = windowed(inputs, rng);
    let scope = windowed.scope("z");
    let from = format!("FROM @{number} AS z");
    let filter = scope.condition(1, rng);
    let not = if rng.random_bool(0.4) { "NOT " } else { "" };
    match rng.random_range(0..5) {
        0 => format!("a.k {not}IN (SELECT z.k {from} WHERE {filter})"),
        1 => format!("{not}EXISTS (SELECT 1 {from} WHERE z.k = a.k AND {filter})"),
        2 => format!("{not}EXISTS (SELECT 1 {from} WHERE z.k = a.k AND z.i < a.i)"),
        3 => format!("a.i >= (SELECT {} {from} WHERE {filter})", aggregate(&scope, Type::Integer, rng)),
        _ => format!("a.i >= (SELECT MIN(z.i) {from} WHERE z.k = a.k AND {filter})"),
    }
}

/// Groups the rows by up to three keys.
fn group(select: &mut Select, scope: &Scope, kinds: &[Type], rng: &mut StdRng) {
    let mut keys = Vec::new();
    if rng.random_bool(0.5) {
        keys.push(Column { text: "a.window_end".to_owned(), kind: Type::Time });
    }
    for _ in 0..rng.random_range(0..3) {
        let kind = *[Type::Text, Type::Text, Type::Integer, Type::Boolean].choose(rng).unwrap_or(&Type::Text);
        let column = scope.column(kind, rng).filter(|_| rng.random_bool(0.7));
        let text = column.unwrap_or_else(|| scope.expression(kind, 1, rng));
        // A literal alone is the number of a column.
        if (text.contains("a.") || text.contains("b.")) && keys.iter().all(|key: &Column| key.text != text) {
            keys.push(Column { text, kind });
        }
    }
    select.groups = keys.iter().map(|key| key.text.clone()).collect();
    select.is_rollup = keys.len() > 1 && rng.random_bool(0.1);
    let mut groups = Scope { columns: keys };
    for kind in kinds {
        groups.columns.push(Column { text: aggregate(scope, *kind, rng), kind: *kind });
    }
    select.items = kinds.iter().map(|kind| groups.expression(*kind, u32::from(rng.random_bool(0.3)), rng)).collect();
    if rng.random_bool(0.2) {
        // DataFusion takes no condition there that names nothing.
        let condition = groups.condition(1, rng);
        select.having = ["a.", "b.", "COUNT"].iter().any(|name| condition.contains(name)).then_some(condition);
    }
}

/// An aggregate of that type.
fn aggregate(scope: &Scope, kind: Type, rng: &mut StdRng) -> String {
    let call = match (kind, rng.random_range(0..6)) {
        (Type::Integer, 0) => "COUNT(*)".to_owned(),
        (Type::Integer, 1) => {
            let kind = *SHOWN.choose(rng).unwrap_or(&Type::Text);
            format!("COUNT({})", scope.expression(kind, 1, rng))
        }
        (Type::Integer, 2) => {
            let kind = *[Type::Integer, Type::Text].choose(rng).unwrap_or(&Type::Text);
            format!("COUNT(DISTINCT {})", scope.expression(kind, 1, rng))
        }
        (Type::Integer | Type::Decimal, 0..4) => format!("SUM({})", scope.expression(kind, 1, rng)),
        (Type::Decimal, 4) => format!("AVG({})", scope.expression(kind, 1, rng)),
        (Type::Boolean, 0..3) => format!("BOOL_AND({})", scope.condition(1, rng)),
        (Type::Boolean, _) => format!("BOOL_OR({})", scope.condition(1, rng)),
        (_, number) => {
            let name = if number % 2 == 0 { "MIN" } else { "MAX" };
            format!("{name}({})", scope.expression(kind, 1, rng))
        }
    };
    if rng.random_bool(0.2) { format!("{call} FILTER (WHERE {})", scope.condition(1, rng)) } else { call }
}

/// A window function of that type; rows are only numbered where some columns tell them apart.
fn over(from: &Joined, kind: Type, rng: &mut StdRng) -> String {
    let scope = &from.scope;
    let partition = match scope.column(Type::Text, rng) {
        Some(column) if rng.random_bool(0.6) => format!("PARTITION BY {column}"),
        _ => String::new(),
    };
    let [first, value] = [scope.expression(Type::Integer, 1, rng), scope.expression(kind, 1, rng)];
    let ranked = format!("({partition} ORDER BY {first}, a.k DESC)");
    let identity = from.identity.join(", ");
    match (kind, rng.random_range(0..6)) {
        (Type::Integer, 0) => format!("RANK() OVER {ranked}"),
        (Type::Integer, 1) => format!("DENSE_RANK() OVER {ranked}"),
        (Type::Integer, 2) => format!("COUNT({first}) OVER ({partition})"),
        (Type::Integer, 3) if !identity.is_empty() => {
            format!("ROW_NUMBER() OVER ({partition} ORDER BY {first}, {identity})")
        }
        (Type::Integer | Type::Decimal, 4) => format!("SUM({value}) OVER {ranked}"),
        (Type::Integer | Type::Decimal, 5) if !identity.is_empty() => {
            let frame = "ROWS BETWEEN 2 PRECEDING AND CURRENT ROW";
            format!("SUM({value}) OVER ({partition} ORDER BY {identity} {frame})")
        }
        (Type::Boolean, _) => value,
        (_, 0..=2) if !identity.is_empty() => format!("LAG({value}) OVER ({partition} ORDER BY {identity})"),
        _ => format!("MAX({value}) OVER {ranked}"),
    }
}
