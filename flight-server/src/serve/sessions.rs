//! What the server remembers of each client: settings, prepared statements, results that wait to be fetched.
//!
//! A session is that of a token that the handshake gave, of a cookie, or else of a connection. Handles are random and
//! known in their own session only.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::watch;
use tonic::Status;

use super::access::Identity;
use super::parameters::Template;
use super::statements::Pending;

/// How long a session is remembered that nobody uses.
const IDLE: Duration = Duration::from_secs(30 * 60);
/// How many sessions there are at the most; those that nobody used for longest go first.
const MAX_SESSIONS: usize = 10_000;
/// How many prepared statements and how many results a session has at the most; the oldest go first.
const MAX_STATEMENTS: usize = 1_000;
const MAX_RESULTS: usize = 100;

/// All sessions, by what they are known by.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Arc<Session>>>);

/// What is remembered of one client.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) user: Arc<Identity>,
    remembered: Mutex<Remembered>,
}

#[derive(Debug)]
struct Remembered {
    used: Instant,
    settings: BTreeMap<String, String>,
    statements: Handles<Prepared>,
    results: Handles<Waiting>,
}

/// A prepared statement and the values that its parameters were given last.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) template: Template,
    pub(super) rows: Mutex<Vec<Vec<String>>>,
}

/// A result that waits to be fetched, or is being fetched.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) pending: Pending,
    /// Becomes true when the client cancels it.
    pub(super) cancelled: watch::Sender<bool>,
}

/// Things by handle, the oldest forgotten first.
#[derive(Debug)]
struct Handles<T> {
    things: HashMap<Bytes, Arc<T>>,
    order: VecDeque<Bytes>,
    limit: usize,
}

impl<T> Handles<T> {
    fn new(limit: usize) -> Self {
        Self { things: HashMap::new(), order: VecDeque::new(), limit }
    }

    fn insert(&mut self, thing: T) -> Bytes {
        let handle = Bytes::copy_from_slice(uuid::Uuid::new_v4().as_bytes());
        self.things.insert(handle.clone(), Arc::new(thing));
        self.order.push_back(handle.clone());
        while self.order.len() > self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.things.remove(&oldest);
        }
        handle
    }

    fn remove(&mut self, handle: &Bytes) {
        self.things.remove(handle);
        self.order.retain(|known| known != handle);
    }
}

impl Sessions {
    fn all(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session known by `key`, if it is still remembered.
    pub(super) fn find(&self, key: &str) -> Option<Arc<Session>> {
        let session = self.all().get(key).cloned()?;
        session.touch();
        Some(session)
    }

    /// The session known by `key`; a new one of `user` unless there is one of them.
    pub(super) fn open(&self, key: &str, user: &Arc<Identity>) -> Arc<Session> {
        let mut all = self.all();
        if let Some(session) = all.get(key).filter(|session| session.user.name == user.name) {
            session.touch();
            return Arc::clone(session);
        }
        all.retain(|_, session| session.idle_for() < IDLE);
        if all.len() >= MAX_SESSIONS {
            let oldest = all.iter().max_by_key(|(_, session)| session.idle_for()).map(|(key, _)| key.clone());
            oldest.map(|key| all.remove(&key));
        }
        let session = Arc::new(Session::new(Arc::clone(user)));
        all.insert(key.to_owned(), Arc::clone(&session));
        session
    }

    /// Forgets a session.
    pub(super) fn close(&self, key: &str) {
        self.all().remove(key);
    }
}

impl Session {
    fn new(user: Arc<Identity>) -> Self {
        let remembered = Remembered {
            used: Instant::now(),
            settings: BTreeMap::new(),
            statements: Handles::new(MAX_STATEMENTS),
            results: Handles::new(MAX_RESULTS),
        };
        Self { user, remembered: Mutex::new(remembered) }
    }

    fn remembered(&self) -> MutexGuard<'_, Remembered> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn touch(&self) {
        self.remembered().used = Instant::now();
    }

    fn idle_for(&self) -> Duration {
        self.remembered().used.elapsed()
    }

    /// What was set in it.
    pub(super) fn settings(&self) -> BTreeMap<String, String> {
        self.remembered().settings.clone()
    }

    /// Sets something for the statements that follow.
    pub(super) fn set(&self, key: &str, value: &str) {
        self.remembered().settings.insert(key.to_owned(), value.to_owned());
    }

    /// Keeps a statement; its handle.
    pub(super) fn prepare(&self, template: Template) -> Bytes {
        self.remembered().statements.insert(Prepared { template, rows: Mutex::default() })
    }

    /// The statement of a handle.
    ///
    /// # Errors
    /// There is none, or no longer.
    pub(super) fn prepared(&self, handle: &Bytes) -> Result<Arc<Prepared>, Status> {
        let found = self.remembered().statements.things.get(handle).cloned();
        found.ok_or_else(|| Status::not_found("this session has no such prepared statement: prepare it again"))
    }

    /// Forgets a statement.
    pub(super) fn unprepare(&self, handle: &Bytes) {
        self.remembered().statements.remove(handle);
    }

    /// Keeps a result until it is fetched; its handle.
    pub(super) fn keep(&self, pending: Pending) -> Bytes {
        self.remembered().results.insert(Waiting { pending, cancelled: watch::channel(false).0 })
    }

    /// The result of a handle.
    ///
    /// # Errors
    /// There is none, or no longer.
    pub(super) fn result(&self, handle: &Bytes) -> Result<Arc<Waiting>, Status> {
        let found = self.remembered().results.things.get(handle).cloned();
        found.ok_or_else(|| Status::not_found("this session has no such result: run the statement again"))
    }
}

impl Prepared {
    /// Gives the parameters the values of each row.
    pub(super) fn bind(&self, rows: Vec<Vec<String>>) {
        *self.rows.lock().unwrap_or_else(PoisonError::into_inner) = rows;
    }

    /// The texts of the statement with its values, one for each row of them.
    ///
    /// # Errors
    /// Its parameters have no values.
    pub(super) fn texts(&self) -> Result<Vec<String>, Status> {
        let rows = self.rows.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if rows.is_empty() {
            return Ok(vec![self.template.fill(&[])?]);
        }
        rows.iter().map(|values| self.template.fill(values)).collect()
    }
}
