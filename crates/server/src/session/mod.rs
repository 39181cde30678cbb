//! Sessions of clients: settings and prepared statements that belong to one client.
//!
//! A client that names a session uses it, if the session is its own; a client that names none uses the session of its
//! connection. How a client names a session, and learns its name, is up to the wire.

pub mod prepared;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_engine::{Engine, Session, SessionOptions};

use crate::auth::Identity;
use crate::session::prepared::PreparedStatements;

/// Sessions at most; the one that was idle longest is closed for a new one.
const SESSIONS_MAX: usize = 1_000;
/// A session that is idle for this long expires. A result that is still being sent counts as use.
const IDLE_MAX: Duration = Duration::from_secs(3_600);

/// The session of a client.
#[derive(Debug)]
pub struct ClientSession {
    /// Its name.
    pub id: String,
    /// The engine's session.
    pub session: Session,
    /// Its prepared statements.
    pub prepared: PreparedStatements,
    /// The client that it belongs to.
    identity: Identity,
    used_micros: AtomicI64,
}

/// A use of a session that lasts longer than a call: rows that are being sent or received. While it exists, the session
/// is not idle.
#[derive(Debug)]
pub struct InUse {
    session: Arc<ClientSession>,
    clock: Arc<dyn Clock>,
}

impl InUse {
    /// The engine's session.
    pub fn engine(&self) -> &Session {
        &self.session.session
    }

    /// Completes with an error when the server stops.
    pub fn stopped(&self) -> impl Future<Output = Error> + Send + use<> {
        self.session.identity.admission().stopped()
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.session.used_micros.store(self.clock.now_micros(), Ordering::Relaxed);
    }
}

/// All sessions.
#[derive(Debug)]
pub struct Sessions {
    engine: Engine,
    clock: Arc<dyn Clock>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    by_id: BTreeMap<String, Arc<ClientSession>>,
    /// The sessions of connections, by user.
    by_peer: BTreeMap<(Option<u64>, String), String>,
}

impl Sessions {
    /// Creates an empty set of sessions of this engine.
    pub fn new(engine: Engine) -> Self {
        let clock = engine.clock();
        Self { engine, clock, open: Mutex::default() }
    }

    /// Returns the session of a request; a new one where there is none. `id`: the session that it names; `peer`: the
    /// number of its connection.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] when it names a session that has ended.
    pub fn of(
        &self,
        identity: &Identity,
        id: Option<&str>,
        peer: Option<u64>,
    ) -> Result<Arc<ClientSession>> {
        let now = self.clock.now_micros();
        let mut open = self.open.lock();
        let session = match id {
            Some(id) => {
                open.expire(now);
                let known = open.by_id.get(id).filter(|s| s.identity == *identity);
                known.cloned().ok_or_else(over)?
            }
            None => {
                let peer = (peer, identity.name.clone());
                let known = open.by_peer.get(&peer).and_then(|id| open.by_id.get(id));
                let known = known.filter(|s| !is_idle(s, now) && s.identity == *identity).cloned();
                match known {
                    Some(session) => session,
                    None => self.begin(&mut open, peer, identity, now)?,
                }
            }
        };
        session.used_micros.store(now, Ordering::Relaxed);
        Ok(session)
    }

    /// Begins a use of a session.
    pub fn use_of(&self, session: &Arc<ClientSession>) -> InUse {
        InUse { session: Arc::clone(session), clock: Arc::clone(&self.clock) }
    }

    /// Ends a session.
    pub fn close(&self, session: &ClientSession) {
        self.open.lock().remove(&session.id);
    }

    fn begin(
        &self,
        open: &mut Open,
        peer: (Option<u64>, String),
        identity: &Identity,
        now: i64,
    ) -> Result<Arc<ClientSession>> {
        open.expire(now);
        if open.by_id.len() >= SESSIONS_MAX {
            let used = |s: &Arc<ClientSession>| (is_used(s), s.used_micros.load(Ordering::Relaxed));
            let oldest = open.by_id.values().min_by_key(|s| used(s)).map(|s| s.id.clone());
            if let Some(oldest) = oldest {
                open.remove(&oldest);
            }
        }
        let session = self.engine.session_of(SessionOptions::default(), identity.access());
        let session = Arc::new(ClientSession {
            id: unguessable(),
            session: session?,
            prepared: PreparedStatements::default(),
            identity: identity.clone(),
            used_micros: AtomicI64::new(now),
        });
        open.by_id.insert(session.id.clone(), Arc::clone(&session));
        open.by_peer.insert(peer, session.id.clone());
        Ok(session)
    }
}

impl Open {
    fn expire(&mut self, now: i64) {
        self.by_id.retain(|_, session| !is_idle(session, now));
        let by_id = &self.by_id;
        self.by_peer.retain(|_, id| by_id.contains_key(id));
    }

    fn remove(&mut self, id: &str) {
        self.by_id.remove(id);
        self.by_peer.retain(|_, session| session != id);
    }
}

/// Whether the session is held by anything but the list of all: a call, or a [use](InUse).
fn is_used(session: &Arc<ClientSession>) -> bool {
    Arc::strong_count(session) > 1
}

fn is_idle(session: &Arc<ClientSession>, now: i64) -> bool {
    let idle = now.saturating_sub(session.used_micros.load(Ordering::Relaxed));
    !is_used(session) && u128::try_from(idle).is_ok_and(|idle| idle > IDLE_MAX.as_micros())
}

fn over() -> Error {
    Error::new(ErrorKind::NotFound, "the session has ended")
        .with_hint("Connect again; settings and prepared statements are lost with it.")
}

/// Returns a name that cannot be guessed.
pub fn unguessable() -> String {
    format!("{:032x}", rand::random::<u128>())
}
