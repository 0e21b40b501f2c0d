//! `millstream test`: the tests that stand in SQL files, run in this process with event time moved by hand.
//!
//! ```text
//! file ─ Session::parse_tests ─► statements ─► Bench (what is declared)
//!                                TEST blocks ─► a Bench of its own ─ step by step ─► logs written down
//!                                               ASSERT ─► Trial: the query over the logs, whole, cut, restarted
//!                                                         ─► difference ─► a table of rows missing and extra
//! ```
//!
//! Nothing is connected to: the rows of a stream are those that the test inserts.

mod bench;
mod difference;
mod failure;
mod rows;
mod trial;

use std::io::Write as _;
use std::path::Path;

use millstream_sql::TestItem;
use tokio::sync::watch;

use crate::cli::TestArgs;
use crate::error::{Error, Result};
use crate::screen::Screen;
use crate::session::{Script, refusal};
use bench::Bench;
use trial::Ways;

/// How many tests there were, by how they ended.
#[derive(Debug, Default)]
struct Tally {
    passed: usize,
    failed: usize,
}

/// Runs the tests of the files, each test on what the statements before it have declared.
///
/// A file without tests is what the files behind it build on; one with tests leaves nothing behind.
///
/// # Errors
/// Fails if a test failed, a statement outside of tests is wrong, or there is no test to run.
pub async fn run(args: &TestArgs, stop: watch::Receiver<bool>) -> Result<()> {
    let ways = Ways { seed: args.seed, cuts: args.cuts, restarts: args.restarts };
    print(&format!("{ways}\n"))?;
    let mut setup = Bench::new(&args.parameters);
    let mut tally = Tally::default();
    for path in &args.files {
        let mut file = File { bench: setup.clone(), script: Script::read(path)?, has_tests: false, is_named: false };
        file.run(args, ways, &stop, &mut tally).await?;
        if *stop.borrow() {
            return Ok(());
        }
        if !file.has_tests {
            setup = file.bench;
        }
    }
    tally.end(args)
}

impl Tally {
    fn end(&self, args: &TestArgs) -> Result<()> {
        let Self { passed, failed } = *self;
        if passed + failed == 0 {
            return Err(Error::Usage(match &args.filter {
                Some(filter) => format!("no test has {filter:?} in its name"),
                None => "there is no test: write TEST name BEGIN … END".to_owned(),
            }));
        }
        print(&format!("{} passed, {failed} failed\n", tests(passed)))?;
        if failed > 0 { Err(Error::Tests { failed, all: passed + failed }) } else { Ok(()) }
    }
}

fn tests(count: usize) -> String {
    format!("{count} test{}", if count == 1 { "" } else { "s" })
}

/// A file being run.
struct File {
    bench: Bench,
    script: Script,
    has_tests: bool,
    /// Whether its name was printed.
    is_named: bool,
}

impl File {
    async fn run(
        &mut self,
        args: &TestArgs,
        ways: Ways,
        stop: &watch::Receiver<bool>,
        tally: &mut Tally,
    ) -> Result<()> {
        let items = self.bench.parse(&self.script).map_err(|error| refusal(error, &self.script))?;
        for item in items {
            if *stop.borrow() {
                return Ok(());
            }
            match item {
                TestItem::Statement(statement) => self.bench.carry_out(&statement, &self.script).await?,
                TestItem::Include(name) => self.bench.include(&name, &self.script).await?,
                TestItem::Test(block) => {
                    self.has_tests = true;
                    if args.filter.as_ref().is_some_and(|filter| !block.name.contains(filter.as_str())) {
                        continue;
                    }
                    let ended = self.bench.clone().run(&block, &self.script, ways).await;
                    self.report(&block.name, ended.err().map(|failure| failure.0), tally)?;
                }
            }
        }
        let unrun = self.bench.take_unrun();
        if self.has_tests && unrun > 0 {
            let queries = if unrun == 1 { "query" } else { "queries" };
            let origin = &self.script.origin;
            Screen::new().note(&format!("note: {origin}: {unrun} {queries} outside of tests checked and not run"));
        }
        Ok(())
    }

    /// Says how a test has ended.
    fn report(&mut self, name: &str, failure: Option<String>, tally: &mut Tally) -> Result<()> {
        if !std::mem::replace(&mut self.is_named, true) {
            print(&format!("{}\n", self.script.origin))?;
        }
        let Some(failure) = failure else {
            tally.passed += 1;
            return print(&format!("  ok      {name}\n"));
        };
        tally.failed += 1;
        let lines: Vec<_> = failure.lines().map(|line| format!("    {line}").trim_end().to_owned()).collect();
        print(&format!("  FAILED  {name}\n{}\n", lines.join("\n")))
    }
}

/// A file that another one names, relative to the folder of that one.
fn beside(script: &Script, path: &str) -> std::path::PathBuf {
    let folder = Path::new(&script.origin).parent().unwrap_or_else(|| Path::new(""));
    folder.join(path)
}

fn print(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| Error::Io { context: "cannot write to stdout".to_owned(), source })
}
