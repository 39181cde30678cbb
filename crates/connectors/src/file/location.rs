//! Locations of files: local paths, directories, globs and object-store URLs, and their listing. Names are returned in
//! ascending order and are shown as the user would write them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::TryStreamExt;
use object_store::path::Path as StorePath;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use url::Url;
use windrow_core::{Error, ErrorKind, Result};

use super::files::Files;
use super::format::{Format, format_of_name};
use super::options::FileOptions;

/// One file, wherever it is stored.
#[derive(Debug, Clone)]
pub(super) enum Blob {
    /// On this machine.
    Local(Arc<PathBuf>),
    /// In an object store.
    Store(Arc<dyn ObjectStore>, StorePath),
}

/// Device and inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(in crate::file) struct FileId {
    pub(in crate::file) device: u64,
    pub(in crate::file) inode: u64,
}

impl FileId {
    /// Returns the id of a file on this machine, where the platform has one.
    pub(in crate::file) fn of(meta: &std::fs::Metadata) -> Option<Self> {
        #[cfg(unix)]
        {
            use std::os::unix::fs::MetadataExt;
            Some(Self { device: meta.dev(), inode: meta.ino() })
        }
        #[cfg(not(unix))]
        {
            let _: &std::fs::Metadata = meta;
            None
        }
    }
}

/// A file that was found.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// The name as the user would write it.
    pub name: String,
    /// Where it is.
    pub blob: Blob,
    /// Its size in bytes as stored.
    pub size: u64,
    /// Changes when the file does (time of last change or ETag).
    pub version: String,
    /// Its identity, whatever its name, where the platform has one.
    pub id: Option<FileId>,
}

/// The location given by the option `path`.
#[derive(Debug, Clone)]
pub(super) enum Location {
    /// A path, a directory or a glob on this machine.
    Local {
        /// The path.
        path: String,
        /// The files that may be accessed.
        files: Files,
    },
    /// An object, a prefix or a glob in an object store.
    Store {
        /// The store.
        store: Arc<dyn ObjectStore>,
        /// Everything up to the key: `s3://bucket`.
        base: String,
        /// The key or prefix without wildcards.
        prefix: StorePath,
        /// The whole key as a pattern, if it has wildcards.
        pattern: Option<glob::Pattern>,
        /// Whether it can be listed (plain HTTP cannot).
        listable: bool,
    },
}

const MATCH: glob::MatchOptions = glob::MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: true,
};

impl Location {
    /// Parses the options, and checks that the location may be accessed.
    ///
    /// # Errors
    /// When it may not be, and for a URL that no store supports.
    pub(super) fn open(options: &FileOptions, files: &Files) -> Result<Self> {
        if let (true, Some((key, _))) = (files.is_confined(), options.store.first()) {
            // It could send requests, with the environment's credentials, anywhere.
            let message = format!("option \"{key}\" is not for remote users");
            return Err(Error::new(ErrorKind::Denied, message)
                .with_hint("An administrator sets it in the environment of the server."));
        }
        Self::parse(&files.to_read(&options.path)?, &options.store, files)
    }

    /// Parses the option `path`. `store_options` are passed to the object store, after the environment's.
    ///
    /// # Errors
    /// For a URL that no store supports.
    fn parse(path: &str, store_options: &[(String, String)], files: &Files) -> Result<Self> {
        let files = files.clone();
        let Some((scheme, _)) = path.split_once("://") else {
            return Ok(Self::Local { path: expand_home(path), files });
        };
        if scheme == "file" {
            let url = Url::parse(path).map_err(|e| bad_url(path, &e))?;
            let local = url.to_file_path().map_err(|()| bad_url(path, &"it has no local path"))?;
            return Ok(Self::Local { path: local.to_string_lossy().into_owned(), files });
        }
        let wild = path.find(['*', '[']).filter(|_| !scheme.starts_with("http"));
        let fixed = match wild.and_then(|w| path.get(..w)) {
            Some(head) => head.rfind('/').and_then(|slash| head.get(..=slash)).unwrap_or(head),
            None => path,
        };
        let url = Url::parse(fixed).map_err(|e| bad_url(path, &e))?;
        let environment = std::env::vars()
            .filter(|(k, _)| k.starts_with("AWS_"))
            .map(|(k, v)| (k.to_ascii_lowercase(), v));
        let all = environment.chain(store_options.iter().cloned());
        let (store, prefix) =
            object_store::parse_url_opts(&url, all).map_err(|e| bad_url(path, &e))?;
        let base = format!("{scheme}://{}", url.authority());
        let pattern = wild
            .map(|_| {
                let key = path.strip_prefix(&base).unwrap_or(path).trim_start_matches('/');
                glob::Pattern::new(key).map_err(|e| bad_url(path, &e))
            })
            .transpose()?;
        let listable = !scheme.starts_with("http");
        Ok(Self::Store { store: Arc::from(store), base, prefix, pattern, listable })
    }

    /// Lists the files that exist now, by name. In a directory or prefix, those of `format` (`None`: of any known
    /// format), except hidden ones.
    ///
    /// # Errors
    /// When the location cannot be listed, or a file given by name does not exist. Finding nothing is an empty list.
    pub(super) async fn list(&self, format: Option<Format>, io: &Handle) -> Result<Vec<Found>> {
        let mut found = match self {
            Self::Local { path, files } => {
                let (path, files) = (path.clone(), files.clone());
                let listing = io.spawn_blocking(move || {
                    let found = list_local(&path, format)?;
                    for file in &found {
                        if let Blob::Local(path) = &file.blob {
                            files.check_found(path)?;
                        }
                    }
                    Ok::<_, Error>(found)
                });
                listing.await.map_err(|e| interrupted(&e))??
            }
            Self::Store { store, base, prefix, pattern, listable } => {
                let (store, base, prefix) = (Arc::clone(store), base.clone(), prefix.clone());
                let (pattern, listable) = (pattern.clone(), *listable);
                let listing = io.spawn(async move {
                    list_store(&store, &base, &prefix, pattern.as_ref(), (listable, format)).await
                });
                listing.await.map_err(|e| interrupted(&e))??
            }
        };
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }
}

/// Returns the error for a task on the input runtime that did not finish.
pub(super) fn interrupted(e: &tokio::task::JoinError) -> Error {
    if e.is_cancelled() {
        Error::new(ErrorKind::Cancelled, "reading was cancelled")
    } else {
        Error::panicked("reading input", &e.to_string())
    }
}

/// Returns the error for a file that cannot be read, with the cause.
pub(super) fn unreadable(
    name: &str,
    e: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let e = e.into();
    let missing = e
        .downcast_ref::<std::io::Error>()
        .is_some_and(|io| io.kind() == std::io::ErrorKind::NotFound)
        || matches!(
            e.downcast_ref::<object_store::Error>(),
            Some(object_store::Error::NotFound { .. })
        );
    if missing {
        return Error::new(ErrorKind::NotFound, format!("file \"{name}\" does not exist"))
            .with_source(e);
    }
    Error::new(ErrorKind::Unavailable, format!("file \"{name}\" cannot be read: {e}"))
        .with_hint("Check that it exists and that you may read it.")
        .with_source(e)
}

fn bad_url(path: &str, why: &dyn std::fmt::Display) -> Error {
    Error::config(format!("path \"{path}\" cannot be used: {why}")).with_hint(
        "A path is a local file, directory or glob, or a URL with file://, s3:// or http(s)://.",
    )
}

/// Expands `~/x` to the user's home directory.
fn expand_home(path: &str) -> String {
    match (path.strip_prefix('~'), std::env::var("HOME")) {
        (Some(rest), Ok(home)) if rest.is_empty() || rest.starts_with('/') => {
            format!("{home}{rest}")
        }
        _ => path.to_owned(),
    }
}

fn list_local(path: &str, format: Option<Format>) -> Result<Vec<Found>> {
    let literal = Path::new(path);
    match std::fs::metadata(literal) {
        Ok(meta) if meta.is_dir() => {
            let entries = std::fs::read_dir(literal).map_err(|e| unreadable(path, e))?;
            let mut found = vec![];
            for entry in entries {
                let entry = entry.map_err(|e| unreadable(path, e))?.path();
                let name = entry.to_string_lossy().into_owned();
                let meta = std::fs::metadata(&entry).map_err(|e| unreadable(&name, e))?;
                if meta.is_file() && belongs(&name, format) {
                    found.push(local(name, entry, &meta));
                }
            }
            return Ok(found);
        }
        Ok(meta) => return Ok(vec![local(path.to_owned(), literal.to_owned(), &meta)]),
        Err(_) if path.contains(['*', '?', '[']) => {}
        Err(e) => return Err(unreadable(path, e)),
    }
    let entries = glob::glob_with(path, MATCH)
        .map_err(|e| Error::config(format!("glob \"{path}\" is wrong: {e}")))?;
    let mut found = vec![];
    for entry in entries {
        let entry = entry.map_err(|e| {
            let name = e.path().to_string_lossy().into_owned();
            unreadable(&name, std::io::Error::from(e))
        })?;
        let name = entry.to_string_lossy().into_owned();
        let meta = std::fs::metadata(&entry).map_err(|e| unreadable(&name, e))?;
        if meta.is_file() {
            found.push(local(name, entry, &meta));
        }
    }
    Ok(found)
}

/// Whether a file of a directory belongs to the stream: not hidden, and of the format.
fn belongs(name: &str, format: Option<Format>) -> bool {
    let base = name.rsplit('/').next().unwrap_or(name);
    if base.starts_with(['.', '_']) {
        return false;
    }
    match (format_of_name(base), format) {
        (Some(is), Some(wanted)) => is == wanted,
        (Some(_), None) => true,
        // A name that indicates no format has the format of the option, unless it indicates something else.
        (None, wanted) => wanted.is_some() && !base.contains('.'),
    }
}

fn local(name: String, path: PathBuf, meta: &std::fs::Metadata) -> Found {
    let version = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(std::time::UNIX_EPOCH).ok())
        .map_or_else(String::new, |d| d.as_nanos().to_string());
    let (blob, size, id) = (Blob::Local(Arc::new(path)), meta.len(), FileId::of(meta));
    Found { name, blob, size, version, id }
}

async fn list_store(
    store: &Arc<dyn ObjectStore>,
    base: &str,
    prefix: &StorePath,
    pattern: Option<&glob::Pattern>,
    (listable, format): (bool, Option<Format>),
) -> Result<Vec<Found>> {
    let found = |meta: ObjectMeta| Found {
        name: format!("{base}/{}", meta.location),
        size: meta.size,
        version: meta.e_tag.unwrap_or_else(|| meta.last_modified.to_rfc3339()),
        blob: Blob::Store(Arc::clone(store), meta.location),
        id: None,
    };
    let failed = |e: object_store::Error| unreadable(&format!("{base}/{prefix}"), e);
    if pattern.is_none() {
        match store.head(prefix).await {
            Ok(meta) => return Ok(vec![found(meta)]),
            Err(object_store::Error::NotFound { .. }) if listable => {}
            Err(e) => return Err(failed(e)),
        }
    }
    let mut all = vec![];
    let mut listing = store.list(Some(prefix));
    while let Some(meta) = listing.try_next().await.map_err(failed)? {
        let key = meta.location.to_string();
        let wanted = match pattern {
            Some(pattern) => pattern.matches_with(&key, MATCH),
            None => belongs(&key, format),
        };
        if wanted {
            all.push(found(meta));
        }
    }
    Ok(all)
}
