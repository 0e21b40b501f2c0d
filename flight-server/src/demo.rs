//! `millstream demo`: trades from a generator on a loopback socket, the GroupBy query over them, windows as they close.

use std::time::Duration;

use millstream_connectors::generate::{
    EventClock, Generator, GeneratorServer, GeneratorSpec, Pace, ServerSpec, StreamKind,
};
use tokio::sync::watch;

use crate::cli::{DemoArgs, Format};
use crate::error::Result;
use crate::output::Output;
use crate::queries::{Outcome, short_duration, thousands};
use crate::screen::Screen;
use crate::session::{Mode, Script, Session};

/// The query that the demo runs: the value traded of each stock, the five largest of each window.
const QUERY: &str = "\
SELECT window_end, szcode, COUNT(*) AS trades, SUM(Turnover) AS shares, ROUND(SUM(Price * Turnover), 2) AS value
FROM TRANSACTION [Range 5 seconds, Slide 1 second]
GROUP BY window_end, szcode
ORDER BY value DESC LIMIT 5";

/// Runs the demo for its time, or until `stop` becomes true.
///
/// # Errors
/// Fails if no loopback socket can be had.
pub async fn run(args: &DemoArgs, mut stop: watch::Receiver<bool>) -> Result<()> {
    let spec = GeneratorSpec { clock: EventClock::Wall, ..GeneratorSpec::new(StreamKind::Transaction) };
    let server = ServerSpec::new(Pace::Rate(args.rate));
    let server = GeneratorServer::bind("127.0.0.1:0", Generator::new(spec)?, server).await?;
    let address = server.local_addr();

    let screen = Screen::new();
    let output = Output::new(Format::Table, None, screen.clone())?;
    output.text(&introduction(&address.to_string(), args))?;
    let (end_sender, end) = watch::channel(false);
    let mut session = Session::new(output.clone(), screen, end, Mode::Run);
    let script = Script::new("demo", &script(&address.to_string()));
    let seconds = Duration::from_secs(args.seconds);
    let timer = async {
        tokio::select! {
            () = tokio::time::sleep(seconds) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        end_sender.send_replace(true);
    };
    let running = async { tokio::join!(session.run(&script), timer).0 };
    tokio::select! {
        ran = running => ran?,
        served = server.serve() => served?,
    }
    session.outcomes().last().map_or(Ok(()), |outcome| output.text(&summary(outcome)))
}

fn script(address: &str) -> String {
    format!(
        "CREATE STREAM TRANSACTION (
           szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
           WATERMARK FOR eventTime AS eventTime
         ) WITH (connector = 'socket', address = '{address}', format = 'csv');
         {QUERY};"
    )
}

fn introduction(address: &str, args: &DemoArgs) -> String {
    format!(
        "{} generated trades a second arrive on {address}, for {} seconds. The query:\n\n{QUERY}\n\n",
        thousands(args.rate.round().max(0.0) as u64),
        args.seconds,
    )
}

fn summary(outcome: &Outcome) -> String {
    let Some(query) = outcome.summaries.first() else { return String::new() };
    let seconds = outcome.elapsed.as_secs_f64().max(0.001);
    let rows = query.progress.rows_read;
    format!(
        "\n{} rows in {:.1} s ({} rows/s), {} windows closed, {} result rows\n\
         latency from a row that closes a window to its result: median {}, 99 % {}, worst {}\n",
        thousands(rows),
        seconds,
        thousands((rows as f64 / seconds).round() as u64),
        thousands(query.counts.instants),
        thousands(query.progress.rows_written),
        short_duration(query.delay_quantile(0.5)),
        short_duration(query.delay_quantile(0.99)),
        short_duration(query.delay_quantile(1.0)),
    )
}
