//! Locates the unreadable file of a Delta log: the library reports what is wrong, and not where.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use serde_json::Value;
use windrow_core::{Error, ErrorKind};

use crate::storage::Storage;

/// Returns the error for the first log entry that does not consist of lines of JSON, or else `error`.
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
    let restore = "Restore the file from a backup; nothing has been overwritten.";
    for entry in entries.into_iter().filter(|e| e.location.extension() == Some("json")) {
        let read = async { store.get(&entry.location).await?.bytes().await };
        let Ok(bytes) = read.await else { continue };
        let mut lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty()).peekable();
        let shown = storage.shown_path(&entry.location);
        if lines.peek().is_none() {
            return Error::new(ErrorKind::Corrupt, format!("\"{shown}\" is damaged: it is empty"))
                .with_hint(restore)
                .with_source(error);
        }
        let damaged = lines.find_map(|line| serde_json::from_slice::<Value>(line).err());
        if let Some(why) = damaged {
            return Error::new(ErrorKind::Corrupt, format!("\"{shown}\" is damaged: {why}"))
                .with_hint(restore)
                .with_source(error);
        }
    }
    let directory = storage.shown_path(&storage.path_of("_delta_log"));
    let hint = format!(
        "Restore the files that are missing in \"{directory}\" from a backup; nothing has been overwritten."
    );
    let message = format!("the Delta log \"{directory}\" is not whole: {}", error.message());
    Error::new(ErrorKind::Corrupt, message).with_hint(hint).with_source(error)
}
