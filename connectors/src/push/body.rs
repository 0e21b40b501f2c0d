//! Rows that come as the body of a request: CSV, JSON lines or an Arrow IPC stream.

use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::record_batch::RecordBatch;
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
    let broken = |error| Error::external("reading an Arrow IPC stream", error);
    StreamReader::try_new(body, None).map_err(broken)?.map(|batch| batch.map_err(broken)).collect()
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

    use datafusion::arrow::datatypes::{DataType, Field, Schema};
    use millstream_engine::plan::BadData;

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
}
