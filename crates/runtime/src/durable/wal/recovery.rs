//! Reads a log after a start: whole segments, a torn tail cut off, damage refused.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use arrow::datatypes::SchemaRef;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Result};

use crate::durable::directory::{failed, sync_dir};
use crate::durable::wal::record::{Found, HeaderError, read, read_segment_header};

/// What a log held.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// One past the last offset.
    pub(crate) end: u64,
    /// The rows that were asked for, with their first offsets.
    pub(crate) batches: Vec<(u64, RecordBatch)>,
    /// A tail that was never acknowledged and has been cut off.
    pub(crate) cut: Option<CutTail>,
}

/// What a crash left of an append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CutTail {
    pub(crate) file: PathBuf,
    /// Where it was cut.
    pub(crate) at: u64,
    pub(crate) bytes: u64,
    pub(crate) why: &'static str,
}

/// Reads the segments of `dir`; rows below `from` are checked and left out.
pub(super) fn recover(
    dir: &Path,
    schema: &SchemaRef,
    from: u64,
) -> Result<(Recovered, BTreeMap<u64, PathBuf>)> {
    let mut segments = list(dir)?;
    let firsts: Vec<u64> = segments.keys().copied().collect();
    let mut recovered = Recovered { end: from, batches: vec![], cut: None };
    if let Some(first) = firsts.first()
        && *first > from
    {
        let path = segments.get(first).cloned().unwrap_or_default();
        return Err(missing(&path, from));
    }
    let mut end = firsts.first().copied().unwrap_or(from);
    for (number, first) in firsts.iter().enumerate() {
        let Some(path) = segments.get(first).cloned() else { continue };
        if *first != end {
            return Err(missing(&path, end));
        }
        let is_last = number + 1 == firsts.len();
        let mut segment = Segment { path: &path, schema, from, is_last };
        if !segment.read(&mut end, &mut recovered)? {
            // A segment that was begun and has no row.
            fs::remove_file(&path).map_err(|e| failed("delete", &path, e))?;
            sync_dir(dir)?;
            segments.remove(first);
        }
    }
    // The archive may have rows of which the log has let go.
    recovered.end = end.max(from);
    if end < from {
        for path in segments.values() {
            fs::remove_file(path).map_err(|e| failed("delete", path, e))?;
        }
        segments.clear();
    }
    Ok((recovered, segments))
}

fn list(dir: &Path) -> Result<BTreeMap<u64, PathBuf>> {
    let mut segments = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(|e| failed("read", dir, e))? {
        let path = entry.map_err(|e| failed("read", dir, e))?.path();
        let first = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(".wal"));
        if let Some(first) = first.and_then(|n| n.parse().ok()) {
            segments.insert(first, path);
        }
    }
    Ok(segments)
}

struct Segment<'a> {
    path: &'a Path,
    schema: &'a SchemaRef,
    from: u64,
    is_last: bool,
}

impl Segment<'_> {
    /// Reads all records; `false` when not even the header is whole.
    fn read(&mut self, end: &mut u64, recovered: &mut Recovered) -> Result<bool> {
        let bytes = fs::read(self.path).map_err(|e| failed("read", self.path, e))?;
        let mut at = match read_segment_header(&bytes, self.schema) {
            Ok(Some(at)) => at,
            Ok(None) if self.is_last => return Ok(false),
            Ok(None) => return Err(self.damaged(0, "its header is not whole")),
            Err(error) => return Err(self.refused(error)),
        };
        loop {
            match read(&bytes, at, *end) {
                Found::End => return Ok(true),
                Found::Record { first, rows, batch, next } => {
                    *end = first + rows;
                    at = next;
                    if *end > self.from {
                        let skip = usize::try_from(self.from.saturating_sub(first)).unwrap_or(0);
                        let batch = batch.slice(skip, batch.num_rows() - skip);
                        recovered.batches.push((first.max(self.from), batch));
                    }
                }
                Found::Torn(why) if self.is_last => {
                    recovered.cut = Some(self.cut(at, bytes.len(), why)?);
                    return Ok(true);
                }
                Found::Torn(why) => return Err(self.damaged(at, why)),
                Found::Damaged(why) => return Err(self.damaged(at, &why)),
            }
        }
    }

    fn cut(&self, at: usize, len: usize, why: &'static str) -> Result<CutTail> {
        let cut = || {
            let file = fs::OpenOptions::new().write(true).open(self.path)?;
            file.set_len(at as u64)?;
            file.sync_all()
        };
        cut().map_err(|e| failed("cut", self.path, e))?;
        let (at, bytes) = (at as u64, (len - at) as u64);
        Ok(CutTail { file: self.path.to_owned(), at, bytes, why })
    }

    fn damaged(&self, at: usize, why: &str) -> Error {
        let message = format!("\"{}\" is damaged at byte {at}: {why}", self.path.display());
        Error::new(ErrorKind::Corrupt, message)
            .with_hint("Restore the file from a backup; nothing has been overwritten.")
    }

    fn refused(&self, error: HeaderError) -> Error {
        let path = self.path.display();
        match error {
            HeaderError::Damaged(why) => self.damaged(0, &why),
            HeaderError::Version(version) => Error::data(format!(
                "\"{path}\" has format {version}, which this version does not know"
            )),
            HeaderError::Schema => {
                Error::data(format!("the rows of \"{path}\" have other columns than their stream"))
            }
        }
    }
}

fn missing(path: &Path, offset: u64) -> Error {
    let message = format!("rows from offset {offset} on are missing before \"{}\"", path.display());
    Error::new(ErrorKind::Corrupt, message)
        .with_hint("Restore the missing file from a backup; nothing has been overwritten.")
}
