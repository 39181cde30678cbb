//! The lease of a data directory in an object store: the object `LOCK`, renewed while it is held.
//!
//! ```text
//! take ──► held ──► renewed, every 10 s ──► … ──► released
//!            │ no response for 30 s: writes are refused until it responds again
//!            └ another process has taken it: writes are refused for ever
//! ```
//! A process that finds the lease of another takes it only when that process is known to have ended: on the same
//! machine by its process id, elsewhere when the lease was not renewed for its whole duration, by the finder's own
//! clock. Invariants: `LOCK` changes only over the version that was seen, so that only one of two contenders gets it;
//! the holder stops writing before its time is over.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

use object_store::path::Path as Key;
use object_store::{ObjectStoreExt, PutMode, PutOptions, PutPayload};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use windrow_core::{Clock, Error, ErrorKind, Result};

use super::client::{self, Client, over, to_io};
use super::off_reactor;
use crate::files::{Lock, in_use, io_error};

/// Duration of a lease after it was renewed.
const LEASE: Duration = Duration::from_secs(30);
/// Time from one renewal to the next.
const RENEWAL: Duration = Duration::from_secs(10);
/// Time from a failed renewal to the next attempt, and between two reads of another process's lease.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the exit of a process waits until its lease is released.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Whether this process may write.
#[derive(Debug)]
pub(super) struct Held {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// Not taken yet, or released.
    Not,
    /// Until this time, in µs since the Unix epoch.
    Until(i64),
    /// Another process has it.
    Lost(String),
}

impl Held {
    pub(super) fn new(dir: &Path, clock: Arc<dyn Clock>) -> Self {
        Self { dir: dir.to_owned(), clock, state: Mutex::new(State::Not) }
    }

    /// Checks that this process may write now.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when it may not.
    pub(super) fn check(&self) -> Result<()> {
        let dir = self.dir.display();
        let (message, hint) = match &*self.state.lock() {
            State::Until(end) if self.clock.now_micros() < *end => return Ok(()),
            State::Until(_) => (
                format!(
                    "the lease of data directory \"{dir}\" has expired: its store does not respond"
                ),
                "Writing resumes when the store responds, unless another process has taken the lease.",
            ),
            State::Lost(to) => (
                format!("data directory \"{dir}\" was taken over by {to}"),
                "Nothing that was acknowledged is lost. Stop one of the two processes.",
            ),
            State::Not => {
                (format!("data directory \"{dir}\" is closed"), "Open the data directory again.")
            }
        };
        Err(Error::new(ErrorKind::Unavailable, message).with_hint(hint))
    }

    /// Behaves as if it were held for ever.
    #[cfg(test)]
    pub(super) fn assume(&self) {
        self.set(State::Until(i64::MAX));
    }

    /// Behaves as if it had expired.
    #[cfg(test)]
    pub(super) fn run_out(&self) {
        self.set(State::Until(i64::MIN));
    }

    fn set(&self, state: State) {
        *self.state.lock() = state;
    }
}

/// The contents of `LOCK`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Holder {
    /// Distinguishes one opening from another.
    owner: String,
    host: String,
    pid: u32,
    /// The machine, its boot, and the pid namespace of `pid`, where the system reports them.
    machine: Option<String>,
    /// The start time of the process, as the system reports it.
    started: Option<String>,
    /// Seconds for which it lasts after it was renewed.
    seconds: u64,
    /// The number of renewals.
    renewed: u64,
    released: bool,
}

/// What is known of a holder.
enum Standing {
    Free,
    Alive,
    Unknown,
}

impl Holder {
    fn me(owner: &str) -> Self {
        let pid = std::process::id();
        Self {
            owner: owner.to_owned(),
            host: system_file("/proc/sys/kernel/hostname").unwrap_or_default(),
            pid,
            machine: machine(),
            started: started(pid),
            seconds: LEASE.as_secs(),
            renewed: 0,
            released: false,
        }
    }

    fn standing(&self) -> Standing {
        if self.released {
            return Standing::Free;
        }
        if self.machine.is_none() || self.machine != machine() || self.started.is_none() {
            return Standing::Unknown;
        }
        if started(self.pid) == self.started { Standing::Alive } else { Standing::Free }
    }

    fn shown(&self) -> String {
        let here = self.machine.is_some() && self.machine == machine();
        match (here, self.pid == std::process::id()) {
            (true, true) => "this process".to_owned(),
            (true, false) => format!("another process (pid {})", self.pid),
            (false, _) => format!("another process (pid {} on \"{}\")", self.pid, self.host),
        }
    }

    fn bytes(&self) -> object_store::Result<bytes::Bytes> {
        let text = serde_json::to_vec(self);
        let text = text
            .map_err(|e| object_store::Error::Generic { store: "windrow", source: Box::new(e) });
        text.map(Into::into)
    }
}

/// Reads a short file provided by the system.
fn system_file(path: &str) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// Identifies this machine since its boot, and its pid namespace.
fn machine() -> Option<String> {
    let boot = system_file("/proc/sys/kernel/random/boot_id")?;
    let numbers = std::fs::read_link("/proc/self/ns/pid").ok()?;
    Some(format!("{boot} {}", numbers.display()))
}

/// Returns the start time of the process with this pid; `None` when it does not exist (any more).
fn started(pid: u32) -> Option<String> {
    let stat = system_file(&format!("/proc/{pid}/stat"))?;
    // The name, in brackets, may contain anything.
    let (_, rest) = stat.rsplit_once(')')?;
    let mut words = rest.split_whitespace();
    let state = words.next()?;
    // The 22nd of all; the state is the third.
    let ended = ["Z", "X"].contains(&state);
    words.nth(18).filter(|_| !ended).map(str::to_owned)
}

/// The lease; it is released when this is dropped.
#[derive(Debug)]
pub(super) struct Lease {
    stop: Option<oneshot::Sender<()>>,
    ended: Mutex<Receiver<()>>,
}

impl Lock for Lease {}

impl Lease {
    /// Takes the lease of `dir`. Waits for the duration of a lease when it cannot be determined otherwise whether its
    /// holder has ended.
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`] when another process has it, or the store does not respond.
    pub(super) fn take(
        client: &Arc<Client>,
        dir: &Path,
        held: Arc<Held>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let path = dir.join("LOCK");
        let failed = |e| io_error("lock", &path, e);
        let key = client.key(&path).map_err(failed)?;
        let me = Holder::me(client.owner());
        let mut keeper = LeaseRenewal { client: Arc::clone(client), key, me, held, clock };
        let at = dir.to_owned();
        let taken = client.wait(async move {
            let version = keeper.take(&at).await?;
            keeper.check_conditions(&at).await?;
            Ok::<_, Error>((keeper, version))
        });
        let (keeper, version) = taken.map_err(failed)??;
        let (stop, stopped) = oneshot::channel();
        let (end, ended) = sync_channel(1);
        client.threads().handle().spawn(async move {
            keeper.keep(version, stopped).await;
            if end.send(()).is_err() {
                tracing::debug!("nothing waits for the lease to be released");
            }
        });
        Ok(Self { stop: Some(stop), ended: Mutex::new(ended) })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.stop.take());
        if off_reactor(|| self.ended.lock().recv_timeout(RELEASE_TIMEOUT)).is_err() {
            tracing::warn!("the lease of the data directory was not released and will expire");
        }
    }
}

/// The task that takes and renews the lease.
struct LeaseRenewal {
    client: Arc<Client>,
    key: Key,
    me: Holder,
    held: Arc<Held>,
    clock: Arc<dyn Clock>,
}

impl LeaseRenewal {
    /// Takes the lease; returns its version.
    async fn take(&mut self, dir: &Path) -> Result<String> {
        let path = dir.join("LOCK");
        let failed = |e| io_error("lock", &path, to_io(e, &path));
        let mut waiting: Option<(String, i64)> = None;
        loop {
            let mode = match self.holder().await.map_err(failed)? {
                None => PutMode::Create,
                Some((version, holder)) => {
                    let holder = holder.unwrap_or_else(|| Holder {
                        machine: None,
                        released: false,
                        ..self.me.clone()
                    });
                    match (holder.standing(), &waiting) {
                        (Standing::Free, _) => over(version),
                        (Standing::Alive, _) => return Err(in_use(dir, &holder.shown())),
                        (Standing::Unknown, None) => {
                            tracing::warn!(
                                "data directory \"{}\" was used by {}; it can be opened in {} s \
                                 if that process has ended",
                                dir.display(),
                                holder.shown(),
                                holder.seconds
                            );
                            waiting = Some((version, self.clock.now_micros()));
                            self.clock.sleep(PAUSE).await;
                            continue;
                        }
                        (Standing::Unknown, Some((seen, _))) if *seen != version => {
                            return Err(in_use(dir, &holder.shown()));
                        }
                        (Standing::Unknown, Some((_, since))) => {
                            let waited = self.clock.now_micros().saturating_sub(*since);
                            if u64::try_from(waited / 1_000_000).unwrap_or(0) < holder.seconds {
                                self.clock.sleep(PAUSE).await;
                                continue;
                            }
                            over(version)
                        }
                    }
                }
            };
            return match self.put(mode).await {
                Ok(version) => Ok(version),
                Err(
                    object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. },
                ) => Err(in_use(dir, "another process, which opened it first")),
                Err(e) => Err(failed(e)),
            };
        }
    }

    /// Refuses a store that overwrites an existing object despite the condition: it cannot guarantee a single writer.
    async fn check_conditions(&self, dir: &Path) -> Result<()> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.client.store().put_opts(&self.key, PutPayload::default(), options).await {
            Err(object_store::Error::AlreadyExists { .. }) => Ok(()),
            Err(e) => Err(io_error("lock", &dir.join("LOCK"), to_io(e, dir))),
            Ok(_) => Err(Error::config(format!(
                "the store of \"{}\" cannot hold a data directory: it ignores the condition of a \
                 put (If-None-Match)",
                dir.display()
            ))),
        }
    }

    /// Renews the lease until it is lost or stopped; then releases it.
    async fn keep(mut self, mut version: String, mut stop: oneshot::Receiver<()>) {
        let mut pause = RENEWAL;
        loop {
            tokio::select! {
                // Stopped, or dropped.
                _ = &mut stop => break,
                () = self.clock.sleep(pause) => {}
            }
            self.me.renewed += 1;
            pause = PAUSE;
            let renewal = tokio::select! {
                done = self.put(over(version.clone())) => done,
                // A request without a response may still have been executed; the next one sees that.
                () = self.clock.sleep(RENEWAL) => Err(object_store::Error::Generic {
                    store: "windrow",
                    source: "no response in time".into(),
                }),
            };
            match renewal {
                Ok(renewed) => (version, pause) = (renewed, RENEWAL),
                Err(
                    object_store::Error::AlreadyExists { .. }
                    | object_store::Error::Precondition { .. },
                ) => match self.holder().await {
                    // A renewal whose response was lost.
                    Ok(Some((now, Some(holder)))) if holder.owner == self.me.owner => version = now,
                    Ok(found) => {
                        let who = found.and_then(|(_, holder)| holder);
                        let who = who.map_or_else(|| "somebody".to_owned(), |h| h.shown());
                        tracing::error!("the data directory was taken over by {who}");
                        return self.held.set(State::Lost(who));
                    }
                    Err(error) => tracing::warn!(%error, "the lease cannot be read"),
                },
                Err(error) => tracing::warn!(%error, "the lease cannot be renewed"),
            }
        }
        self.held.set(State::Not);
        self.me.released = true;
        if let Err(error) = self.put(over(version)).await {
            tracing::debug!(%error, "the lease was not released");
        }
    }

    /// Writes that this process holds the lease, from now on for its duration.
    async fn put(&self, mode: PutMode) -> object_store::Result<String> {
        let now = self.clock.now_micros();
        let (store, token) = (self.client.store(), self.client.token());
        let version = client::put(&*store, &self.key, self.me.bytes()?, &mode, &token).await?;
        let version = version.ok_or_else(|| object_store::Error::Generic {
            store: "windrow",
            source: "the store gives no versions (ETag) of its objects".into(),
        })?;
        if !self.me.released {
            let lasts = i64::try_from(LEASE.as_micros()).unwrap_or(i64::MAX);
            self.held.set(State::Until(now.saturating_add(lasts)));
        }
        Ok(version)
    }

    /// Returns the holder of the lease, if it can be read, and its version.
    async fn holder(&self) -> object_store::Result<Option<(String, Option<Holder>)>> {
        let found = match self.client.store().get(&self.key).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(e) => return Err(e),
        };
        let version = found.meta.e_tag.clone().unwrap_or_default();
        let holder = serde_json::from_slice(&found.bytes().await?).ok();
        Ok(Some((version, holder)))
    }
}
