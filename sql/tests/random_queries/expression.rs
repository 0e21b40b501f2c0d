//! Random expressions of a wanted type over the columns in scope.
//!
//! They stay where an answer is certain: no overflow, no division by what may be 0, no sums of doubles, no clock.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// The types that are told apart; all integers are 64 bits wide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    Integer,
    Decimal,
    Double,
    Text,
    Time,
    Boolean,
}

/// A column, or whatever else may stand where a column may: a group key, an aggregate.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub(crate) text: String,
    pub(crate) kind: Type,
}

/// What expressions can name.
#[derive(Debug, Clone, Default)]
pub(crate) struct Scope {
    pub(crate) columns: Vec<Column>,
}

/// The types that results have.
pub(crate) const SHOWN: [Type; 8] =
    [Type::Integer, Type::Integer, Type::Decimal, Type::Decimal, Type::Text, Type::Text, Type::Time, Type::Boolean];

impl Scope {
    /// The scope with these columns of the relation `alias`.
    pub(crate) fn of_relation(alias: &str, columns: &[(&str, Type)]) -> Self {
        let column = |(name, kind): &(&str, Type)| Column { text: format!("{alias}.{name}"), kind: *kind };
        Self { columns: columns.iter().map(column).collect() }
    }

    /// Both scopes together.
    pub(crate) fn and(&self, other: &Self) -> Self {
        Self { columns: self.columns.iter().chain(&other.columns).cloned().collect() }
    }

    /// A column of that type, if there is one.
    pub(crate) fn column(&self, kind: Type, rng: &mut StdRng) -> Option<String> {
        let of_kind: Vec<_> = self.columns.iter().filter(|column| column.kind == kind).collect();
        of_kind.choose(rng).map(|column| column.text.clone())
    }

    /// An expression of that type, which nests to `depth` at the most.
    pub(crate) fn expression(&self, kind: Type, depth: u32, rng: &mut StdRng) -> String {
        if kind != Type::Boolean && (depth == 0 || rng.random_bool(0.4)) {
            return self.leaf(kind, rng);
        }
        if kind != Type::Boolean && rng.random_bool(0.3) {
            return self.choice(kind, depth, rng);
        }
        match kind {
            Type::Integer => self.integer(depth, rng),
            Type::Decimal => self.decimal(depth, rng),
            Type::Text => self.string(depth, rng),
            Type::Boolean => self.condition(depth, rng),
            Type::Time => {
                let time = self.leaf(kind, rng);
                let sign = if rng.random_bool(0.5) { "+" } else { "-" };
                format!("({time} {sign} INTERVAL '{}' MILLISECOND)", rng.random_range(1..9))
            }
            Type::Double => self.leaf(kind, rng),
        }
    }

    /// A column, or more rarely a literal.
    fn leaf(&self, kind: Type, rng: &mut StdRng) -> String {
        match self.column(kind, rng) {
            Some(column) if rng.random_bool(0.8) => column,
            _ => literal(kind, rng),
        }
    }

    /// CASE, COALESCE and NULLIF, of any type.
    fn choice(&self, kind: Type, depth: u32, rng: &mut StdRng) -> String {
        let depth = depth - 1;
        let [first, second] = [self.expression(kind, depth, rng), self.expression(kind, depth, rng)];
        match rng.random_range(0..5) {
            0 => format!("COALESCE({first}, {second})"),
            1 => format!("NULLIF({first}, {second})"),
            2 => format!("CASE WHEN {} THEN {first} END", self.condition(depth, rng)),
            3 => {
                let (value, other) = (self.leaf(Type::Integer, rng), rng.random_range(-2..4));
                format!("CASE {value} WHEN {other} THEN {first} ELSE {second} END")
            }
            _ => format!("CASE WHEN {} THEN {first} ELSE {second} END", self.condition(depth, rng)),
        }
    }

    fn integer(&self, depth: u32, rng: &mut StdRng) -> String {
        let first = self.expression(Type::Integer, depth - 1, rng);
        match rng.random_range(0..8) {
            0 | 1 => format!("({first} + {})", self.expression(Type::Integer, depth - 1, rng)),
            2 => format!("({first} - {})", self.expression(Type::Integer, depth - 1, rng)),
            3 => format!("({first} * {})", rng.random_range(-3..5)),
            4 => format!("({first} % {})", rng.random_range(2..6)),
            5 => format!("({first} / {})", rng.random_range(2..6)),
            6 => format!("ABS({first})"),
            _ => format!("CAST(CHAR_LENGTH({}) AS BIGINT)", self.expression(Type::Text, depth - 1, rng)),
        }
    }

    /// Only leaves are multiplied, so that no type runs out of digits.
    fn decimal(&self, depth: u32, rng: &mut StdRng) -> String {
        let first = self.expression(Type::Decimal, depth - 1, rng);
        match rng.random_range(0..5) {
            0 | 1 => format!("({first} + {})", self.expression(Type::Decimal, depth - 1, rng)),
            2 => format!("({first} - {})", self.expression(Type::Decimal, depth - 1, rng)),
            3 => format!("ABS({first})"),
            _ => {
                let decimal = self.column(Type::Decimal, rng).unwrap_or_else(|| literal(Type::Decimal, rng));
                format!("CAST({decimal} * {} AS DECIMAL(24, 2))", literal(Type::Decimal, rng))
            }
        }
    }

    fn string(&self, depth: u32, rng: &mut StdRng) -> String {
        let first = self.expression(Type::Text, depth - 1, rng);
        match rng.random_range(0..6) {
            0 => format!("({first} || {})", self.expression(Type::Text, depth - 1, rng)),
            1 => format!("UPPER({first})"),
            2 => format!("LOWER({first})"),
            3 => format!("SUBSTR({first}, 1, {})", rng.random_range(1..5)),
            4 => format!("REPLACE({first}, 'A', 'an A')"),
            _ => format!("CAST({} AS VARCHAR)", self.expression(Type::Integer, depth - 1, rng)),
        }
    }

    /// A condition, which may be NULL.
    pub(crate) fn condition(&self, depth: u32, rng: &mut StdRng) -> String {
        if depth == 0 || rng.random_bool(0.5) {
            return self.comparison(depth.saturating_sub(1), rng);
        }
        let first = self.condition(depth - 1, rng);
        match rng.random_range(0..4) {
            0 => format!("NOT ({first})"),
            1 => format!("({first} OR {})", self.condition(depth - 1, rng)),
            2 => format!("({first}) IS NOT TRUE"),
            _ => format!("({first} AND {})", self.condition(depth - 1, rng)),
        }
    }

    fn comparison(&self, depth: u32, rng: &mut StdRng) -> String {
        let kinds = [Type::Integer, Type::Integer, Type::Decimal, Type::Text, Type::Text, Type::Time, Type::Double];
        let kind = *kinds.choose(rng).unwrap_or(&Type::Integer);
        let first = self.expression(kind, depth, rng);
        let operator = ["=", "<>", "<", "<=", ">", ">="].choose(rng).unwrap_or(&"=");
        match rng.random_range(0..12) {
            0 => format!("{first} IS NULL"),
            1 => format!("{first} IS NOT NULL"),
            // The parser takes all that follows, AND included, for the other side.
            2 => format!("({first} IS DISTINCT FROM {})", self.expression(kind, depth, rng)),
            3 => format!("{first} BETWEEN {} AND {}", literal(kind, rng), literal(kind, rng)),
            4 => {
                let not = if rng.random_bool(0.4) { "NOT " } else { "" };
                let literals = [(); 3].map(|()| literal(kind, rng));
                format!("{first} {not}IN ({})", literals.join(", "))
            }
            5 if kind == Type::Text => {
                format!("{first} LIKE {}", ["'A%'", "'%e%'", "'_'", "'%'"][rng.random_range(0..4)])
            }
            6 | 7 => format!("{first} {operator} {}", self.expression(kind, depth, rng)),
            _ => format!("{first} {operator} {}", literal(kind, rng)),
        }
    }
}

/// A literal of that type near the values that logs have, NULL now and then.
fn literal(kind: Type, rng: &mut StdRng) -> String {
    if rng.random_bool(0.04) {
        let name = match kind {
            Type::Integer => "BIGINT",
            Type::Decimal => "DECIMAL(12, 2)",
            Type::Double => "DOUBLE",
            Type::Text => "VARCHAR",
            Type::Time => "TIMESTAMP(3)",
            Type::Boolean => "BOOLEAN",
        };
        return format!("CAST(NULL AS {name})");
    }
    match kind {
        Type::Integer => rng.random_range(-4..12).to_string(),
        Type::Decimal => format!("CAST({}.25 AS DECIMAL(12, 2))", rng.random_range(-5000..5000)),
        Type::Double => format!("{}.5", rng.random_range(-3..3)),
        Type::Text => ["'A'", "'B'", "'C'", "''", "'600519'"][rng.random_range(0..5)].to_owned(),
        Type::Time => format!("CAST('1970-01-01 00:00:00.{:03}' AS TIMESTAMP(3))", rng.random_range(0..30)),
        Type::Boolean => ["TRUE", "FALSE"][rng.random_range(0..2)].to_owned(),
    }
}
