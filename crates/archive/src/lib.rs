//! Finished windows and stream history as Parquet on an object store. How files are laid out, committed, read, merged and
//! deleted may be changed here, as long as other engines still read the tables. What may not be: knowing what made the rows, and when
//! they are to be written.
//!
//! An [`ArchiveTable`] is an append-only sequence of rows (row 0, 1, 2, …). The rows are Parquet
//! files that we write ourselves; which files there are is said by a Delta Lake log, so that every
//! engine that knows Delta can read them. Invariants:
//!
//! - The live files tile the sequence: no overlap, and no gap but those that the caller knows of. A file's name says which rows it has.
//! - A commit is one entry of the log. It carries the caller's transaction version, and a version
//!   that is committed is never written again.
//! - A reader holds a [`ArchiveSnapshot`]: whole commits only, and its files stay until it is gone.
#![forbid(unsafe_code)]

mod compaction;
mod damage;
mod delta_schema;
mod durable;
mod failure;
mod file_entry;
mod file_reader;
mod file_stats;
mod file_writer;
mod live;
mod log;
mod precision;
mod scan;
mod snapshot;
mod spec;
mod storage;
mod table;
#[cfg(test)]
mod tests;
mod upkeep;
mod verified;

pub use durable::SyncedLocal;
pub use snapshot::{ArchiveSnapshot, HeldFiles};
pub use spec::{ArchiveFile, ArchiveOptions, ArchiveState, Provenance, TableSpec};
pub use storage::Storage;
pub use table::ArchiveTable;
