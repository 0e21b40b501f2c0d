//! One terminal for two streams: rows on stdout, a line of progress on stderr that rows push aside.

use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use millstream_engine::secret::redacted;

/// The line of progress at the bottom of a terminal; without a terminal nothing is drawn.
#[derive(Debug, Clone)]
pub struct Screen {
    state: Arc<Mutex<State>>,
    is_terminal: bool,
}

#[derive(Debug, Default)]
struct State {
    is_drawn: bool,
}

const CLEAR_LINE: &str = "\r\x1b[2K";

impl Screen {
    /// The screen behind stderr.
    pub fn new() -> Self {
        Self { state: Arc::default(), is_terminal: std::io::stderr().is_terminal() }
    }

    /// Whether progress is shown at all.
    pub const fn is_terminal(&self) -> bool {
        self.is_terminal
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Draws the line anew.
    pub fn progress(&self, line: &str) {
        if self.is_terminal {
            let mut state = self.state();
            state.is_drawn = true;
            show(&format!("{CLEAR_LINE}{line}"));
        }
    }

    /// Takes the line away.
    pub fn clear(&self) {
        let mut state = self.state();
        if std::mem::take(&mut state.is_drawn) {
            show(CLEAR_LINE);
        }
    }

    /// A line for a person, above the progress.
    pub fn note(&self, line: &str) {
        self.clear();
        show(&format!("{}\n", redacted(line)));
    }

    /// A writer that takes the progress away before each piece it writes.
    pub fn above<W: Write>(&self, inner: W) -> Above<W> {
        Above { screen: self.clone(), inner }
    }
}

impl Default for Screen {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes to stderr; where that is gone there is nobody to tell.
fn show(text: &str) {
    let mut stderr = std::io::stderr().lock();
    if stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush()).is_err() {
        tracing::debug!("stderr is closed");
    }
}

/// See [`Screen::above`].
#[derive(Debug)]
pub struct Above<W> {
    screen: Screen,
    inner: W,
}

impl<W: Write> Write for Above<W> {
    fn write(&mut self, buffer: &[u8]) -> std::io::Result<usize> {
        self.screen.clear();
        self.inner.write(buffer)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}
