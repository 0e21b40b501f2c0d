//! Parameters of prepared statements: the places of a text that a client gives values for later.
//!
//! A value takes the place of its `?` or `$1` as a literal of its type before the statement is compiled, so that every
//! statement takes parameters and a bound one is the same as one that was typed.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, UnionArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Tokenizer};
use tonic::Status;

/// The text of a statement, cut at its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Template {
    /// One more than there are places.
    texts: Vec<String>,
    /// For each place the number of its parameter, from 0.
    places: Vec<usize>,
}

impl Template {
    /// Finds the parameters of a text; a text that cannot be read has none, and is refused when it is compiled.
    ///
    /// # Errors
    /// Fails if `?` and `$n` are mixed, or a parameter is no number from `$1` on.
    pub(super) fn new(text: &str) -> Result<Self, Status> {
        let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize_with_location().unwrap_or_default();
        let (mut texts, mut places) = (Vec::new(), Vec::new());
        let (mut rest, mut seen) = (0, None);
        for token in tokens {
            let Token::Placeholder(name) = &token.token else { continue };
            let (start, end) = (byte_at(text, token.span.start), byte_at(text, token.span.end));
            let is_numbered = name != "?";
            if *seen.get_or_insert(is_numbered) != is_numbered {
                return Err(Status::invalid_argument("a statement has ? and $1 as parameters: use one of them"));
            }
            let number = if is_numbered { numbered(name)? } else { places.len() };
            texts.push(text.get(rest..start).unwrap_or_default().to_owned());
            places.push(number);
            rest = end;
        }
        texts.push(text.get(rest..).unwrap_or_default().to_owned());
        Ok(Self { texts, places })
    }

    /// How many values it takes.
    pub(super) fn parameters(&self) -> usize {
        self.places.iter().map(|place| place + 1).max().unwrap_or(0)
    }

    /// The text with values in the places of the parameters.
    ///
    /// # Errors
    /// Fails if there are not as many as parameters.
    pub(super) fn fill(&self, values: &[String]) -> Result<String, Status> {
        if values.len() != self.parameters() {
            let (given, taken) = (values.len(), self.parameters());
            return Err(Status::invalid_argument(format!("the statement has {taken} parameters and got {given}")));
        }
        let mut text = String::new();
        for (index, piece) in self.texts.iter().enumerate() {
            text.push_str(piece);
            let value = self.places.get(index).and_then(|place| values.get(*place));
            text.push_str(value.map_or("", String::as_str));
        }
        Ok(text)
    }

    /// The text with NULL in the places of the parameters, whose types it leaves open.
    pub(super) fn open(&self) -> String {
        self.fill(&vec!["NULL".to_owned(); self.parameters()]).unwrap_or_default()
    }

    /// The text with `$1` … in the places of the parameters, as plans have them.
    pub(super) fn numbered(&self) -> String {
        let names: Vec<String> = (1..=self.parameters()).map(|number| format!("${number}")).collect();
        self.fill(&names).unwrap_or_default()
    }
}

fn numbered(name: &str) -> Result<usize, Status> {
    let number = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok());
    let number = number.and_then(|number| number.checked_sub(1)).filter(|number| *number < usize::from(u16::MAX));
    number.ok_or_else(|| Status::invalid_argument(format!("{name} is no parameter: write ? or $1, $2, …")))
}

/// The byte at which a line and column of a text begin, both counted from 1.
fn byte_at(text: &str, place: Location) -> usize {
    let line = usize::try_from(place.line).unwrap_or(usize::MAX).saturating_sub(1);
    let column = usize::try_from(place.column).unwrap_or(usize::MAX).saturating_sub(1);
    let start: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    let rest = text.get(start..).unwrap_or_default();
    start + rest.char_indices().nth(column).map_or(rest.len(), |(at, _)| at)
}

/// The values of each row, as literals of their types.
///
/// # Errors
/// Fails for types that have no literal.
pub(super) fn literals(batch: &RecordBatch) -> Result<Vec<Vec<String>>, Status> {
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| literal(column, row)).collect::<Result<Vec<_>, _>>())
        .collect()
}

fn literal(column: &ArrayRef, row: usize) -> Result<String, Status> {
    if let DataType::Union(_, _) = column.data_type() {
        return union_literal(column.as_any().downcast_ref::<UnionArray>(), row);
    }
    if column.is_null(row) || column.data_type() == &DataType::Null {
        return Ok("NULL".to_owned());
    }
    let kind = column.data_type();
    let text = value_text(column, row)?;
    Ok(match kind {
        DataType::Boolean => text.to_uppercase(),
        DataType::Int8 | DataType::Int16 | DataType::Int32 | DataType::Int64 => format!("({text})"),
        DataType::UInt8 | DataType::UInt16 | DataType::UInt32 | DataType::UInt64 => text,
        DataType::Float16 | DataType::Float32 | DataType::Float64 => format!("CAST({} AS DOUBLE)", quoted(&text)),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => quoted(&text),
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => {
            format!("CAST({} AS DECIMAL({precision}, {scale}))", quoted(&text))
        }
        DataType::Date32 | DataType::Date64 => format!("DATE {}", quoted(&text)),
        DataType::Time32(_) | DataType::Time64(_) => format!("TIME {}", quoted(&text)),
        DataType::Timestamp(unit, _) => format!("CAST({} AS TIMESTAMP({}))", quoted(&text), digits(*unit)),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            format!("X{}", quoted(&text))
        }
        DataType::Dictionary(_, values) => {
            let plain = cast(column, values).map_err(|error| Status::invalid_argument(error.to_string()))?;
            return literal(&plain, row);
        }
        other => {
            return Err(Status::invalid_argument(format!("a parameter of the type {other} has no literal: send text")));
        }
    })
}

/// Some clients send each parameter as a union of all types.
fn union_literal(union: Option<&UnionArray>, row: usize) -> Result<String, Status> {
    let union = union.ok_or_else(|| Status::internal("a union is none"))?;
    let values = union.child(union.type_id(row));
    literal(values, union.value_offset(row))
}

fn value_text(column: &ArrayRef, row: usize) -> Result<String, Status> {
    let failed = |error: datafusion::arrow::error::ArrowError| Status::invalid_argument(error.to_string());
    // A timestamp with a zone is the same instant without one.
    let column = match column.data_type() {
        DataType::Timestamp(unit, Some(_)) => &cast(column, &DataType::Timestamp(*unit, None)).map_err(failed)?,
        DataType::Float16 => &cast(column, &DataType::Float64).map_err(failed)?,
        DataType::Date64 => &cast(column, &DataType::Date32).map_err(failed)?,
        _ => column,
    };
    if let Some(bytes) = column.as_any().downcast_ref::<datafusion::arrow::array::BinaryArray>() {
        return Ok(bytes.value(row).iter().map(|byte| format!("{byte:02x}")).collect());
    }
    if let DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) = column.data_type() {
        let plain = cast(column, &DataType::Binary).map_err(failed)?;
        return Ok(plain.as_binary::<i32>().value(row).iter().map(|byte| format!("{byte:02x}")).collect());
    }
    let options = FormatOptions::default();
    let formatter = ArrayFormatter::try_new(column.as_ref(), &options).map_err(failed)?;
    Ok(formatter.value(row).to_string())
}

const fn digits(unit: TimeUnit) -> u8 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{Float64Array, Int64Array, StringArray, TimestampMillisecondArray};

    use super::*;

    #[test]
    fn parameters_are_found_outside_of_texts_and_comments() {
        let template = Template::new("SELECT '?', ? -- ?\nFROM \"ü?\" WHERE a = ?").unwrap();
        assert_eq!(template.parameters(), 2);
        let filled = template.fill(&["1".to_owned(), "'x'".to_owned()]).unwrap();
        assert_eq!(filled, "SELECT '?', 1 -- ?\nFROM \"ü?\" WHERE a = 'x'");
        assert!(template.fill(&[]).is_err());
        let template = Template::new("SELECT $2, $1, $2").unwrap();
        assert_eq!(template.fill(&["a".to_owned(), "b".to_owned()]).unwrap(), "SELECT b, a, b");
        assert!(Template::new("SELECT ?, $1").is_err());
        assert!(Template::new("SELECT $0").is_err());
    }

    #[test]
    fn fuzz_a_text_without_parameters_stays_what_it_is() {
        let pieces = ["?", "$1", "$x", "'", "\"", "--", "/*", "*/", "\n", "ü", " ", "a", ";", "E'", "$$", "1", "\\"];
        bolero::check!().with_type::<Vec<u8>>().for_each(|drawn| {
            let text: String = drawn.iter().map(|piece| pieces[usize::from(*piece) % pieces.len()]).collect();
            let Ok(template) = Template::new(&text) else { return };
            let marks: Vec<String> = (0..template.parameters()).map(|_| "?".to_owned()).collect();
            let filled = template.fill(&marks).unwrap();
            // Numbered ones are filled with another text than they have.
            if !text.contains('$') {
                assert_eq!(filled, text);
            }
        });
    }

    #[test]
    fn values_become_literals_of_their_types() {
        let batch = RecordBatch::try_from_iter([
            ("i", Arc::new(Int64Array::from(vec![-3])) as ArrayRef),
            ("f", Arc::new(Float64Array::from(vec![0.1]))),
            ("s", Arc::new(StringArray::from(vec!["it's; DROP"]))),
            ("n", Arc::new(StringArray::from(vec![None::<&str>]))),
            ("t", Arc::new(TimestampMillisecondArray::from(vec![1_500]).with_timezone("+02:00"))),
        ]);
        let literals = literals(&batch.unwrap()).unwrap().concat();
        let expected = [
            "(-3)",
            "CAST('0.1' AS DOUBLE)",
            "'it''s; DROP'",
            "NULL",
            "CAST('1970-01-01T00:00:01.500' AS TIMESTAMP(3))",
        ];
        assert_eq!(literals, expected);
    }
}
