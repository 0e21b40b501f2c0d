//! A process that does nothing but take time from others.

use std::hint::spin_loop;
use std::io::{copy, sink, stdin};
use std::thread;

/// How busy it is.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Threads that never rest.
    #[arg(long, default_value_t = 60)]
    threads: usize,
}

/// Is busy until stdin ends, which it does at the latest with the process that holds the other end of the pipe.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    for _ in 0..args.threads {
        // They end with the process.
        thread::spawn(spin);
    }
    copy(&mut stdin().lock(), &mut sink())?;
    Ok(())
}

fn spin() {
    loop {
        spin_loop();
    }
}
