//! A server with executors: what becomes of its queries when processes are killed, stopped or cut off.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

mod certificates;
mod queries;

// Other systems have one address of loopback unless they are given more.
#[cfg(target_os = "linux")]
mod links;
#[cfg(target_os = "linux")]
mod wire;

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::process::{Folder, Running};
use super::serve::{DEADLINE, Server};

const SEED: u64 = 20_261_127;

/// A minute and a half of generated trades, summed up by window and code.
const STREAM: &str = "CREATE STREAM trades (
    szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
    WATERMARK FOR eventTime AS eventTime
  ) WITH (connector = 'generate', kind = 'transaction', codes = 50, ";
const VIEW: &str = "CREATE MATERIALIZED VIEW sums AS
    SELECT window_end, szcode, COUNT(*) AS n, SUM(Turnover) AS turnover
    FROM trades [Range 10 seconds, Slide 2 seconds] GROUP BY window_end, szcode";
const SUMS: &str = "SELECT window_end, szcode, n, turnover FROM sums ORDER BY window_end, szcode";

/// An executor as SHOW EXECUTORS tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Executor {
    name: String,
    pid: i32,
    slots: u32,
    rows: u64,
    rows_read: u64,
    times_lost: u64,
}

impl Server {
    fn with_executors(folder: &Folder, count: usize) -> Self {
        let count = count.to_string();
        Self::start(folder, &["--executors", &count, "--durability", "process_crash", "--executor-timeout", "1 s"])
    }

    /// A server that waits for executors, and where they register.
    fn awaiting(folder: &Folder, more: &[&str]) -> (Self, String) {
        let cluster = ["--cluster", "--cluster-listen", "127.0.0.1:0", "--durability", "process_crash"];
        let mut server = Self::start(folder, &[cluster.as_slice(), more].concat());
        let line = server.process.wait_for_line("executors register at");
        let url = line.trim().rsplit_once(' ').unwrap().1.to_owned();
        (server, url)
    }

    /// The executors that live.
    fn executors(&self) -> Vec<Executor> {
        let shown = self.ask("SHOW EXECUTORS");
        let mut lines = shown.lines().map(|line| line.split(',').collect::<Vec<_>>());
        let header = lines.next().unwrap();
        let at = |name: &str| header.iter().position(|column| *column == name).unwrap();
        let number = |line: &Vec<&str>, name: &str| line[at(name)].parse::<u64>().unwrap();
        let live = lines.filter(|line| line[at("state")] == "live");
        live.map(|line| Executor {
            name: line[at("executor")].to_owned(),
            pid: i32::try_from(number(&line, "pid")).unwrap(),
            slots: u32::try_from(number(&line, "slots")).unwrap(),
            rows: number(&line, "rows"),
            rows_read: number(&line, "rows_read"),
            times_lost: number(&line, "times_lost"),
        })
        .collect()
    }

    fn executors_until(&self, is_met: impl Fn(&[Executor]) -> bool) -> Vec<Executor> {
        let end = Instant::now() + DEADLINE;
        loop {
            let executors = self.executors();
            if is_met(&executors) {
                return executors;
            }
            assert!(Instant::now() < end, "{executors:?}");
        }
    }
}

fn signal(pid: i32, signal: rustix::process::Signal) {
    // It may be gone already.
    let _ = rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal);
}

/// What the query gives where nothing is lost.
fn undisturbed(rows: u64) -> String {
    let folder = Folder::new();
    let server = Server::start(&folder, &["--durability", "process_crash"]);
    server.ask(&format!("{STREAM} rows = {rows})"));
    server.ask(VIEW);
    let sums = server.ask_until(SUMS, |sums| ends_at(sums, rows));
    server.process.kill().check_killed();
    sums
}

/// Whether the rows of the last window are there: the generator makes 10,000 rows a second of event time.
fn ends_at(sums: &str, rows: u64) -> bool {
    let total: u64 = sums.lines().skip(1).filter_map(|line| line.split(',').nth(2)?.parse::<u64>().ok()).sum();
    // Each row is in five windows.
    total == 5 * rows
}

#[test]
fn rows_and_state_are_at_executors_and_each_has_its_part() {
    let folder = Folder::new();
    let server = Server::with_executors(&folder, 3);
    // At a rate rows come in many small splits.
    server.ask(&format!("{STREAM} rows = 200000, rate = 100000)"));
    server.ask(VIEW);
    let sums = server.ask_until(SUMS, |sums| ends_at(sums, 200_000));
    assert_eq!(sums, undisturbed(200_000));
    let read = |executors: &[Executor]| executors.iter().map(|executor| executor.rows_read).sum::<u64>();
    // All that there was, and the driver nothing of it; a split may have been read twice.
    let executors = server
        .executors_until(|executors| executors.iter().all(|executor| executor.rows > 0) && read(executors) >= 200_000);
    let total: u64 = executors.iter().map(|executor| executor.rows).sum();
    for executor in &executors {
        assert!(executor.rows * 6 >= total, "less than half of its share: {executors:?}");
        assert!(executor.rows_read * 6 >= read(&executors), "it has read less than half of its share: {executors:?}");
    }
}

/// A fault, and how to get over it.
#[derive(Debug, Clone, Copy)]
enum Fault {
    KillOne,
    KillTwo,
    Stop,
    KillDriver,
}

#[test]
fn whatever_is_killed_or_stopped_the_rows_are_those_of_an_undisturbed_run() {
    let faults: u32 = std::env::var("MILLSTREAM_TEST_FAULTS").map_or(100, |count| count.parse().unwrap());
    println!("seed {SEED}, {faults} faults");
    let mut random = StdRng::seed_from_u64(SEED);
    let (rate, folder) = (40_000, Folder::new());
    // Rows for a good second of each fault.
    let rows = rate * u64::from(faults) * 6 / 5;
    let mut server = Server::with_executors(&folder, 4);
    server.ask(&format!("{STREAM} rows = {rows}, rate = {rate})"));
    server.ask(VIEW);
    let mut hits = 0;
    for _ in 0..faults {
        hits += u32::from(server.ask("SHOW QUERIES").contains("sums"));
        let executors = server.executors_until(|executors| executors.len() == 4);
        let fault = match random.random_range(0..20) {
            0..12 => Fault::KillOne,
            12..16 => Fault::KillTwo,
            16..19 => Fault::Stop,
            _ => Fault::KillDriver,
        };
        // At any moment of an epoch.
        std::thread::sleep(Duration::from_micros(random.random_range(0..150_000)));
        let (one, two) = (random.random_range(0..4), random.random_range(1..4));
        let [one, two] = [one, (one + two) % 4].map(|number: usize| executors[number].pid);
        match fault {
            Fault::KillOne => signal(one, rustix::process::Signal::KILL),
            Fault::KillTwo => [one, two].into_iter().for_each(|pid| signal(pid, rustix::process::Signal::KILL)),
            Fault::Stop => {
                signal(one, rustix::process::Signal::STOP);
                std::thread::sleep(Duration::from_millis(random.random_range(100..2_500)));
                signal(one, rustix::process::Signal::CONT);
            }
            Fault::KillDriver => {
                server.process.kill().check_killed();
                server = Server::with_executors(&folder, 4);
            }
        }
    }
    // Where processes are slow to come back the query may end before the last of them.
    assert!(hits * 4 >= faults, "only {hits} of {faults} faults came while the query ran");
    let sums = server.ask_until(SUMS, |sums| ends_at(sums, rows));
    assert_eq!(sums, undisturbed(rows));
}

#[test]
fn executors_of_other_places_join_and_hand_over_what_they_hold() {
    let folder = Folder::new();
    let (server, driver) = Server::awaiting(&folder, &["--checkpoint-interval", "500 ms"]);
    let join = |name: &str| Running::start(&["executor", "--driver", &driver, "--name", name]);
    let rows = 600_000;
    server.ask(&format!("{STREAM} rows = {rows}, rate = 40000)"));
    server.ask(VIEW);
    let first = join("first");
    server.executors_until(|executors| executors.len() == 1 && executors[0].slots == 1);
    let second = join("second");
    // The one that has come gets its part at a checkpoint.
    server.executors_until(|executors| executors.len() == 2 && executors.iter().all(|executor| executor.slots == 1));
    let leaves_at = Instant::now();
    first.terminate();
    let ended = first.finish();
    assert!(leaves_at.elapsed() < Duration::from_secs(15), "nobody has taken over");
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let left = server.executors_until(|executors| executors.len() == 1);
    assert_eq!(left[0].name, "second");
    let sums = server.ask_until(SUMS, |sums| ends_at(sums, rows));
    assert_eq!(sums, undisturbed(rows));
    drop(second);
}

#[test]
fn a_select_goes_on_when_executors_are_lost() {
    let folder = Folder::new();
    let server = Server::with_executors(&folder, 2);
    server.ask(&format!("{STREAM} rows = 200000, rate = 40000)"));
    let address = format!("grpc://{}", server.address);
    let select = "SELECT window_end, COUNT(*) AS n FROM trades [Range 1 second, Slide 1 second] GROUP BY window_end";
    let mut reading = Running::start(&["sql", "--connect", &address, "-e", select, "--format", "csv"]);
    reading.wait_for_line(",10000");
    server.executors().iter().for_each(|executor| signal(executor.pid, rustix::process::Signal::KILL));
    let read = reading.finish();
    assert_eq!(read.code, Some(0), "{read:?}");
    let counts: Vec<&str> = read.stdout.lines().filter(|line| line.contains(',')).collect();
    assert!(counts.len() >= 15, "{read:?}");
    assert!(counts.iter().skip(1).all(|line| line.ends_with(",10000")), "{counts:?}");
}
