//! `millstream generate`: trades, quotes and positions for the outside, over a socket or into files.

use std::path::Path;
use std::time::Duration;

use millstream_connectors::generate::{
    EventClock, Generator, GeneratorServer, GeneratorSpec, LineFormat, Pace, ServerSpec, StreamKind, write_files,
};
use tokio::sync::watch;

use crate::cli::{GenerateArgs, GeneratorKind, TextFormat};
use crate::error::{Error, Result};
use crate::queries::thousands;
use crate::screen::Screen;

/// Runs the command until it is done or `stop` becomes true.
///
/// # Errors
/// Fails if the address cannot be listened on or the folder not written.
pub async fn run(args: &GenerateArgs, stop: watch::Receiver<bool>) -> Result<()> {
    let generator = Generator::new(spec(args))?;
    match (&args.listen, &args.out) {
        (Some(address), _) => listen(args, address, generator, stop).await,
        (None, Some(folder)) => write(args, folder, generator).await,
        (None, None) => Err(Error::Usage("give --listen ADDR or --out DIR".to_owned())),
    }
}

fn spec(args: &GenerateArgs) -> GeneratorSpec {
    let kind = match args.kind {
        GeneratorKind::Transaction => StreamKind::Transaction,
        GeneratorKind::Stock => StreamKind::Stock,
        GeneratorKind::Position => StreamKind::Position,
    };
    let defaults = GeneratorSpec::new(kind);
    let clock = match (&args.listen, defaults.clock) {
        (None, EventClock::Simulated { start, .. }) => EventClock::Simulated { start, event_rate: args.event_rate },
        _ => EventClock::Wall,
    };
    GeneratorSpec {
        codes: args.codes,
        users: args.users,
        seed: args.seed,
        clock,
        disorder: args.disorder,
        late_share: args.late_share,
        late_by: args.late_by,
        ..defaults
    }
}

const fn line_format(format: TextFormat) -> LineFormat {
    match format {
        TextFormat::Csv => LineFormat::Csv,
        TextFormat::Json => LineFormat::Json,
    }
}

async fn listen(
    args: &GenerateArgs,
    address: &str,
    generator: Generator,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let pace = match (args.rate, args.sleep) {
        (Some(rate), _) => Pace::Rate(rate),
        (None, Some(millis)) => Pace::Sleep(Duration::from_secs_f64(millis / 1_000.0)),
        (None, None) => Pace::Full,
    };
    let duration = args.seconds.map(Duration::from_secs);
    let spec = ServerSpec { format: line_format(args.format), rows: args.rows, duration, ..ServerSpec::new(pace) };
    let server = GeneratorServer::bind(address, generator, spec).await?;
    let screen = Screen::new();
    screen.note(&format!("sending to whoever connects to {}; Ctrl-C stops", server.local_addr()));
    let has_end = args.rows.is_some() || args.seconds.is_some();
    tokio::select! {
        served = serve(&server, has_end, &screen) => served,
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    }
}

/// Serves one client to its end where there is one, and else everybody.
async fn serve(server: &GeneratorServer, has_end: bool, screen: &Screen) -> Result<()> {
    if !has_end {
        return Ok(server.serve().await?);
    }
    let served = server.serve_one().await?;
    screen.note(&format!("sent {} rows in {:.1} s", thousands(served.rows), served.duration.as_secs_f64()));
    Ok(())
}

async fn write(args: &GenerateArgs, folder: &Path, generator: Generator) -> Result<()> {
    let rows = args.rows.ok_or_else(|| Error::Usage("--out needs --rows".to_owned()))?;
    let (folder, files, format) = (folder.to_path_buf(), args.files, line_format(args.format));
    let screen = Screen::new();
    let shown = screen.clone();
    let task = tokio::task::spawn_blocking(move || {
        let progress = |written| shown.progress(&format!("{} of {} rows", thousands(written), thousands(rows)));
        write_files(&folder, &generator, rows, files, format, progress)
    });
    let ended = task.await;
    let paths =
        ended.map_err(|error| millstream_engine::Error::internal(format!("writing ended early: {error}")))??;
    screen.note(&format!("wrote {} rows into {} files", thousands(rows), paths.len()));
    Ok(())
}
