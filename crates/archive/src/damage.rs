//! Which file of a Delta log cannot be read: the library says what is wrong, and not where.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde_json::Value;
use windrow_core::{Error, ErrorKind};

use crate::storage::Storage;

/// The error for the first entry of the log that is not made of lines of JSON, or else `error`.
pub(crate) async fn located(storage: &Storage, error: Error) -> Error {
    if error.kind() != ErrorKind::Corrupt {
        return error;
    }
    let store = storage.root();
    let mut entries: Vec<_> =
        match store.list(Some(&storage.path_of("_delta_log"))).try_collect().await {
            Ok(entries) => entries,
            Err(_unlistable) => return error,
        };
    entries.sort_by(|a, b| a.location.cmp(&b.location));
    for entry in entries.into_iter().filter(|e| e.location.extension() == Some("json")) {
        let read = async { store.get(&entry.location).await?.bytes().await };
        let Ok(bytes) = read.await else { continue };
        let mut lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
        let damaged = lines.find_map(|line| serde_json::from_slice::<Value>(line).err());
        if let Some(why) = damaged {
            let message = format!("\"/{}\" is damaged: {why}", entry.location);
            return Error::new(ErrorKind::Corrupt, message)
                .with_hint("Restore the file from a backup; nothing has been overwritten.")
                .with_source(error);
        }
    }
    error
}
