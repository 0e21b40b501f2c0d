//! Rows that come as the body of a request: CSV, JSON lines or an Arrow IPC stream.

use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::ipc::read_stream;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{BadRow, Offset};
use millstream_engine::{Error, Result};

use super::shape_of;
use crate::format::csv::CsvFormat;
use crate::format::rows::RowShape;
use crate::format::text::{Syntax, TextFormat, TextInput};

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyFormat {
    /// Comma-separated values, with a header or without.
    Csv,
    /// One JSON object per line.
    Json,
    /// An Arrow IPC stream.
    Arrow,
}

/// The rows of a body for the stream that `definition` declares, in its columns.
///
/// # Errors
/// Fails on the first row that cannot be used, naming its line: a body is taken whole or not at all.
pub fn read_body(definition: &StreamDefinition, format: BodyFormat, body: Vec<u8>) -> Result<Vec<RecordBatch>> {
    let shape = shape_of(definition)?;
    let syntax = match format {
        BodyFormat::Arrow => return read_arrow(&body),
        BodyFormat::Json => Syntax::Json,
        BodyFormat::Csv => Syntax::Csv(CsvFormat { header: None, delimiter: b',', null: String::new() }),
    };
    read_text(&shape, syntax, body)
}

fn read_arrow(body: &[u8]) -> Result<Vec<RecordBatch>> {
    let broken = |error| Error::data(format!("the body is no Arrow IPC stream: {error}"), "send one that is whole");
    read_stream(body).map_err(broken)
}

fn read_text(shape: &RowShape, syntax: Syntax, body: Vec<u8>) -> Result<Vec<RecordBatch>> {
    let mut input = TextInput::new(&TextFormat::new(shape.clone(), syntax)?, "the body");
    *input.buffer() = body;
    let mut batches = Vec::new();
    while let Some(piece) = input.take(true)? {
        let decoded = piece.into_split(Offset(0)).decode.decode()?;
        if let Some(bad) = decoded.bad.first() {
            return Err(refused(bad));
        }
        batches.push(decoded.batch);
    }
    Ok(batches)
}

fn refused(bad: &BadRow) -> Error {
    let column = bad.column.as_ref().map_or_else(String::new, |column| format!(", column {column:?}"));
    Error::data(format!("{}{column}: {}", bad.place, bad.reason), "mend the row and send the body again")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Float64Array, StringArray};
    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use datafusion::arrow::ipc::writer::StreamWriter;
    use millstream_engine::plan::BadData;
    use millstream_engine::testing::damaged;

    use super::*;

    fn definition() -> StreamDefinition {
        let schema =
            Schema::new(vec![Field::new("szcode", DataType::Utf8, true), Field::new("price", DataType::Float64, true)]);
        StreamDefinition {
            name: "trades".to_owned(),
            declared: vec!["szcode".to_owned(), "price".to_owned()],
            schema: Arc::new(schema),
            event_time: None,
            bad_data: BadData::Skip,
            durability: None,
            rate_limit: None,
            refresh: None,
            options: Vec::new(),
        }
    }

    fn read(format: BodyFormat, body: &str) -> Result<usize> {
        let batches = read_body(&definition(), format, body.as_bytes().to_vec())?;
        Ok(batches.iter().map(RecordBatch::num_rows).sum())
    }

    #[test]
    fn bodies_are_read_with_or_without_a_header_or_newline() {
        assert_eq!(read(BodyFormat::Csv, "price,szcode\n1.5,A\n2,B").unwrap(), 2);
        assert_eq!(read(BodyFormat::Csv, "A,1.5\n").unwrap(), 1);
        assert_eq!(read(BodyFormat::Json, "{\"szcode\":\"A\",\"price\":1}\n\n{\"price\":null}").unwrap(), 2);
        assert_eq!(read(BodyFormat::Json, "").unwrap(), 0);
    }

    #[test]
    fn one_bad_row_refuses_the_body_and_is_named() {
        let error = read(BodyFormat::Csv, "A,1.5\nB,high\n").unwrap_err().to_string();
        assert_eq!(error, "the body line 2, column \"price\": \"high\" is not a DOUBLE");
        assert!(read(BodyFormat::Arrow, "no Arrow").is_err());
    }

    /// An Arrow stream of the declared columns.
    fn arrow() -> Vec<u8> {
        let columns: [(&str, ArrayRef); 2] = [
            ("szcode", Arc::new(StringArray::from(vec![Some("A"), None, Some("längere")]))),
            ("price", Arc::new(Float64Array::from(vec![1.5, f64::NAN, -0.0]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let mut bytes = Vec::new();
        let mut writer = StreamWriter::try_new(&mut bytes, &rows.schema()).unwrap();
        writer.write(&rows).unwrap();
        writer.finish().unwrap();
        drop(writer);
        bytes
    }

    #[test]
    fn fuzz_bodies_that_are_damaged() {
        let csv = b"price,szcode\n1.5,\"A\"\"B\"\n2,\n-1e300,'x'\n".to_vec();
        let json = br#"{"szcode":"A\u00e9","price":1.5e3}
{"szcode":null,"more":[1,{"a":2}]}"#
            .to_vec();
        let bodies = [(BodyFormat::Csv, csv), (BodyFormat::Json, json), (BodyFormat::Arrow, arrow())];
        for (format, whole) in &bodies {
            assert!(!read_body(&definition(), *format, whole.clone()).unwrap().is_empty());
        }
        bolero::check!().with_type::<(u8, Vec<(u16, u8)>, u16)>().for_each(|(which, edits, length)| {
            let (format, whole) = &bodies[usize::from(*which) % bodies.len()];
            drop(read_body(&definition(), *format, damaged(whole, edits, *length)));
        });
    }

    #[test]
    fn fuzz_bodies_of_any_bytes() {
        bolero::check!().for_each(|body: &[u8]| {
            for format in [BodyFormat::Csv, BodyFormat::Json, BodyFormat::Arrow] {
                drop(read_body(&definition(), format, body.to_vec()));
            }
        });
    }
}
