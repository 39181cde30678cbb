//! A file that grows: one object for each sync, numbered from zero.
//!
//! ```text
//! x/00000000 ┤ x/00000001 ┤ x/00000002 ┤ buffer (written, not synced)
//! ├──────────── durable ───────────────┤
//! ```
//! Invariants: a part is put only where there is none; after a failed sync its number is settled (by `truncate`) before
//! anything else is put, so that a put that arrives late finds it taken.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use object_store::PutMode;
use object_store::path::Path as Key;

use super::client::Client;
use crate::files::LogFile;

/// The extent of a growing file.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Parts {
    pub(super) count: u64,
    pub(super) bytes: u64,
}

/// Returns the name of a part below its file's key.
pub(super) fn name(number: u64) -> String {
    format!("{number:08}")
}

/// A growing file, open at its end.
#[derive(Debug)]
pub(super) struct Growing {
    client: Arc<Client>,
    path: PathBuf,
    durable: Parts,
    buffer: Vec<u8>,
    /// Whether a put of the next part failed: it may be there, or arrive.
    unsettled: bool,
}

impl Growing {
    pub(super) fn new(client: Arc<Client>, path: &Path, durable: Parts) -> io::Result<Self> {
        client.key(path)?;
        Ok(Self { client, path: path.to_owned(), durable, buffer: vec![], unsettled: false })
    }

    /// Puts an empty part behind the end: no other process that has the file open can continue.
    pub(super) fn fence(&mut self) -> io::Result<()> {
        self.put()
    }

    fn key(&self) -> io::Result<Key> {
        self.client.key(&self.path.join(name(self.durable.count)))
    }

    /// Puts the buffer as the next part.
    fn put(&mut self) -> io::Result<()> {
        let (key, bytes) = (self.key()?, self.buffer.len() as u64);
        let token = self.client.token();
        let done = self.client.put(&key, self.buffer.clone().into(), PutMode::Create, &token);
        self.unsettled = done.is_err();
        done?;
        self.buffer.clear();
        self.durable.count += 1;
        self.durable.bytes += bytes;
        Ok(())
    }
}

impl LogFile for Growing {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.extend(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.unsettled {
            return Err(io::Error::other("an earlier sync failed"));
        }
        if self.buffer.is_empty() { Ok(()) } else { self.put() }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        let Some(keep) = len.checked_sub(self.durable.bytes) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        self.buffer.truncate(usize::try_from(keep).unwrap_or(usize::MAX));
        // Takes the number of the part that failed, so that it cannot arrive any more.
        if self.unsettled { self.put() } else { Ok(()) }
    }
}
