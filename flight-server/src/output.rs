//! Where the rows of SELECT go: stdout or a file, as a table, CSV or JSON.

use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::datatypes::SchemaRef;
use millstream_connectors::sinks::{ConsoleSink, Format as ConsoleFormat};
use millstream_engine::sink::Sink;

use crate::cli::Format;
use crate::error::{Error, Result};
use crate::screen::Screen;

/// Opens a sink for each query that shows its rows; all write to the same place.
#[derive(Debug, Clone)]
pub struct Output {
    format: Format,
    screen: Screen,
    file: Option<SharedFile>,
}

/// A file that one query after the other writes to.
#[derive(Debug, Clone)]
struct SharedFile(Arc<Mutex<BufWriter<File>>>);

impl Write for SharedFile {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).flush()
    }
}

impl Output {
    /// Rows to `path`, or to stdout.
    ///
    /// # Errors
    /// Fails if the file cannot be made.
    pub fn new(format: Format, path: Option<&PathBuf>, screen: Screen) -> Result<Self> {
        let file = path
            .map(|path| {
                let context = format!("cannot write {}", path.display());
                let file = File::create(path).map_err(|source| Error::Io { context, source })?;
                Ok::<_, Error>(SharedFile(Arc::new(Mutex::new(BufWriter::new(file)))))
            })
            .transpose()?;
        Ok(Self { format, screen, file })
    }

    /// Rows to stdout.
    pub const fn to_stdout(format: Format, screen: Screen) -> Self {
        Self { format, screen, file: None }
    }

    /// Whether rows go to a person.
    pub fn is_terminal(&self) -> bool {
        self.file.is_none() && std::io::stdout().is_terminal()
    }

    /// A sink for rows with these columns.
    pub fn sink(&self, schema: &SchemaRef) -> Box<dyn Sink> {
        let format = match self.format {
            Format::Table => ConsoleFormat::Table,
            Format::Csv => ConsoleFormat::Csv,
            Format::Json => ConsoleFormat::Json,
        };
        let schema = Arc::clone(schema);
        match &self.file {
            Some(file) => Box::new(ConsoleSink::new(file.clone(), format, schema)),
            None => {
                let sink = ConsoleSink::new(self.screen.above(std::io::stdout()), format, schema);
                Box::new(if self.is_terminal() { sink.colored() } else { sink })
            }
        }
    }

    /// Writes text that is no rows: the answer to EXPLAIN.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn text(&self, text: &str) -> Result<()> {
        let written = match &self.file {
            Some(file) => file.clone().write_all(text.as_bytes()),
            None => self.screen.above(std::io::stdout()).write_all(text.as_bytes()),
        };
        written.map_err(|source| Error::Io { context: "cannot write the answer".to_owned(), source })
    }
}
