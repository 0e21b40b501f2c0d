//! The GroupBy query over CSV files, with windows of 6, 60 and 600 panes.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use millstream::cli::Format;
use millstream::output::Output;
use millstream::screen::Screen;
use millstream::session::{Mode, Script, Session};
use millstream_connectors::generate::{Generator, GeneratorSpec, LineFormat, StreamKind, write_files};
use tokio::sync::watch;

use crate::median;

/// What the benchmark takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Trades to generate.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Runs of each variant; the median is printed.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// Folder with trades of an earlier run; made anew in a temporary place unless given.
    #[arg(long)]
    data: Option<PathBuf>,
}

/// Range and slide of each variant.
const VARIANTS: [(&str, &str); 3] = [("60 s", "10 s"), ("60 s", "1 s"), ("10 minutes", "1 s")];
const FILES: u32 = 4;

/// Runs all variants in turn.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    let temporary = tempfile::tempdir().context("a temporary folder")?;
    let folder = args.data.clone().unwrap_or_else(|| temporary.path().join("trades"));
    if !folder.exists() {
        let generator = Generator::new(GeneratorSpec::new(StreamKind::Transaction))?;
        write_files(&folder, &generator, args.rows, FILES, LineFormat::Csv, |_| {})?;
    }
    let mut times: [Vec<Duration>; VARIANTS.len()] = Default::default();
    let mut rows = 0;
    for _ in 0..args.runs.max(1) {
        for ((range, slide), times) in VARIANTS.iter().zip(&mut times) {
            let (read, elapsed) = measure(&folder, range, slide).await?;
            rows = read;
            times.push(elapsed);
        }
    }
    println!("GroupBy over {rows} trades in CSV files, 4,000 codes, medians of {} runs", args.runs.max(1));
    println!("{:>12} {:>8} {:>10} {:>14} {:>22}", "range", "slide", "seconds", "rows/s", "ratio to slide 10 s");
    let base = times.first_mut().map(|times| median(times)).unwrap_or_default().as_secs_f64();
    for ((range, slide), times) in VARIANTS.iter().zip(&mut times) {
        let seconds = median(times).as_secs_f64().max(f64::EPSILON);
        let rate = rows as f64 / seconds;
        println!("{range:>12} {slide:>8} {seconds:>10.3} {rate:>14.0} {:>22.2}", base / seconds);
    }
    Ok(())
}

/// Runs one variant; the rows read and the time it took.
async fn measure(folder: &Path, range: &str, slide: &str) -> anyhow::Result<(u64, Duration)> {
    let (_keep_running, stop) = watch::channel(false);
    let screen = Screen::new();
    let output = Output::new(Format::Csv, None, screen.clone())?;
    let mut session = Session::new(output, screen, stop, Mode::Run);
    let text = format!(
        "CREATE STREAM TRANSACTION (
           szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
           WATERMARK FOR eventTime AS eventTime
         ) WITH (connector = 'files', path = '{}', format = 'csv');
         CREATE SINK nowhere WITH (connector = 'blackhole');
         INSERT INTO nowhere SELECT szcode, SUM(Price*Turnover) FROM TRANSACTION [Range {range}, Slide {slide}]
         GROUP BY szcode",
        folder.display()
    );
    session.run(&Script::new("benchmark", &text)).await.map_err(|error| anyhow::anyhow!(error.render()))?;
    let outcome = session.outcomes().last().context("the query did not run")?;
    let rows = outcome.summaries.iter().map(|summary| summary.progress.rows_read).sum();
    Ok((rows, outcome.elapsed))
}
