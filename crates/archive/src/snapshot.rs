//! The committed rows at one moment, and reading them as a sequence.

use std::sync::{Arc, Weak};

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStoreExt;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::ParquetRecordBatchStreamBuilder;
use parquet::errors::ParquetError;
use parquet::file::metadata::PageIndexPolicy;
use windrow_core::offset::Gaps;
use windrow_core::{Error, ErrorKind, Result};

use crate::file_entry::FileEntry;
use crate::file_reader::FileReader;
use crate::file_stats::ticks;
use crate::file_writer::PROVENANCE_KEY;
use crate::live::Live;
use crate::spec::{ArchiveFile, ArchiveState, Provenance, TableSpec};
use crate::storage::Storage;
use crate::{delta_schema, failure, precision};

/// The rows of a table at one moment. The process does not vacuum its files while it exists.
#[derive(Debug, Clone)]
pub struct ArchiveSnapshot {
    pub(crate) storage: Storage,
    pub(crate) spec: Arc<TableSpec>,
    pub(crate) live: Arc<Live>,
}

/// The files of a snapshot, without holding them.
#[derive(Debug, Clone)]
pub struct HeldFiles(Vec<Weak<FileEntry>>);

impl HeldFiles {
    /// Whether anything holds one of them: the table, a snapshot, or a reader.
    pub fn are_held(&self) -> bool {
        self.0.iter().any(|file| file.strong_count() > 0)
    }
}

/// The rows and columns to read from a file.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// The indexes of the columns, in the requested order.
    pub(crate) projection: Vec<usize>,
    /// The schema of these columns.
    pub(crate) schema: SchemaRef,
    /// The first row, in the sequence.
    pub(crate) from_row: u64,
    /// Rows per batch at most.
    pub(crate) batch_rows: usize,
}

/// A file's rows, and their provenance if the file has it.
pub(crate) struct OpenedFile {
    /// Its rows.
    pub(crate) rows: BoxStream<'static, Result<RecordBatch>>,
    /// Its provenance.
    pub(crate) provenance: Option<Provenance>,
}

impl ArchiveSnapshot {
    /// The extent of the snapshot.
    pub fn state(&self) -> ArchiveState {
        self.live.state.clone()
    }

    /// The number of the next row to be appended: behind any lost rows at the end of the sequence.
    pub fn next_row(&self) -> u64 {
        self.spec.gaps.after(self.live.state.rows)
    }

    /// Rows of the sequence that were lost.
    pub fn gaps(&self) -> &Gaps {
        &self.spec.gaps
    }

    /// The files, in the order of their rows.
    pub fn files(&self) -> impl Iterator<Item = ArchiveFile> + '_ {
        self.live.files.iter().map(|file| ArchiveFile {
            path: self.storage.shown_path(&self.storage.path_of(&file.name)),
            first_row: file.start,
            rows: file.end - file.start,
            bytes: file.bytes,
        })
    }

    /// Returns a handle that shows whether the snapshot's files are still held.
    pub fn held(&self) -> HeldFiles {
        HeldFiles(self.live.files.iter().map(Arc::downgrade).collect())
    }

    /// Returns a row before which all rows have an event time below `event_time` (in ticks of its column): whole files
    /// are skipped where their bounds are known.
    pub fn row_from(&self, event_time: i64) -> u64 {
        let older = |file: &Arc<FileEntry>| {
            let column = self.spec.event_time.and_then(|c| file.stats.columns.get(c));
            let max = column.and_then(|c| ticks(c.max.as_ref()?));
            // NULL has no place in the order of time.
            let nulls = column.and_then(|c| c.nulls);
            max.is_some_and(|max| max < event_time) && nulls == Some(0)
        };
        let first = self.live.files.iter().find(|file| !older(file));
        first.map_or(self.live.state.rows, |file| file.start)
    }

    /// Returns the files whose rows are all at `row` or after, and the end of the rows of a file that begins before it
    /// and ends after it; `None`: there is no such file.
    pub fn from_row(&self, row: u64) -> (Self, Option<u64>) {
        let files = &self.live.files;
        let parted = files.iter().find(|file| file.start < row && row < file.end);
        let whole: Vec<_> = files.iter().filter(|file| file.start >= row).cloned().collect();
        let live = Arc::new(Live::of(whole, self.live.state.txn_version));
        let (storage, spec) = (self.storage.clone(), Arc::clone(&self.spec));
        (Self { storage, spec, live }, parted.map(|file| file.end))
    }

    /// Returns one past the last row at the front whose event times the files know to be below `event_time`, among
    /// those before `end_max`: whole files.
    pub fn older_until(&self, event_time: i64, end_max: u64) -> u64 {
        let Some(column) = self.spec.event_time else { return self.live.state.first_row };
        let older = self.live.files.iter().take_while(|file| {
            let max = file.stats.columns.get(column).and_then(|c| ticks(c.max.as_ref()?));
            file.end <= end_max && max.is_some_and(|max| max < event_time)
        });
        older.last().map_or(self.live.state.first_row, |file| file.end)
    }

    /// Returns the greatest event time known from the files, in ticks of its column; it may be slightly greater than
    /// that of any row.
    pub fn greatest_event_time(&self) -> Option<i64> {
        let column = self.spec.event_time?;
        let files = self.live.files.iter();
        files.filter_map(|f| ticks(f.stats.columns.get(column)?.max.as_ref()?)).max()
    }

    /// Adds columns at the end. `added`: as in [`ArchiveTable::widen`](crate::ArchiveTable::widen).
    pub fn widen(&mut self, schema: SchemaRef, added: Vec<ArrayRef>) {
        self.spec = Arc::new(TableSpec { schema, added, ..self.spec.as_ref().clone() });
    }

    /// The schema of the rows.
    pub fn schema(&self) -> &SchemaRef {
        &self.spec.schema
    }

    /// Reads the rows from `from_row` on, in sequence, in batches of at most `batch_rows` rows, with the columns
    /// `projection` (in that order).
    ///
    /// # Errors
    /// When the rows at `from_row` were dropped, or a column does not exist. The stream returns an error when a file
    /// cannot be read.
    pub async fn read(
        &self,
        from_row: u64,
        projection: &[usize],
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        let state = &self.live.state;
        if from_row < state.first_row {
            return Err(Error::data(format!(
                "row {from_row} of \"{}\" is no longer there",
                self.spec.name
            ))
            .with_detail(format!("The first retained row is {}.", state.first_row)));
        }
        let part = Part {
            projection: projection.to_vec(),
            schema: Arc::new(self.spec.schema.project(projection).map_err(|e| {
                Error::internal(format!("no such column in \"{}\": {e}", self.spec.name))
            })?),
            from_row,
            batch_rows: batch_rows.max(1),
        };
        let first = self.live.files.partition_point(|f| f.end <= from_row);
        let files: Vec<Arc<FileEntry>> = self.live.files.iter().skip(first).cloned().collect();
        let (storage, spec) = (self.storage.clone(), Arc::clone(&self.spec));
        let rows =
            stream::iter(files)
                .then(move |file| {
                    let (storage, spec, part) = (storage.clone(), Arc::clone(&spec), part.clone());
                    async move {
                        open_file(&storage, &spec, &file, part).await.map(|opened| opened.rows)
                    }
                })
                .try_flatten();
        Ok(rows.boxed())
    }
}

/// Opens a file at the first row of `part`.
pub(crate) async fn open_file(
    storage: &Storage,
    spec: &TableSpec,
    file: &Arc<FileEntry>,
    part: Part,
) -> Result<OpenedFile> {
    let path = storage.path_of(&file.name);
    let shown = storage.shown_path(&path);
    let input = FileReader { store: storage.root(), path, bytes: file.bytes };
    let skip = part.from_row.saturating_sub(file.start);
    // Page indexes are read only where rows are skipped.
    let pages = if skip > 0 { PageIndexPolicy::Optional } else { PageIndexPolicy::Skip };
    let options = ArrowReaderOptions::new().with_page_index_policy(pages);
    let builder = match ParquetRecordBatchStreamBuilder::new_with_options(input, options).await {
        Ok(builder) => builder,
        Err(e) => return Err(unreadable(storage, file, &shown, e).await),
    };
    let width = check(spec, file, &shown, &builder)?;
    let narrow = spec.narrow(width);
    let mut groups = vec![];
    let (mut before, mut offset) = (0_u64, None);
    for (i, group) in builder.metadata().row_groups().iter().enumerate() {
        let end = before + u64::try_from(group.num_rows()).unwrap_or(0);
        if end > skip {
            offset.get_or_insert(skip.saturating_sub(before));
            groups.push(i);
        }
        before = end;
    }
    let offset = usize::try_from(offset.unwrap_or(0)).unwrap_or(usize::MAX);
    let stored = part.projection.iter().filter(|c| **c < width);
    let mut read: Vec<usize> = stored.clone().copied().collect();
    read.extend(stored.filter_map(|c| precision::rest_of(&narrow, *c)));
    let mask = ProjectionMask::roots(builder.parquet_schema(), read.iter().copied());
    let provenance = builder
        .metadata()
        .file_metadata()
        .key_value_metadata()
        .and_then(|all| all.iter().find(|kv| kv.key == PROVENANCE_KEY))
        .and_then(|kv| serde_json::from_str(kv.value.as_deref()?).ok());
    let rows = builder
        .with_row_groups(groups)
        .with_projection(mask)
        .with_offset(offset)
        .with_batch_size(part.batch_rows)
        .build()
        .map_err(|e| failure::reading(&shown, e))?;
    // The reader returns columns in the order of the file; this restores the requested order.
    read.sort_unstable();
    read.dedup();
    let order = part.projection.iter().map(|column| {
        let at = |c: usize| read.binary_search(&c).ok();
        match at(*column).filter(|_| *column < width) {
            Some(whole) => Place::File(whole, precision::rest_of(&narrow, *column).and_then(at)),
            None => Place::Nowhere(*column),
        }
    });
    let order: Vec<Place> = order.collect();
    let layout = spec.layout();
    // The entry stays with the stream, so that a vacuum sees that its file is being read.
    let held = Arc::clone(file);
    let rows = rows.map(move |batch| {
        let batch = batch.map_err(|e| failure::reading(&shown, e))?;
        let column = |place: &Place| match place {
            Place::File(whole, Some(rest)) => {
                precision::join(batch.column(*whole), batch.column(*rest))
            }
            Place::File(whole, None) => Ok(Arc::clone(batch.column(*whole))),
            Place::Nowhere(column) => layout.missing(*column, batch.num_rows()),
        };
        let columns = order.iter().map(column).collect::<Result<_>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        RecordBatch::try_new_with_options(Arc::clone(&part.schema), columns, &options)
            .map_err(|e| damaged(&held.name, &e.to_string()))
    });
    Ok(OpenedFile { rows: rows.boxed(), provenance })
}

/// Where a column of the table is in a file.
enum Place {
    /// At this index among the columns that are read, and its remainder at that one.
    File(usize, Option<usize>),
    /// It was added to the table later, where it has this index.
    Nowhere(usize),
}

/// Refuses a file that differs from its log entry. Returns how many columns of the table it has.
fn check(
    spec: &TableSpec,
    file: &FileEntry,
    shown: &str,
    builder: &ParquetRecordBatchStreamBuilder<FileReader>,
) -> Result<usize> {
    let Some(width) = spec.width_of(builder.schema()) else {
        let stored = precision::stored(&spec.schema);
        let how = delta_schema::difference(builder.schema(), &stored);
        return Err(damaged(shown, "its columns are not those of the table").with_detail(how));
    };
    let rows = builder.metadata().file_metadata().num_rows();
    if u64::try_from(rows).ok() != Some(file.end - file.start) {
        return Err(damaged(shown, &format!("it has {rows} rows")));
    }
    Ok(width)
}

/// Returns why a file cannot be opened. A truncated file looks like a store that does not respond, so its size is
/// compared.
async fn unreadable(storage: &Storage, file: &FileEntry, shown: &str, e: ParquetError) -> Error {
    match storage.root().head(&storage.path_of(&file.name)).await {
        Ok(meta) if meta.size != file.bytes => {
            let how = format!("it has {} bytes and not {}", meta.size, file.bytes);
            damaged(shown, &how).with_source(e)
        }
        _ => failure::reading(shown, e),
    }
}

/// Returns the error for a damaged file.
fn damaged(path: &str, how: &str) -> Error {
    Error::new(ErrorKind::Corrupt, format!("the archive file \"{path}\" is damaged: {how}"))
}
