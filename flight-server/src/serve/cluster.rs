//! How a server says where its executors are.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cli::LinkArgs;
use crate::cluster::ClusterOptions;
use crate::error::{Error, Result};

/// The port at which executors register unless another one is given.
const PORT: u16 = 50_052;

/// How long executors of other machines have after the start: those that look for a driver do so every two seconds.
const SETTLING: Duration = Duration::from_millis(2_500);

/// The executors of a server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ClusterConfig {
    /// How many to start on this machine; they are waited for unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) executors: Option<u16>,
    /// Where they register.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) listen: Option<SocketAddr>,
    /// The name of this machine for them, if that is not the address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) advertise: Option<String>,
    /// How long one may be silent before it is given up.
    pub(super) executor_timeout_ms: u64,
    /// The memory for state of each that is started here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) executor_memory_bytes: Option<u64>,
    /// How they reach each other; plainly unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<ClusterTls>,
}

/// The files that both ends of a connection in the cluster need, as PEM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ClusterTls {
    /// Who must have signed the certificates.
    pub(super) ca: PathBuf,
    /// The certificate of this process.
    pub(super) cert: PathBuf,
    /// Its private key.
    pub(super) key: PathBuf,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            executors: None,
            listen: None,
            advertise: None,
            executor_timeout_ms: 1_000,
            executor_memory_bytes: None,
            tls: None,
        }
    }
}

impl ClusterConfig {
    /// Refuses what would let strangers in, or loses executors that are well.
    pub(super) fn check(&self, is_insecure: bool) -> Result<()> {
        if self.executor_timeout_ms < 100 {
            let message = format!("an executor cannot be silent for less than {} ms", self.executor_timeout_ms);
            return Err(Error::Usage(format!("{message}: give it 100 ms or more")));
        }
        let listen = self.address();
        if listen.ip().is_loopback() || self.tls.is_some() || is_insecure {
            return Ok(());
        }
        Err(Error::Usage(format!(
            "executors of other machines could register at {listen} without a certificate: give --cluster-ca, \
             --cluster-cert and --cluster-key, or say --insecure where the network is trusted"
        )))
    }

    fn address(&self) -> SocketAddr {
        // Executors of this machine are told the port.
        let port = if self.executors.is_some() { 0 } else { PORT };
        self.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], port)))
    }

    /// The same in the words of the cluster.
    pub(super) fn options(&self, data_dir: &Path) -> Result<ClusterOptions> {
        let tls = self.tls.as_ref();
        let links = LinkArgs {
            cluster_ca: tls.map(|tls| tls.ca.clone()),
            cluster_cert: tls.map(|tls| tls.cert.clone()),
            cluster_key: tls.map(|tls| tls.key.clone()),
        };
        let arguments = tls.map(|ClusterTls { ca, cert, key }| {
            let pairs = [("--cluster-ca", ca), ("--cluster-cert", cert), ("--cluster-key", key)];
            pairs.into_iter().flat_map(|(flag, path)| [OsString::from(flag), path.into()]).collect()
        });
        Ok(ClusterOptions {
            local: self.executors.map(usize::from),
            listen: self.address(),
            advertise: self.advertise.clone(),
            timeout: Duration::from_millis(self.executor_timeout_ms),
            settling: SETTLING,
            memory: self.executor_memory_bytes,
            links: links.links()?,
            link_arguments: arguments.unwrap_or_default(),
            folder: data_dir.to_owned(),
        })
    }
}

/// A duration in the milliseconds of the configuration.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_need_a_certificate() {
        let open = ClusterConfig { listen: "0.0.0.0:1".parse().ok(), ..ClusterConfig::default() };
        assert!(ClusterConfig::default().check(false).is_ok());
        assert!(open.check(false).is_err());
        assert!(open.check(true).is_ok());
        let pem = || PathBuf::from("x.pem");
        let tls = Some(ClusterTls { ca: pem(), cert: pem(), key: pem() });
        assert!(ClusterConfig { tls, ..open }.check(false).is_ok());
        assert!(ClusterConfig { executor_timeout_ms: 5, ..ClusterConfig::default() }.check(false).is_err());
    }
}
