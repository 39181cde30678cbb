//! What survives: the data directory, the definitions in it, the write-ahead log of push streams.
//!
//! Plain files of the local file system, synced before anything is called durable. What is on
//! disk is described in `docs/formats.md`.

pub(crate) mod definitions;
pub(crate) mod directory;
pub(crate) mod store;
pub(crate) mod wal;
