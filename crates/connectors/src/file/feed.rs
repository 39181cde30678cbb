//! The bytes of one file, in order and decompressed: large sequential reads from disk, range requests to object stores
//! (on the input runtime), gzip and zstd decompressed as they arrive.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::Arc;

use bytes::Bytes;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use windrow_core::{Error, Result};
use zstd::stream::raw::Operation;

use super::follow::Held;
use super::format::Packing;
use super::location::{Blob, interrupted, unreadable};

/// Bytes per request to an object store.
const STORE_READ_BYTES: u64 = 8 << 20;
/// Bytes per read of a followed file.
const HELD_BYTES: u64 = 1 << 20;
/// Compressed bytes decompressed at a time: bounds what a tiny file can expand to at once.
const UNPACK_BYTES: usize = 64 << 10;
/// Output buffer of zstd in bytes.
const UNPACKED_BYTES: usize = 128 << 10;

/// A reader of the bytes `[at, end)` of a file. For compressed files positions count decompressed bytes, and reading
/// starts at 0.
pub(super) struct Feed {
    name: String,
    raw: Raw,
    unpack: Unpack,
    /// Compressed bytes that were read and not yet decompressed.
    packed: Bytes,
}

enum Raw {
    Local {
        file: File,
        left: u64,
    },
    /// A followed file.
    Held {
        handle: Held,
        range: std::ops::Range<u64>,
    },
    Store {
        store: Store,
        at: u64,
        surely: u64,
        end: u64,
        pending: Option<JoinHandle<Result<Bytes>>>,
    },
}

struct Store {
    store: Arc<dyn ObjectStore>,
    path: object_store::path::Path,
    io: Handle,
}

enum Unpack {
    Plain,
    Gzip(Box<flate2::write::MultiGzDecoder<Vec<u8>>>),
    Zstd { decoder: zstd::stream::raw::Decoder<'static>, frame_is_whole: bool },
    Done,
}

impl Feed {
    /// Opens a file to read its stored bytes: from a position, up to where they are certainly needed, and up to where
    /// they may be.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub(super) fn open(
        name: &str,
        blob: &Blob,
        packing: Packing,
        [at, surely, end]: [u64; 3],
        io: &Handle,
    ) -> Result<Self> {
        let raw = match blob {
            Blob::Local(path) => {
                let mut file = File::open(path.as_ref()).map_err(|e| unreadable(name, e))?;
                file.seek(SeekFrom::Start(at)).map_err(|e| unreadable(name, e))?;
                Raw::Local { file, left: end.saturating_sub(at) }
            }
            Blob::Store(store, path) => {
                let (store, path, io) = (Arc::clone(store), path.clone(), io.clone());
                Raw::Store { store: Store { store, path, io }, at, surely, end, pending: None }
            }
        };
        let unpack = match packing {
            Packing::Plain => Unpack::Plain,
            Packing::Gzip => Unpack::Gzip(Box::new(flate2::write::MultiGzDecoder::new(Vec::new()))),
            Packing::Zstd => {
                let decoder = zstd::stream::raw::Decoder::new();
                let decoder = decoder.map_err(|e| unreadable(name, e))?;
                Unpack::Zstd { decoder, frame_is_whole: true }
            }
        };
        Ok(Self { name: name.to_owned(), raw, unpack, packed: Bytes::new() })
    }

    /// Returns a reader of a range of bytes of a followed file.
    pub(super) fn over(handle: &Held, range: std::ops::Range<u64>) -> Self {
        let raw = Raw::Held { handle: handle.clone(), range };
        Self { name: handle.name().to_owned(), raw, unpack: Unpack::Plain, packed: Bytes::new() }
    }

    /// Appends about `want` more bytes to `to`; returns how many, 0 at the end. Dropping the future loses nothing.
    ///
    /// # Errors
    /// When the file cannot be read, or compressed data is damaged or truncated.
    pub(super) async fn fill(&mut self, to: &mut Vec<u8>, want: usize) -> Result<usize> {
        let before = to.len();
        if matches!(self.unpack, Unpack::Plain) {
            if let Raw::Local { file, left } = &mut self.raw {
                let take = (want as u64).min(*left);
                to.reserve(usize::try_from(take).unwrap_or(want));
                let read = file.take(take).read_to_end(to);
                let read = read.map_err(|e| unreadable(&self.name, e))?;
                *left -= read as u64;
                return Ok(read);
            }
            let bytes = self.raw.next(&self.name).await?;
            to.extend_from_slice(&bytes);
            return Ok(to.len() - before);
        }
        while to.len() - before < want && !matches!(self.unpack, Unpack::Done) {
            if self.packed.is_empty() {
                self.packed = self.raw.next(&self.name).await?;
            }
            let piece = self.packed.split_to(self.packed.len().min(UNPACK_BYTES));
            self.unpack.push(&piece, to).map_err(|e| damaged(&self.name, e))?;
        }
        Ok(to.len() - before)
    }
}

impl Raw {
    /// Returns the next stored bytes; empty at the end.
    async fn next(&mut self, name: &str) -> Result<Bytes> {
        match self {
            Self::Local { file, left } => {
                let take = (*left).min(1 << 20);
                let mut bytes = Vec::with_capacity(usize::try_from(take).unwrap_or(0));
                let read =
                    file.take(take).read_to_end(&mut bytes).map_err(|e| unreadable(name, e))?;
                *left -= read as u64;
                Ok(bytes.into())
            }
            Self::Held { handle, range } => {
                let to = range.end.min(range.start + HELD_BYTES);
                let bytes = handle.read(range.start..to).await?;
                range.start += bytes.len() as u64;
                Ok(bytes.into())
            }
            Self::Store { store, at, surely, end, pending } => {
                let task = match pending.take() {
                    Some(task) => task,
                    None if at >= end => return Ok(Bytes::new()),
                    None => store.request(name, *at..(*at + STORE_READ_BYTES).min(*end)),
                };
                // Stored while waiting, so that dropping the future loses nothing.
                let bytes = pending.insert(task).await;
                *pending = None;
                let bytes = bytes.map_err(|e| interrupted(&e))??;
                *at += bytes.len() as u64;
                if at < surely {
                    *pending = Some(store.request(name, *at..(*at + STORE_READ_BYTES).min(*end)));
                }
                Ok(bytes)
            }
        }
    }
}

impl Store {
    fn request(&self, name: &str, range: std::ops::Range<u64>) -> JoinHandle<Result<Bytes>> {
        let (store, path, name) = (Arc::clone(&self.store), self.path.clone(), name.to_owned());
        self.io.spawn(async move {
            store.get_range(&path, range).await.map_err(|e| unreadable(&name, e))
        })
    }
}

impl Unpack {
    /// Decompresses `piece` to the end of `to`; an empty piece is the end.
    fn push(&mut self, piece: &[u8], to: &mut Vec<u8>) -> std::io::Result<()> {
        let ends = piece.is_empty();
        match self {
            Self::Plain | Self::Done => return Ok(()),
            Self::Gzip(decoder) => {
                decoder.write_all(piece)?;
                if ends {
                    decoder.try_finish()?;
                } else {
                    decoder.flush()?;
                }
                to.append(decoder.get_mut());
            }
            Self::Zstd { frame_is_whole, .. } if ends => {
                if !*frame_is_whole {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
            }
            Self::Zstd { decoder, frame_is_whole } => {
                let mut rest = piece;
                loop {
                    let start = to.len();
                    to.resize(start + UNPACKED_BYTES, 0);
                    let room = to.get_mut(start..).unwrap_or_default();
                    let status = decoder.run_on_buffers(rest, room)?;
                    to.truncate(start + status.bytes_written);
                    rest = rest.get(status.bytes_read..).unwrap_or_default();
                    if status.bytes_read > 0 || status.bytes_written > 0 {
                        *frame_is_whole = status.remaining == 0;
                    }
                    // A full buffer may mean that more output is waiting.
                    if rest.is_empty() && status.bytes_written < UNPACKED_BYTES {
                        break;
                    }
                }
            }
        }
        if ends {
            *self = Self::Done;
        }
        Ok(())
    }
}

fn damaged(name: &str, e: std::io::Error) -> Error {
    Error::data(format!("file \"{name}\" cannot be decompressed: {e}"))
        .with_hint("It is damaged, truncated, or not compressed as its name says; set compression.")
        .with_source(e)
}

/// Reads several ranges of a file at once (for Parquet).
///
/// # Errors
/// When it cannot be read, or is shorter than it was when it was listed.
pub(super) async fn read_ranges(
    name: &str,
    blob: &Blob,
    ranges: Vec<std::ops::Range<u64>>,
    io: &Handle,
) -> Result<Vec<Bytes>> {
    match blob {
        Blob::Local(path) => {
            let mut file = File::open(path.as_ref()).map_err(|e| unreadable(name, e))?;
            let mut all = Vec::with_capacity(ranges.len());
            for range in ranges {
                let length = usize::try_from(range.end - range.start)
                    .map_err(|_| Error::data(format!("file \"{name}\" is too large")))?;
                let mut bytes = vec![0; length];
                file.seek(SeekFrom::Start(range.start)).map_err(|e| unreadable(name, e))?;
                file.read_exact(&mut bytes).map_err(|e| unreadable(name, e))?;
                all.push(bytes.into());
            }
            Ok(all)
        }
        Blob::Store(store, path) => {
            let (store, path) = (Arc::clone(store), path.clone());
            let task = io.spawn(async move { store.get_ranges(&path, &ranges).await });
            let bytes = task.await.map_err(|e| interrupted(&e))?;
            bytes.map_err(|e| unreadable(name, e))
        }
    }
}
