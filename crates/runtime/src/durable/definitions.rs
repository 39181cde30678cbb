//! The durable catalog: the statements that made the objects, in the order of their making.
//!
//! One file, `catalog.json`, written anew at each change. Its first line is the CRC-32 of the
//! rest, so that a damaged catalog is told from an empty one and never overwritten.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use windrow_core::{Error, ErrorKind, Result};

use crate::durable::directory::{DataDirectory, encode_name, failed, write_atomically};

const FILE: &str = "catalog.json";

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Definition {
    /// Never used again for another object.
    pub(crate) id: u64,
    pub(crate) name: String,
    /// `stream`, `view`, `materialized view`, `table`.
    pub(crate) kind: String,
    /// The statement that made it.
    pub(crate) sql: String,
    /// The name of its folder.
    pub(crate) dir: String,
}

/// All definitions.
#[derive(Debug)]
pub(crate) struct Definitions {
    path: PathBuf,
    content: Content,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Content {
    next_id: u64,
    objects: Vec<Definition>,
}

impl Definitions {
    /// The definitions of a data directory.
    ///
    /// # Errors
    /// `Corrupt` when the file is damaged.
    pub(crate) fn open(directory: &DataDirectory) -> Result<Self> {
        let path = directory.path().join(FILE);
        let content = match std::fs::read(&path) {
            Ok(bytes) => decode(&bytes).map_err(|why| {
                Error::new(ErrorKind::Corrupt, format!("\"{}\" is damaged: {why}", path.display()))
                    .with_hint("Restore the file from a backup; nothing has been overwritten.")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Content::default(),
            Err(error) => return Err(failed("read", &path, error)),
        };
        Ok(Self { path, content })
    }

    /// In the order of their making.
    pub(crate) fn list(&self) -> &[Definition] {
        &self.content.objects
    }

    /// Adds an object, in the place of the one of this name if there is one, in one step. Its
    /// folder is a new one.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub(crate) fn put(&mut self, name: &str, kind: &str, sql: &str) -> Result<Definition> {
        let mut content = self.content.clone();
        let id = content.next_id;
        content.next_id += 1;
        let mut dir = encode_name(name);
        let root = self.path.parent().map(PathBuf::from).unwrap_or_default();
        let on_disk =
            ["streams", "views"].iter().any(|folder| root.join(folder).join(&dir).exists());
        if on_disk || content.objects.iter().any(|d| d.dir == dir) {
            dir = format!("{dir}.{id}");
        }
        let definition = Definition {
            id,
            name: name.to_owned(),
            kind: kind.to_owned(),
            sql: sql.to_owned(),
            dir,
        };
        content.objects.retain(|d| d.name != name);
        content.objects.push(definition.clone());
        self.write(content)?;
        Ok(definition)
    }

    /// Removes objects.
    ///
    /// # Errors
    /// When it cannot be written; nothing has changed then.
    pub(crate) fn remove(&mut self, names: &[&str]) -> Result<()> {
        let mut content = self.content.clone();
        content.objects.retain(|d| !names.contains(&d.name.as_str()));
        self.write(content)
    }

    fn write(&mut self, content: Content) -> Result<()> {
        let json = serde_json::to_vec_pretty(&content)
            .map_err(|e| Error::internal(e.to_string()).with_source(e))?;
        let mut bytes = format!("{:08x}\n", crc32fast::hash(&json)).into_bytes();
        bytes.extend(json);
        write_atomically(&self.path, &bytes)?;
        self.content = content;
        Ok(())
    }
}

fn decode(bytes: &[u8]) -> Result<Content, String> {
    let (sum, json) = bytes.split_at_checked(9).ok_or("it is too short")?;
    if sum != format!("{:08x}\n", crc32fast::hash(json)).as_bytes() {
        return Err("its checksum is wrong".to_owned());
    }
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_come_back_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(dir.path()).unwrap();
        let mut definitions = Definitions::open(&directory).unwrap();
        definitions.put("s", "stream", "CREATE STREAM s (k INT)").unwrap();
        definitions.put("v", "view", "CREATE VIEW v AS SELECT 1").unwrap();
        let again = definitions.put("s", "stream", "CREATE OR REPLACE STREAM s (k TEXT)").unwrap();
        assert_ne!(again.dir, "s", "another object, another folder");
        let back = Definitions::open(&directory).unwrap();
        assert_eq!(back.list(), definitions.list());
        assert_eq!(back.list().iter().map(|d| d.name.as_str()).collect::<Vec<_>>(), ["v", "s"]);
        definitions.remove(&["v"]).unwrap();
        assert_eq!(Definitions::open(&directory).unwrap().list(), [again]);
    }

    #[test]
    fn any_flipped_byte_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let directory = DataDirectory::open(dir.path()).unwrap();
        Definitions::open(&directory)
            .unwrap()
            .put("s", "stream", "CREATE STREAM s (k INT)")
            .unwrap();
        let path = dir.path().join(FILE);
        let good = std::fs::read(&path).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            std::fs::write(&path, &bad).unwrap();
            let error = Definitions::open(&directory).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Corrupt, "byte {at}");
        }
    }
}
