//! The place of a data directory: on this machine, or in an object store.
//!
//! ```text
//! DIR, file://…   ─► StdFiles
//! s3://bucket/…   ─► ObjectFiles, and the bucket itself, for writers of their own objects    (credentials: AWS_…)
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::SpawnedReqwestConnector;
use object_store::path::Path as Key;
use object_store::{ClientOptions, ObjectStore, RetryConfig};
use url::Url;
use windrow_core::{Clock, Error, Result};

use crate::files::{Files, StdFiles};
use crate::objects::{ObjectFiles, StoreThreads};
use crate::traced::Traced;

/// Timeout of one request: a part of a log may be large.
const REQUEST: Duration = Duration::from_secs(180);
/// How long a request is retried while the store does not respond.
const RETRY: Duration = Duration::from_secs(20);

/// A place for a data directory, with access to it.
#[derive(Debug)]
pub struct Place {
    /// As the user writes it; the paths of everything in it begin with this one.
    pub path: PathBuf,
    /// Access to the files in it.
    pub files: Arc<dyn Files>,
    /// The URL of the place, and the store whose root is the root of its bucket, if it is not on this machine. The
    /// store accepts writes only while this process has the lease of the place.
    pub objects: Option<(Url, Arc<dyn ObjectStore>)>,
}

impl Place {
    /// Returns the place named by `path`: a directory, or a URL.
    ///
    /// # Errors
    /// When it is a URL that cannot hold a data directory.
    pub fn named(path: &Path, clock: &Arc<dyn Clock>) -> Result<Self> {
        let Some(text) = path.to_str().filter(|text| text.contains("://")) else {
            return Ok(Self::local(path));
        };
        let wrong = |why: &str| {
            Error::config(format!("cannot keep data in \"{text}\": {why}")).with_hint(
                "Name a local directory, or a place in a bucket, such as \"s3://bucket/windrow\".",
            )
        };
        let url = Url::parse(text).map_err(|e| wrong(&e.to_string()))?;
        match url.scheme() {
            "file" => {
                let path = url.to_file_path().map_err(|()| wrong("it has no local path"))?;
                Ok(Self::local(&path))
            }
            "s3" | "s3a" => {
                let threads = StoreThreads::start()?;
                let store = s3(&url, &threads).map_err(|e| wrong(&e.to_string()).with_source(e))?;
                let path = Path::new(text.trim_end_matches('/'));
                Self::in_store(path, &url, store, threads, Arc::clone(clock))
            }
            _ => Err(wrong("only local directories and S3 can be used")),
        }
    }

    fn local(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            files: Arc::new(Traced::new(Arc::new(StdFiles))),
            objects: None,
        }
    }

    /// Returns the place `url` of a store whose root is the root of its bucket.
    ///
    /// # Errors
    /// When the URL has no usable path.
    pub fn in_store(
        path: &Path,
        url: &Url,
        store: Arc<dyn ObjectStore>,
        threads: Arc<StoreThreads>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let prefix = Key::from_url_path(url.path()).map_err(|e| {
            Error::config(format!("\"{url}\" has no usable path: {e}")).with_source(e)
        })?;
        let files = ObjectFiles::new(store, (path, prefix), threads, clock);
        let objects = (url.clone(), files.store());
        let files = Arc::new(Traced::new(Arc::new(files)));
        Ok(Self { path: path.to_owned(), files, objects: Some(objects) })
    }
}

/// Connects to the bucket of `url`, as configured by the environment (`AWS_…`).
fn s3(url: &Url, threads: &StoreThreads) -> object_store::Result<Arc<dyn ObjectStore>> {
    let builder = AmazonS3Builder::new()
        .with_url(url.as_str())
        .with_client_options(ClientOptions::new().with_timeout(REQUEST))
        .with_retry(RetryConfig { retry_timeout: RETRY, ..RetryConfig::default() })
        .with_http_connector(SpawnedReqwestConnector::new(threads.handle().clone()));
    let environment = std::env::vars().filter(|(key, _)| key.starts_with("AWS_"));
    let store = environment
        .filter_map(|(key, value)| {
            Some((key.to_ascii_lowercase().parse::<AmazonS3ConfigKey>().ok()?, value))
        })
        .fold(builder, |builder, (key, value)| builder.with_config(key, value))
        .build()?;
    Ok(Arc::new(store))
}
