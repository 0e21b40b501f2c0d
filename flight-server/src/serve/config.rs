//! How a server is set up: a TOML file, the environment, flags, each above the one before.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::access::User;
use super::cluster::{ClusterConfig, ClusterTls, millis};
use super::confine::Confinement;
use super::roles::Role;
use crate::cli::{Durability, LinkArgs, ServeArgs};
use crate::cluster::ClusterOptions;
use crate::error::{Error, Result};

/// How a server is set up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Config {
    /// Where clients connect.
    pub(super) listen: SocketAddr,
    /// The folder with all that is kept.
    pub(super) data_dir: PathBuf,
    /// What an acknowledged write survives.
    pub(super) durability: Durability,
    /// The longest time between two checkpoints of a query that has work.
    pub(super) checkpoint_interval_ms: u64,
    /// Wait for another server to let go of the data directory.
    pub(super) standby: bool,
    /// Listen on other than loopback without TLS and users.
    pub(super) insecure: bool,
    /// How many clients are connected at the most.
    pub(super) max_connections: usize,
    /// How many SELECTs run at once at the most.
    pub(super) max_queries: usize,
    /// How long a statement may run that comes to its end by itself.
    pub(super) max_statement_seconds: u64,
    /// How many bytes the result of such a statement may have.
    pub(super) max_result_bytes: u64,
    /// How much memory the plans of one query may take; a part of that of all queries, and half of it unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_query_memory_bytes: Option<usize>,
    /// How long a SELECT over streams runs on whose connection was lost.
    pub(super) resume_seconds: u64,
    /// The folders that connectors may read and write; all unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allowed_paths: Option<Vec<PathBuf>>,
    /// The hosts that connectors may reach, with a port or without; all unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) allowed_hosts: Option<Vec<String>>,
    /// How connections are encrypted; not at all unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
    /// Where the state of queries lies: in this process unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<ClusterConfig>,
    /// What those may do who have other roles than reader, writer and admin.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) roles: Vec<Role>,
    /// Who may use the server; everybody if there is nobody.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) users: Vec<User>,
}

/// What one statement may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) statement: Duration,
    pub(super) result_bytes: u64,
}

/// The files that TLS needs, as PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Tls {
    /// The server's certificate and those above it.
    pub(super) cert: PathBuf,
    /// Its private key.
    pub(super) key: PathBuf,
    /// Who must have signed the certificates of clients; they need none unless given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) client_ca: Option<PathBuf>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 50051)),
            data_dir: PathBuf::from("millstream-data"),
            durability: Durability::PowerLoss,
            checkpoint_interval_ms: 10_000,
            standby: false,
            insecure: false,
            max_connections: 1_000,
            max_queries: 200,
            max_statement_seconds: 600,
            max_result_bytes: 4 << 30,
            max_query_memory_bytes: None,
            resume_seconds: 60,
            allowed_paths: None,
            allowed_hosts: None,
            tls: None,
            cluster: None,
            roles: Vec::new(),
            users: Vec::new(),
        }
    }
}

impl Config {
    /// What the arguments say, over the file that they name and the defaults.
    ///
    /// # Errors
    /// Fails for a file that cannot be read, and for a server that would be open to everybody without being told so.
    pub(super) fn load(args: &ServeArgs) -> Result<Self> {
        let mut config = args.config.as_deref().map_or_else(|| Ok(Self::default()), Self::read)?;
        if let Some(listen) = args.listen {
            config.listen = listen;
        }
        if let Some(folder) = &args.data_dir {
            config.data_dir.clone_from(folder);
        }
        if let Some(durability) = args.durability {
            config.durability = durability;
        }
        if let (Some(cert), Some(key)) = (&args.tls_cert, &args.tls_key) {
            config.tls = Some(Tls { cert: cert.clone(), key: key.clone(), client_ca: args.tls_client_ca.clone() });
        }
        if let Some(seconds) = args.resume_seconds {
            config.resume_seconds = seconds;
        }
        config.checkpoint_interval_ms = args.checkpoint_interval.map_or(config.checkpoint_interval_ms, millis);
        config.set_cluster(args);
        let of_cluster = [
            ("--executor-timeout", args.executor_timeout.is_some()),
            ("--advertise", args.advertise.is_some()),
            ("--cluster-ca", args.links.cluster_ca.is_some()),
        ];
        if let (None, Some((option, _))) = (&config.cluster, of_cluster.iter().find(|(_, is_given)| *is_given)) {
            return Err(Error::Usage(format!("{option} is for a server with --executors or --cluster")));
        }
        // Executors have other working directories.
        config.data_dir = std::path::absolute(&config.data_dir)
            .map_err(|source| Error::Io { context: format!("cannot use {}", config.data_dir.display()), source })?;
        config.standby |= args.standby;
        config.insecure |= args.insecure;
        config.check()?;
        Ok(config)
    }

    fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Io { context: format!("cannot read {}", path.display()), source })?;
        toml::from_str(&text).map_err(|error| Error::Usage(format!("{}: {error}", path.display())))
    }

    fn check(&self) -> Result<()> {
        if let Some(fault) = self.users.iter().find_map(User::fault) {
            return Err(Error::Usage(fault));
        }
        if let Some(cluster) = &self.cluster {
            cluster.check(self.insecure)?;
        }
        let is_guarded = self.tls.is_some() && !self.users.is_empty();
        if self.listen.ip().is_loopback() || is_guarded || self.insecure {
            return Ok(());
        }
        let listen = self.listen;
        Err(Error::Usage(format!(
            "{listen} is open to other machines: set up TLS and users, or say --insecure where the network is trusted"
        )))
    }

    /// What the arguments say of executors.
    fn set_cluster(&mut self, args: &ServeArgs) {
        let is_wanted = args.cluster || args.executors.is_some() || args.cluster_listen.is_some();
        if !is_wanted && self.cluster.is_none() {
            return;
        }
        let cluster = self.cluster.get_or_insert_default();
        if args.cluster {
            cluster.executors = None;
        }
        cluster.executors = args.executors.or(cluster.executors);
        cluster.listen = args.cluster_listen.or(cluster.listen);
        cluster.executor_timeout_ms = args.executor_timeout.map_or(cluster.executor_timeout_ms, millis);
        cluster.executor_memory_bytes = args.executor_memory.or(cluster.executor_memory_bytes);
        if let Some(advertise) = &args.advertise {
            cluster.advertise = Some(advertise.clone());
        }
        let LinkArgs { cluster_ca, cluster_cert, cluster_key } = &args.links;
        if let (Some(ca), Some(cert), Some(key)) = (cluster_ca, cluster_cert, cluster_key) {
            cluster.tls = Some(ClusterTls { ca: ca.clone(), cert: cert.clone(), key: key.clone() });
        }
    }

    /// How executors are found, if there are to be some.
    ///
    /// # Errors
    /// Names a certificate that cannot be used.
    pub(super) fn cluster_options(&self) -> Result<Option<ClusterOptions>> {
        self.cluster.as_ref().map(|cluster| cluster.options(&self.data_dir)).transpose()
    }

    /// What one statement may take.
    pub(super) const fn limits(&self) -> Limits {
        Limits { statement: Duration::from_secs(self.max_statement_seconds), result_bytes: self.max_result_bytes }
    }

    /// Where connectors may go.
    ///
    /// # Errors
    /// Names a folder that is not there.
    pub(super) fn confinement(&self) -> Result<Confinement> {
        let real = |path: &PathBuf| {
            let context = format!("the allowed path {} cannot be used", path.display());
            path.canonicalize().map_err(|source| Error::Io { context, source })
        };
        let paths = self.allowed_paths.as_ref().map(|paths| paths.iter().map(real).collect()).transpose()?;
        Ok(Confinement { paths, hosts: self.allowed_hosts.clone() })
    }

    /// The configuration as a file would have it.
    ///
    /// # Errors
    /// Fails only for paths that are no text.
    pub(super) fn to_toml(&self) -> Result<String> {
        toml::to_string_pretty(self)
            .map_err(|error| Error::Usage(format!("the configuration cannot be written: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn what_is_printed_can_be_read() {
        let written = config("listen = '127.0.0.1:1'\n[tls]\ncert = 'c'\nkey = 'k'\n").to_toml().unwrap();
        assert_eq!(config(&written).listen.port(), 1);
        assert!(toml::from_str::<Config>("lisen = '127.0.0.1:1'").is_err());
    }

    #[test]
    fn only_loopback_is_open_by_default() {
        assert!(Config::default().check().is_ok());
        assert!(config("listen = '0.0.0.0:50051'").check().is_err());
        assert!(config("listen = '0.0.0.0:50051'\ninsecure = true").check().is_ok());
        assert!(config("listen = '0.0.0.0:50051'\n[tls]\ncert = 'c'\nkey = 'k'\n").check().is_err());
    }
}
