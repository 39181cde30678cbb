//! Finished windows and stream history as Parquet on an object store. The layout, committing, reading, compaction and
//! deletion of files belong here, as long as other engines can still read the tables. What does not belong here:
//! knowledge of what produced the rows, and of when they are to be written.
//!
//! An [`ArchiveTable`] is an append-only sequence of rows (row 0, 1, 2, …). The rows are Parquet files written by
//! Windrow; the live files are listed by a Delta Lake log, so that every engine that supports Delta can read them.
//! Invariants:
//!
//! - The live files tile the sequence: no overlap, and no gap except those that the caller knows of. A file's name
//!   encodes its rows.
//! - A commit is one entry of the log. It carries the caller's transaction version, and a version that is committed is
//!   never written again.
//! - A reader holds an [`ArchiveSnapshot`]: whole commits only, and its files are not deleted while it exists.
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
mod listed;
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
pub use table::{ArchiveTable, check_columns};
