//! `millstream sql`: statements as they are typed, or as they come through a pipe.
//!
//! The engine is in this process, or with `--connect` a server is asked. A SELECT shows its rows until its streams are at
//! their ends or Ctrl-C stops it; INSERT and materialized views run on behind the prompt. Where nobody types, statements
//! are carried out in order, the first that fails ends the shell, and so it does once all queries have come to their ends.

mod backend;
mod command;
mod editor;
mod remote;
mod text;

use std::io::{BufRead, IsTerminal, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use millstream_engine::Summary;
use millstream_engine::batch::Epoch;
use tokio::sync::mpsc;

use crate::cli::SqlArgs;
use crate::embed::{Engine, RunningQuery};
use crate::error::{Error, Result};
use crate::explain::analysis;
use crate::output::Output;
use crate::queries::{short_duration, thousands};
use crate::screen::Screen;
use crate::session::Script;
use backend::{Answered, Backend, Found};
use command::{Command, HELP};
use editor::{Typed, Typing};
use remote::Remote;
use text::is_whole;

/// How often the progress of a query without rows is drawn.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
const CLEAR_SCREEN: &str = "\x1b[H\x1b[2J";

/// How the shell ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// There was nothing more to do.
    Done,
    /// By Ctrl-C, where nobody types.
    Interrupted,
}

/// Runs the shell.
///
/// # Errors
/// The first failure where nobody types; else only those of the terminal.
pub async fn run(args: &SqlArgs) -> Result<Ended> {
    let scripts = if args.source.is_empty() { Vec::new() } else { Script::load(&args.source)? };
    let mut shell = Shell::new(backend(args).await?, args);
    if !scripts.is_empty() {
        for script in &scripts {
            shell.carry_out(script).await?;
        }
        return shell.finish().await;
    }
    if std::io::stdin().is_terminal() { shell.talk().await } else { shell.read().await }
}

async fn backend(args: &SqlArgs) -> Result<Backend> {
    if let Some(url) = &args.connect {
        if !args.source.parameters.is_empty() {
            let message = "-p names durations for an engine in this process: write them into the SQL for a server";
            return Err(Error::Usage(message.to_owned()));
        }
        return Ok(Backend::There(Box::new(Remote::connect(url, args).await?)));
    }
    let engine = Engine::new();
    for (name, value) in &args.source.parameters {
        engine.bind_parameter(name, value);
    }
    Ok(Backend::Here(engine))
}

/// What one shell knows.
#[derive(Debug)]
struct Shell {
    backend: Backend,
    screen: Screen,
    output: Output,
    shows_time: bool,
    /// Queries that run on behind the prompt.
    started: Vec<RunningQuery>,
    was_interrupted: bool,
}

impl Shell {
    fn new(backend: Backend, args: &SqlArgs) -> Self {
        let screen = Screen::new();
        let output = Output::to_stdout(args.format, screen.clone());
        let shows_time = std::io::stdin().is_terminal() && args.source.is_empty();
        Self { backend, screen, output, shows_time, started: Vec::new(), was_interrupted: false }
    }

    /// Answers a person.
    async fn talk(&mut self) -> Result<Ended> {
        self.screen.note("millstream: statements end with a semicolon, \\? for help, \\q to end");
        let mut typing = Typing::new(self.backend.names())?;
        loop {
            // The terminal is read on a thread of its own, so that queries go on.
            let read = SpawnedTask::spawn_blocking(move || {
                let typed = typing.next();
                (typing, typed)
            });
            let (back, typed) = read.join().await.map_err(|error| stopped_reading(&error))?;
            typing = back;
            let text = match typed? {
                Typed::Text(text) => text,
                Typed::Nothing => continue,
                Typed::End => return Ok(Ended::Done),
            };
            match self.take(&text).await {
                Ok(true) => {}
                Ok(false) => return Ok(Ended::Done),
                Err(error) if error.is_output_closed() => return Err(error),
                Err(error) => self.screen.note(&error.render()),
            }
            self.tell_of_failures().await;
            self.backend.learn_names().await;
        }
    }

    /// Takes what comes through a pipe, line by line.
    async fn read(&mut self) -> Result<Ended> {
        let (mut lines, mut text) = (piped_lines(), String::new());
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                () = interrupted() => return Ok(Ended::Interrupted),
            };
            let Some(line) = line else { break };
            let line = line.map_err(|source| Error::Io { context: "cannot read stdin".to_owned(), source })?;
            text.push_str(&line);
            text.push('\n');
            if is_whole(&text) && !self.take(&std::mem::take(&mut text)).await? {
                return self.finish().await;
            }
            if self.was_interrupted {
                return Ok(Ended::Interrupted);
            }
        }
        self.take(&text).await?;
        self.finish().await
    }

    /// Carries out a command or statements; whether the shell goes on.
    async fn take(&mut self, text: &str) -> Result<bool> {
        if !text.trim_start().starts_with('\\') {
            self.carry_out(&Script::typed(text)).await?;
            return Ok(true);
        }
        match Command::read(text)? {
            Command::Quit => return Ok(false),
            Command::Help => self.output.text(HELP)?,
            Command::Show(statements) => {
                for statement in statements {
                    let rows = self.backend.query(&statement).await?;
                    self.show(rows).await?;
                }
            }
            Command::Include(file) => self.carry_out(&Script::read(Path::new(&file))?).await?,
            Command::Format(format) => self.output = Output::to_stdout(format, self.screen.clone()),
            Command::Timing => {
                self.shows_time = !self.shows_time;
                self.screen.note(if self.shows_time { "shows times" } else { "shows no times" });
            }
            Command::Watch(interval, sql) => self.watch(interval, &sql).await?,
            Command::Live(sql) => self.live(&sql).await?,
        }
        Ok(true)
    }

    async fn carry_out(&mut self, script: &Script) -> Result<()> {
        for parsed in self.backend.statements(script)? {
            let begun = Instant::now();
            let is_there = matches!(self.backend, Backend::There(_));
            let answer = tokio::select! {
                answer = self.backend.answer(&parsed, script) => answer?,
                // A server goes on by itself or not; an engine in this process is not left halfway.
                () = interrupted(), if is_there => {
                    self.was_interrupted = true;
                    return Ok(());
                }
            };
            match answer {
                Answered::Rows(rows) => {
                    let count = self.show(rows).await?;
                    self.tell_time(&format!("{} rows", thousands(count)), begun);
                }
                Answered::Text(text) => self.output.text(&with_end(text))?,
                Answered::Started(query) => {
                    if self.shows_time {
                        self.screen.note(&format!("query \"{}\" runs: SHOW QUERIES tells of it", query.name()));
                    }
                    self.started.push(query);
                }
                Answered::Writing(query) => {
                    let summary = self.end_of(query).await?;
                    self.tell_time(&format!("{} rows written", thousands(summary.progress.rows_written)), begun);
                }
                Answered::Analysis(query) => {
                    let summary = self.end_of(query).await?;
                    self.output.text(&analysis(&summary))?;
                }
                Answered::Done => self.tell_time("done", begun),
            }
            if self.was_interrupted {
                return Ok(());
            }
        }
        Ok(())
    }

    fn tell_time(&self, what: &str, begun: Instant) {
        if self.shows_time {
            self.screen.note(&format!("{what} in {}", short_duration(begun.elapsed())));
        }
    }

    /// Prints rows as they come, until Ctrl-C stops them; how many there were.
    async fn show(&mut self, mut rows: Found) -> Result<u64> {
        let mut sink = self.output.sink(&rows.schema());
        let mut count = 0;
        let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
        ticks.tick().await;
        loop {
            let batch = tokio::select! {
                batch = rows.next() => batch,
                () = interrupted() => {
                    self.was_interrupted = true;
                    rows.leave();
                    continue;
                }
                _ = ticks.tick() => {
                    if count == 0 {
                        self.screen.progress(&rows.waiting());
                    }
                    continue;
                }
            };
            let Some(batch) = batch else { break };
            let batch = batch?;
            count += batch.num_rows() as u64;
            sink.stage(Epoch(count), &[batch]).await?;
            sink.commit(Epoch(count)).await?;
        }
        self.screen.clear();
        sink.finish().await?;
        Ok(count)
    }

    /// Waits for the end of a query; Ctrl-C ends it before.
    async fn end_of(&mut self, query: RunningQuery) -> Result<Summary> {
        let name = query.name().to_owned();
        let mut ended = Box::pin(query.wait());
        tokio::select! {
            summary = &mut ended => return summary,
            () = interrupted() => {}
        }
        if let Backend::Here(engine) = &self.backend {
            engine.run(&format!("STOP QUERY \"{name}\"")).await?;
        }
        ended.await
    }

    /// Runs a query again and again.
    async fn watch(&mut self, interval: Duration, sql: &str) -> Result<()> {
        loop {
            let rows = self.backend.query(sql).await?;
            self.show(rows).await?;
            if std::mem::take(&mut self.was_interrupted) || is_interrupted_within(interval).await {
                return Ok(());
            }
        }
    }

    /// Shows the newest rows of a query in place of those before.
    async fn live(&mut self, sql: &str) -> Result<()> {
        let mut rows = self.backend.query(sql).await?;
        let schema = rows.schema();
        loop {
            let batch = tokio::select! {
                batch = rows.next() => batch,
                () = interrupted() => None,
            };
            let Some(batch) = batch else { return Ok(()) };
            self.draw(&schema, batch?).await?;
        }
    }

    async fn draw(&self, schema: &SchemaRef, batch: RecordBatch) -> Result<()> {
        if self.output.is_terminal() {
            self.output.text(CLEAR_SCREEN)?;
        }
        let mut sink = self.output.sink(schema);
        sink.stage(Epoch(0), &[batch]).await?;
        sink.commit(Epoch(0)).await?;
        Ok(())
    }

    /// Says which queries behind the prompt have failed since the last statement.
    async fn tell_of_failures(&mut self) {
        self.was_interrupted = false;
        let (ended, running) = std::mem::take(&mut self.started).into_iter().partition(RunningQuery::has_ended);
        self.started = running;
        let ended: Vec<RunningQuery> = ended;
        for query in ended {
            let name = query.name().to_owned();
            match query.wait().await {
                Err(error) => self.screen.note(&format!("query \"{name}\" failed: {}", error.render())),
                Ok(summary) => {
                    let rows = thousands(summary.progress.rows_written);
                    self.screen.note(&format!("query \"{name}\" has ended: {rows} rows"));
                }
            }
        }
    }

    /// Waits for the queries that run on, until Ctrl-C stops them.
    async fn finish(&mut self) -> Result<Ended> {
        if !self.was_interrupted {
            for query in std::mem::take(&mut self.started) {
                let mut ended = Box::pin(query.wait());
                tokio::select! {
                    ended = &mut ended => {
                        ended?;
                        continue;
                    }
                    () = interrupted() => self.was_interrupted = true,
                }
                if let Backend::Here(engine) = &self.backend {
                    engine.stop().await;
                }
                ended.await?;
            }
        }
        // Rows that were asked for are there before the process ends.
        std::io::stdout().flush().map_err(|source| Error::Io { context: "cannot write".to_owned(), source })?;
        Ok(if self.was_interrupted { Ended::Interrupted } else { Ended::Done })
    }
}

/// The lines of stdin, read on a thread that nobody waits for: it may block for ever.
fn piped_lines() -> mpsc::Receiver<std::io::Result<String>> {
    let (sender, lines) = mpsc::channel(1);
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if sender.blocking_send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// Completes when Ctrl-C is pressed.
async fn interrupted() {
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn is_interrupted_within(time: Duration) -> bool {
    tokio::select! {
        () = interrupted() => true,
        () = tokio::time::sleep(time) => false,
    }
}

fn with_end(text: String) -> String {
    if text.ends_with('\n') { text } else { text + "\n" }
}

fn stopped_reading(error: &tokio::task::JoinError) -> Error {
    Error::Engine(millstream_engine::Error::internal(format!("reading the terminal stopped: {error}")))
}
