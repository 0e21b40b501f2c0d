//! How the processes of a cluster reach each other: plainly, or by TLS with a certificate on either side.
//!
//! A peer that does not answer must be noticed in the time that its loss may take, so every connection has short
//! timeouts and is asked whether it lives, on both of its ends.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::TcpListener;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server, ServerTlsConfig};

use crate::cli::LinkArgs;
use crate::error::{Error, Result};

/// How long it may take to connect; machines of a cluster are near.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(500);
/// How often a peer is asked whether it is there.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(1);
/// How long it has to answer that, and to agree on encryption.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);

/// How the processes of a cluster reach each other; clones share the certificates.
#[derive(Clone)]
pub(crate) struct Links {
    tls: Option<Arc<MutualTls>>,
}

/// What a process shows to its peers, and who must have signed what they show.
struct MutualTls {
    ca: Certificate,
    identity: Identity,
}

impl LinkArgs {
    /// The links that the arguments describe.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(crate) fn links(&self) -> Result<Links> {
        match (&self.cluster_ca, &self.cluster_cert, &self.cluster_key) {
            (Some(ca), Some(cert), Some(key)) => Links::mutual_tls(ca, cert, key),
            _ => Ok(Links::plain()),
        }
    }
}

impl Links {
    /// Links without encryption, for one machine or a network that is trusted.
    pub(crate) const fn plain() -> Self {
        Self { tls: None }
    }

    /// Links on which both ends show a certificate that `ca` has signed; all three are PEM files.
    ///
    /// # Errors
    /// Names the file that cannot be used, and what should be in it.
    pub(crate) fn mutual_tls(ca: &Path, certificate: &Path, key: &Path) -> Result<Self> {
        // Of the two that the tree has; the first to be installed stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let ca_pem = certificates(ca)?;
        let identity = Identity::from_pem(certificates(certificate)?, private_key(key)?);
        let links = Self { tls: Some(Arc::new(MutualTls { ca: Certificate::from_pem(ca_pem), identity })) };
        // Whether the key is that of the certificate is found out only by using them.
        links.server().map_err(|error| match error {
            Error::Io { source, .. } => Error::Io { context: unusable_pair(certificate, key), source },
            other => other,
        })?;
        Ok(links)
    }

    /// Where to connect for a URL such as `http://10.0.0.7:50061`; nothing is connected yet.
    ///
    /// # Errors
    /// Fails for what is no such URL, and for one that is encrypted where the cluster is not, or the other way round.
    pub(crate) fn endpoint(&self, url: &str) -> Result<Endpoint> {
        let endpoint = Endpoint::from_shared(self.http_url(url)?).map_err(|_| self.bad_url(url))?;
        if endpoint.uri().host().is_none_or(str::is_empty) || endpoint.uri().port_u16().is_none() {
            return Err(self.bad_url(url));
        }
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let Some(tls) = &self.tls else { return Ok(endpoint) };
        let config = ClientTlsConfig::new()
            .ca_certificate(tls.ca.clone())
            .identity(tls.identity.clone())
            .timeout(KEEP_ALIVE_TIMEOUT);
        endpoint.tls_config(config).map_err(unusable_tls)
    }

    /// What peers connect to; whatever it serves, they must show their certificates where there are any.
    ///
    /// # Errors
    /// Fails for certificates that cannot be used.
    pub(crate) fn server(&self) -> Result<Server> {
        let server = Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE_INTERVAL))
            .http2_keepalive_timeout(Some(KEEP_ALIVE_TIMEOUT))
            .tcp_nodelay(true);
        let Some(tls) = &self.tls else { return Ok(server) };
        let config = ServerTlsConfig::new()
            .identity(tls.identity.clone())
            .client_ca_root(tls.ca.clone())
            .timeout(KEEP_ALIVE_TIMEOUT);
        server.tls_config(config).map_err(unusable_tls)
    }

    /// The scheme of the URLs of this cluster's processes.
    pub(crate) const fn scheme(&self) -> &'static str {
        if self.tls.is_some() { "https" } else { "http" }
    }

    /// The URL with `http` or `https` in front; those of Flight mean the same, and `serve` prints one.
    fn http_url(&self, url: &str) -> Result<String> {
        let (scheme, rest) = url.split_once("://").ok_or_else(|| self.bad_url(url))?;
        let scheme = match scheme {
            "http" | "grpc" | "grpc+tcp" => "http",
            "https" | "grpcs" | "grpc+tls" => "https",
            _ => return Err(self.bad_url(url)),
        };
        match (scheme, &self.tls) {
            ("http", Some(_)) => Err(Error::Usage(format!(
                "{url} is not encrypted, but this process has certificates for the cluster: write https://{rest}"
            ))),
            ("https", None) => Err(Error::Usage(format!(
                "{url} is encrypted: give this process the certificates of the cluster, or write http://{rest}"
            ))),
            _ => Ok(format!("{scheme}://{rest}")),
        }
    }

    fn bad_url(&self, url: &str) -> Error {
        let scheme = self.scheme();
        Error::Usage(format!("{url:?} is no process of a cluster: write {scheme}://HOST:PORT"))
    }
}

impl fmt::Debug for Links {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Links").field("scheme", &self.scheme()).finish_non_exhaustive()
    }
}

/// The connections of a listener as a server takes them.
///
/// A server's own `TCP_NODELAY` is only for listeners that it opens itself, and without it each answer takes 40 ms more.
pub(crate) fn incoming(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// A PEM file with certificates.
fn certificates(path: &Path) -> Result<Vec<u8>> {
    let pem = read(path, "certificates")?;
    match CertificateDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(unusable_file(path, "no certificate", "BEGIN CERTIFICATE")),
    }
}

/// A PEM file with a private key.
fn private_key(path: &Path) -> Result<Vec<u8>> {
    let pem = read(path, "private key")?;
    match PrivateKeyDer::from_pem_slice(&pem) {
        Ok(_) => Ok(pem),
        Err(_) => Err(unusable_file(path, "no private key that can be read without a password", "BEGIN PRIVATE KEY")),
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io {
        context: format!("cannot read {}: the cluster needs its {what} as a PEM file there", path.display()),
        source,
    })
}

fn unusable_file(path: &Path, missing: &str, label: &str) -> Error {
    Error::Usage(format!("{} has {missing}: give a PEM file with a line -----{label}-----", path.display()))
}

fn unusable_pair(certificate: &Path, key: &Path) -> String {
    let (certificate, key) = (certificate.display(), key.display());
    format!("{certificate} and {key} cannot be used together: give the key that the certificate was made for")
}

fn unusable_tls(error: tonic::transport::Error) -> Error {
    Error::Io {
        context: "the certificates of the cluster cannot be used".to_owned(),
        source: std::io::Error::other(error),
    }
}

/// The address whose port comes after that of another one; any that is free if that is.
pub(crate) const fn next_port(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), if address.port() == 0 { 0 } else { address.port().saturating_add(1) })
}

/// Listens at an address.
///
/// # Errors
/// Says which one cannot be listened on.
pub(crate) async fn listen_on(address: SocketAddr) -> Result<TcpListener> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|source| Error::Io { context: format!("cannot listen on {address}"), source })
}

/// By which URL others reach a listener; `host` is the name of this machine for them, if that is not the address.
///
/// # Errors
/// Fails if there is no such URL.
pub(crate) fn advertised(links: &Links, listener: &TcpListener, host: Option<&str>) -> Result<String> {
    let address = listener.local_addr().map_err(|source| Error::Io { context: "an address".to_owned(), source })?;
    let host = match (host, address.ip()) {
        (Some(host), _) => host.to_owned(),
        (None, ip) if ip.is_unspecified() => {
            return Err(Error::Usage(format!(
                "others cannot connect to {address}: name this machine with --advertise"
            )));
        }
        (None, IpAddr::V6(ip)) => format!("[{ip}]"),
        (None, IpAddr::V4(ip)) => ip.to_string(),
    };
    Ok(format!("{}://{host}:{}", links.scheme(), address.port()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(url: &str, hint: &str) {
        let said = Links::plain().endpoint(url).unwrap_err().to_string();
        assert!(said.contains(url) && said.contains(hint), "{said}");
    }

    #[test]
    fn urls_without_a_scheme_a_host_or_a_port_are_refused_with_a_hint() {
        for url in
            ["ftp://a:1", "unix:///tmp/a", "127.0.0.1:50061", "http://", "http://host", "http://:1", "http://a b:1"]
        {
            refused(url, "write http://HOST:PORT");
        }
    }

    #[test]
    fn an_encrypted_url_is_refused_by_a_plain_process() {
        refused("https://host:1", "write http://host:1");
        refused("grpc+tls://host:1", "certificates of the cluster");
    }

    #[test]
    fn what_serve_prints_is_a_url_of_a_driver() {
        for url in ["http://127.0.0.1:50061", "grpc://127.0.0.1:50061", "grpc://[::1]:50061"] {
            let endpoint = Links::plain().endpoint(url).unwrap();
            assert_eq!(endpoint.uri().scheme_str(), Some("http"));
            assert_eq!(endpoint.uri().port_u16(), Some(50061));
        }
    }

    #[test]
    fn a_file_that_is_missing_or_has_something_else_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("text.pem"), "no PEM").unwrap();
        let missing = Links::mutual_tls(&path("ca.pem"), &path("a.pem"), &path("a.key")).unwrap_err();
        assert!(missing.render().contains("ca.pem: the cluster needs its certificates"), "{}", missing.render());
        let other = Links::mutual_tls(&path("text.pem"), &path("a.pem"), &path("a.key")).unwrap_err();
        assert!(other.to_string().contains("text.pem has no certificate"), "{other}");
    }

    #[test]
    fn debug_shows_no_certificates() {
        assert_eq!(format!("{:?}", Links::plain()), "Links { scheme: \"http\", .. }");
    }
}
