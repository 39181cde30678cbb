//! The caller's description of a table, and the table's description of itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::ArrayRef;
use arrow::datatypes::{Schema, SchemaRef};
use serde::{Deserialize, Serialize};
use windrow_core::offset::Gaps;
use windrow_core::{Layout, Owner};

use crate::{delta_schema, precision};

/// The description of a table: its name, its columns, and its writer.
#[derive(Debug, Clone)]
pub struct TableSpec {
    /// The table's name; also the application id of its transactions.
    pub name: String,
    /// The exact Arrow schema of its rows.
    pub schema: SchemaRef,
    /// The column of the event time, if any; row groups end where it changes.
    pub event_time: Option<usize>,
    /// The version of the writing program; it is recorded in every file.
    pub engine_version: String,
    /// Identifies the query that produces the rows; it is recorded in the table and in every file.
    pub fingerprint: String,
    /// The owner of the table.
    pub owner: Option<Owner>,
    /// Rows of the sequence that were lost before they were appended: it resumes behind them.
    pub gaps: Gaps,
    /// The values of the last columns, one each, in rows that were stored before these columns were added.
    pub added: Vec<ArrayRef>,
}

impl TableSpec {
    /// The columns, and the values of those that were added in rows that lack them.
    pub(crate) fn layout(&self) -> Layout {
        Layout::new(Arc::clone(&self.schema), self.added.clone())
    }

    /// Returns how many of the columns a file has, from its own schema; `None`: it is not of this table.
    pub(crate) fn width_of(&self, file: &Schema) -> Option<usize> {
        let least = self.layout().original();
        (least..=self.schema.fields().len())
            .rev()
            .find(|width| delta_schema::same(file, &precision::stored(&self.narrow(*width))))
    }

    /// The first columns.
    pub(crate) fn narrow(&self, width: usize) -> SchemaRef {
        let fields: Vec<_> = self.schema.fields().iter().take(width).cloned().collect();
        Arc::new(Schema::new_with_metadata(fields, self.schema.metadata().clone()))
    }
}

/// The origin of the rows of one commit.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// The watermark at the commit, in ticks of the event time.
    pub watermark: Option<i64>,
    /// The inputs read: stream, first offset, offset one past the last.
    pub inputs: Vec<(String, u64, u64)>,
    /// Number of late rows since the previous commit.
    pub late_rows: u64,
}

impl Provenance {
    /// Combines the provenance of rows from two commits, `self` first.
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

/// The extent of the committed rows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveState {
    /// The first retained row; more than 0 after old files were dropped.
    pub first_row: u64,
    /// The end of the sequence: the number of rows ever appended.
    pub rows: u64,
    /// The transaction version of the last append.
    pub txn_version: Option<i64>,
    /// The number of live Parquet files.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

/// One file of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveFile {
    /// Its path in its store.
    pub path: String,
    /// Its first row in the sequence.
    pub first_row: u64,
    /// Its number of rows.
    pub rows: u64,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Options of the file layout.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchiveOptions {
    /// Approximate bytes at which a file is ended.
    pub target_file_bytes: u64,
    /// Rows of a row group at most.
    pub row_group_rows: usize,
    /// Approximate bytes of memory at which a row group is ended.
    pub row_group_bytes: u64,
    /// Rows after which a row group ends where the event time changes.
    pub row_group_rows_soft: usize,
    /// The zstd compression level.
    pub compression_level: i32,
    /// Commits between two checkpoints of the log.
    pub checkpoint_interval: u64,
    /// How long replaced files and old entries are retained in the log of a new table, for current readers.
    pub log_retention: Duration,
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
            log_retention: Duration::from_secs(3_600),
            bloom_filters: false,
        }
    }
}
