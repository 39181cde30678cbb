//! Reading a log back at startup.
//!
//! ```text
//! segments    000…0.wal   00…80.wal   0…160.wal
//!             ├─────────┤ ├──┬──────┤ ├───────┬ torn ┤
//!              below      from         ▲ end   └─ cut: nothing valid follows
//!              `from`:    └─ returned ─┘
//!              not read
//! ```
//! Invariants: what is returned tiles from `from` to `end`, except for gaps whose loss was accepted; only the very tail
//! of the last segment is ever truncated, and only when no whole record follows and files can be torn, and when the log
//! is not known to have been longer; anything else that is wrong is an error and changes nothing on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Layout, Result};

use super::producers::Producers;
use super::segment::{self, Beginning, Header};
use super::{CutTail, Known, Recovered, Segment};
use crate::files::{Files, corrupt, io_error};

/// The extension of a segment's name.
const EXTENSION: &str = ".wal";
/// Digits of the first offset in its name.
const DIGITS: usize = 20;

/// A log as found on disk.
pub(super) struct Found {
    /// All segments, ascending.
    pub(super) segments: Vec<Segment>,
    /// The length of the last segment when it can be appended to.
    pub(super) active_len: Option<u64>,
    /// The progress of the producers.
    pub(super) producers: Producers,
    pub(super) recovered: Recovered,
}

/// Returns the file of the segment that begins at `first`.
pub(super) fn segment_path(dir: &Path, first: u64) -> PathBuf {
    dir.join(format!("{first:020}{EXTENSION}"))
}

impl Found {
    /// Truncates the torn tail, or removes the torn segment.
    pub(super) fn cut(&self, files: &dyn Files) -> Result<()> {
        let Some(CutTail { file: path, at, .. }) = &self.recovered.cut else { return Ok(()) };
        if *at == 0 {
            let dir = path.parent().unwrap_or(path);
            return files
                .remove(path)
                .and_then(|()| files.sync_dir(dir))
                .map_err(|e| io_error("remove", path, e));
        }
        let cut = || -> std::io::Result<()> {
            let mut file = files.append(path)?;
            file.truncate(*at)?;
            file.sync()
        };
        cut().map_err(|e| io_error("cut the torn end of", path, e))
    }
}

/// Reads the log in `dir`, and changes nothing.
pub(super) fn recover(
    files: &dyn Files,
    dir: &Path,
    schema: &SchemaRef,
    from: u64,
    known: &Known,
) -> Result<Found> {
    let from = known.gaps.after(from);
    let segments = list(files, dir)?;
    let mut found = Found {
        segments,
        active_len: None,
        producers: Producers::default(),
        recovered: Recovered { first: from, end: from, batches: vec![], cut: None },
    };
    let Some(oldest) = found.segments.first() else {
        // Nothing of it is left; the producers of the archived rows are known from when they were archived.
        found.producers = known.producers.clone().unwrap_or_default();
        return Ok(found);
    };
    if oldest.first > from {
        let why = format!("it begins at offset {}, but offset {from} is needed", oldest.first);
        return Err(damaged(&oldest.path, 0, &why));
    }
    // Segments that end at or below `from` are not needed; deleting them may have left holes.
    let mut needed = found.segments.partition_point(|s| s.first <= from) - 1;
    let count = found.segments.len();
    if needed > 0
        && needed + 1 == count
        && let Some(last) = found.segments.get(needed)
        && !is_begun(files, &last.path)?
    {
        // The producers that it does not name are those of the segment before.
        needed -= 1;
    }
    let mut reading = Reading {
        files,
        layout: Layout::new(Arc::clone(schema), known.added.clone()),
        known,
        from,
        end: 0,
        producers: Producers::default(),
        batches: vec![],
        cut: None,
    };
    reading.end = found.segments.get(needed).map_or(from, |s| s.first);
    for (i, segment) in found.segments.iter().enumerate().skip(needed) {
        found.active_len = reading.segment(segment, i + 1 == count)?;
    }
    if found.active_len.is_none() {
        found.segments.pop();
    }
    if reading.end < from {
        // Rows that were archived but not retained by the log (durability 'os'): it resumes behind them.
        found.active_len = None;
        reading.end = from;
        if let Some(marked) = &known.producers {
            // The producers of those rows are known from when they were archived.
            reading.producers = marked.clone();
        }
    }
    let behind = known.gaps.after(reading.end);
    if behind > reading.end {
        found.active_len = None;
        reading.end = behind;
    }
    found.producers = reading.producers;
    found.recovered.end = reading.end;
    found.recovered.batches = reading.batches;
    found.recovered.cut = reading.cut;
    Ok(found)
}

/// Lists the segments in a directory, ascending.
pub(super) fn list(files: &dyn Files, dir: &Path) -> Result<Vec<Segment>> {
    let names = files.list(dir).map_err(|e| io_error("list", dir, e))?;
    let mut segments: Vec<_> = names
        .iter()
        .filter_map(|name| {
            let digits = name.strip_suffix(EXTENSION).filter(|d| d.len() == DIGITS)?;
            Some(Segment { first: digits.parse().ok()?, path: dir.join(name) })
        })
        .collect();
    segments.sort_by_key(|s| s.first);
    Ok(segments)
}

struct Reading<'a> {
    files: &'a dyn Files,
    layout: Layout,
    known: &'a Known,
    from: u64,
    /// One past the last offset that was read.
    end: u64,
    /// The progress of the producers there.
    producers: Producers,
    batches: Vec<(u64, RecordBatch)>,
    cut: Option<CutTail>,
}

/// Whether a segment has a header.
fn is_begun(files: &dyn Files, path: &Path) -> Result<bool> {
    let bytes = files.read(path).map_err(|e| io_error("read", path, e))?;
    Ok(!matches!(segment::read_header(&bytes), Header::Damaged(_)))
}

impl Reading<'_> {
    /// Reads one segment; returns its length, or `None` when it was removed.
    fn segment(&mut self, segment: &Segment, last: bool) -> Result<Option<u64>> {
        let path = &segment.path;
        let bytes = self.files.read(path).map_err(|e| io_error("read", path, e))?;
        if segment.first == self.known.gaps.after(self.end) {
            self.end = segment.first;
        } else if segment.first != self.end {
            let why = format!(
                "it begins at offset {}, but the rows before it end at {}",
                segment.first, self.end
            );
            return Err(damaged(path, 0, &why));
        }
        let mut at = match segment::read_header(&bytes) {
            Header::Whole { owner, .. } if !self.is_owner(owner.as_deref()) => {
                return Err(other_owner(path));
            }
            Header::Whole { schema, producers, len, .. } if self.layout.extends(&schema) => {
                self.producers = producers;
                len
            }
            Header::Whole { .. } => return Err(other_schema(path)),
            Header::UnknownVersion(version) => return Err(unknown_version(path, version)),
            Header::Damaged(why) => {
                self.remove_torn(segment, &bytes, last, why)?;
                return Ok(None);
            }
        };
        while at < bytes.len() {
            match segment::read_record(&bytes, at) {
                Ok(record) => {
                    self.take(path, at, &record)?;
                    at = record.next;
                }
                Err(_)
                    if last
                        && !self.files.writes_whole()
                        && !segment::valid_record_after(&bytes, at, self.end) =>
                {
                    break;
                }
                Err(why) => return Err(damaged(path, at, why)),
            }
        }
        let why = segment::read_record(&bytes, at).err().unwrap_or_default();
        if at < bytes.len() {
            let cut = (bytes.len() - at) as u64;
            self.cut = Some(CutTail { file: path.to_path_buf(), at: at as u64, bytes: cut, why });
        }
        Ok(Some(at as u64))
    }

    /// Whether a log with this owner is the expected one.
    fn is_owner(&self, said: Option<&str>) -> bool {
        match (&self.known.owner, said) {
            (None, _) => true,
            (Some(owner), None) => owner.may_be_unrecorded,
            (Some(owner), Some(said)) => owner.id == said,
        }
    }

    fn take(&mut self, path: &Path, at: usize, record: &segment::Record<'_>) -> Result<()> {
        if record.first != self.end {
            let why =
                format!("the record begins at offset {} instead of {}", record.first, self.end);
            return Err(damaged(path, at, &why));
        }
        record.stamps.iter().for_each(|stamp| self.producers.take(stamp));
        if record.first + u64::from(record.rows) <= self.from {
            self.end += u64::from(record.rows);
            return Ok(());
        }
        for batch in record.batches(&self.layout).map_err(|e| damaged(path, at, e.message()))? {
            let rows = batch.num_rows() as u64;
            let skip = self.from.saturating_sub(self.end).min(rows);
            if skip < rows {
                // Both are at most the rows of a batch, which fit.
                let batch = batch.slice(skip as usize, (rows - skip) as usize);
                self.batches.push((self.end + skip, batch));
            }
            self.end += rows;
        }
        Ok(())
    }

    /// Marks a last segment whose creation was interrupted for removal: it has no rows.
    fn remove_torn(
        &mut self,
        segment: &Segment,
        bytes: &[u8],
        last: bool,
        why: &'static str,
    ) -> Result<()> {
        let path = &segment.path;
        let owner = self.known.owner.as_ref().map(|owner| owner.id.as_str());
        let (schema, producers) = (&**self.layout.schema(), &self.producers);
        let header = segment::encode_header(Beginning { schema, producers, owner })?.len();
        if !last || bytes.len() > header || self.files.writes_whole() {
            return Err(damaged(path, 0, why));
        }
        let bytes = bytes.len() as u64;
        self.cut = Some(CutTail { file: path.clone(), at: 0, bytes, why });
        Ok(())
    }
}

/// Returns the error for a log that is damaged, or lacks something, with more behind it.
fn damaged(path: &Path, at: usize, why: &str) -> Error {
    corrupt(path, at, why).with_hint(
        "--accept-lost-rows accepts rows that are missing at the end of a log, not in its middle. Without a copy, move this \
         file and those behind it away: then their rows are its lost end. DROP discards the stream.",
    )
}

fn other_owner(path: &Path) -> Error {
    let message = format!("\"{}\" is of another log", path.display());
    Error::new(ErrorKind::Corrupt, message).with_hint(
        "Another directory has been put in its place. Restore the one that was there; nothing has been \
         overwritten.",
    )
}

fn other_schema(path: &Path) -> Error {
    Error::data(format!("the rows in \"{}\" have other columns than declared", path.display()))
        .with_hint("Declare the stream with the columns that it was created with.")
}

fn unknown_version(path: &Path, version: u32) -> Error {
    Error::data(format!(
        "\"{}\" has log format {version}, and this version of windrow knows format {}",
        path.display(),
        segment::VERSION
    ))
    .with_hint("Use the version of windrow that wrote it, or a newer one.")
}
