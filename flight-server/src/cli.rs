//! The command line.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use millstream_engine::durable::StatePlace;
use serde::{Deserialize, Serialize};

/// Streaming SQL over micro-batches, with exact answers.
#[derive(Debug, Parser)]
#[command(
    name = "millstream",
    version,
    about = "Streaming SQL over micro-batches, with exact answers",
    after_help = "Examples:\n  millstream demo\n  millstream run queries/stock/schema.sql queries/stock/groupby.sql -p n='5 minutes' -p s='1 minute'\n  millstream run -e \"SELECT 1 + 1\"\n  millstream explain queries/stock/schema.sql queries/stock/groupby.sql -p n=300 -p s=60\n  millstream generate transaction --rate 1000 --listen 127.0.0.1:9999"
)]
pub struct Cli {
    /// Show what happens inside, on stderr; -vv shows every epoch, -vvv every batch. RUST_LOG says it in detail.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Watch windows close over generated trades: nothing to set up.
    #[command(
        after_help = "Examples:\n  millstream demo\n  millstream demo --seconds 10 --rate 1000000\n  millstream demo --seconds 5 | cat"
    )]
    Demo(DemoArgs),
    /// Run SQL statements in order; the results of SELECT go to stdout.
    #[command(
        after_help = "Ends when all inputs have ended, or on Ctrl-C after the epoch in hand.\nExit codes: 0 done, 1 query error, 2 usage, 130 interrupted.\n\nExamples:\n  millstream run schema.sql groupby.sql -p n='5 minutes' -p s='1 minute'\n  millstream run schema.sql -e 'SELECT * FROM trades' --format csv > trades.csv\n  millstream run schema.sql groupby.sql -p n=60 -p s=10 --output windows.csv --format csv"
    )]
    Run(RunArgs),
    /// Type SQL, or pipe it in: a shell with an engine in it, or for a server.
    #[command(
        after_help = "Statements end with a semicolon; \\? lists the commands of the shell. INSERT and materialized views run on behind the prompt.\nExit codes: 0 done, 1 an error where nobody types, 2 usage, 130 interrupted.\n\nExamples:\n  millstream sql\n  millstream sql --connect grpc://127.0.0.1:50051\n  millstream sql -e \"SELECT 1 + 1\"\n  echo 'SHOW STREAMS;' | millstream sql\n  millstream sql queries/stock/schema.sql -e 'SHOW STREAMS' --format csv"
    )]
    Sql(SqlArgs),
    /// Serve queries to Arrow Flight SQL clients, and take rows from them.
    #[command(
        after_help = "Everything is kept in the data directory and goes on after a restart. Every option can stand in the file of --config.\n\nExamples:\n  millstream serve\n  millstream serve --listen 127.0.0.1:0 --data-dir /var/lib/millstream\n  millstream serve --config millstream.toml --print-config\n  curl --data-binary @trades.csv -H 'content-type: text/csv' http://127.0.0.1:50051/v1/streams/trades"
    )]
    Serve(ServeArgs),
    /// Hold state for a server that is too large for one process; started on any machine that reaches its driver.
    #[command(
        after_help = "On SIGTERM it hands its state over before it ends.\n\nExamples:\n  millstream serve --cluster --cluster-listen 127.0.0.1:50052\n  millstream executor --driver http://127.0.0.1:50052\n  millstream executor --driver https://driver:50052 --listen 0.0.0.0:50053 --advertise executor-0.executors \\\n    --cluster-ca ca.pem --cluster-cert executor.pem --cluster-key executor.key"
    )]
    Executor(ExecutorArgs),
    /// Hash a password or token from stdin for the configuration of a server.
    #[command(after_help = "Example:\n  millstream hash < password.txt")]
    Hash,
    /// Show the plans of the queries in SQL files, and what state they hold, without running them.
    #[command(after_help = "Example:\n  millstream explain schema.sql groupby.sql -p n='5 minutes' -p s='1 minute'")]
    Explain(SourceArgs),
    /// Run the tests in SQL files: TEST name BEGIN … END.
    #[command(
        after_help = "Each answer is also found in random cuts into micro-batches and over a crash and restart.\nExit codes: 0 all passed, 1 a test failed, 2 usage, 130 interrupted.\n\nExamples:\n  millstream test queries/stock/groupby.test.sql\n  millstream test schema.sql trades.test.sql --filter late --cuts 50 --seed 7"
    )]
    Test(TestArgs),
    /// Look into a state directory.
    #[command(
        subcommand,
        after_help = "Examples:\n  millstream state inspect state\n  millstream state verify state\n  millstream state forget state results"
    )]
    State(StateCommand),
    /// Make trades, quotes or positions, over a socket or into files.
    #[command(
        after_help = "Examples:\n  millstream generate transaction --rate 10000 --listen 127.0.0.1:9999\n  millstream generate stock --sleep 10 --listen 127.0.0.1:9998\n  millstream generate transaction --rows 10000000 --out trades --files 4"
    )]
    Generate(GenerateArgs),
}

/// Where the SQL comes from.
#[derive(Debug, Clone, Default, Args)]
pub struct SourceArgs {
    /// SQL files, run in order.
    #[arg(value_name = "FILE.sql")]
    pub files: Vec<PathBuf>,
    /// SQL text, run after the files; may be given several times.
    #[arg(short = 'e', long = "execute", value_name = "SQL")]
    pub texts: Vec<String>,
    /// A duration for a window that names it: -p n='5 minutes'.
    #[arg(short = 'p', long = "parameter", value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub parameters: Vec<(String, String)>,
}

impl SourceArgs {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.texts.is_empty()
    }
}

/// What `sql` takes.
#[derive(Debug, Clone, Args)]
pub struct SqlArgs {
    /// The SQL; what is typed unless there is some.
    #[command(flatten)]
    pub source: SourceArgs,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// Ask a server in place of an engine in this process: grpc://USER:PASSWORD@HOST:PORT, grpc+tls://HOST:PORT.
    #[arg(long, value_name = "URL", env = "MILLSTREAM_CONNECT", hide_env_values = true)]
    pub connect: Option<String>,
    /// The token to show to the server.
    #[arg(long, value_name = "TOKEN", env = "MILLSTREAM_TOKEN", hide_env_values = true, requires = "connect")]
    pub token: Option<String>,
    /// Who has signed the server's certificate, as PEM.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_TLS_CA", requires = "connect")]
    pub tls_ca: Option<PathBuf>,
}

/// What `serve` takes; each option is above the environment, which is above the file.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    /// Where clients connect [default: 127.0.0.1:50051]; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", env = "MILLSTREAM_LISTEN")]
    pub listen: Option<SocketAddr>,
    /// The folder with all that is kept [default: millstream-data].
    #[arg(long, value_name = "DIR", env = "MILLSTREAM_DATA_DIR")]
    pub data_dir: Option<PathBuf>,
    /// What an acknowledged write survives [default: power_loss].
    #[arg(long, value_enum, env = "MILLSTREAM_DURABILITY")]
    pub durability: Option<Durability>,
    /// A TOML file with these options, and with users.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_CONFIG")]
    pub config: Option<PathBuf>,
    /// The server's certificate, as PEM.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_TLS_CERT", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,
    /// The key of the certificate, as PEM.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_TLS_KEY", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,
    /// Clients need a certificate that this one has signed, as PEM.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_TLS_CLIENT_CA", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,
    /// How long a SELECT over streams runs on whose connection was lost [default: 60].
    #[arg(long, value_name = "SECONDS", env = "MILLSTREAM_RESUME_SECONDS")]
    pub resume_seconds: Option<u64>,
    /// The longest time between two checkpoints of a query that has work [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, env = "MILLSTREAM_CHECKPOINT_INTERVAL")]
    pub checkpoint_interval: Option<Duration>,
    /// Wait while another server has the data directory, and take over when it is gone.
    #[arg(long)]
    pub standby: bool,
    /// Start so many executors on this machine and have the state of queries lie there.
    #[arg(long, value_name = "N", env = "MILLSTREAM_EXECUTORS", conflicts_with = "cluster",
        value_parser = clap::value_parser!(u16).range(1..=256))]
    pub executors: Option<u16>,
    /// Wait for executors of other machines and have the state of queries lie there.
    #[arg(long)]
    pub cluster: bool,
    /// Where executors register, and fetch rows at the next port [default: 127.0.0.1:50052].
    #[arg(long, value_name = "ADDR", env = "MILLSTREAM_CLUSTER_LISTEN")]
    pub cluster_listen: Option<SocketAddr>,
    /// The name of this machine for executors, if that is not the address.
    #[arg(long, value_name = "HOST", env = "MILLSTREAM_ADVERTISE")]
    pub advertise: Option<String>,
    /// How long an executor may be silent before it is given up [default: 1s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub executor_timeout: Option<Duration>,
    /// The memory for state of each executor that this server starts; half of the machine's in equal parts unless given.
    #[arg(long, value_name = "SIZE", value_parser = parse_log_limit, requires = "executors")]
    pub executor_memory: Option<u64>,
    /// How the processes of the cluster reach each other.
    #[command(flatten)]
    pub links: LinkArgs,
    /// Listen on other than loopback without TLS and users.
    #[arg(long)]
    pub insecure: bool,
    /// Print how the server would be set up, as a file of --config, and end.
    #[arg(long)]
    pub print_config: bool,
}

/// How the processes of a cluster reach each other: plainly unless all three are given.
#[derive(Debug, Clone, Default, Args)]
pub struct LinkArgs {
    /// Who must have signed the certificates of the other processes, as PEM.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_CLUSTER_CA", requires = "cluster_cert")]
    pub cluster_ca: Option<PathBuf>,
    /// The certificate of this process, as PEM, for both ends of a connection.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_CLUSTER_CERT", requires = "cluster_key")]
    pub cluster_cert: Option<PathBuf>,
    /// The key of the certificate, as PEM.
    #[arg(long, value_name = "FILE", env = "MILLSTREAM_CLUSTER_KEY", requires = "cluster_ca")]
    pub cluster_key: Option<PathBuf>,
}

/// What `executor` takes.
#[derive(Debug, Clone, Args)]
pub struct ExecutorArgs {
    /// Where the driver listens for executors.
    #[arg(long, value_name = "URL", env = "MILLSTREAM_DRIVER")]
    pub driver: String,
    /// Where rows come in, and questions at the next port; port 0 takes free ones.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0", env = "MILLSTREAM_EXECUTOR_LISTEN")]
    pub listen: SocketAddr,
    /// What it is called in the cluster, from one start to the next; a random name unless given.
    #[arg(long, value_name = "NAME", env = "MILLSTREAM_EXECUTOR_NAME")]
    pub name: Option<String>,
    /// The name of this machine for the others, if that is not the address.
    #[arg(long, value_name = "HOST", env = "MILLSTREAM_ADVERTISE")]
    pub advertise: Option<String>,
    /// The memory for state; half of the machine's unless given. What does not fit goes to disk.
    #[arg(long, value_name = "SIZE", value_parser = parse_log_limit)]
    pub memory_limit: Option<u64>,
    /// Where state goes that does not fit into memory; the system's folder for temporary files unless given.
    #[arg(long, value_name = "DIR")]
    pub spill_dir: Option<PathBuf>,
    /// Listen on other than loopback without certificates.
    #[arg(long)]
    pub insecure: bool,
    /// End when stdin does.
    #[arg(long, hide = true)]
    pub end_with_parent: bool,
    /// How it reaches the others.
    #[command(flatten)]
    pub links: LinkArgs,
}

/// What `test` takes.
#[derive(Debug, Clone, Args)]
pub struct TestArgs {
    /// SQL files, in order; those behind a file without tests build on it.
    #[arg(value_name = "FILE.sql", required = true)]
    pub files: Vec<PathBuf>,
    /// A duration for a window that names it: -p n='5 minutes'.
    #[arg(short = 'p', long = "parameter", value_name = "NAME=VALUE", value_parser = parse_parameter)]
    pub parameters: Vec<(String, String)>,
    /// Run only the tests that have this in their names.
    #[arg(long, value_name = "TEXT")]
    pub filter: Option<String>,
    /// What random cuts are made of: equal seeds give equal cuts.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Random cuts of the input into micro-batches, for each answer.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pub cuts: u64,
    /// Crashes and restarts at random places, for each answer.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub restarts: u64,
}

/// What `run` takes.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The SQL.
    #[command(flatten)]
    pub source: SourceArgs,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub format: Format,
    /// The least time between the starts of two micro-batches [default: 100ms].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub batch_interval: Option<Duration>,
    /// Write rows to a file instead of stdout.
    #[arg(long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Read a stream from files in place of its source, as a whole and in any order: --table trades='history/*.parquet'.
    #[arg(long = "table", value_name = "STREAM=PATH", value_parser = parse_table)]
    pub tables: Vec<(String, String)>,
    /// What outlives the process.
    #[command(flatten)]
    pub state: StateArgs,
}

/// What `run` keeps, and how often.
#[derive(Debug, Clone, Default, Args)]
pub struct StateArgs {
    /// Keep what the queries need to go on after a crash in this folder, or at s3://BUCKET/PREFIX, and go on from it.
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<StatePlace>,
    /// What an acknowledged write in the state directory survives.
    #[arg(long, value_enum, default_value_t = Durability::PowerLoss, requires = "state_dir")]
    pub durability: Durability,
    /// The longest time between two checkpoints of a query [default: 10s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "state_dir")]
    pub checkpoint_interval: Option<Duration>,
    /// Checkpoint after so many micro-batches at the latest [default: no such limit].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), requires = "state_dir")]
    pub checkpoint_epochs: Option<u64>,
    /// How long it may take to rebuild state after a crash; checkpoints come as often as that needs [default: 3s].
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "state_dir")]
    pub recovery_target: Option<Duration>,
    /// What the log of a stream that cannot be read again keeps before its sender waits, such as 512MiB [default: 4GiB].
    #[arg(long, value_name = "SIZE", value_parser = parse_log_limit, requires = "state_dir")]
    pub log_limit: Option<u64>,
    /// Go on in the input without the state of a query that has changed so that its state does not fit any more.
    #[arg(long, requires = "state_dir")]
    pub drop_state: bool,
}

/// What `state` does.
#[derive(Debug, Subcommand)]
pub enum StateCommand {
    /// Show what is kept of each query: checkpoints, lineage, files.
    Inspect {
        /// The state directory: a folder, or s3://BUCKET/PREFIX.
        dir: StatePlace,
    },
    /// Check every checksum and every reference.
    Verify {
        /// The state directory: a folder, or s3://BUCKET/PREFIX.
        dir: StatePlace,
    },
    /// Drop what is kept of a query, so that one of its name begins anew.
    Forget {
        /// The state directory: a folder, or s3://BUCKET/PREFIX.
        dir: StatePlace,
        /// The query, as `state inspect` names it.
        query: String,
    },
}

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[value(rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The power going off: every write is synced.
    #[default]
    PowerLoss,
    /// The death of the process: nothing is synced.
    ProcessCrash,
}

/// What `demo` takes.
#[derive(Debug, Clone, Args)]
pub struct DemoArgs {
    /// How long it runs.
    #[arg(long, value_name = "N", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub seconds: u64,
    /// Trades per second.
    #[arg(long, value_name = "ROWS", default_value_t = 50_000.0, value_parser = parse_positive)]
    pub rate: f64,
}

/// What `generate` takes.
#[derive(Debug, Clone, Args)]
pub struct GenerateArgs {
    /// Which stream.
    #[arg(value_enum)]
    pub kind: GeneratorKind,
    /// Serve rows to every client that connects here; port 0 takes a free one.
    #[arg(long, value_name = "ADDR", conflicts_with = "out", required_unless_present = "out")]
    pub listen: Option<String>,
    /// Write files into this folder.
    #[arg(long, value_name = "DIR", requires = "rows")]
    pub out: Option<PathBuf>,
    /// Rows per second; as fast as the client takes them unless given.
    #[arg(long, value_name = "R", conflicts_with = "sleep", value_parser = parse_positive)]
    pub rate: Option<f64>,
    /// Milliseconds to sleep between two rows.
    #[arg(long, value_name = "MS", value_parser = parse_not_negative)]
    pub sleep: Option<f64>,
    /// Rows for each client, or in all files together; endless unless given.
    #[arg(long, value_name = "N")]
    pub rows: Option<u64>,
    /// Stop after so many seconds.
    #[arg(long, value_name = "N")]
    pub seconds: Option<u64>,
    /// Files to spread the rows over.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub files: u32,
    /// How rows are written.
    #[arg(long, value_enum, default_value_t = TextFormat::Csv)]
    pub format: TextFormat,
    /// How many stocks there are.
    #[arg(long, default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub codes: u32,
    /// How many users there are.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000_000))]
    pub users: u32,
    /// Equal seeds give equal rows.
    #[arg(long, default_value_t = 42)]
    pub seed: u64,
    /// Rows per second of event time in files; sockets carry the time of sending.
    #[arg(long, value_name = "R", default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub event_rate: u64,
    /// The most that a row's event time is put back at random.
    #[arg(long, value_name = "DURATION", default_value = "0s", value_parser = parse_duration)]
    pub disorder: Duration,
    /// The share of rows, 0 to 1, that come late by --late-by.
    #[arg(long, value_name = "SHARE", default_value_t = 0.0, value_parser = parse_share)]
    pub late_share: f64,
    /// How late they come.
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = parse_duration)]
    pub late_by: Duration,
}

/// How rows are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Aligned columns under one header.
    Table,
    /// One header, then plain rows.
    Csv,
    /// One JSON object a line.
    Json,
}

/// How generated rows are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum TextFormat {
    /// Comma-separated; files have a header, sockets none.
    Csv,
    /// One JSON object a line.
    Json,
}

/// The generated streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum GeneratorKind {
    /// Trades: szcode, userID, eventTime, Turnover, Price.
    Transaction,
    /// Price changes: szcode, eventTime, lastPrice.
    Stock,
    /// Holdings: userID, szcode, eventTime, lastPrice, openInterest.
    Position,
}

fn parse_parameter(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() && !value.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err(format!("{text:?} is not NAME=VALUE; write for example n='5 minutes'")),
    }
}

fn parse_table(text: &str) -> Result<(String, String), String> {
    parse_parameter(text)
        .map_err(|_| format!("{text:?} is not STREAM=PATH; write for example trades='history/*.parquet'"))
}

/// `100ms`, `2s`, `1 minute`; a bare number counts seconds.
fn parse_duration(text: &str) -> Result<Duration, String> {
    let span = millstream_sql::parse_span(text).map_err(|error| error.to_string())?;
    Ok(Duration::from_nanos(span.0.unsigned_abs()))
}

/// `512MiB`, `4 GiB`, from 64 KiB on: a log of less would have no room for what is read at once.
fn parse_log_limit(text: &str) -> Result<u64, String> {
    const LEAST: u64 = 64 << 10;
    match millstream_engine::size::parse_size(text) {
        Some(bytes) if bytes >= LEAST => Ok(bytes),
        _ => Err(format!("{text:?} is not a size from 64 KiB on, such as 512MiB")),
    }
}

fn parse_positive(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("{text:?} is not a number above 0")),
    }
}

fn parse_not_negative(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok(number),
        _ => Err(format!("{text:?} is not a number from 0")),
    }
}

fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if (0.0..=1.0).contains(&number) => Ok(number),
        _ => Err(format!("{text:?} is not a share between 0 and 1")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
    }

    #[test]
    fn parameters_are_split_at_the_first_equals_sign() {
        assert_eq!(parse_parameter("n=5 minutes"), Ok(("n".to_owned(), "5 minutes".to_owned())));
        assert!(parse_parameter("n").is_err());
        assert!(parse_parameter("=5").is_err());
    }
}
