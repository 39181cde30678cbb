//! Where files are written: a directory of this machine, or a prefix of an object store.
//!
//! Invariant: a file has its name only with all of its bytes, and they are durable.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use url::Url;
use windrow_core::{Error, ErrorKind, Result};

use crate::Files;

/// A place for files.
#[derive(Debug, Clone)]
pub(super) enum Place {
    /// A directory of this machine.
    Local(PathBuf),
    /// A prefix of an object store.
    Store {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// The prefix of keys.
        prefix: StorePath,
        /// The prefix as users know it.
        shown: String,
    },
}

impl Place {
    /// Returns the place of a path or URL. `options` are for the object store, after the environment's.
    ///
    /// # Errors
    /// When it may not be written to, and for a URL that no store supports.
    pub(super) fn open(path: &str, options: &[(String, String)], files: &Files) -> Result<Self> {
        if let (true, Some((key, _))) = (files.is_confined(), options.first()) {
            // It could send requests, with the environment's credentials, anywhere.
            let message = format!("option \"{key}\" is not for remote users");
            return Err(Error::new(ErrorKind::Denied, message)
                .with_hint("An administrator sets it in the environment of the server."));
        }
        let path = files.to_write(path)?;
        let unusable = |why: &dyn std::fmt::Display| {
            Error::config(format!("option \"path\": \"{path}\" cannot be used: {why}"))
                .with_hint("A sink writes to a directory, or to a URL with file:// or s3://.")
        };
        let Some((scheme, _)) = path.split_once("://") else {
            if path.contains(['*', '?', '[']) {
                return Err(unusable(&"it is a pattern"));
            }
            return Ok(Self::Local(PathBuf::from(home(&path))));
        };
        let url = Url::parse(&path).map_err(|e| unusable(&e))?;
        match scheme {
            "file" => {
                url.to_file_path().map(Self::Local).map_err(|()| unusable(&"it has no local path"))
            }
            "http" | "https" => Err(unusable(&"HTTP servers do not take files")),
            _ => {
                let environment = std::env::vars()
                    .filter(|(k, _)| k.starts_with("AWS_"))
                    .map(|(k, v)| (k.to_ascii_lowercase(), v));
                let all = environment.chain(options.iter().cloned());
                let (store, prefix) =
                    object_store::parse_url_opts(&url, all).map_err(|e| unusable(&e))?;
                let shown = format!("{scheme}://{}/{prefix}", url.authority());
                Ok(Self::Store { store: Arc::from(store), prefix, shown })
            }
        }
    }

    /// Makes sure that files can be written.
    ///
    /// # Errors
    /// When the directory cannot be created.
    pub(super) async fn prepare(&self, io: &Handle) -> Result<()> {
        let Self::Local(dir) = self else { return Ok(()) };
        let dir = dir.clone();
        blocking(io, move || {
            std::fs::create_dir_all(&dir).map_err(|e| unwritable(&dir.to_string_lossy(), e))
        })
        .await
    }

    /// Lists the files in it and in directories of `depth` levels, as paths relative to it.
    ///
    /// # Errors
    /// When it cannot be listed.
    pub(super) async fn list(&self, depth: usize, io: &Handle) -> Result<Vec<String>> {
        match self {
            Self::Local(dir) => {
                let dir = dir.clone();
                blocking(io, move || {
                    let mut found = vec![];
                    list_local(&dir, "", depth, &mut found)
                        .map_err(|e| unwritable(&dir.to_string_lossy(), e))?;
                    Ok(found)
                })
                .await
            }
            Self::Store { store, prefix, shown } => {
                let all: Vec<_> = store
                    .list(Some(prefix))
                    .try_collect()
                    .await
                    .map_err(|e| unwritable(shown, e))?;
                let below = |meta: object_store::ObjectMeta| {
                    let parts = meta.location.prefix_match(prefix)?;
                    let parts: Vec<_> = parts.map(|part| part.as_ref().to_owned()).collect();
                    (parts.len() <= depth + 1).then(|| parts.join("/"))
                };
                Ok(all.into_iter().filter_map(below).collect())
            }
        }
    }

    /// Writes a file, which replaces the one of its name.
    ///
    /// # Errors
    /// When it cannot be written; then there is none, or the old one.
    pub(super) async fn put(&self, path: &str, bytes: Bytes, io: &Handle) -> Result<()> {
        match self {
            Self::Local(dir) => {
                let (dir, path) = (dir.clone(), path.to_owned());
                blocking(io, move || {
                    let file = dir.join(&path);
                    put_local(&dir, &file, &bytes)
                        .map_err(|e| unwritable(&file.to_string_lossy(), e))
                })
                .await
            }
            Self::Store { store, shown, .. } => {
                let key = self.key(path)?;
                let put = store.put(&key, bytes.into()).await;
                put.map(|_| ()).map_err(|e| unwritable(&format!("{shown}/{path}"), e))
            }
        }
    }

    /// Deletes a file.
    ///
    /// # Errors
    /// When it cannot be deleted.
    pub(super) async fn remove(&self, path: &str, io: &Handle) -> Result<()> {
        match self {
            Self::Local(dir) => {
                let file = dir.join(path);
                blocking(io, move || {
                    std::fs::remove_file(&file).map_err(|e| unwritable(&file.to_string_lossy(), e))
                })
                .await
            }
            Self::Store { store, shown, .. } => {
                let key = self.key(path)?;
                store.delete(&key).await.map_err(|e| unwritable(&format!("{shown}/{path}"), e))
            }
        }
    }

    /// The place as users know it.
    pub(super) fn shown(&self) -> String {
        match self {
            Self::Local(dir) => dir.to_string_lossy().into_owned(),
            Self::Store { shown, .. } => shown.clone(),
        }
    }

    fn key(&self, path: &str) -> Result<StorePath> {
        let Self::Store { prefix, .. } = self else { return Ok(StorePath::default()) };
        let all = match prefix.as_ref() {
            "" => path.to_owned(),
            prefix => format!("{prefix}/{path}"),
        };
        StorePath::parse(&all)
            .map_err(|e| Error::data(format!("\"{path}\" is no name of an object: {e}")))
    }
}

/// The name of a file while it is written. It begins with a dot, so that patterns do not match it.
fn temporary(file: &Path) -> PathBuf {
    let name = file.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    file.with_file_name(format!(".{name}{TEMPORARY}"))
}

/// The ending of the names of unfinished files.
pub(super) const TEMPORARY: &str = ".tmp";

fn put_local(root: &Path, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let parent = file.parent().unwrap_or(root);
    let is_new = !parent.is_dir();
    if is_new {
        std::fs::create_dir_all(parent)?;
    }
    let unfinished = temporary(file);
    let mut out = File::create(&unfinished)?;
    out.write_all(bytes)?;
    out.sync_all()?;
    std::fs::rename(&unfinished, file)?;
    // The name, and those of new directories above it.
    for dir in parent.ancestors().take_while(|dir| dir.starts_with(root)) {
        File::open(dir)?.sync_all()?;
        if !is_new {
            break;
        }
    }
    Ok(())
}

fn list_local(
    dir: &Path,
    below: &str,
    depth: usize,
    found: &mut Vec<String>,
) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        if !entry.file_type()?.is_dir() {
            found.push(path);
        } else if depth > 0 {
            list_local(&entry.path(), &path, depth - 1, found)?;
        }
    }
    Ok(())
}

/// Expands `~/x` to the user's home directory.
fn home(path: &str) -> String {
    match (path.strip_prefix('~'), std::env::var("HOME")) {
        (Some(rest), Ok(home)) if rest.is_empty() || rest.starts_with('/') => {
            format!("{home}{rest}")
        }
        _ => path.to_owned(),
    }
}

async fn blocking<T: Send + 'static>(
    io: &Handle,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let done = io.spawn_blocking(work).await;
    done.map_err(|e| Error::new(ErrorKind::Cancelled, "writing was cancelled").with_source(e))?
}

fn unwritable(path: &str, e: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    let e = e.into();
    Error::new(ErrorKind::Unavailable, format!("\"{path}\" cannot be written: {e}"))
        .with_hint("Check that it exists and that you may write to it.")
        .with_source(e)
}
