//! The place of a table: an object store and a path in it.

use std::path::{Path as FsPath, PathBuf};
use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use url::Url;
use windrow_core::{Error, Result};

use crate::durable::SyncedLocal;
use crate::listed::Listed;
use crate::verified::Verified;

/// A place in an object store.
#[derive(Debug, Clone)]
pub struct Storage {
    /// The whole store: its root is the root of the bucket or of the file system.
    store: Arc<dyn ObjectStore>,
    /// The place, with a slash at its end.
    url: Url,
    /// The place inside of the store.
    prefix: Path,
    /// The place as a directory, if it is one.
    local: Option<PathBuf>,
}

impl Storage {
    /// Opens a directory, which is created if it does not exist. Writes survive a power failure.
    ///
    /// # Errors
    /// When the directory cannot be created or read.
    pub fn local(dir: &FsPath) -> Result<Self> {
        let failed = |e: std::io::Error| {
            Error::new(
                windrow_core::ErrorKind::Unavailable,
                format!("cannot use the directory \"{}\": {e}", dir.display()),
            )
            .with_source(e)
        };
        std::fs::create_dir_all(dir).map_err(failed)?;
        let dir = dir.canonicalize().map_err(failed)?;
        let bad = || Error::config(format!("\"{}\" is not a usable path", dir.display()));
        let url = Url::from_directory_path(&dir).map_err(|()| bad())?;
        let prefix = Path::from_absolute_path(&dir).map_err(|e| bad().with_source(e))?;
        let files = Arc::new(Listed::new(Arc::new(SyncedLocal::new())));
        let store = Arc::new(Verified::new(files, "/".to_owned()));
        Ok(Self { store, url, prefix, local: Some(dir) })
    }

    /// Opens a place in an object store. The root of `store` is the root of the bucket; the path of `url` is the place
    /// in it. Archive files are verified against their checksums, as on a disk.
    ///
    /// # Errors
    /// When the URL has no usable path.
    pub fn object_store(url: Url, store: Arc<dyn ObjectStore>) -> Result<Self> {
        let mut url = url;
        if !url.path().ends_with('/') {
            let path = format!("{}/", url.path());
            url.set_path(&path);
        }
        let prefix = Path::from_url_path(url.path()).map_err(|e| {
            Error::config(format!("\"{url}\" has no usable path: {e}")).with_source(e)
        })?;
        let mut root = url.clone();
        root.set_path("/");
        let store = Arc::new(Verified::new(Arc::new(Listed::new(store)), root.to_string()));
        Ok(Self { store, url, prefix, local: None })
    }

    /// Returns the place `name` below this one.
    ///
    /// # Errors
    /// When `name` cannot be part of a path.
    pub fn child(&self, name: &str) -> Result<Self> {
        if name.is_empty() || name == "." || name == ".." || name.contains('/') {
            return Err(Error::config(format!("\"{name}\" cannot be the name of a directory")));
        }
        let mut url = self.url.clone();
        url.path_segments_mut()
            .map_err(|()| Error::config(format!("\"{}\" has no usable path", self.url)))?
            .pop_if_empty()
            .push(name)
            .push("");
        let prefix = match &self.local {
            Some(dir) => Path::from_absolute_path(dir.join(name)),
            None => Path::from_url_path(url.path()),
        }
        .map_err(|e| Error::config(format!("\"{url}\" has no usable path: {e}")).with_source(e))?;
        let local = self.local.as_ref().map(|dir| dir.join(name));
        Ok(Self { store: Arc::clone(&self.store), url, prefix, local })
    }

    /// The URL of the place, with a trailing slash.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The place as a directory, if it is one.
    pub fn local_path(&self) -> Option<&FsPath> {
        self.local.as_deref()
    }

    /// The whole store.
    pub(crate) fn root(&self) -> Arc<dyn ObjectStore> {
        Arc::clone(&self.store)
    }

    /// The store as seen from this place.
    pub(crate) fn here(&self) -> Arc<dyn ObjectStore> {
        Arc::new(PrefixStore::new(Arc::clone(&self.store), self.prefix.clone()))
    }

    /// The path of the file `name` of this place in the whole store.
    pub(crate) fn path_of(&self, name: &str) -> Path {
        self.prefix.clone().join(name)
    }

    /// A path in the store, for messages.
    pub(crate) fn shown_path(&self, path: &Path) -> String {
        if self.local.is_some() {
            return format!("/{path}");
        }
        let mut url = self.url.clone();
        url.set_path(path.as_ref());
        url.to_string()
    }

    /// The place, for messages.
    pub(crate) fn shown(&self) -> String {
        self.local.as_ref().map_or_else(|| self.url.to_string(), |dir| dir.display().to_string())
    }
}
