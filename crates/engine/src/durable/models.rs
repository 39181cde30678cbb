//! The versions of models in the data directory: the bytes of each file, as they were given.
//!
//! ```text
//! DIR/models/<dir>/<n>.onnx   the bytes │ the owner │ its length (4 bytes) │ WNDROWM1 │ CRC-32 of all before it
//! ```
//! Invariants: the file of a version is there before the definition names the version, and never changes afterwards; a file
//! of a later number has been left by a crash, and is overwritten by the next version.

use std::path::{Path, PathBuf};

use windrow_core::{Error, ErrorKind, Owner, Result};

use super::definitions::{Definition, Part};
use super::store::{Store, missing};

const TRAILER: &[u8] = b"WNDROWM1";

impl Store {
    pub(super) fn models_dir(&self, definition: &Definition) -> PathBuf {
        self.folder(Part::Model).join(&definition.dir)
    }

    fn model_file(&self, definition: &Definition, version: u64) -> PathBuf {
        self.models_dir(definition).join(format!("{version}.onnx"))
    }

    /// Stores the bytes of a version of a model.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn write_model(
        &self,
        definition: &Definition,
        version: u64,
        bytes: &[u8],
    ) -> Result<()> {
        let stored = to_bytes(bytes, &self.owner(definition, Part::Model))?;
        let (dir, file) = (self.models_dir(definition), self.model_file(definition, version));
        self.write_rows(&dir, &file, &stored)?;
        self.note_opened(definition, Part::Model);
        Ok(())
    }

    /// Stores a model with its first version: its definition and its bytes exist together, or neither does.
    ///
    /// # Errors
    /// When they cannot be written.
    pub(crate) fn record_model(&self, name: &str, sql: &str, bytes: &[u8]) -> Result<()> {
        let reserved = self.reserve(name, super::definitions::Kind::Model, sql);
        let definition = Definition { version: 1, ..reserved };
        self.write_model(&definition, 1, bytes)?;
        self.commit(&definition).map(drop)
    }

    /// Stores the next version of a model.
    ///
    /// # Errors
    /// When it cannot be written; then the version before it remains the newest.
    pub(crate) fn record_version(
        &self,
        name: &str,
        (version, bytes): (u64, &[u8]),
        sql: &str,
    ) -> Result<()> {
        let definition = self.model_named(name)?;
        self.write_model(&definition, version, bytes)?;
        self.definitions.note_version(name, version, sql)
    }

    /// Returns the bytes of a version of a model.
    ///
    /// # Errors
    /// [`ErrorKind::Corrupt`] when they are missing or damaged.
    pub(crate) fn read_model(&self, definition: &Definition, version: u64) -> Result<Vec<u8>> {
        let path = self.model_file(definition, version);
        let Some((path, stored)) = self.read_rows(definition, Part::Model, path.clone())? else {
            return Err(missing("the file", &path));
        };
        of_bytes(&path, stored, &self.owner(definition, Part::Model))
    }

    /// Returns the definition of a model.
    ///
    /// # Errors
    /// When there is none (a bug).
    pub(crate) fn model_named(&self, name: &str) -> Result<Definition> {
        let found = self.definitions.list().into_iter().find(|definition| definition.name == name);
        found.ok_or_else(|| Error::internal(format!("model \"{name}\" has no definition")))
    }
}

fn to_bytes(bytes: &[u8], owner: &Owner) -> Result<Vec<u8>> {
    let mut stored = bytes.to_vec();
    stored.extend(owner.id.as_bytes());
    let length = u32::try_from(owner.id.len());
    stored.extend(length.map_err(|_| Error::internal("an owner has a long name"))?.to_le_bytes());
    stored.extend(TRAILER);
    stored.extend(crc32fast::hash(&stored).to_le_bytes());
    Ok(stored)
}

fn of_bytes(path: &Path, mut stored: Vec<u8>, owner: &Owner) -> Result<Vec<u8>> {
    let damaged = |why: &str| {
        Error::new(ErrorKind::Corrupt, format!("\"{}\" is damaged: {why}", path.display()))
            .with_hint("Restore the file from a backup; nothing has been overwritten.")
    };
    let (covered, sum) = stored.split_last_chunk::<4>().ok_or_else(|| damaged("it is cut off"))?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*sum) {
        return Err(damaged("its checksum is wrong"));
    }
    let rest = covered.strip_suffix(TRAILER).ok_or_else(|| damaged("it is not a model"))?;
    let (rest, length) =
        rest.split_last_chunk::<4>().ok_or_else(|| damaged("it is not a model"))?;
    let at = rest.len().checked_sub(u32::from_le_bytes(*length) as usize);
    let (bytes, said) =
        at.and_then(|at| rest.split_at_checked(at)).ok_or_else(|| damaged("it is not a model"))?;
    if said != owner.id.as_bytes() {
        return Err(damaged("it is of another model"));
    }
    let length = bytes.len();
    stored.truncate(length);
    Ok(stored)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_damage_is_reported() {
        let owner = |id: &str| Owner { id: id.into(), may_be_unrecorded: false, is_created: true };
        let stored = to_bytes(b"some weights", &owner("d/1")).unwrap();
        let read = |stored: &[u8]| of_bytes(Path::new("1.onnx"), stored.to_vec(), &owner("d/1"));
        assert_eq!(read(&stored).unwrap(), b"some weights");
        let other = of_bytes(Path::new("1.onnx"), stored.clone(), &owner("d/2"));
        assert!(other.unwrap_err().message().contains("it is of another model"));
        for at in 0..stored.len() {
            let mut damaged = stored.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
            assert_eq!(read(&stored[..at]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
