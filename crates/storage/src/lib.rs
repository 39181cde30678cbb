//! Durable storage of bytes and batches: places and files, leases, write-ahead logs, checkpoints. File formats, their
//! recovery, and how a file or object is made durable belong here; a changed format gets a new number, since later
//! versions read old files. What does not: this crate knows bytes, batches and offsets, and the plain data of a
//! checkpoint; no plan, catalog, session or engine.
//!
//! ```text
//! DATA/
//! ├─ LOCK, FORMAT            directory.rs    one process at a time; which format this is
//! ├─ checkpoints/<dir>/…     checkpoint/     the state of each view's query
//! └─ streams/<dir>/…         wal/            segments of rows, by first offset
//! ```
//! `place.rs` defines where the data directory is, `files.rs` how files are accessed, `objects/` how they are stored in
//! an object store, and `traced.rs` logs each change.
//!
//! Invariants: a whole file is replaced by rename, a log only grows at its end; damaged files are reported by name and
//! never overwritten; nothing is acknowledged before it is as durable as requested.
#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod directory;
#[cfg(test)]
mod faults;
pub mod files;
pub mod objects;
pub mod place;
mod traced;
pub mod trial;
pub mod wal;
