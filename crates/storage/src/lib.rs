//! How bytes and batches outlive the process: places and files, leases, write-ahead logs, checkpoints. Formats of files, their
//! recovery, and how a file or object is made durable may be touched here; a changed format gets a new number, since later versions read
//! old files. What may not be: this crate knows bytes, batches and offsets, and the plain data that a checkpoint
//! consists of; no plan, catalog, session or engine.
//!
//! ```text
//! DATA/
//! ├─ LOCK, FORMAT            directory.rs    one process at a time; which format this is
//! ├─ checkpoints/<dir>/…     checkpoint/     the state of each view's query
//! └─ streams/<dir>/…         wal/            segments of rows, by first offset
//! ```
//! `place.rs` says where that is, `files.rs` how files are reached, `objects/` how they are kept in
//! an object store, and `traced.rs` logs each change.
//!
//! Invariants: a whole file is replaced by rename, a log only grows at its end; what is damaged is
//! reported by name and never overwritten; nothing is acknowledged before it is as durable as was
//! asked for.
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
