//! Writing rows as Parquet: where files and row groups end, and what the footers contain.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::compute::kernels::cmp::distinct;
use arrow::datatypes::{DataType, SchemaRef};
use arrow::row::{RowConverter, SortField};
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::schema::types::ColumnPath;
use windrow_core::{Error, Result};

use crate::file_stats::{FileStats, StatsCollector};
use crate::spec::{ArchiveOptions, Provenance, TableSpec};
use crate::{failure, precision};

/// The footer key of the provenance.
pub(crate) const PROVENANCE_KEY: &str = "windrow.provenance";

/// Rows are written in pieces of at most this many, so that sizes are checked often enough.
const PIECE_ROWS: usize = 8 << 10;

/// A file that is encoded and not stored yet.
#[derive(Debug)]
pub(crate) struct EncodedFile {
    /// Its first row in the sequence.
    pub(crate) start: u64,
    /// One past its last row.
    pub(crate) end: u64,
    /// The Parquet file.
    pub(crate) bytes: Vec<u8>,
    /// Statistics of its columns.
    pub(crate) stats: FileStats,
}

/// The file being written.
struct Open {
    writer: ArrowWriter<Vec<u8>>,
    stats: StatsCollector,
    start: u64,
    rows: u64,
    /// The event time of the last row, in an array of one.
    last_time: Option<ArrayRef>,
}

/// An encoder of a run of rows as files near the target size.
pub(crate) struct FileWriter {
    spec: Arc<TableSpec>,
    /// The columns of a file.
    stored: SchemaRef,
    options: ArchiveOptions,
    /// The next row in the sequence.
    next: u64,
    open: Option<Open>,
    done: Vec<EncodedFile>,
    /// The provenance in the footers.
    pub(crate) provenance: Provenance,
}

impl FileWriter {
    /// Returns a writer whose first row is `start`.
    pub(crate) fn new(
        spec: Arc<TableSpec>,
        options: ArchiveOptions,
        start: u64,
        provenance: Provenance,
    ) -> Self {
        let stored = precision::stored(&spec.schema);
        Self { spec, stored, options, next: start, open: None, done: vec![], provenance }
    }

    /// The table that is written.
    pub(crate) fn spec(&self) -> &TableSpec {
        &self.spec
    }

    /// Encodes rows.
    pub(crate) fn push(&mut self, batch: &RecordBatch) -> Result<()> {
        let mut at = 0;
        while at < batch.num_rows() {
            let rest = batch.slice(at, PIECE_ROWS.min(batch.num_rows() - at));
            at += self.push_piece(&rest)?;
            self.end_if_full()?;
        }
        Ok(())
    }

    /// Encodes the first rows of a piece up to the end of a row group; returns how many.
    fn push_piece(&mut self, piece: &RecordBatch) -> Result<usize> {
        if self.open.is_none() {
            self.open = Some(self.begin(piece)?);
        }
        let name = &self.spec.name;
        let open = self.open.as_mut().ok_or_else(|| Error::internal("no archive file is open"))?;
        let mut rows = piece.num_rows();
        let mut ends = false;
        let times = self.spec.event_time.and_then(|i| piece.columns().get(i));
        if open.writer.in_progress_size() as u64 >= self.options.row_group_bytes {
            open.writer.flush().map_err(|e| failure::encoding(name, e))?;
        }
        if let Some(times) = times
            && open.writer.in_progress_rows() >= self.options.row_group_rows_soft
            && let Some(change) = first_change(open.last_time.as_ref(), times)?
        {
            ends = true;
            rows = change;
        }
        if rows > 0 {
            let part = piece.slice(0, rows);
            let stored = precision::split(&part, &self.stored)?;
            open.writer.write(&stored).map_err(|e| failure::encoding(name, e))?;
            open.stats.add(&part)?;
            open.rows += rows as u64;
            open.last_time = times.map(|t| t.slice(rows - 1, 1));
            self.next += rows as u64;
        }
        if ends {
            open.writer.flush().map_err(|e| failure::encoding(name, e))?;
        }
        Ok(rows)
    }

    /// Begins a file whose first rows are in `piece`.
    fn begin(&self, piece: &RecordBatch) -> Result<Open> {
        let level = ZstdLevel::try_new(self.options.compression_level)
            .map_err(|e| failure::encoding(&self.spec.name, e))?;
        let mut properties = WriterProperties::builder()
            .set_created_by(format!("windrow {}", self.spec.engine_version))
            .set_compression(Compression::ZSTD(level))
            .set_max_row_group_row_count(Some(self.options.row_group_rows.max(1)));
        if self.options.bloom_filters {
            // The Parquet writer folds a filter that turns out too large.
            let distinct = self.options.row_group_rows.max(1) as u64;
            for column in key_columns(piece)? {
                let column = ColumnPath::from(vec![column]);
                properties = properties
                    .set_column_bloom_filter_enabled(column.clone(), true)
                    .set_column_bloom_filter_max_ndv(column, distinct);
            }
        }
        let properties = properties.build();
        let writer = ArrowWriter::try_new(vec![], Arc::clone(&self.stored), Some(properties))
            .map_err(|e| failure::encoding(&self.spec.name, e))?;
        let stats = StatsCollector::new(&self.spec.schema)?;
        Ok(Open { writer, stats, start: self.next, rows: 0, last_time: None })
    }

    /// Ends the file if it has reached the target size.
    fn end_if_full(&mut self) -> Result<()> {
        let full = self.open.as_ref().is_some_and(|open| {
            let bytes = open.writer.bytes_written() + open.writer.in_progress_size();
            bytes as u64 >= self.options.target_file_bytes
        });
        if full { self.end() } else { Ok(()) }
    }

    /// Ends the file.
    fn end(&mut self) -> Result<()> {
        let Some(mut open) = self.open.take() else { return Ok(()) };
        let provenance = serde_json::to_string(&self.provenance)
            .map_err(|e| Error::internal(format!("cannot record a provenance: {e}")))?;
        for (key, value) in [
            (PROVENANCE_KEY, provenance),
            ("windrow.table", self.spec.name.clone()),
            ("windrow.engine_version", self.spec.engine_version.clone()),
            ("windrow.fingerprint", self.spec.fingerprint.clone()),
        ] {
            open.writer.append_key_value_metadata(KeyValue::new(key.to_owned(), value));
        }
        let bytes = open.writer.into_inner().map_err(|e| failure::encoding(&self.spec.name, e))?;
        self.done.push(EncodedFile {
            start: open.start,
            end: open.start + open.rows,
            bytes,
            stats: open.stats.finish(&self.spec.schema)?,
        });
        Ok(())
    }

    /// Returns the files that have ended since the last call.
    pub(crate) fn take_done(&mut self) -> Vec<EncodedFile> {
        std::mem::take(&mut self.done)
    }

    /// Ends the last file and returns the remaining ones.
    pub(crate) fn finish(mut self) -> Result<Vec<EncodedFile>> {
        self.end()?;
        Ok(self.done)
    }
}

/// Fewer rows are not representative of a column.
const SAMPLE_ROWS_MIN: usize = 256;

/// Returns the columns that are likely to be looked up by single values, and where most rows have distinct values:
/// other values are in nearly every row group, so that a filter would rule out none.
fn key_columns(sample: &RecordBatch) -> Result<Vec<String>> {
    let mut found = vec![];
    if sample.num_rows() < SAMPLE_ROWS_MIN {
        return Ok(found);
    }
    let schema = sample.schema();
    for (field, column) in schema.fields().iter().zip(sample.columns()) {
        let kind = field.data_type();
        let text = matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View);
        if !kind.is_integer() && !text {
            continue;
        }
        let values = RowConverter::new(vec![SortField::new(kind.clone())])?
            .convert_columns(std::slice::from_ref(column))?;
        let distinct: HashSet<&[u8]> = values.iter().map(|row| row.data()).collect();
        if distinct.len() * 2 >= sample.num_rows() {
            found.push(field.name().clone());
        }
    }
    Ok(found)
}

/// Returns the first row whose time differs from that of the row before it.
fn first_change(before: Option<&ArrayRef>, times: &ArrayRef) -> Result<Option<usize>> {
    if let Some(before) = before
        && distinct(before, &times.slice(0, 1))?.value(0)
    {
        return Ok(Some(0));
    }
    let pairs = times.len() - 1;
    let changes = distinct(&times.slice(0, pairs), &times.slice(1, pairs))?;
    Ok((0..pairs).find(|i| changes.value(*i)).map(|i| i + 1))
}

/// Returns the batch with the table's own schema, and with the columns that were added since it was made.
///
/// # Errors
/// When its columns are not those of the table (a bug in Windrow).
pub(crate) fn conform(spec: &TableSpec, batch: &RecordBatch) -> Result<RecordBatch> {
    spec.layout().widened(batch).map_err(|e| {
        let message = format!("rows do not fit the archive table \"{}\": {e}", spec.name);
        Error::internal(message).with_source(e)
    })
}
