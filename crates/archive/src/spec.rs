//! What the caller says about a table, and what the table says about itself.

use std::collections::BTreeMap;

use arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};
use windrow_core::Owner;
use windrow_core::offset::Gaps;

/// What a table is: its name, its columns, and who writes it.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// The table's name; also the application id of its transactions.
    pub name: String,
    /// The exact Arrow schema of its rows.
    pub schema: SchemaRef,
    /// Which column has the event time, if one does; row groups end where it changes.
    pub event_time: Option<usize>,
    /// The version of the program that writes; it is noted in every file.
    pub engine_version: String,
    /// Tells the query apart that makes the rows; it is noted in the table and in every file.
    pub fingerprint: String,
    /// Whose it is.
    pub owner: Option<Owner>,
    /// Rows of the sequence that were lost before they were appended: it goes on behind them.
    pub gaps: Gaps,
}

/// Where the rows of one commit come from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The watermark at the commit, in the unit of the event time.
    pub watermark: Option<i64>,
    /// What was read: stream, first offset, offset one past the last.
    pub inputs: Vec<(String, u64, u64)>,
    /// How many rows came late since the commit before.
    pub late_rows: u64,
}

impl Provenance {
    /// The provenance of rows that came in two commits, `self` first.
    #[must_use]
    pub(crate) fn merged(self, later: Self) -> Self {
        let mut inputs: BTreeMap<String, (u64, u64)> = BTreeMap::new();
        for (stream, from, to) in self.inputs.into_iter().chain(later.inputs) {
            inputs
                .entry(stream)
                .and_modify(|range| *range = (range.0.min(from), range.1.max(to)))
                .or_insert((from, to));
        }
        Self {
            watermark: later.watermark.or(self.watermark),
            inputs: inputs.into_iter().map(|(stream, (from, to))| (stream, from, to)).collect(),
            late_rows: self.late_rows.saturating_add(later.late_rows),
        }
    }
}

/// How much is committed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveState {
    /// The first row that is still held; more than 0 after old files were dropped.
    pub first_row: u64,
    /// The end of the sequence: the number of rows that were ever appended.
    pub rows: u64,
    /// The transaction version of the last append.
    pub txn_version: Option<i64>,
    /// How many Parquet files are live.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

/// One file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Where it is in its store.
    pub path: String,
    /// Its first row in the sequence.
    pub first_row: u64,
    /// How many rows it has.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// How files are cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// A file is ended when it has about this many bytes.
    pub target_file_bytes: u64,
    /// A row group never has more rows.
    pub row_group_rows: usize,
    /// A row group that takes about so many bytes of memory ends.
    pub row_group_bytes: u64,
    /// A row group with more rows ends where the event time changes.
    pub row_group_rows_soft: usize,
    /// The level of zstd.
    pub compression_level: i32,
    /// The log gets a checkpoint every so many commits.
    pub checkpoint_interval: u64,
    /// Whether columns of integers and text with mostly distinct values get Bloom filters.
    pub bloom_filters: bool,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self {
            target_file_bytes: 64 << 20,
            row_group_rows: 128 << 10,
            row_group_bytes: 32 << 20,
            row_group_rows_soft: 64 << 10,
            compression_level: 1,
            checkpoint_interval: 100,
            bloom_filters: false,
        }
    }
}
