//! The binary: reads the command line, runs a command, answers with an exit code.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::Parser;
use millstream::cli::{Cli, Command, RunArgs, SourceArgs, StateArgs};
use millstream::history::History;
use millstream::output::Output;
use millstream::screen::Screen;
use millstream::session::{Mode, Script, Session};
use millstream::shell::{self, Ended};
use millstream::state::State;
use millstream::{Error, Result, demo, generate, run_executor, serve, state, test};
use millstream_engine::secret::redacted;
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;

/// Ended by Ctrl-C or `SIGTERM`, as shells expect.
const INTERRUPTED: u8 = 130;

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging(cli.verbose);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(source) => return fail(&Error::Io { context: "cannot start threads".to_owned(), source }),
    };
    let (stop_sender, stop) = watch::channel(false);
    if let Command::Sql(args) = &cli.command {
        // Ctrl-C stops what the shell does, and not the shell.
        let ended = runtime.block_on(shell::run(args));
        runtime.shutdown_background();
        return match ended {
            Ok(Ended::Interrupted) => ExitCode::from(INTERRUPTED),
            Err(error) if !error.is_output_closed() => fail(&error),
            _ => ExitCode::SUCCESS,
        };
    }
    runtime.spawn(async move {
        // Without a handler either signal ends the process at once, which is what remains then.
        if asked_to_stop().await.is_ok() {
            stop_sender.send_replace(true);
            // A second one ends the process without waiting for the epoch in hand.
            if asked_to_stop().await.is_ok() {
                std::process::exit(i32::from(INTERRUPTED));
            }
        }
        stop_sender.closed().await;
    });
    let ended = runtime.block_on(run(cli.command, stop.clone()));
    // What still reads a socket or decodes a split is of no use any more.
    runtime.shutdown_background();
    match ended {
        Ok(()) if *stop.borrow() => ExitCode::from(INTERRUPTED),
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_output_closed() => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

/// Waits for Ctrl-C, or for the `SIGTERM` that service managers send.
async fn asked_to_stop() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}

fn fail(error: &Error) -> ExitCode {
    Screen::new().note(&error.render());
    ExitCode::from(error.exit_code())
}

fn start_logging(verbose: u8) {
    let level = match verbose {
        // Trouble that a query gets over by itself: a full disk, a lost server, a damaged checkpoint.
        0 => "millstream=warn",
        1 => "millstream=info",
        2 => "millstream=debug",
        _ => "millstream=trace",
    };
    let filter = match (verbose, EnvFilter::try_from_default_env()) {
        (0, Ok(filter)) => filter,
        // The prefix covers every crate of ours: millstream_engine, millstream_sql, …; who does what is always told.
        _ => EnvFilter::new(format!("{},millstream::audit=info", crates_at(level))),
    };
    tracing_subscriber::fmt()
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .with_writer(|| Redacted(std::io::stderr()))
        .init();
}

/// Where log lines go, each written whole, without the secrets in them.
struct Redacted(std::io::Stderr);

impl Write for Redacted {
    fn write(&mut self, line: &[u8]) -> std::io::Result<usize> {
        self.0.write_all(redacted(&String::from_utf8_lossy(line)).as_bytes())?;
        Ok(line.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

fn crates_at(level: &str) -> String {
    let Some((name, level)) = level.split_once('=') else { return level.to_owned() };
    ["", "_engine", "_sql", "_connectors"].map(|suffix| format!("{name}{suffix}={level}")).join(",")
}

async fn run(command: Command, stop: watch::Receiver<bool>) -> Result<()> {
    match command {
        Command::Demo(args) => demo::run(&args, stop).await,
        // It was run before signals were taken.
        Command::Sql(args) => shell::run(&args).await.map(drop),
        Command::Serve(args) => serve::run(&args, stop).await,
        Command::Executor(args) => run_executor(&args, stop).await,
        Command::Hash => serve::hash(),
        Command::Run(args) => run_scripts(&args, Mode::Run, stop).await,
        Command::Explain(source) => run_scripts(&explain_args(source), Mode::Explain, stop).await,
        Command::Test(args) => test::run(&args, stop).await,
        Command::State(command) => state::run(&command),
        Command::Generate(args) => generate::run(&args, stop).await,
    }
}

fn explain_args(source: SourceArgs) -> RunArgs {
    RunArgs {
        source,
        format: millstream::cli::Format::Table,
        batch_interval: None,
        output: None,
        tables: Vec::new(),
        state: StateArgs::default(),
    }
}

async fn run_scripts(args: &RunArgs, mode: Mode, stop: watch::Receiver<bool>) -> Result<()> {
    let scripts = Script::load(&args.source)?;
    let screen = Screen::new();
    let output = Output::new(args.format, args.output.as_ref(), screen.clone())?;
    let mut session = Session::new(output, screen, stop, mode);
    session.set_batch_interval(args.batch_interval);
    if let Some(place) = &args.state.state_dir {
        session.keep_state(State::open(place, &args.state)?);
    }
    session.read_history(History::new(&args.tables));
    for (name, value) in &args.source.parameters {
        session.bind_parameter(name, value);
    }
    for script in &scripts {
        session.run(script).await?;
    }
    session.check_history()
}
