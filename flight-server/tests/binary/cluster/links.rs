//! A cluster whose connections can be troubled: what becomes of a query when links are cut, slow or shut, when an executor
//! stands still, and when two have one name.

use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rustix::process::Signal;
use tokio::runtime::{Builder, Runtime};

use super::wire::{Cut, Wire};
use super::{Executor, SEED, STREAM, SUMS, VIEW, ends_at, signal, undisturbed};
use crate::process::{Folder, Running};
use crate::serve::Server;

const NAMES: [&str; 3] = ["worker-1", "worker-2", "worker-3"];
/// Where the driver reaches executors, at the ports at which they listen on 127.0.0.1.
const ADVERTISED: &str = "127.0.0.2";
/// Which wire of an executor rows take.
const FOR_ROWS: usize = 1;
/// Rows per second.
const RATE: u64 = 20_000;
/// Rows for as long as all that takes.
const ROWS: u64 = 40 * RATE;
/// How often links are troubled.
const FAULTS: usize = 16;
/// How long an executor stands still.
const STILL: Duration = Duration::from_secs(10);

/// What is done to links.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Close,
    Reset,
    Slow,
    Shut,
}

const KINDS: [Fault; 4] = [Fault::Close, Fault::Reset, Fault::Slow, Fault::Shut];

impl Fault {
    /// Troubles wires; how many connections were cut or bytes kept back.
    fn strike(self, wires: &[Wire], random: &mut StdRng) -> usize {
        match self {
            Self::Close => wires.iter().map(|wire| wire.cut(Cut::Close)).sum(),
            Self::Reset => wires.iter().map(|wire| wire.cut(Cut::Reset)).sum(),
            Self::Slow => {
                let by = Duration::from_millis(random.random_range(5..50));
                wires.iter().for_each(|wire| wire.slow(by));
                open_after(random.random_range(300..1_000), wires)
            }
            Self::Shut => {
                wires.iter().for_each(Wire::shut);
                // Longer than an executor may be silent.
                open_after(random.random_range(1_200..3_000), wires)
            }
        }
    }
}

fn open_after(millis: u64, wires: &[Wire]) -> usize {
    sleep(Duration::from_millis(millis));
    wires.iter().map(Wire::open).sum()
}

/// An executor that nobody reaches but by wires.
struct Worker {
    process: Running,
    /// Those of its heartbeats, of rows, and of what the driver asks.
    wires: [Wire; 3],
}

impl Worker {
    fn start(runtime: &Runtime, driver: SocketAddr, name: &str) -> Self {
        let lay = |from, target| Wire::lay(runtime.handle(), from, target);
        let here = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        let heartbeats = lay(here(0), driver);
        // The driver is not to hear of addresses before there are wires.
        heartbeats.shut();
        let url = format!("http://{}", heartbeats.address);
        let arguments = ["executor", "-v", "--driver", &url, "--name", name, "--advertise", ADVERTISED];
        let mut process = Running::start(&arguments);
        let ports = advertised_ports(&process.wait_for_note("listens"));
        let [rows, questions] =
            [ports[0], ports[1]].map(|port| lay(SocketAddr::from(([127, 0, 0, 2], port)), here(port)));
        heartbeats.open();
        Self { process, wires: [heartbeats, rows, questions] }
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.process.id()).unwrap()
    }
}

/// The ports that an executor says it is reached at, that for rows first.
fn advertised_ports(line: &str) -> Vec<u16> {
    let address = format!("{ADVERTISED}:");
    let behind = line.split(address.as_str()).skip(1);
    let digits = behind.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    digits.map(|digits| digits.parse().unwrap()).collect()
}

/// A query that runs at three executors.
struct Trial {
    server: Server,
    driver: SocketAddr,
    workers: [Worker; 3],
    runtime: Runtime,
    _folder: Folder,
}

impl Trial {
    fn start() -> Self {
        let folder = Folder::new();
        let pace = ["--executor-timeout", "1 s", "--checkpoint-interval", "500 ms"];
        let (server, url) = Server::awaiting(&folder, &pace);
        let driver = url.rsplit_once("://").unwrap().1.parse().unwrap();
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let workers = NAMES.map(|name| Worker::start(&runtime, driver, name));
        let trial = Self { server, driver, workers, runtime, _folder: folder };
        trial.until_all_live();
        trial.server.ask(&format!("{STREAM} rows = {ROWS}, rate = {RATE})"));
        trial.server.ask(VIEW);
        trial.server.executors_until(|executors| executors.iter().all(|executor| executor.slots > 0));
        trial
    }

    fn until_all_live(&self) -> Vec<Executor> {
        self.server.executors_until(|executors| executors.len() == NAMES.len())
    }

    fn is_running(&self) -> bool {
        self.server.ask("SHOW QUERIES").contains("sums")
    }

    /// Has another process take the name of one that is still there, for a while.
    fn give_a_name_twice(&mut self) {
        assert!(self.is_running());
        let twin = Worker::start(&self.runtime, self.driver, NAMES[0]);
        let is_at_work = |executors: &[Executor], worker: &Worker| {
            executors.iter().any(|executor| executor.pid == worker.pid() && executor.slots > 0)
        };
        self.server.executors_until(|executors| is_at_work(executors, &twin));
        // The one that had it before is told so, and waits.
        self.workers[0].process.wait_for_note("runs at");
        twin.process.kill().check_killed();
        self.server.executors_until(|executors| is_at_work(executors, &self.workers[0]));
        self.until_all_live();
    }

    /// Has one executor stand still while another one is alive and no rows come through to it.
    fn hold_two_up(&self) {
        assert!(self.is_running());
        let [still, cut_off, _] = &self.workers;
        let begun = Instant::now();
        signal(still.pid(), Signal::STOP);
        self.server.executors_until(|executors| executors.len() == NAMES.len() - 1);
        cut_off.wires[FOR_ROWS].shut();
        sleep(STILL.saturating_sub(begun.elapsed()));
        signal(still.pid(), Signal::CONT);
        assert!(cut_off.wires[FOR_ROWS].open() > 0, "nothing was kept back");
        self.until_all_live();
    }

    /// Troubles links one after the other; what each kind of fault has hit while the query ran.
    fn trouble_links(&self, random: &mut StdRng) -> [usize; KINDS.len()] {
        let mut hits = [0; KINDS.len()];
        for kind in (0..KINDS.len()).cycle().take(FAULTS) {
            self.until_all_live();
            let is_running = self.is_running();
            // At any moment of an epoch.
            sleep(Duration::from_micros(random.random_range(0..150_000)));
            let wires = &self.workers[random.random_range(0..NAMES.len())].wires;
            let wires = match random.random_range(0..=wires.len()) {
                one if one < wires.len() => &wires[one..=one],
                _ => wires,
            };
            let hit = KINDS[kind].strike(wires, random);
            hits[kind] += if is_running { hit } else { 0 };
        }
        hits
    }
}

#[test]
fn whatever_becomes_of_links_the_rows_are_those_of_an_undisturbed_run() {
    println!("seed {SEED}");
    let mut random = StdRng::seed_from_u64(SEED);
    let mut trial = Trial::start();
    trial.give_a_name_twice();
    trial.hold_two_up();
    let hits = trial.trouble_links(&mut random);
    assert!(hits.iter().all(|hit| *hit > 0), "{KINDS:?} have hit {hits:?}");
    let lost: u64 = trial.until_all_live().iter().map(|executor| executor.times_lost).sum();
    // One had its name taken and got it back, and stood still.
    assert!(lost >= 3, "executors were lost {lost} times");
    let sums = trial.server.ask_until(SUMS, |sums| ends_at(sums, ROWS));
    assert_eq!(sums, undisturbed(ROWS));
}
