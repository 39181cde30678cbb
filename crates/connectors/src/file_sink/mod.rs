//! Sinks with `connector = 'file'`: files of Parquet, CSV, NDJSON and Avro in a directory or an object store, each row exactly once.
//!
//! ```text
//! write ─► one encoder per directory, in memory ─ commit ─► complete files ─► Place::put, one after the other
//! ```
//! The name of a file has the numbers of its rows (`naming`), so the files that are there say what is committed. `place` makes a
//! file appear with all of its bytes, `partitions` divides rows by directory.
//!
//! Invariants: the bytes of a commit do not change once its first file is written, so an attempt that failed is continued; what a
//! crash has left of a commit is deleted before its rows are written again.

mod naming;
mod options;
mod partitions;
mod place;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use bytes::Bytes;
use tokio::runtime::Handle;
use windrow_core::{Error, ErrorKind, Guarantee, OffsetRange, Result, Sink};

use self::naming::{Found, Naming, Piece};
use self::options::FileSinkOptions;
pub use self::options::OPTIONS;
use self::partitions::Partitioning;
use self::place::{Place, TEMPORARY};
use crate::encode::{Encoder, Encoding};
use crate::env::{ConnectorEnv, SinkSpec};

/// The directories of one commit at most, unless the rows of a single batch need more.
const DIRECTORIES_MAX: usize = 256;
/// The part of the memory limit that the rows of one commit may have.
const MEMORY_PART: usize = 8;

/// A sink that writes files.
#[derive(Debug)]
struct FileSink {
    /// The name of the sink.
    name: String,
    place: Place,
    naming: Naming,
    encoding: Encoding,
    /// The columns of the files.
    schema: SchemaRef,
    partitioning: Option<Partitioning>,
    roll_size: usize,
    roll_interval: Duration,
    io: Handle,
    /// The files of the next commit, by directory.
    files: BTreeMap<String, Box<dyn Encoder>>,
    /// The rows in them.
    range: Option<OffsetRange>,
    /// Complete files that are to be written.
    ready: VecDeque<(String, Bytes)>,
}

/// Returns a sink of the options of `CREATE SINK … WITH (connector = 'file', …)`. Nothing is read or written yet.
///
/// # Errors
/// For invalid options, columns that the format does not have, and a path that may not be written to.
pub(crate) fn open(
    options: &[(String, String)],
    spec: &SinkSpec,
    env: &ConnectorEnv,
) -> Result<Box<dyn Sink>> {
    let options = FileSinkOptions::read(options)?;
    let partitioning = match options.partition_by.as_slice() {
        [] => None,
        names => Some(Partitioning::new(&spec.schema, names)?),
    };
    let schema = match &partitioning {
        Some(partitioning) => partitioning.files(&spec.schema)?,
        None => SchemaRef::clone(&spec.schema),
    };
    options.encoding.check(&schema)?;
    let roll_size_max = env.limits.memory_bytes_max.map_or(usize::MAX, |max| max / MEMORY_PART);
    Ok(Box::new(FileSink {
        name: spec.name.clone(),
        place: Place::open(&options.path, &options.store, &env.files)?,
        naming: Naming::new(&spec.name, options.encoding.ending()),
        encoding: options.encoding,
        schema,
        partitioning,
        roll_size: options.roll_size.min(roll_size_max.max(1)),
        roll_interval: options.roll_interval,
        io: env.io.clone(),
        files: BTreeMap::new(),
        range: None,
        ready: VecDeque::new(),
    }))
}

impl FileSink {
    /// Adds rows to the file of a directory.
    fn add(&mut self, dir: String, rows: &RecordBatch) -> Result<()> {
        let file = match self.files.entry(dir) {
            std::collections::btree_map::Entry::Occupied(file) => file.into_mut(),
            std::collections::btree_map::Entry::Vacant(free) => {
                free.insert(self.encoding.begin(&self.schema)?)
            }
        };
        file.write(rows)
    }

    /// Completes the files of the rows that were taken.
    fn complete(&mut self) -> Result<()> {
        let Some(range) = self.range.take() else { return Ok(()) };
        let files = std::mem::take(&mut self.files);
        let of = files.len();
        for (at, (dir, file)) in files.into_iter().enumerate() {
            let piece = Piece { from: range.start(), to: range.end(), part: (at + 1, of) };
            let path = format!("{dir}{}", self.naming.name(piece));
            self.ready.push_back((path, file.finish()?));
        }
        Ok(())
    }

    /// Whether a file is one of this sink that was not finished.
    fn is_unfinished(&self, path: &str) -> bool {
        let name = path.rsplit('/').next().unwrap_or(path);
        let inner = name.strip_prefix('.').and_then(|name| name.strip_suffix(TEMPORARY));
        inner.is_some_and(|name| self.naming.parse(name).is_some())
    }
}

#[async_trait]
impl Sink for FileSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    fn wait_max(&self) -> Duration {
        self.roll_interval
    }

    async fn open(&mut self, known: Option<u64>) -> Result<Option<u64>> {
        self.place.prepare(&self.io).await?;
        let depth = self.partitioning.as_ref().map_or(0, Partitioning::depth);
        let paths = self.place.list(depth, &self.io).await?;
        let Found { committed, mut leftover } = self.naming.found(&paths, known.unwrap_or(0));
        if known.is_none() && (committed > 0 || !leftover.is_empty()) {
            let (name, place) = (&self.name, self.place.shown());
            return Err(Error::new(
                ErrorKind::Exists,
                format!("\"{place}\" has files of a sink \"{name}\" already"),
            )
            .with_detail("Their rows would be taken for rows of this one.")
            .with_hint("Name another path or sink, or move the files away."));
        }
        leftover.extend(paths.into_iter().filter(|path| self.is_unfinished(path)));
        for path in leftover {
            tracing::info!(sink = self.name, path, "an unfinished file is deleted");
            self.place.remove(&path, &self.io).await?;
        }
        Ok(Some(committed))
    }

    fn room(&self) -> usize {
        let size: usize = self.files.values().map(|file| file.size()).sum();
        let full = size >= self.roll_size || self.files.len() >= DIRECTORIES_MAX;
        if full { 0 } else { usize::MAX }
    }

    async fn write(&mut self, rows: &RecordBatch, range: OffsetRange) -> Result<()> {
        let from = self.range.map_or(range.start(), OffsetRange::start);
        if rows.num_rows() > 0 {
            match self.partitioning.clone() {
                None => self.add(String::new(), rows)?,
                Some(partitioning) => {
                    for (dir, rows) in partitioning.divide(rows)? {
                        self.add(dir, &rows)?;
                    }
                }
            }
        }
        self.range = Some(OffsetRange::try_new(from, range.end())?);
        Ok(())
    }

    async fn commit(&mut self, _: u64) -> Result<()> {
        self.complete()?;
        while let Some((path, bytes)) = self.ready.front() {
            self.place.put(path, bytes.clone(), &self.io).await?;
            self.ready.pop_front();
        }
        Ok(())
    }

    async fn close(&mut self) -> Result<()> {
        self.files.clear();
        self.ready.clear();
        self.range = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
