//! Requests to an object store, for callers that block.
//!
//! Each put carries a token in the object's metadata, so that after a lost response it can be determined whose object
//! is there. Invariant: a put reported as failed because of another object was not made by this client under this
//! token.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;

use bytes::Bytes;
use object_store::path::Path as Key;
use object_store::{
    Attribute, AttributeValue, Attributes, GetOptions, ObjectStore, PutMode, PutOptions,
    UpdateVersion,
};
use tokio::runtime::{Handle, Runtime};
use windrow_core::{Error, Result};

use super::off_reactor;

/// The metadata key of the token.
const TOKEN: &str = "windrow-put";
/// Attempts of a put whose response was lost. (The store's client has its own retries.)
const PUTS_MAX: usize = 2;

/// Threads for requests, separate from those that process rows.
#[derive(Debug)]
pub struct Threads {
    handle: Handle,
    /// `None` only during drop.
    runtime: Option<Runtime>,
}

impl Threads {
    /// Starts two threads: they only move bytes.
    ///
    /// # Errors
    /// When the system provides none.
    pub fn start() -> Result<Arc<Self>> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("windrow-store")
            .enable_all()
            .build()
            .map_err(|e| Error::internal(format!("cannot start threads: {e}")).with_source(e))?;
        Ok(Arc::new(Self { handle: runtime.handle().clone(), runtime: Some(runtime) }))
    }

    /// The runtime of the threads.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // The last owner may be a task, which must not wait.
            runtime.shutdown_background();
        }
    }
}

/// A place in an object store.
pub(super) struct Client {
    store: Arc<dyn ObjectStore>,
    root: PathBuf,
    prefix: Key,
    threads: Arc<Threads>,
    /// Distinguishes this client's objects from those of others.
    owner: String,
    puts: AtomicU64,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("root", &self.root).finish_non_exhaustive()
    }
}

impl Client {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        (root, prefix): (&Path, Key),
        threads: Arc<Threads>,
    ) -> Self {
        Self {
            store,
            root: root.to_owned(),
            prefix,
            threads,
            owner: random(),
            puts: AtomicU64::new(0),
        }
    }

    pub(super) fn store(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    pub(super) fn threads(&self) -> &Arc<Threads> {
        &self.threads
    }

    /// The id of this client in its tokens.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }

    /// Returns the key of a path below the root.
    pub(super) fn key(&self, path: &Path) -> io::Result<Key> {
        let wrong = || {
            let why = format!("it is not a path in \"{}\"", self.root.display());
            io::Error::new(io::ErrorKind::InvalidInput, why)
        };
        let below = path.strip_prefix(&self.root).map_err(|_| wrong())?;
        let mut text = self.prefix.to_string();
        for name in below {
            text.push('/');
            text.push_str(name.to_str().ok_or_else(wrong)?);
        }
        Key::parse(text).map_err(|_| wrong())
    }

    /// Returns a token that was never used.
    pub(super) fn token(&self) -> String {
        format!("{}-{}", self.owner, self.puts.fetch_add(1, Ordering::Relaxed))
    }

    /// Whether a token belongs to this client.
    pub(super) fn is_own(&self, token: &str) -> bool {
        token.rsplit_once('-').is_some_and(|(owner, _)| owner == self.owner)
    }

    /// Runs a request on the store's threads and waits for it.
    ///
    /// # Errors
    /// When the threads have stopped.
    pub(super) fn wait<T: Send + 'static>(
        &self,
        request: impl Future<Output = T> + Send + 'static,
    ) -> io::Result<T> {
        let (answer, answered) = sync_channel(1);
        self.threads.handle().spawn(async move {
            // Fails only when nothing waits any more.
            drop(answer.send(request.await));
        });
        off_reactor(|| answered.recv())
            .map_err(|_| io::Error::other("the threads of the object store have stopped"))
    }

    /// Puts an object under a condition; returns its version.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] when the condition does not hold. After any other error it is unknown whether
    /// the object is there, or will be.
    pub(super) fn put(
        &self,
        key: &Key,
        bytes: Bytes,
        mode: PutMode,
        token: &str,
    ) -> io::Result<Option<String>> {
        let path = self.shown(key);
        let (store, key, token) = (self.store(), key.clone(), token.to_owned());
        let put = async move { put(&*store, &key, bytes, &mode, &token).await };
        self.wait(put)?.map_err(|e| to_io(e, &path))
    }

    /// Returns the version of an object and the token of its put; `None` when it does not exist.
    pub(super) fn version(&self, key: &Key) -> io::Result<Option<(String, Option<String>)>> {
        let (store, at) = (self.store(), key.clone());
        self.wait(async move { version(&*store, &at).await })?
            .map_err(|e| to_io(e, &self.shown(key)))
    }

    fn shown(&self, key: &Key) -> PathBuf {
        let below = key.prefix_match(&self.prefix).into_iter().flatten();
        below.fold(self.root.clone(), |path, name| path.join(name.as_ref()))
    }
}

/// The condition of a put over the version that was seen.
pub(super) fn over(version: String) -> PutMode {
    PutMode::Update(UpdateVersion { e_tag: Some(version), version: None })
}

/// Puts an object; when the store reports an existing one, it may be from this very put.
pub(super) async fn put(
    store: &dyn ObjectStore,
    key: &Key,
    bytes: Bytes,
    mode: &PutMode,
    token: &str,
) -> object_store::Result<Option<String>> {
    let mut tried = 0;
    loop {
        tried += 1;
        let value = AttributeValue::from(token.to_owned());
        let options = PutOptions {
            mode: mode.clone(),
            attributes: Attributes::from_iter([(Attribute::Metadata(TOKEN.into()), value)]),
            ..PutOptions::default()
        };
        match store.put_opts(key, bytes.clone().into(), options).await {
            Ok(done) => return Ok(done.e_tag),
            Err(
                e @ (object_store::Error::AlreadyExists { .. }
                | object_store::Error::Precondition { .. }),
            ) => {
                return match version(store, key).await? {
                    Some((version, Some(by))) if by == token => Ok(Some(version)),
                    _ => Err(e),
                };
            }
            Err(e) if tried >= PUTS_MAX => return Err(e),
            Err(e) => tracing::debug!(%key, error = %e, "put again"),
        }
    }
}

/// Returns the version of an object and the token of its put; `None` when it does not exist.
pub(super) async fn version(
    store: &dyn ObjectStore,
    key: &Key,
) -> object_store::Result<Option<(String, Option<String>)>> {
    let options = GetOptions { head: true, ..GetOptions::default() };
    match store.get_opts(key, options).await {
        Ok(found) => {
            let by = found.attributes.get(&Attribute::Metadata(TOKEN.into()));
            let by = by.map(|by| by.as_ref().to_owned());
            let version = found.meta.e_tag.ok_or_else(|| object_store::Error::Generic {
                store: "windrow",
                source: "the store gives no versions (ETag) of its objects".into(),
            })?;
            Ok(Some((version, by)))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Converts an error of the store to one of a file.
pub(super) fn to_io(e: object_store::Error, path: &Path) -> io::Error {
    use object_store::Error as Store;
    let kind = match &e {
        Store::NotFound { .. } => io::ErrorKind::NotFound,
        Store::AlreadyExists { .. } | Store::Precondition { .. } => {
            let why = format!("another process has written \"{}\"", path.display());
            return io::Error::new(io::ErrorKind::AlreadyExists, why);
        }
        Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => {
            io::ErrorKind::PermissionDenied
        }
        _ => io::ErrorKind::Other,
    };
    match e {
        // Windrow's own error is the most precise.
        Store::Generic { source, .. } if source.is::<Error>() => io::Error::new(kind, source),
        e => io::Error::new(kind, said(&e.to_string())),
    }
}

/// Returns the message of a store without the XML document around it.
fn said(text: &str) -> String {
    let Some((before, document)) = text.split_once("<?xml") else { return text.to_owned() };
    let message = document.split_once("<Message>").and_then(|(_, rest)| rest.split_once('<'));
    let before = before.trim_end_matches([' ', ':']);
    message.map_or_else(|| before.to_owned(), |(message, _)| format!("{before}: {message}"))
}

/// Returns sixteen random hexadecimal digits.
fn random() -> String {
    let mut random = RandomState::new().build_hasher();
    random.write_u32(std::process::id());
    format!("{:016x}", random.finish())
}
