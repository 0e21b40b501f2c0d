//! How long an epoch takes in which a few rows come.

use super::executors::title;
use super::figures::Samples;
use super::pushed::{Push, Pushed};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Epochs that are measured in each case.
    #[arg(long, default_value_t = 200)]
    samples: usize,
    /// Rows of an epoch.
    #[arg(long, default_value_t = 8)]
    rows: usize,
    /// Executors of the one server; the other has none.
    #[arg(long, default_value_t = 3)]
    executors: usize,
}

/// Windows that close or do not, and by how much executors may make an epoch longer.
#[derive(Debug)]
struct Case {
    name: &'static str,
    range: &'static str,
    pushes_per_second: u64,
    goal_ms: f64,
}

const CASES: [Case; 2] = [
    Case { name: "no window closes", range: "1 hour", pushes_per_second: 1_000, goal_ms: 6.0 },
    Case { name: "one window closes", range: "1 second", pushes_per_second: 1, goal_ms: 12.0 },
];

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    println!(
        "epochs of a GROUP BY view over a pushed stream, {} rows an epoch, {} samples of each, in turn",
        args.rows, args.samples
    );
    println!("{:>20} {:>14} {:>10} {:>10}", "", "state", "p50 ms", "p95 ms");
    for case in &CASES {
        let [embedded, spread] = case.measure(args).await?;
        for (executors, samples) in [(0, &embedded), (args.executors, &spread)] {
            let (half, most) = (samples.median(), samples.percentile(95));
            println!("{:>20} {:>14} {half:>10.2} {most:>10.2}", case.name, title(executors));
        }
        println!(
            "{:>20} medians differ by {:.2} ms (goal: at most {} ms), ratio {:.2}",
            case.name,
            spread.median() - embedded.median(),
            case.goal_ms,
            spread.median() / embedded.median()
        );
    }
    Ok(())
}

impl Case {
    /// Epoch times without executors and with them, in milliseconds.
    async fn measure(&self, args: &Args) -> anyhow::Result<[Samples; 2]> {
        let push = Push { rows: args.rows, per_second: self.pushes_per_second };
        let mut embedded = Pushed::start(0, &[], self.range, push).await?;
        let mut spread = Pushed::start(args.executors, &[], self.range, push).await?;
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..args.samples {
            let [without, with] = &mut times;
            without.push(embedded.epoch_ms().await?);
            with.push(spread.epoch_ms().await?);
        }
        let [without, with] = times;
        Ok([Samples::new(without)?, Samples::new(with)?])
    }
}
