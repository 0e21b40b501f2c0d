//! The sink that prints: a table for eyes, CSV or JSON lines for pipes.

use std::fmt;
use std::io::{ErrorKind, Write};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use millstream_engine::batch::Epoch;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};

use super::table::Table;
use super::text::{write_csv, write_json};

/// How rows are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// An aligned table with its header once; a null is `NULL`.
    Table,
    /// Comma-separated values with their header once; a null is empty.
    Csv,
    /// One JSON object a line.
    Json,
}

/// The reader of the output has closed it, as `head` does once it has its lines: the reason behind an
/// [`Error::External`] that should end the program quietly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the reader of the output has closed it")]
pub struct OutputClosed;

/// Whether an error says no more than [`OutputClosed`].
pub fn is_output_closed(error: &Error) -> bool {
    match error {
        Error::External { source, .. } => source.is::<OutputClosed>(),
        Error::Shared(error) => is_output_closed(error),
        _ => false,
    }
}

/// Prints the rows of every epoch to `W` when it is committed, and flushes.
pub struct ConsoleSink<W> {
    printer: Printer,
    staged: Option<(Epoch, Vec<RecordBatch>)>,
    /// Shared with the thread that writes; never waited for, since one write follows the other.
    output: Arc<Mutex<W>>,
}

impl<W: Write + Send + 'static> ConsoleSink<W> {
    /// A sink that prints rows of `schema` to `output` without colours.
    pub fn new(output: W, format: Format, schema: SchemaRef) -> Self {
        let printer = match format {
            Format::Table => Printer::Table(Table::new(schema)),
            Format::Csv => Printer::Csv { schema, has_header: false },
            Format::Json => Printer::Json,
        };
        Self { printer, staged: None, output: Arc::new(Mutex::new(output)) }
    }

    /// The same sink with a bold header and dim window columns, where it prints a table.
    #[must_use]
    pub fn colored(mut self) -> Self {
        if let Printer::Table(table) = self.printer {
            self.printer = Printer::Table(table.colored());
        }
        self
    }

    /// Writes on a thread of its own, since a slow reader holds a pipe up for as long as it likes.
    async fn write(&self, text: Vec<u8>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let output = Arc::clone(&self.output);
        let written = SpawnedTask::spawn_blocking(move || {
            let mut output = output.lock().map_err(|_| Error::internal("a write to the console panicked"))?;
            output.write_all(&text).and_then(|()| output.flush()).map_err(failed)
        });
        written.join().await.map_err(|e| Error::internal(format!("the console's task: {e}")))?
    }
}

fn failed(error: std::io::Error) -> Error {
    let context = "writing to the console";
    match error.kind() {
        ErrorKind::BrokenPipe => Error::external(context, OutputClosed),
        _ => Error::external(context, error),
    }
}

#[async_trait]
impl<W: Write + Send + 'static> Sink for ConsoleSink<W> {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn begin(&mut self, _: &SinkWriter) -> Result<Option<Epoch>> {
        Ok(None)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        let staged = self.staged.take_if(|(staged, _)| *staged == epoch);
        let mut batches = staged.map_or_else(Vec::new, |(_, batches)| batches);
        batches.extend_from_slice(rows);
        self.staged = Some((epoch, batches));
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some((_, batches)) = self.staged.take_if(|(staged, _)| *staged == epoch) else { return Ok(()) };
        let text = self.printer.print(&batches)?;
        self.write(text).await
    }

    /// An empty result still has its header.
    async fn finish(&mut self) -> Result<()> {
        let text = if self.printer.is_untouched() { self.printer.print(&[])? } else { Vec::new() };
        self.write(text).await
    }
}

impl<W> fmt::Debug for ConsoleSink<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConsoleSink").field("printer", &self.printer).finish_non_exhaustive()
    }
}

/// The format, and whether its header has been printed.
#[derive(Debug)]
enum Printer {
    Table(Table),
    Csv { schema: SchemaRef, has_header: bool },
    Json,
}

impl Printer {
    const fn is_untouched(&self) -> bool {
        match self {
            Self::Table(table) => !table.has_header(),
            Self::Csv { has_header, .. } => !*has_header,
            Self::Json => false,
        }
    }

    fn print(&mut self, batches: &[RecordBatch]) -> Result<Vec<u8>> {
        let mut text = Vec::new();
        match self {
            Self::Table(table) => {
                let mut lines = String::new();
                table.write(batches, &mut lines)?;
                text = lines.into_bytes();
            }
            Self::Csv { schema, has_header } => {
                if !std::mem::replace(has_header, true) {
                    write_csv(&mut text, &RecordBatch::new_empty(Arc::clone(schema)), true)?;
                }
                for batch in batches {
                    write_csv(&mut text, batch, false)?;
                }
            }
            Self::Json => {
                for batch in batches {
                    write_json(&mut text, batch)?;
                }
            }
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::numbers;
    use super::*;

    #[derive(Debug, Clone, Default)]
    struct Screen(Arc<Mutex<Vec<u8>>>);

    impl Screen {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Screen {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Closed;

    impl Write for Closed {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(ErrorKind::BrokenPipe.into())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn sink(format: Format) -> (ConsoleSink<Screen>, Screen) {
        let screen = Screen::default();
        (ConsoleSink::new(screen.clone(), format, numbers(&[]).schema()), screen)
    }

    #[tokio::test]
    async fn an_epoch_staged_in_parts_appears_whole_at_its_commit() {
        let cases = [
            (Format::Csv, "n\n1\n2\n3\n", "4\n"),
            (Format::Json, "{\"n\":1}\n{\"n\":2}\n{\"n\":3}\n", "{\"n\":4}\n"),
            (Format::Table, "         n\n----------\n         1\n         2\n         3\n", "         4\n"),
        ];
        for (format, first, second) in cases {
            let (mut sink, screen) = sink(format);
            sink.stage(Epoch(0), &[numbers(&[1])]).await.unwrap();
            sink.stage(Epoch(0), &[numbers(&[2]), numbers(&[3])]).await.unwrap();
            assert_eq!(screen.text(), "");
            sink.commit(Epoch(0)).await.unwrap();
            assert_eq!(screen.text(), first);
            sink.commit(Epoch(0)).await.unwrap();
            sink.stage(Epoch(7), &[numbers(&[4])]).await.unwrap();
            sink.commit(Epoch(7)).await.unwrap();
            sink.finish().await.unwrap();
            assert_eq!(screen.text(), format!("{first}{second}"));
        }
    }

    #[tokio::test]
    async fn an_empty_result_still_has_its_header() {
        for (format, expected) in
            [(Format::Csv, "n\n"), (Format::Json, ""), (Format::Table, "         n\n----------\n")]
        {
            let (mut sink, screen) = sink(format);
            sink.commit(Epoch(0)).await.unwrap();
            sink.finish().await.unwrap();
            assert_eq!(screen.text(), expected);
        }
    }

    #[tokio::test]
    async fn a_closed_output_is_told_from_other_failures() {
        let mut sink = ConsoleSink::new(Closed, Format::Json, numbers(&[]).schema());
        sink.stage(Epoch(0), &[numbers(&[1])]).await.unwrap();
        let error = sink.commit(Epoch(0)).await.unwrap_err();
        assert!(is_output_closed(&error));
        assert!(!is_output_closed(&failed(ErrorKind::StorageFull.into())));
    }
}
