//! Models: the versions of each, and which of them an object uses.
//!
//! Invariant: a version never changes. Whatever was planned with one keeps it; only new statements use the newest.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use datafusion::logical_expr::ScalarUDF;
use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use windrow_core::Result;
use windrow_models::Model;
use windrow_sql::plan::prediction;

/// The versions of models that an object uses, by name.
pub(crate) type ModelPins = BTreeMap<String, u64>;

/// A version of a model.
#[derive(Debug, Clone)]
pub(crate) struct ModelVersion {
    /// The name of the model.
    pub(crate) name: String,
    /// The number of the version, from 1.
    pub(crate) number: u64,
    /// The size of the file in bytes.
    pub(crate) size: usize,
    /// Two versions with the same digest have the same bytes.
    digest: [u8; 32],
    /// The model.
    pub(crate) loaded: Arc<Model>,
}

impl ModelVersion {
    /// Loads a version from the bytes of its file.
    ///
    /// # Errors
    /// As [`Model::load`].
    pub(crate) fn load(name: &str, number: u64, bytes: &[u8]) -> Result<Self> {
        Ok(Self {
            name: name.to_owned(),
            number,
            size: bytes.len(),
            digest: Sha256::digest(bytes).into(),
            loaded: Arc::new(Model::load(bytes)?),
        })
    }

    /// Whether it is of these bytes.
    pub(crate) fn is_of(&self, bytes: &[u8]) -> bool {
        let digest: [u8; 32] = Sha256::digest(bytes).into();
        self.digest == digest
    }

    /// Returns the function that computes its results.
    pub(crate) fn function(&self) -> Arc<ScalarUDF> {
        prediction(&self.name, self.number, &self.loaded)
    }
}

/// A model.
#[derive(Debug)]
pub(crate) struct ModelObject {
    newest: Mutex<Arc<ModelVersion>>,
    /// The older versions that have been in memory.
    older: Mutex<BTreeMap<u64, Older>>,
}

/// An older version, which is in memory as long as a plan has it.
#[derive(Debug)]
struct Older {
    size: usize,
    digest: [u8; 32],
    loaded: Weak<Model>,
}

impl Older {
    fn of(version: &ModelVersion) -> Self {
        let ModelVersion { size, digest, loaded, .. } = version;
        Self { size: *size, digest: *digest, loaded: Arc::downgrade(loaded) }
    }
}

impl ModelObject {
    /// Creates a model with one version.
    pub(crate) fn new(version: ModelVersion) -> Self {
        Self { newest: Mutex::new(Arc::new(version)), older: Mutex::default() }
    }

    /// Returns the newest version.
    pub(crate) fn newest(&self) -> Arc<ModelVersion> {
        Arc::clone(&self.newest.lock())
    }

    /// Makes `version` the newest one, under the next number. `store` makes it durable.
    ///
    /// # Errors
    /// As `store`; then nothing has changed.
    pub(crate) fn add(
        &self,
        version: ModelVersion,
        store: impl FnOnce(u64) -> Result<()>,
    ) -> Result<u64> {
        let mut newest = self.newest.lock();
        let number = newest.number + 1;
        store(number)?;
        let before = std::mem::replace(&mut *newest, Arc::new(ModelVersion { number, ..version }));
        self.older.lock().insert(before.number, Older::of(&before));
        Ok(number)
    }

    /// Returns a version. `load` loads one that is not in memory.
    ///
    /// # Errors
    /// As `load`.
    pub(crate) fn version(
        &self,
        number: u64,
        load: impl FnOnce() -> Result<ModelVersion>,
    ) -> Result<Arc<ModelVersion>> {
        let newest = self.newest();
        if newest.number == number {
            return Ok(newest);
        }
        let mut older = self.older.lock();
        if let Some(Older { size, digest, loaded }) = older.get(&number)
            && let Some(loaded) = loaded.upgrade()
        {
            let (name, size, digest) = (newest.name.clone(), *size, *digest);
            return Ok(Arc::new(ModelVersion { name, number, size, digest, loaded }));
        }
        let version = Arc::new(load()?);
        older.insert(number, Older::of(&version));
        Ok(version)
    }
}
