//! Whether a server and its executors take more of the machine the longer they run.
//!
//! A GROUP BY over windows reads generated trades, and a sink drops its rows: nothing is there that should grow. State
//! is that of one open window, and a checkpoint every second lets go of the lineage before it. An epoch begins as soon
//! as there are rows; the generator hands some out every 10 ms, so that there are 100 epochs a second at the most, and
//! about every tenth of them closes a window.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::executors::{live, start, title};
use super::generated::{TUMBLING, group_by, stream_statement};
use super::growth::Growth;
use super::usage::{RESOURCES, Usage};
use crate::client::{Client, Server, ask};
use crate::progress::Progress;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Epochs that are committed until the end.
    #[arg(long, default_value_t = 20_000)]
    epochs: u64,
    /// How often all processes are looked at meanwhile.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(5..))]
    samples: u64,
    /// Executors of the server; 0 for one that has none.
    #[arg(long, default_value_t = 3)]
    executors: usize,
    /// Rows a second.
    #[arg(long, default_value_t = 20_000)]
    rate: u64,
    /// Stocks: the groups of a window.
    #[arg(long, default_value_t = 1_000)]
    codes: u32,
}

/// Often, for all that comes and goes with one.
const CHECKPOINTS: [&str; 2] = ["--checkpoint-interval", "1s"];
/// Below the pause of the generator: no epoch waits for it.
const BATCH_INTERVAL: &str = "SET batch_interval = '1 ms'";
/// The name of the sink and of the query.
const SINK: &str = "nowhere";
/// Seconds of event time, and so windows, in a second.
const WINDOWS_PER_SECOND: u64 = 10;
/// The longest time that an epoch may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often it is looked whether there are enough epochs.
const LOOK: Duration = Duration::from_millis(100);
/// Samples that are printed, evenly spread.
const PRINTED: u64 = 10;

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let mut soak = Soak::start(args).await?;
    soak.print_header(args);
    for number in 1..=args.samples {
        let epochs = soak.until(args.epochs * number / args.samples).await?;
        soak.sample()?;
        if number * PRINTED / args.samples > (number - 1) * PRINTED / args.samples {
            soak.print_sample(epochs);
        }
    }
    soak.check_executors(args).await?;
    print_growths(&soak.processes)
}

/// A server with the query, and what its processes took so far.
struct Soak {
    client: Client,
    begun: Instant,
    /// The driver, then the executors as SHOW EXECUTORS lists them.
    processes: Vec<Usage>,
    _server: Server,
}

impl Soak {
    async fn start(args: &Args) -> anyhow::Result<Self> {
        let (server, mut client) = start(args.executors, &CHECKPOINTS).await?;
        let Args { rate, codes, .. } = args;
        let event_rate = (rate / WINDOWS_PER_SECOND).max(1);
        ask(&mut client, BATCH_INTERVAL).await?;
        let options = format!("codes = {codes}, rate = {rate}, event_rate = {event_rate}");
        ask(&mut client, &stream_statement(&options)).await?;
        ask(&mut client, &format!("CREATE SINK {SINK} WITH (connector = 'blackhole')")).await?;
        ask(&mut client, &format!("INSERT INTO {SINK} {}", group_by(TUMBLING))).await?;
        let mut processes = vec![Usage::new("driver".to_owned(), server.pid())];
        let executors = live(&mut client).await?.into_iter().zip(1..);
        processes.extend(executors.map(|(executor, number)| Usage::new(format!("executor {number}"), executor.pid)));
        Ok(Self { client, begun: Instant::now(), processes, _server: server })
    }

    /// Waits until so many epochs are committed; how many are.
    async fn until(&mut self, epochs: u64) -> anyhow::Result<u64> {
        let (mut committed, mut committed_at) = (0, Instant::now());
        loop {
            let progress = Progress::of(&mut self.client, SINK).await?.context("the query has ended")?;
            if progress.epochs >= epochs {
                return Ok(progress.epochs);
            }
            if progress.epochs > committed {
                (committed, committed_at) = (progress.epochs, Instant::now());
            }
            ensure!(committed_at.elapsed() < DEADLINE, "no epoch is committed for {DEADLINE:?}: {progress:?}");
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Looks at all processes.
    fn sample(&mut self) -> anyhow::Result<()> {
        for process in &mut self.processes {
            process.sample()?;
        }
        Ok(())
    }

    fn print_header(&self, args: &Args) {
        println!(
            "GROUP BY ({}, {} codes) over {} trades a second, {}, checkpoints every second; {} samples of {}",
            TUMBLING.sql,
            args.codes,
            args.rate,
            title(args.executors),
            args.samples,
            RESOURCES.map(|resource| resource.name).join(" / ")
        );
        let titles: String = self.processes.iter().map(|process| format!(" {:>18}", process.title)).collect();
        println!("{:>10} {:>8}{titles}", "epochs", "seconds");
    }

    fn print_sample(&self, epochs: u64) {
        let usages: String = self.processes.iter().map(|process| format!(" {:>18}", process.last())).collect();
        println!("{epochs:>10} {:>8.0}{usages}", self.begun.elapsed().as_secs_f64());
    }

    /// Checks that all executors hold state; prints how often one was lost, of which the figures would tell too.
    async fn check_executors(&mut self, args: &Args) -> anyhow::Result<()> {
        let executors = live(&mut self.client).await?;
        let holding = executors.iter().filter(|executor| executor.slots > 0).count();
        ensure!(holding == args.executors, "{holding} of {} executors hold state: {executors:?}", args.executors);
        println!("executors were lost {} times", executors.iter().map(|executor| executor.times_lost).sum::<u64>());
        Ok(())
    }
}

/// Prints by how much more each process took in the end.
///
/// # Errors
/// Names what is not flat.
fn print_growths(processes: &[Usage]) -> anyhow::Result<()> {
    println!("medians of two fifths of the samples");
    println!("{:>14} {:>12} {:>12} {:>12} {:>8}", "", "", "second", "last", "ratio");
    let mut growing = Vec::new();
    for process in processes {
        for (resource, growth) in process.growths()? {
            let is_flat = growth.is_flat(resource.tolerance);
            print_growth(&process.title, resource.name, growth, is_flat);
            if !is_flat {
                growing.push(format!("{} of {}", resource.name, process.title));
            }
        }
    }
    ensure!(growing.is_empty(), "not flat: {}", growing.join(", "));
    Ok(())
}

fn print_growth(process: &str, resource: &str, growth: Growth, is_flat: bool) {
    let Growth { from, to } = growth;
    let verdict = if is_flat { "flat" } else { "not flat" };
    println!("{process:>14} {resource:>12} {from:>12.1} {to:>12.1} {:>8.3} {verdict}", growth.ratio());
}
