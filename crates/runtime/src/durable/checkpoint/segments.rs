//! The files of a checkpoint beside its manifest: segments as Arrow IPC streams with LZ4, late
//! and bad rows as lines of JSON. A file is written once and never changed; its checksum is in the manifest.

use std::io::{self, Cursor, Write};
use std::path::Path;

use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result};
use windrow_operators::SavedSegment;

use super::manifest::{FileEntry, SegmentEntry};
use crate::durable::files::{Files, LogFile, corrupt, io_error};
use crate::query::cut::Unused;

/// Bytes that go to the file at a time.
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

/// Writes a new file by `fill`; its bytes are durable on return, its name once the directory is
/// synced.
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

/// Writes segments of one operator (all have the same columns) to a new file.
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
            slice: segment.slice,
            counts_from: segment.counts_from,
            rows: segment.rows,
            file: name.clone(),
            first_batch: batches,
            batches: segment.pieces_len(),
        });
        batches += segment.pieces_len();
    }
    // One piece is in memory at a time: what has gone to disk is as large as it likes.
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

/// The bytes of a file, if they are those that were written.
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

/// All batches of a file of segments.
///
/// # Errors
/// When it cannot be read, or is damaged.
pub(super) fn read_segments(
    files: &dyn Files,
    path: &Path,
    entry: &FileEntry,
) -> Result<Vec<RecordBatch>> {
    let bytes = read(files, path, entry)?;
    if bytes.is_empty() {
        return Ok(vec![]);
    }
    let damaged = |e: arrow::error::ArrowError| corrupt(path, 0, &e.to_string());
    let reader = StreamReader::try_new(Cursor::new(bytes), None).map_err(damaged)?;
    reader.collect::<Result<_, _>>().map_err(damaged)
}

/// The late and bad rows of a file.
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
