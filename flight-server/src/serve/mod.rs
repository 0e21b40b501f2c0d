//! `millstream serve`: one engine that several people and programs share over the network.
//!
//! ```text
//!   Flight SQL clients ─ gRPC ─┐                      ┌─ sessions: settings, prepared statements, results
//!   curl ─────────────── HTTP ─┼─► one port ─► Server ┼─ access: users, roles
//!   health checks ─────────────┘                      └─ Engine ─► DIR: catalog, state, logs of pushed streams
//! ```
//!
//! Reading order: `flight` has the calls, `statements` what a statement gives, `results` how rows are sent, `selects` and
//! `spool` how those of endless queries are, `ingest` and `http` how rows come in, `access` and `roles` who may do what.

mod access;
mod cluster;
mod config;
mod confine;
mod flight;
mod following;
mod http;
mod ingest;
mod listen;
mod metadata;
mod options;
mod parameters;
mod results;
mod roles;
mod selects;
mod sessions;
mod spool;
mod statements;
mod status;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic::service::Routes;
use tonic::transport::{Certificate, Identity, Server as Transport, ServerTlsConfig};

use crate::cli::{ServeArgs, StateArgs};
use crate::cluster::Cluster;
use crate::embed::Engine;
use crate::error::{Error, Result};
use access::Access;
use config::{Config, Limits, Tls};
use confine::Confinement;
use flight::Service;
use listen::Connection;
use results::becomes_true;
use selects::Selects;
use sessions::{Session, Sessions};

/// The largest message that is taken, in bytes: clients send a batch in one.
const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// How many bodies of HTTP requests are in memory at once.
const MAX_BODIES: usize = 32;
/// How long clients have to leave when the server stops.
const GRACE: Duration = Duration::from_secs(5);
/// How often a silent connection is asked whether it is alive.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// How often a standby looks whether it can take over.
const STANDBY_LOOK: Duration = Duration::from_millis(500);
/// How much of a connection's data is on its way before it is taken, in bytes.
const WINDOW_BYTES: u32 = 8 << 20;

/// How large the pieces are in which clients may send their messages, in bytes: small ones are copied together.
const FRAME_BYTES: u32 = 1 << 20;

/// What all calls share.
#[derive(Debug)]
struct Server {
    engine: Engine,
    sessions: Sessions,
    access: Access,
    confinement: Confinement,
    limits: Limits,
    /// The SELECTs over streams that run.
    selects: Arc<Selects>,
    /// One place for each SELECT that may run at once.
    places: Arc<Semaphore>,
    /// One place for each body of a request that may be in memory at once.
    bodies: Semaphore,
    /// Becomes true when the server stops.
    stop: watch::Receiver<bool>,
}

/// Serves until `stop` becomes true.
///
/// # Errors
/// Fails if it cannot listen, and if the data directory cannot be used.
pub async fn run(args: &ServeArgs, mut stop: watch::Receiver<bool>) -> Result<()> {
    let config = Config::load(args)?;
    if args.print_config {
        return print(&config.to_toml()?);
    }
    let tls = config.tls.as_ref().map(tls).transpose()?;
    let confinement = config.confinement()?;
    let access = Access::new(&config.users, &config.roles).map_err(Error::Usage)?;
    let listener = TcpListener::bind(config.listen).await.map_err(|source| cannot_listen(config.listen, source))?;
    let address = listener.local_addr().map_err(|source| cannot_listen(config.listen, source))?;
    let Some((engine, cluster)) = open(&config, &mut stop).await? else { return Ok(()) };
    let server = Arc::new(Server {
        engine: engine.clone(),
        sessions: Sessions::default(),
        access,
        confinement,
        limits: config.limits(),
        selects: Selects::new(Duration::from_secs(config.resume_seconds)),
        places: Arc::new(Semaphore::new(config.max_queries)),
        bodies: Semaphore::new(MAX_BODIES),
        stop: stop.clone(),
    });
    let scheme = if tls.is_some() { "grpc+tls" } else { "grpc" };
    print(&format!("millstream listens on {scheme}://{address}\n"))?;
    if let Some(cluster) = &cluster {
        print(&format!("executors register at {}\n", cluster.url()))?;
    }
    let served = serve(&server, listener, config.max_connections, tls, stop).await;
    // A query that does not end in this time is left to the end of the process.
    let _ = tokio::time::timeout(GRACE, engine.stop()).await;
    if let Some(cluster) = cluster {
        cluster.end().await;
    }
    served
}

/// Prints the hash of a secret that stands on stdin, for the configuration.
///
/// # Errors
/// Fails if stdin cannot be read or is empty.
pub fn hash() -> Result<()> {
    let mut secret = String::new();
    std::io::stdin()
        .read_line(&mut secret)
        .map_err(|source| Error::Io { context: "cannot read stdin".to_owned(), source })?;
    let secret = secret.trim_end_matches(['\n', '\r']);
    if secret.is_empty() {
        return Err(Error::Usage("write the password or token to stdin".to_owned()));
    }
    let hash = access::hash(secret).map_err(|error| Error::Usage(format!("the secret cannot be hashed: {error}")))?;
    print(&format!("{hash}\n"))
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(|source| Error::Io { context: "cannot write to stdout".to_owned(), source })
}

fn cannot_listen(address: SocketAddr, source: std::io::Error) -> Error {
    Error::Io { context: format!("cannot listen on {address}"), source }
}

/// Opens the engine; a standby waits until it can. None if it is stopped before.
async fn open(config: &Config, stop: &mut watch::Receiver<bool>) -> Result<Option<(Engine, Option<Arc<Cluster>>)>> {
    let checkpoint_interval = Some(Duration::from_millis(config.checkpoint_interval_ms));
    let args = StateArgs { durability: config.durability, checkpoint_interval, ..StateArgs::default() };
    let mut has_said = false;
    loop {
        match Engine::open(&config.data_dir, &args, config.max_query_memory_bytes, config.cluster_options()?).await {
            Err(Error::Engine(error)) if config.standby && error.is_in_use() => {
                if !std::mem::replace(&mut has_said, true) {
                    print(&format!("millstream stands by for {}\n", config.data_dir.display()))?;
                }
            }
            opened => return opened.map(Some),
        }
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => return Ok(None),
            () = tokio::time::sleep(STANDBY_LOOK) => {}
        }
    }
}

/// How connections are encrypted.
fn tls(tls: &Tls) -> Result<ServerTlsConfig> {
    // Of the two that the tree has; the first to be installed stays.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let identity = Identity::from_pem(read(&tls.cert)?, read(&tls.key)?);
    let config = ServerTlsConfig::new().identity(identity);
    Ok(match &tls.client_ca {
        Some(path) => config.client_ca_root(Certificate::from_pem(read(path)?)),
        None => config,
    })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|source| Error::Io { context: format!("cannot read {}", path.display()), source })
}

async fn serve(
    server: &Arc<Server>,
    listener: TcpListener,
    max_connections: usize,
    tls: Option<ServerTlsConfig>,
    mut stop: watch::Receiver<bool>,
) -> Result<()> {
    let flight = FlightServiceServer::new(Service(Arc::clone(server)))
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(usize::MAX);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<FlightServiceServer<Service>>().await;
    let routes = Routes::new(flight).add_service(health_service);
    // HTTP paths beside those of gRPC, on the same port.
    let routes = Routes::from(routes.into_axum_router().merge(http::routes(Arc::clone(server))));
    let transport = Transport::builder()
        .accept_http1(true)
        .initial_connection_window_size(WINDOW_BYTES)
        .initial_stream_window_size(WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE));
    let failed = |error: tonic::transport::Error| Error::Io {
        context: "the server has failed".to_owned(),
        source: std::io::Error::other(error),
    };
    let mut transport = match tls {
        Some(tls) => transport.tls_config(tls).map_err(failed)?,
        None => transport,
    };
    let patience = stop.clone();
    let stopped = async move {
        // Its sender lives as long as the process.
        let _ = stop.wait_for(|stop| *stop).await;
        health.set_not_serving::<FlightServiceServer<Service>>().await;
    };
    let incoming = listen::connections(listener, max_connections);
    tokio::select! {
        served = transport.add_routes(routes).serve_with_incoming_shutdown(incoming, stopped) => served.map_err(failed),
        // Whoever is silent would keep it from ending.
        () = async {
            becomes_true(patience).await;
            tokio::time::sleep(GRACE).await;
        } => Ok(()),
    }
}

impl Server {
    /// The session of a call, by its token, its password, or its connection where everybody may connect.
    async fn session(&self, metadata: &MetadataMap, connection: Option<Connection>) -> Result<Arc<Session>, Status> {
        let key = session_key(metadata, connection);
        let Some(authorization) = authorization(metadata) else {
            let anybody = self.access.anybody();
            let anybody = anybody.ok_or_else(|| Status::unauthenticated("send a token, or a name and a password"))?;
            return Ok(self.sessions.open(&key, anybody));
        };
        if let Some(session) = self.sessions.find(&key) {
            return Ok(session);
        }
        let user = match authorization.split_once(' ') {
            Some(("Bearer", token)) => self.access.by_token(token.trim()).await?,
            Some(("Basic", encoded)) => {
                let (name, password) = basic(encoded)?;
                self.access.by_password(&name, &password).await?
            }
            _ => return Err(unknown_scheme()),
        };
        tracing::info!(target: "millstream::audit", user = user.name, "logged in");
        Ok(self.sessions.open(&key, &user))
    }

    /// A token for whoever has this authorization: a new one, or the one that it is.
    async fn token_for(&self, authorization: &str) -> Result<String, Status> {
        match authorization.split_once(' ') {
            Some(("Basic", encoded)) => {
                let (name, password) = basic(encoded)?;
                self.token_of(&name, &password).await
            }
            Some(("Bearer", token)) => {
                let key = format!("Bearer {}", token.trim());
                if self.sessions.find(&key).is_none() {
                    let user = self.access.by_token(token.trim()).await?;
                    self.sessions.open(&key, &user);
                }
                Ok(token.trim().to_owned())
            }
            _ => Err(unknown_scheme()),
        }
    }

    /// A new token for a user, with a session of its own.
    async fn token_of(&self, name: &str, password: &str) -> Result<String, Status> {
        let user = self.access.by_password(name, password).await?;
        tracing::info!(target: "millstream::audit", user = user.name, "logged in");
        let token = format!("{}{}", uuid::Uuid::new_v4().simple(), uuid::Uuid::new_v4().simple());
        self.sessions.open(&format!("Bearer {token}"), &user);
        Ok(token)
    }

    /// Forgets the session of a call.
    fn close(&self, metadata: &MetadataMap, connection: Option<Connection>) {
        self.sessions.close(&session_key(metadata, connection));
    }
}

/// What a session is known by: what the call is authorized with, or its connection.
fn session_key(metadata: &MetadataMap, connection: Option<Connection>) -> String {
    match (authorization(metadata), connection) {
        (Some(authorization), _) => authorization.to_owned(),
        (None, Some(connection)) => connection.to_string(),
        (None, None) => "nobody".to_owned(),
    }
}

fn authorization(metadata: &MetadataMap) -> Option<&str> {
    metadata.get("authorization").and_then(|value| value.to_str().ok())
}

fn basic(encoded: &str) -> Result<(String, String), Status> {
    let decoded = STANDARD.decode(encoded.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
    let (name, password) = pair.ok_or_else(|| Status::unauthenticated("the name and password cannot be read"))?;
    Ok((name.to_owned(), password.to_owned()))
}

fn unknown_scheme() -> Status {
    Status::unauthenticated("the authorization is neither Bearer nor Basic")
}
