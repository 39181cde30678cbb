//! Reading Avro object container files: one split per file, read from its beginning.
//!
//! An offset is the number of the row in the file. Blocks before the first requested row are skipped without decoding.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::runtime::Handle;
use windrow_core::{
    BadRow, Error, OffsetRange, Reader, Result, RowOffsets, ScanRequest, SourceBatch,
};

use super::feed::Feed;
use super::format::Packing;
use super::location::{Blob, Found};
use crate::formats::avro::container::{Block, BlockDecoder, Header};
use crate::formats::convert::NumberRules;
use crate::formats::decode::{Decoded, OnBadRow, Origin, bad_row};
use crate::formats::typed::Typed;

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 20;
/// About how many rows are decoded before a batch is returned.
const BATCH_ROWS: usize = 8_192;

/// A file whose header has been read.
#[derive(Debug)]
pub(super) struct AvroFile {
    name: String,
    blob: Blob,
    size: u64,
    packing: Packing,
    header: Arc<Header>,
}

/// One file to read.
#[derive(Debug)]
pub(super) struct AvroSplit {
    pub file: AvroFile,
    /// Offset of its first row, and where the next split begins.
    pub first: u64,
    pub end: Option<u64>,
}

/// The bytes of a file, block by block.
struct Blocks {
    feed: Feed,
    buffer: Vec<u8>,
    /// Where the next block begins in the buffer.
    at: usize,
}

impl AvroFile {
    /// Reads the header of a file.
    ///
    /// # Errors
    /// When it cannot be read, or is not Avro.
    pub(super) async fn open(found: &Found, packing: Packing, io: &Handle) -> Result<Self> {
        let Found { name, blob, size, .. } = found;
        let mut feed = Feed::open(name, blob, packing, [0, 1, *size], io)?;
        let mut bytes = vec![];
        let wrong = |why: String| Error::data(format!("file \"{name}\" is not Avro: {why}"));
        loop {
            let read = feed.fill(&mut bytes, 1 << 16).await?;
            match Header::read(&bytes).map_err(wrong)? {
                Some(header) => {
                    return Ok(Self {
                        name: name.clone(),
                        blob: blob.clone(),
                        size: *size,
                        packing,
                        header: Arc::new(header),
                    });
                }
                None if read == 0 => return Err(wrong("it is cut off".to_owned())),
                None => {}
            }
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Its columns, as those of a stream.
    ///
    /// # Errors
    /// When one has a type that SQL does not have.
    pub(super) fn columns(&self) -> Result<SchemaRef> {
        self.header.schema.columns().map_err(|why| {
            Error::data(format!("the schema of file \"{}\" {why}", self.name))
                .with_hint("Declare the other columns: CREATE STREAM s (column TYPE, …) WITH (…).")
        })
    }

    /// Whether it has a column of this name, whatever its case.
    pub(super) fn has(&self, column: &str) -> bool {
        self.header.schema.fields().iter().any(|f| f.name().eq_ignore_ascii_case(column))
    }

    pub(super) fn field_names(&self) -> Vec<&str> {
        self.header.schema.fields().iter().map(|f| f.name().as_str()).collect()
    }

    /// Maps its columns to the declared ones.
    ///
    /// # Errors
    /// When one has a type that cannot become the declared one, or is missing and declared NOT NULL.
    pub(super) fn typed(
        &self,
        asked: (&SchemaRef, Vec<usize>),
        rules: (&NumberRules, OnBadRow),
    ) -> Result<Typed> {
        Typed::new(self.header.schema.fields(), asked, rules, &format!("file \"{}\"", self.name))
    }

    /// Counts the rows.
    ///
    /// # Errors
    /// When the file does not end with a whole block.
    pub(super) async fn count_rows(&self, io: &Handle) -> Result<u64> {
        let mut blocks = self.blocks(io)?;
        let mut rows = 0;
        while let Some((count, length)) =
            blocks.next(self, rows).await?.map(|block| (block.count, block.length))
        {
            rows += count;
            blocks.at += length;
        }
        Ok(rows)
    }

    fn blocks(&self, io: &Handle) -> Result<Blocks> {
        let Self { name, blob, size, packing, header } = self;
        let feed = Feed::open(name, blob, *packing, [0, *size, *size], io)?;
        Ok(Blocks { feed, buffer: vec![], at: header.length })
    }

    fn damaged(&self, row: u64, why: &str) -> Error {
        Error::data(format!("file \"{}\" is damaged in the block of row {row}: {why}", self.name))
    }
}

impl Blocks {
    /// Returns the next block, which begins with this row; `None`: the file is at its end. Dropping the future loses
    /// nothing.
    async fn next(&mut self, file: &AvroFile, row: u64) -> Result<Option<Block<'_>>> {
        loop {
            let bytes = self.buffer.get(self.at..).unwrap_or_default();
            let found = match bytes {
                [] => None,
                bytes => file.header.block(bytes).map_err(|why| file.damaged(row, &why))?,
            };
            if found.is_some() {
                break;
            }
            if let Some(left) = self.buffer.len().checked_sub(self.at) {
                self.buffer.copy_within(self.at.., 0);
                self.buffer.truncate(left);
                self.at = 0;
            }
            if self.feed.fill(&mut self.buffer, READ_BYTES).await? == 0 {
                if self.at < self.buffer.len() || self.at > 0 {
                    return Err(file.damaged(row, "it is cut off"));
                }
                return Ok(None);
            }
        }
        let bytes = self.buffer.get(self.at..).unwrap_or_default();
        file.header.block(bytes).map_err(|why| file.damaged(row, &why))
    }
}

/// A reader of one file.
pub(super) struct AvroReader {
    split: Arc<AvroSplit>,
    blocks: Blocks,
    decoder: BlockDecoder,
    typed: Typed,
    on_bad: OnBadRow,
    wanted: SchemaRef,
    rows_max: usize,
    /// Rows before this offset are skipped.
    from: u64,
    /// Offset of the first row of the next block.
    row: u64,
    /// Offset up to which batches are ready.
    covered: u64,
    /// Rows that are not in a batch yet.
    gathered: Decoded,
    ready: VecDeque<SourceBatch>,
    is_done: bool,
}

impl AvroReader {
    /// # Errors
    /// When the file cannot be opened, or does not have the declared columns.
    pub(super) fn new(
        split: Arc<AvroSplit>,
        scan: &ScanRequest,
        (declared, rules, on_bad): (SchemaRef, NumberRules, OnBadRow),
        io: &Handle,
    ) -> Result<Self> {
        let file = &split.file;
        let blocks = file.blocks(io)?;
        let typed = file.typed((&declared, scan.projection.clone()), (&rules, on_bad))?;
        let from = scan.from.unwrap_or(split.first).max(split.first);
        Ok(Self {
            blocks,
            decoder: BlockDecoder::new(Arc::clone(&file.header)),
            typed,
            on_bad,
            wanted: Arc::new(declared.project(&scan.projection)?),
            rows_max: scan.batch_rows_max.max(1),
            from,
            row: split.first,
            covered: from,
            gathered: Decoded::default(),
            ready: VecDeque::new(),
            is_done: false,
            split,
        })
    }

    /// Decodes blocks up to some rows. Dropping the future loses nothing.
    async fn fill(&mut self) -> Result<()> {
        let file = &self.split.file;
        let into = &mut self.gathered;
        while into.offsets.len() + into.bad.len() < BATCH_ROWS.min(self.rows_max) {
            let row = self.row - self.split.first;
            let Some(block) = self.blocks.next(file, row).await? else {
                self.is_done = true;
                break;
            };
            let (count, length) = (block.count, block.length);
            if self.row + count > self.from {
                let damaged = |why: String| file.damaged(row, &why);
                let rows = self.decoder.decode(block).map_err(damaged)?;
                rows.add(self.row, &self.typed, into)?;
            }
            self.row += count;
            self.blocks.at += length;
        }
        let end = match self.split.end {
            Some(end) if self.is_done => end,
            _ => self.row,
        };
        let gathered = std::mem::take(&mut self.gathered);
        self.batches(gathered, end)
    }

    /// Divides rows into batches of the requested size.
    fn batches(&mut self, into: Decoded, end: u64) -> Result<()> {
        let (rows, offsets, mut bad) = into.into_batch(&self.wanted)?;
        let before = offsets.partition_point(|offset| *offset < self.from);
        bad.retain(|bad| bad.offset >= self.from);
        bad.sort_by_key(|bad| bad.offset);
        if let (OnBadRow::Fail, Some(first)) = (self.on_bad, bad.first()) {
            let origin = Origin { kind: "file", name: &self.split.file.name, unit: "row" };
            return Err(bad_row(first, origin));
        }
        let mut at = before;
        let mut bad: VecDeque<BadRow> = bad.into();
        while at < offsets.len() || self.covered < end {
            let to = offsets.len().min(at + self.rows_max);
            let until = offsets.get(to).copied().unwrap_or(end.max(self.covered));
            let mut of_it = vec![];
            while let Some(one) = bad.pop_front_if(|bad| bad.offset < until) {
                of_it.push(one);
            }
            let row_offsets: Vec<u64> = offsets.get(at..to).unwrap_or_default().to_vec();
            let row_offsets: Arc<dyn RowOffsets> = Arc::new(row_offsets);
            self.ready.push_back(SourceBatch {
                rows: rows.slice(at, to - at),
                offsets: OffsetRange::try_new(self.covered, until)?,
                row_offsets,
                bad: of_it,
                skipped: 0,
                watermark: None,
                idle: None,
                behind: vec![],
                place: None,
            });
            (at, self.covered) = (to, until);
        }
        Ok(())
    }
}

#[async_trait]
impl Reader for AvroReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        while self.ready.is_empty() && !self.is_done {
            self.fill().await?;
        }
        Ok(self.ready.pop_front())
    }
}
