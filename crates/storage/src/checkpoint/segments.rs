//! The data files of a checkpoint: segments as Arrow IPC streams with LZ4, late and bad rows as lines of JSON. A file
//! is written once and never changed; its checksum is in the manifest.

use std::collections::VecDeque;
use std::fmt;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::error::ArrowError;
use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use windrow_core::{Error, Result};
use windrow_operators::{SavedSegment, SegmentId};

use super::manifest::{FileEntry, SegmentEntry};
use crate::checkpoint::Unused;
use crate::files::{Files, LogFile, corrupt, io_error};

/// Bytes per write to the file.
const WRITE_BYTES: usize = 1 << 20;

/// A file being written, with its checksum.
struct Sink {
    file: Box<dyn LogFile>,
    crc: crc32fast::Hasher,
    bytes: u64,
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all(bytes)?;
        self.crc.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes a new file by `fill`; its bytes are durable on return, its name once the directory is synced.
fn write(
    files: &dyn Files,
    path: &Path,
    fill: impl FnOnce(&mut dyn Write) -> Result<()>,
) -> Result<FileEntry> {
    let file = files.create(path).map_err(|e| io_error("create", path, e))?;
    let sink = Sink { file, crc: crc32fast::Hasher::new(), bytes: 0 };
    let mut out = io::BufWriter::with_capacity(WRITE_BYTES, sink);
    fill(&mut out).map_err(|e| match e.kind() {
        windrow_core::ErrorKind::Unavailable => e,
        kind => Error::new(kind, format!("cannot write \"{}\": {e}", path.display())),
    })?;
    let failed = |e: io::Error| io_error("write", path, e);
    let mut sink = out.into_inner().map_err(|e| failed(e.into_error()))?;
    sink.file.sync().map_err(failed)?;
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    Ok(FileEntry { name, bytes: sink.bytes, crc32: sink.crc.finalize() })
}

/// Writes segments of one input of an operator (all have the same columns) to a new file.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write_segments(
    files: &dyn Files,
    path: &Path,
    segments: &[SavedSegment],
) -> Result<(FileEntry, Vec<SegmentEntry>)> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let mut entries = Vec::with_capacity(segments.len());
    let mut batches = 0;
    for segment in segments {
        entries.push(SegmentEntry {
            id: segment.id.0,
            input: segment.input,
            slice: segment.slice,
            counts_from: segment.counts_from,
            rows: segment.rows,
            times: segment.times,
            file: name.clone(),
            first_batch: batches,
            batches: segment.pieces_len(),
        });
        batches += segment.pieces_len();
    }
    // One piece is in memory at a time: spilled state may be of any size.
    let all = || segments.iter().flat_map(SavedSegment::pieces);
    let entry = write(files, path, |out| {
        let Some(first) = all().next().transpose()? else { return Ok(()) };
        let options =
            IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
        let mut writer = StreamWriter::try_new_with_options(out, &first.schema(), options)?;
        for batch in all() {
            writer.write(&batch?)?;
        }
        writer.finish()?;
        Ok(())
    })?;
    Ok((entry, entries))
}

/// Writes late and bad rows to a new file.
///
/// # Errors
/// When the file cannot be written.
pub(super) fn write_unused(files: &dyn Files, path: &Path, unused: &[Unused]) -> Result<FileEntry> {
    write(files, path, |out| {
        for row in unused {
            serde_json::to_writer(&mut *out, row)
                .map_err(io::Error::from)
                .and_then(|()| out.write_all(b"\n"))
                .map_err(|e| io_error("write", path, e))?;
        }
        Ok(())
    })
}

/// Reads a file and verifies its checksum.
fn read(files: &dyn Files, path: &Path, entry: &FileEntry) -> Result<Vec<u8>> {
    let bytes = files.read(path).map_err(|e| io_error("read", path, e))?;
    if bytes.len() as u64 != entry.bytes {
        let why = format!("it has {} bytes instead of {}", bytes.len(), entry.bytes);
        return Err(corrupt(path, 0, &why));
    }
    if crc32fast::hash(&bytes) != entry.crc32 {
        return Err(corrupt(path, 0, "the checksum is wrong"));
    }
    Ok(bytes)
}

/// Verifies a file of segments.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub(super) fn verify(files: &dyn Files, path: &Path, entry: &FileEntry) -> Result<()> {
    read(files, path, entry).map(drop)
}

/// The segments of one operator, read lazily from their files, in the order of the files.
pub struct StoredSegments {
    files: Arc<dyn Files>,
    dir: PathBuf,
    /// The remaining segments, each with its file.
    left: VecDeque<(SegmentEntry, FileEntry)>,
    open: Option<OpenFile>,
}

/// A file that is being read.
struct OpenFile {
    name: String,
    /// `None` when it has no batches.
    reader: Option<StreamReader<Cursor<Vec<u8>>>>,
    /// Batches read so far.
    next: usize,
}

impl StoredSegments {
    /// Returns the segments `of`, where `all` are the files, which are in `dir`.
    ///
    /// # Errors
    /// When the file of a segment is missing from `all`.
    pub(super) fn new(
        (files, dir): (Arc<dyn Files>, PathBuf),
        of: &[SegmentEntry],
        all: &[FileEntry],
    ) -> Result<Self> {
        let mut left = Vec::with_capacity(of.len());
        for entry in of {
            let file = all.iter().find(|file| file.name == entry.file);
            let file = file.ok_or_else(|| absent(&dir, entry))?;
            left.push((entry.clone(), file.clone()));
        }
        left.sort_by(|(a, _), (b, _)| (&a.file, a.first_batch).cmp(&(&b.file, b.first_batch)));
        Ok(Self { files, dir, left: left.into(), open: None })
    }

    /// The number of remaining segments.
    pub fn len(&self) -> usize {
        self.left.len()
    }

    /// Whether no segment remains.
    pub fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    fn segment(&mut self, entry: &SegmentEntry, file: &FileEntry) -> Result<SavedSegment> {
        let path = self.dir.join(&file.name);
        let damaged = |e: ArrowError| corrupt(&path, 0, &e.to_string());
        let open = match self.open.take() {
            Some(open) if open.name == file.name && open.next <= entry.first_batch => open,
            _ => {
                let bytes = read(&*self.files, &path, file)?;
                let reader = match bytes.is_empty() {
                    true => None,
                    false => {
                        Some(StreamReader::try_new(Cursor::new(bytes), None).map_err(damaged)?)
                    }
                };
                OpenFile { name: file.name.clone(), reader, next: 0 }
            }
        };
        let open = self.open.insert(open);
        let mut batches = Vec::with_capacity(entry.batches);
        while batches.len() < entry.batches {
            let batch = open.reader.as_mut().and_then(Iterator::next);
            let batch = batch.ok_or_else(|| absent(&self.dir, entry))?.map_err(damaged)?;
            if open.next >= entry.first_batch {
                batches.push(batch);
            }
            open.next += 1;
        }
        Ok(SavedSegment {
            id: SegmentId(entry.id),
            input: entry.input,
            slice: entry.slice,
            counts_from: entry.counts_from,
            rows: entry.rows,
            times: entry.times,
            batches,
            spilled: None,
        })
    }
}

impl Iterator for StoredSegments {
    type Item = Result<SavedSegment>;

    fn next(&mut self) -> Option<Self::Item> {
        let (entry, file) = self.left.pop_front()?;
        Some(self.segment(&entry, &file))
    }
}

impl fmt::Debug for StoredSegments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoredSegments").field("left", &self.left).finish_non_exhaustive()
    }
}

fn absent(dir: &Path, entry: &SegmentEntry) -> Error {
    corrupt(&dir.join(&entry.file), 0, "a segment is not in it")
}

/// Reads the late and bad rows of a file.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub(super) fn read_unused(
    files: &dyn Files,
    path: &Path,
    entry: &FileEntry,
) -> Result<Vec<Unused>> {
    let bytes = read(files, path, entry)?;
    serde_json::Deserializer::from_slice(&bytes)
        .into_iter()
        .collect::<Result<_, _>>()
        .map_err(|e| corrupt(path, 0, &e.to_string()))
}
