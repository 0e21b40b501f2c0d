//! Running the binary: to its end, or line by line while it runs, and a sender for its sockets.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// No run here takes this long unless it hangs.
const DEADLINE: Duration = Duration::from_secs(120);

/// The signal of `kill -9`.
const SIGKILL: i32 = 9;

/// The root of the repository, where every process starts.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Finished {
    /// None if a signal ended it.
    pub(crate) code: Option<i32>,
    /// The signal that ended it, if one did.
    pub(crate) signal: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Finished {
    /// Its rows, if it succeeded and had nothing to say besides.
    #[track_caller]
    pub(crate) fn silent(self) -> String {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{}", self.stdout);
        self.stdout
    }

    /// Checks that it succeeded, whatever it had to say.
    #[track_caller]
    pub(crate) fn check(&self) {
        assert_eq!(self.code, Some(0), "{self:?}");
    }

    /// Checks that it was killed, and did not end by a fault of its own.
    #[track_caller]
    pub(crate) fn check_killed(&self) {
        assert_eq!(self.signal, Some(SIGKILL), "{self:?}");
    }

    /// Checks that it killed itself at the durable step that it was to die at.
    #[track_caller]
    pub(crate) fn check_crashed(&self) {
        self.check_killed();
        assert!(self.stderr.contains("killed by MILLSTREAM_CRASH_AT"), "{self:?}");
    }

    /// Checks the exit code and that stderr has every part.
    #[track_caller]
    pub(crate) fn check_error(&self, code: i32, parts: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "no {part:?} in {}", self.stderr);
        }
    }
}

/// Runs the binary to its end.
pub(crate) fn run(arguments: &[&str]) -> Finished {
    Running::start(arguments).finish()
}

/// Runs SQL to its end; rows come as CSV.
pub(crate) fn run_sql(sql: &str) -> Finished {
    run(&["run", "-e", sql, "--format", "csv"])
}

/// The rows of CSV text without its header, in one order.
pub(crate) fn rows(csv: &str) -> Vec<&str> {
    let mut rows: Vec<&str> = csv.lines().skip(1).collect();
    rows.sort_unstable();
    rows
}

/// A process that runs; it is killed if a test fails before its end.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    stdout: Lines,
    stderr: Lines,
}

impl Running {
    pub(crate) fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// Starts it with more variables in its environment.
    pub(crate) fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_millstream"))
            .args(arguments)
            .current_dir(root())
            .env_remove("RUST_LOG")
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (stdout, stderr) = (Lines::of(child.stdout.take().unwrap()), Lines::of(child.stderr.take().unwrap()));
        Self { child, stdout, stderr }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Whether it ends within a time.
    pub(crate) fn ends_within(&mut self, time: Duration) -> bool {
        let end = Instant::now() + time;
        while self.is_running() {
            if Instant::now() >= end {
                return false;
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        true
    }

    /// Asks it to stop, as service managers do.
    pub(crate) fn terminate(&self) {
        let killed = Command::new("kill").args(["-TERM", &self.id().to_string()]).status().unwrap();
        assert!(killed.success());
    }

    /// Kills it as `kill -9` does; it has an exit code if it ended just before.
    pub(crate) fn kill(mut self) -> Finished {
        self.child.kill().unwrap();
        self.finish()
    }

    /// Waits until a line of stdout has `part`.
    pub(crate) fn wait_for_line(&mut self, part: &str) -> String {
        self.stdout.wait_for(part)
    }

    /// Waits until a line of stderr has `part`.
    pub(crate) fn wait_for_note(&mut self, part: &str) -> String {
        self.stderr.wait_for(part)
    }

    /// Closes stdout's reading end, as `head` does when it has enough; what it wrote is lost.
    pub(crate) fn stop_reading(&mut self) {
        self.stdout = Lines::of(std::io::empty());
    }

    /// Waits for the end; stdout and stderr are whole, with the lines that were waited for.
    pub(crate) fn finish(mut self) -> Finished {
        self.stdout.read_all();
        self.stderr.read_all();
        let status = self.child.wait().unwrap();
        Finished {
            code: status.code(),
            signal: status.signal(),
            stdout: std::mem::take(&mut self.stdout.seen),
            stderr: std::mem::take(&mut self.stderr.seen),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already unless a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The lines of one output, read as they come.
#[derive(Debug)]
struct Lines {
    coming: Receiver<String>,
    seen: String,
}

impl Lines {
    fn of(output: impl Read + Send + 'static) -> Self {
        let (sender, coming) = channel();
        std::thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).unwrap_or(0) > 0 {
                if sender.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    return;
                }
                line.clear();
            }
        });
        Self { coming, seen: String::new() }
    }

    fn next(&mut self, end: Instant) -> Option<String> {
        match self.coming.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                self.seen.push_str(&line);
                Some(line)
            }
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("nothing more in {DEADLINE:?} after {:?}", self.seen),
        }
    }

    fn wait_for(&mut self, part: &str) -> String {
        let end = Instant::now() + DEADLINE;
        while let Some(line) = self.next(end) {
            if line.contains(part) {
                return line;
            }
        }
        panic!("it ended without {part:?}: {:?}", self.seen)
    }

    fn read_all(&mut self) {
        let end = Instant::now() + DEADLINE;
        while self.next(end).is_some() {}
    }
}

/// Listens on a free port and runs `send` with the first connection, which is closed behind it.
pub(crate) fn serve(send: impl FnOnce(&mut TcpStream) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        send(&mut client);
    });
    (address, serving)
}

/// Sends each line by itself.
pub(crate) fn send_lines(client: &mut TcpStream, lines: &str) {
    for line in lines.lines() {
        client.write_all(format!("{line}\n").as_bytes()).unwrap();
    }
}

/// A folder for one test, and SQL text with its paths.
#[derive(Debug)]
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Its own name, which no other folder has, in lower case.
    pub(crate) fn name(&self) -> String {
        let name = self.0.path().file_name().unwrap().to_str().unwrap().to_lowercase();
        name.trim_start_matches('.').to_owned()
    }

    /// The path of `name` within.
    pub(crate) fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().unwrap().to_owned()
    }

    /// Another one with a copy of everything within.
    pub(crate) fn copied(&self) -> Self {
        let copy = Self::new();
        copy_into(self.0.path(), copy.0.path());
        copy
    }

    /// Writes a file; gives its path.
    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.path(name);
        std::fs::write(&path, bytes).unwrap();
        path
    }
}

/// Copies everything in a folder into another one.
fn copy_into(from: &Path, into: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = into.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir(&target).unwrap();
            copy_into(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}
