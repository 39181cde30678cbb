//! Files for spilled state: Arrow IPC streams with LZ4, one after the other.
//!
//! ```text
//! length of the stream (8 bytes, little endian) · stream (schema, one batch, end) · length · …
//! ```
//! They have no name in their directory, so that none outlives the process.

use std::fs::File;
use std::io::{self, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::ipc::CompressionType;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow::record_batch::RecordBatch;
use parking_lot::Mutex;
use windrow_core::{Error, Result};
use windrow_operators::{SpillFile, SpilledFile};

use windrow_storage::files::io_error;

/// Creates a file in `directory`. Bytes written to it are added to `written`.
pub(crate) fn create(directory: &Path, written: Arc<AtomicU64>) -> Result<Box<dyn SpillFile>> {
    let file = StateFile::create(directory)?;
    Ok(Box::new(Writing { file, at: 0, buffer: vec![], written }))
}

/// A file that is read while it is written.
#[derive(Debug)]
pub(crate) struct TailFile {
    file: StateFile,
    end: AtomicU64,
}

impl TailFile {
    pub(super) fn create(directory: &Path) -> Result<Self> {
        Ok(Self { file: StateFile::create(directory)?, end: AtomicU64::new(0) })
    }

    /// Appends a batch; returns its byte position. Must be called by one thread at a time.
    pub(crate) fn append(&self, batch: &RecordBatch) -> Result<u64> {
        let mut buffer = vec![];
        encode(batch, &mut buffer)?;
        let at = self.end.load(Ordering::Acquire);
        let mut file = self.file.file.lock();
        file.seek(SeekFrom::Start(at))
            .and_then(|_| file.write_all(&buffer))
            .map_err(|e| self.file.failed("write", e))?;
        self.end.store(at + buffer.len() as u64, Ordering::Release);
        Ok(at)
    }

    /// Reads the batch at a byte position.
    pub(crate) fn read(&self, at: u64) -> Result<RecordBatch> {
        self.file.read(at)
    }

    /// The size of the file in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.end.load(Ordering::Acquire)
    }
}

/// Encodes a batch: the length, then the stream.
fn encode(batch: &RecordBatch, buffer: &mut Vec<u8>) -> Result<()> {
    let options =
        IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    buffer.clear();
    buffer.extend([0; 8]);
    let mut writer = StreamWriter::try_new_with_options(&mut *buffer, &batch.schema(), options)?;
    writer.write(batch)?;
    writer.finish()?;
    drop(writer);
    let length = (buffer.len() as u64).saturating_sub(8);
    if let Some(place) = buffer.get_mut(..8) {
        place.copy_from_slice(&length.to_le_bytes());
    }
    Ok(())
}

#[derive(Debug)]
struct Writing {
    file: StateFile,
    at: u64,
    buffer: Vec<u8>,
    written: Arc<AtomicU64>,
}

/// A file without a name; its space is freed when it is dropped.
#[derive(Debug)]
struct StateFile {
    file: Mutex<File>,
    directory: PathBuf,
}

impl SpillFile for Writing {
    fn append(&mut self, batch: &RecordBatch) -> Result<u64> {
        encode(batch, &mut self.buffer)?;
        let place = self.at;
        self.file
            .file
            .get_mut()
            .write_all(&self.buffer)
            .map_err(|e| self.file.failed("write", e))?;
        self.at += self.buffer.len() as u64;
        self.written.fetch_add(self.buffer.len() as u64, Ordering::Relaxed);
        Ok(place)
    }

    fn finish(self: Box<Self>) -> Result<Arc<dyn SpilledFile>> {
        Ok(Arc::new(self.file))
    }
}

impl StateFile {
    fn create(directory: &Path) -> Result<Self> {
        let file = tempfile::tempfile_in(directory)
            .map_err(|e| io_error("create a file in", directory, e))?;
        Ok(Self { file: Mutex::new(file), directory: directory.to_owned() })
    }

    fn failed(&self, what: &str, error: io::Error) -> Error {
        io_error(&format!("{what} state in"), &self.directory, error)
    }

    fn bytes(&self, at: u64) -> io::Result<Vec<u8>> {
        let mut file = self.file.lock();
        file.seek(SeekFrom::Start(at))?;
        let mut length = [0; 8];
        file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or(0));
        Read::by_ref(&mut *file).take(length).read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl SpilledFile for StateFile {
    fn read(&self, at: u64) -> Result<RecordBatch> {
        let bytes = self.bytes(at).map_err(|e| self.failed("read", e))?;
        let mut batches = StreamReader::try_new(Cursor::new(bytes), None)?;
        let batch = batches.next().ok_or_else(|| {
            self.failed("read", io::Error::new(io::ErrorKind::UnexpectedEof, "a batch is missing"))
        })?;
        Ok(batch?)
    }
}
