//! What outlives the process: the data directory, the definitions in it, and the logs of push
//! streams.
//!
//! ```text
//! DATA/
//! ├─ LOCK, FORMAT            directory.rs    one process at a time; which format this is
//! ├─ catalog.json            definitions.rs  the objects, in order of creation
//! ├─ checkpoints/<dir>/…     checkpoint/     the state of each view's query
//! └─ streams/<dir>/…         wal/            segments of rows, by first offset
//! ```
//! `place.rs` says where that is, `files.rs` how files are reached, `objects/` how they are kept in
//! an object store, and `traced.rs` logs each change.
//!
//! Invariants: a whole file is replaced by rename, a log only grows at its end; what is damaged is
//! reported by name and never overwritten; nothing is acknowledged before it is as durable as was
//! asked for.

pub(crate) mod checkpoint;
pub(crate) mod definitions;
pub(crate) mod directory;
pub(crate) mod failures;
#[cfg(test)]
mod faults;
pub(crate) mod files;
mod objects;
mod place;
pub(crate) mod store;
mod traced;
pub(crate) mod wal;
