//! Memory of a long run: panes are dropped with their last window, so that the resident size stays flat.

#![cfg(target_os = "linux")]

use std::time::Duration;

use super::process::Running;

/// What comes and goes with batches in flight and the allocator.
const SLACK_KIB: u64 = 64 * 1024;

/// The resident size in KiB, while the process lives.
fn resident_kib(id: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[test]
fn the_resident_size_stays_flat_over_twenty_million_rows() {
    let sql = "CREATE STREAM transaction (
                 szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
                 WATERMARK FOR eventTime AS eventTime
               ) WITH (connector = 'generate', rows = 20000000, codes = 4000, event_rate = 50000);
               CREATE SINK nowhere WITH (connector = 'blackhole');
               INSERT INTO nowhere SELECT window_end, szcode, SUM(Price*Turnover) AS value
               FROM transaction [Range 60 s, Slide 10 s] GROUP BY window_end, szcode";
    let mut running = Running::start(&["run", "-e", sql]);
    let mut samples = Vec::new();
    while running.is_running() {
        samples.extend(resident_kib(running.id()));
        std::thread::sleep(Duration::from_millis(5));
    }
    running.finish().silent();
    assert!(samples.len() >= 20, "{} samples", samples.len());
    let (first, second) = samples.split_at(samples.len() / 2);
    let (first, second) = (*first.iter().max().unwrap(), *second.iter().max().unwrap());
    println!("{} samples: at most {first} KiB in the first half, {second} KiB in the second", samples.len());
    assert!(second <= first * 13 / 10 + SLACK_KIB, "from {first} KiB to {second} KiB");
}
