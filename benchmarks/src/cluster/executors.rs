//! Servers with executors, who of these lives, and signals to them.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use datafusion::arrow::datatypes::{UInt32Type, UInt64Type};

use crate::answer::{numbers, texts};
use crate::client::{Client, Server, ask};

/// How long executors have to come, and to come back.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often it is looked whether they have.
const LOOK: Duration = Duration::from_millis(20);

/// An executor that lives.
#[derive(Debug, Clone, Copy)]
pub(super) struct Executor {
    pub(super) pid: u32,
    /// Parts of the state of queries that lie there.
    pub(super) slots: u32,
    /// How often it was given up, in all of its processes.
    pub(super) times_lost: u64,
}

/// Starts a server with so many executors and waits for them; with 0 state is embedded in its own process.
pub(super) async fn start(count: usize, arguments: &[&str]) -> anyhow::Result<(Server, Client)> {
    let number = count.to_string();
    let mut all = arguments.to_vec();
    if count > 0 {
        all.extend(["--executors", number.as_str()]);
    }
    let server = Server::start_with(&all)?;
    let mut client = server.client().await?;
    if count > 0 {
        until_live(&mut client, count).await?;
    }
    Ok((server, client))
}

/// What a server with so many executors is called in a table.
pub(super) fn title(count: usize) -> String {
    if count == 0 { "embedded".to_owned() } else { format!("{count} executors") }
}

/// Waits until so many executors live.
pub(super) async fn until_live(client: &mut Client, count: usize) -> anyhow::Result<Vec<Executor>> {
    let begun = Instant::now();
    loop {
        let executors = live(client).await?;
        if executors.len() >= count {
            return Ok(executors);
        }
        ensure!(begun.elapsed() < DEADLINE, "{} of {count} executors live after {DEADLINE:?}", executors.len());
        tokio::time::sleep(LOOK).await;
    }
}

/// Waits until an executor says that it holds state, which it does with its heartbeats.
pub(super) async fn until_holding(client: &mut Client) -> anyhow::Result<Executor> {
    let begun = Instant::now();
    loop {
        if let Some(holding) = live(client).await?.into_iter().find(|executor| executor.slots > 0) {
            return Ok(holding);
        }
        ensure!(begun.elapsed() < DEADLINE, "no executor holds state after {DEADLINE:?}");
        tokio::time::sleep(LOOK).await;
    }
}

/// The executors that live.
pub(super) async fn live(client: &mut Client) -> anyhow::Result<Vec<Executor>> {
    let mut live = Vec::new();
    for batch in ask(client, "SHOW EXECUTORS").await? {
        let (pids, slots) = (numbers::<UInt32Type>(&batch, "pid")?, numbers::<UInt32Type>(&batch, "slots")?);
        let times_lost = numbers::<UInt64Type>(&batch, "times_lost")?;
        let states = texts(&batch, "state")?.iter().enumerate();
        live.extend(states.filter(|(_, state)| *state == Some("live")).map(|(row, _)| Executor {
            pid: pids.value(row),
            slots: slots.value(row),
            times_lost: times_lost.value(row),
        }));
    }
    Ok(live)
}

/// Sends a signal, such as `KILL`, to all of them at once.
pub(super) fn signal(signal: &str, executors: &[Executor]) -> anyhow::Result<()> {
    let pids = executors.iter().map(|executor| executor.pid.to_string());
    let status = Command::new("kill").arg(format!("-{signal}")).args(pids).status().context("cannot run kill")?;
    ensure!(status.success(), "kill -{signal} {executors:?}: {status}");
    Ok(())
}
