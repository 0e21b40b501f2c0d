//! Splits whose words hold their rows, so that executors make of them what a script says.

use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use serde::{Deserialize, Serialize};

use crate::arrays::compact_views;
use crate::error::{Error, Result};
use crate::ingest::{Event, Ingest, Piece, Taken};
use crate::source::{BadRow, Decode, Decoded};

#[derive(Debug, Serialize, Deserialize)]
struct Spelled {
    /// An Arrow IPC stream.
    rows: Vec<u8>,
    bad: Vec<BadRow>,
}

impl Decode for Spelled {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        let batch = StreamReader::try_new(self.rows.as_slice(), None)?.next().transpose()?;
        let batch = batch.ok_or_else(|| Error::internal("words without rows"))?;
        Ok(Decoded { batch, bad: self.bad })
    }
}

/// The work that words hold.
pub(super) fn read(recipe: &str) -> Result<Box<dyn Decode>> {
    let spelled: Spelled = serde_json::from_str(recipe)
        .map_err(|error| Error::internal(format!("these are no rows in words: {error}")))?;
    Ok(Box::new(spelled))
}

fn spell(Decoded { batch, bad }: Decoded) -> Result<String> {
    let mut rows = Vec::new();
    let mut writer = StreamWriter::try_new(&mut rows, &batch.schema())?;
    writer.write(&compact_views(&batch)?)?;
    writer.finish()?;
    serde_json::to_string(&Spelled { rows, bad }).map_err(|error| Error::internal(format!("rows are no JSON: {error}")))
}

/// The same event, with its rows at an executor if the stream is read there.
pub(super) async fn elsewhere(event: Event, ingest: &Ingest) -> Result<Event> {
    match (event, ingest.readers()) {
        (Event::Rows { partition, offsets, taken: Taken::Here(decoded), arrival }, Some(readers)) => {
            let piece = Piece { start: offsets.start, end: offsets.end, recipe: spell(decoded)? };
            Ok(Event::Rows { partition, offsets, taken: readers.read(partition, piece).await?, arrival })
        }
        (event, _) => Ok(event),
    }
}
