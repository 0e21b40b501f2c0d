//! The JSON functions: `json_get_str(document, key, …)` and the others.

use std::borrow::Cow;
use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, ListBuilder, StringViewArray, StringViewBuilder,
};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{Result as DataFusionResult, ScalarValue, internal_err, plan_err};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility};

use crate::json::scan::{Found, Step, find, parts, unquoted};

/// What a function gives of the value at its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// The text of a string.
    Str,
    /// A number without a fraction, if it has 64 bits.
    Int,
    /// A number.
    Float,
    /// A boolean.
    Bool,
    /// The JSON text of any value.
    Json,
    /// The text of a string, the JSON text of other values; NULL for null.
    Text,
    /// The number of elements or members.
    Length,
    /// Whether there is a value.
    Contains,
    /// The JSON texts of an array's elements.
    Array,
    /// The keys of an object.
    Keys,
}

const FUNCTIONS: [(&str, Kind); 10] = [
    ("json_get_str", Kind::Str),
    ("json_get_int", Kind::Int),
    ("json_get_float", Kind::Float),
    ("json_get_bool", Kind::Bool),
    ("json_get_json", Kind::Json),
    ("json_as_text", Kind::Text),
    ("json_length", Kind::Length),
    ("json_contains", Kind::Contains),
    ("json_get_array", Kind::Array),
    ("json_object_keys", Kind::Keys),
];

/// All of them.
pub fn json_functions() -> impl Iterator<Item = ScalarUDF> {
    FUNCTIONS.into_iter().map(|(name, kind)| {
        let signature = Signature::user_defined(Volatility::Immutable);
        ScalarUDF::new_from_impl(JsonFunction { name, kind, signature })
    })
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    name: &'static str,
    kind: Kind,
    signature: Signature,
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    /// A text, then keys that are texts and indices that are integers.
    fn coerce_types(&self, types: &[DataType]) -> DataFusionResult<Vec<DataType>> {
        let Some((document, path)) = types.split_first() else {
            return plan_err!("{} takes a JSON text and a path", self.name);
        };
        if !document.is_string() && !document.is_null() {
            return plan_err!("{} takes a JSON text, not a {document}", self.name);
        }
        let step = |kind: &DataType| match kind {
            kind if kind.is_string() || kind.is_null() => Ok(DataType::Utf8View),
            kind if kind.is_integer() => Ok(DataType::Int64),
            other => plan_err!("a path of {} is of keys and indices, not of a {other}", self.name),
        };
        std::iter::once(Ok(DataType::Utf8View)).chain(path.iter().map(step)).collect()
    }

    fn return_type(&self, _types: &[DataType]) -> DataFusionResult<DataType> {
        Ok(match self.kind {
            Kind::Str | Kind::Json | Kind::Text => DataType::Utf8View,
            Kind::Int | Kind::Length => DataType::Int64,
            Kind::Float => DataType::Float64,
            Kind::Bool | Kind::Contains => DataType::Boolean,
            Kind::Array | Kind::Keys => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8View, true))),
        })
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let Some((document, path)) = args.args.split_first() else {
            return internal_err!("{} without a document", self.name);
        };
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let documents = document.to_array(rows)?;
        let path = path.iter().map(Steps::of).collect::<DataFusionResult<Vec<_>>>()?;
        let result = self.kind.of_rows(documents.as_string_view(), &path);
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

/// A step of the path for every row.
#[derive(Debug)]
enum Steps {
    Key(Option<String>),
    Index(Option<i64>),
    Keys(StringViewArray),
    Indices(Int64Array),
}

impl Steps {
    fn of(value: &ColumnarValue) -> DataFusionResult<Self> {
        Ok(match value {
            ColumnarValue::Scalar(ScalarValue::Int64(index)) => Self::Index(*index),
            ColumnarValue::Scalar(scalar) => Self::Key(scalar.try_as_str().flatten().map(str::to_owned)),
            ColumnarValue::Array(array) => match array.data_type() {
                DataType::Int64 => Self::Indices(array.as_primitive::<Int64Type>().clone()),
                DataType::Utf8View => Self::Keys(array.as_string_view().clone()),
                other => return internal_err!("a step of a JSON path is a {other}"),
            },
        })
    }

    /// The step of one row; `None` for NULL.
    fn at(&self, row: usize) -> Option<Step<'_>> {
        match self {
            Self::Key(key) => key.as_deref().map(Step::Key),
            Self::Index(index) => index.map(Step::Index),
            Self::Keys(keys) => keys.is_valid(row).then(|| Step::Key(keys.value(row))),
            Self::Indices(indices) => indices.is_valid(row).then(|| Step::Index(indices.value(row))),
        }
    }
}

impl Kind {
    fn of_rows(self, documents: &StringViewArray, path: &[Steps]) -> ArrayRef {
        let mut steps = Vec::with_capacity(path.len());
        let found = documents.iter().enumerate().map(|(row, document)| {
            steps.clear();
            for step in path {
                steps.push(step.at(row)?);
            }
            Some(find(document?, &steps))
        });
        match self {
            Self::Contains => Arc::new(found.map(is_there).collect::<BooleanArray>()),
            Self::Str => texts(found.map(|found| unquoted(value(found)?))),
            Self::Json => Arc::new(found.map(value).collect::<StringViewArray>()),
            Self::Text => texts(found.map(|found| as_text(value(found)?))),
            Self::Int => Arc::new(found.map(|found| integer(value(found)?)).collect::<Int64Array>()),
            Self::Float => Arc::new(found.map(|found| number(value(found)?)).collect::<Float64Array>()),
            Self::Bool => Arc::new(found.map(|found| value(found)?.parse().ok()).collect::<BooleanArray>()),
            Self::Length => Arc::new(found.map(|found| length(value(found)?)).collect::<Int64Array>()),
            Self::Array => lists(found.map(|found| elements(value(found)?))),
            Self::Keys => lists(found.map(|found| keys(value(found)?))),
        }
    }
}

fn value(found: Option<Found<'_>>) -> Option<&str> {
    match found? {
        Found::Value(value) => Some(value),
        Found::Nothing | Found::Invalid => None,
    }
}

fn is_there(found: Option<Found<'_>>) -> Option<bool> {
    match found? {
        Found::Value(_) => Some(true),
        Found::Nothing => Some(false),
        Found::Invalid => None,
    }
}

fn as_text(value: &str) -> Option<Cow<'_, str>> {
    match value {
        "null" => None,
        value if value.starts_with('"') => unquoted(value),
        value => Some(Cow::Borrowed(value)),
    }
}

fn number(value: &str) -> Option<f64> {
    // Words such as "nan" are no JSON and do not come here; strings do.
    if value.starts_with(|first: char| first == '-' || first.is_ascii_digit()) { value.parse().ok() } else { None }
}

/// The integer that a number is, also when it is written as 1.0 or 2e3.
fn integer(value: &str) -> Option<i64> {
    if let Ok(integer) = value.parse() {
        return Some(integer);
    }
    let number = number(value)?;
    // Beyond 2^53 a double has no place for a fraction that was written.
    let is_exact = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
    #[expect(clippy::cast_possible_truncation, reason = "it has no fraction and fits")]
    is_exact.then_some(number as i64)
}

fn length(value: &str) -> Option<i64> {
    let parts = parts(value)?.len();
    let count = if value.starts_with('{') { parts / 2 } else { parts };
    i64::try_from(count).ok()
}

/// The JSON texts of the elements, if the value is an array.
fn elements(value: &str) -> Option<Vec<Cow<'_, str>>> {
    if !value.starts_with('[') {
        return None;
    }
    Some(parts(value)?.into_iter().map(Cow::Borrowed).collect())
}

/// The keys, if the value is an object.
fn keys(value: &str) -> Option<Vec<Cow<'_, str>>> {
    if !value.starts_with('{') {
        return None;
    }
    parts(value)?.into_iter().step_by(2).map(unquoted).collect()
}

fn texts<'a>(rows: impl Iterator<Item = Option<Cow<'a, str>>>) -> ArrayRef {
    let mut builder = StringViewBuilder::new();
    rows.for_each(|row| builder.append_option(row));
    Arc::new(builder.finish())
}

fn lists<'a>(rows: impl Iterator<Item = Option<Vec<Cow<'a, str>>>>) -> ArrayRef {
    let mut builder = ListBuilder::new(StringViewBuilder::new());
    for row in rows {
        for text in row.iter().flatten() {
            builder.values().append_value(text);
        }
        builder.append(row.is_some());
    }
    Arc::new(builder.finish())
}
