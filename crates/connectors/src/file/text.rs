//! Reading text files: JSON lines and CSV.
//!
//! A split is a range of bytes; its records are those that *start* in it (the range itself is not aligned to line ends:
//! each reader finds its first record). A reader fills a buffer in large steps, cuts records, and decodes all complete
//! ones at once. An offset is the position of the record's first byte in the decompressed text. A followed file is read
//! by the same reader, which is given the current end of the file ([`TextReader::grow`]) and does not wait.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use tokio::runtime::Handle;
use windrow_core::{BadRow, Clock, Error, OffsetRange, Reader, Result, ScanRequest, SourceBatch};

use super::feed::Feed;
use super::follow::{Held, Trail};
use super::format::Packing;
use super::location::Blob;
use crate::formats::convert::NumberRules;
use crate::formats::csv::{CsvColumns, CsvDecoder, CsvDialect};
use crate::formats::decode::{
    Decode, Decoded, Looks, Offsets, OnBadRow, Origin, Run, Unit, decode_run, readable, refuse,
};
use crate::formats::json::JsonDecoder;
use crate::formats::records::{Framing, RecordCutter};

/// Bytes per read beyond the end of a split, to finish its last record.
const OVERHANG_BYTES: usize = 64 << 10;
const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// The format of the text.
#[derive(Debug, Clone)]
pub(super) enum TextFormat {
    Json,
    Csv(CsvDialect),
}

/// A text file of a stream.
#[derive(Debug)]
pub(super) struct TextFile {
    pub name: String,
    pub blob: Blob,
    /// Stored bytes when it was listed.
    pub size: u64,
    pub packing: Packing,
    pub format: TextFormat,
    /// Offset of its first byte, and of the first byte of the next file in the same partition.
    pub base: u64,
    pub next_base: Option<u64>,
    /// Its first record, once it was needed.
    pub first: tokio::sync::OnceCell<Vec<u8>>,
}

impl TextFile {
    /// Returns a followed file: it is read through a handle.
    pub(super) fn followed(name: &str, format: TextFormat) -> Self {
        Self {
            name: name.to_owned(),
            blob: Blob::Local(Arc::new(name.into())),
            size: 0,
            packing: Packing::Plain,
            format,
            base: 0,
            next_base: None,
            first: tokio::sync::OnceCell::new(),
        }
    }
}

/// A range of bytes of a text file.
#[derive(Debug)]
pub(super) struct TextSplit {
    pub file: Arc<TextFile>,
    pub start: u64,
    /// `None`: to the end of the file.
    pub end: Option<u64>,
    /// Start of the record at which reading resumes; `None`: the split's first.
    pub goes_on_at: Option<u64>,
}

impl TextSplit {
    /// Returns the part of the split that begins at this offset; `None`: all of it. Compressed files are always read
    /// from their start.
    ///
    /// # Errors
    /// When the file has become shorter than what was read of it.
    pub(super) fn resumed(&self, from: Option<u64>) -> Result<Option<Arc<Self>>> {
        let file = &self.file;
        let Some(at) = from.and_then(|from| from.checked_sub(file.base)) else { return Ok(None) };
        if at <= self.start || file.packing != Packing::Plain {
            return Ok(None);
        }
        if at > file.size {
            return Err(Error::data(format!(
                "file \"{}\" has {} bytes, {at} of it were read before the restart",
                file.name, file.size
            ))
            .with_hint("Restore the file, or drop the view and create it again."));
        }
        let (file, start, end) = (Arc::clone(file), self.start, self.end);
        Ok(Some(Arc::new(Self { file, start, end, goes_on_at: Some(at) })))
    }

    /// Whether reading begins after the file's first record.
    pub(super) fn begins_late(&self) -> bool {
        self.start > 0 || self.goes_on_at.is_some()
    }
}

/// How the text of a stream is read.
#[derive(Debug, Clone)]
pub(super) struct TextSettings {
    pub declared: SchemaRef,
    pub rules: NumberRules,
    pub on_bad: OnBadRow,
    pub row_bytes_max: usize,
    /// Bytes per read.
    pub block_bytes: usize,
    pub clock: Arc<dyn Clock>,
    pub io: Handle,
}

/// A reader of one split.
pub(super) struct TextReader {
    settings: TextSettings,
    split: Arc<TextSplit>,
    projection: Vec<usize>,
    wanted: SchemaRef,
    rows_max: usize,
    feed: Feed,
    decoder: Option<Box<dyn Decode>>,
    cutter: RecordCutter,
    buffer: Vec<u8>,
    /// Position in the file of the buffer's first byte.
    buffer_at: u64,
    /// Complete records in the buffer, and how many of them are done.
    records: Vec<Range<usize>>,
    done: usize,
    /// Bad rows found while cutting.
    bad: Vec<BadRow>,
    /// Added to a position in the file, gives an offset.
    base: u64,
    /// Offset up to which batches were returned; unknown before the first record.
    covered: Option<u64>,
    mode: Mode,
    at_start: bool,
    at_end: bool,
    /// State of a followed file.
    followed: Option<Followed>,
}

/// The reader's state of a followed file.
#[derive(Debug)]
struct Followed {
    handle: Held,
    trail: Trail,
    /// Whether it grows no more.
    ended: bool,
}

/// The kind of the next bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// The rest of a record that belongs to the previous split, or was too long.
    SkipLine,
    /// Records.
    Records,
}

impl TextReader {
    /// Opens a split. `first` is the file's first record, needed for a CSV split that does not start with it.
    pub(super) fn open(
        settings: TextSettings,
        split: Arc<TextSplit>,
        scan: &ScanRequest,
        first: Option<&[u8]>,
    ) -> Result<Self> {
        let file = &split.file;
        // One byte early: a line end there means that a record starts just at the split.
        let from = split.goes_on_at.unwrap_or(split.start.saturating_sub(1));
        let soft_end = split.end.unwrap_or(file.size);
        let range = [from, soft_end, file.size];
        let feed = Feed::open(&file.name, &file.blob, file.packing, range, &settings.io)?;
        Self::start(settings, split, scan, (first, feed))
    }

    fn start(
        settings: TextSettings,
        split: Arc<TextSplit>,
        scan: &ScanRequest,
        (first, feed): (Option<&[u8]>, Feed),
    ) -> Result<Self> {
        let file = &split.file;
        let from = split.goes_on_at.unwrap_or(split.start.saturating_sub(1));
        let framing = match &file.format {
            TextFormat::Json => Framing::Lines,
            // Files are cut into several splits only when they contain no quotes.
            TextFormat::Csv(_) if split.start > 0 || split.end.is_some() => Framing::Lines,
            TextFormat::Csv(dialect) => dialect.framing(),
        };
        let wanted = Arc::new(settings.declared.project(&scan.projection)?);
        let base = file.base;
        let mut reader = Self {
            projection: scan.projection.clone(),
            wanted,
            rows_max: scan.batch_rows_max.max(1),
            feed,
            decoder: None,
            cutter: RecordCutter::new(framing),
            buffer: vec![],
            buffer_at: from,
            records: vec![],
            done: 0,
            bad: vec![],
            base,
            covered: match split.goes_on_at {
                Some(at) => Some(base + at),
                None => (split.start == 0).then_some(base),
            },
            mode: match split.goes_on_at {
                None if split.start > 0 => Mode::SkipLine,
                _ => Mode::Records,
            },
            at_start: !split.begins_late(),
            at_end: false,
            followed: None,
            settings,
            split,
        };
        match (&reader.split.file.format, first) {
            (TextFormat::Json, _) => reader.decoder = Some(reader.json_decoder()),
            (TextFormat::Csv(dialect), Some(first)) => {
                reader.decoder = Some(reader.csv_decoder(dialect, first)?);
            }
            (TextFormat::Csv(_), None) => {}
        }
        Ok(reader)
    }

    /// Opens a followed file at the start of a record.
    pub(super) fn follow(
        settings: TextSettings,
        split: Arc<TextSplit>,
        scan: &ScanRequest,
        (first, handle, trail): (Option<&[u8]>, Held, Trail),
    ) -> Result<Self> {
        let at = split.goes_on_at.unwrap_or(0);
        let feed = Feed::over(&handle, at..at);
        let mut reader = Self::start(settings, split, scan, (first, feed))?;
        reader.followed = Some(Followed { handle, trail, ended: false });
        Ok(reader)
    }

    /// Extends the file to this position.
    pub(super) fn grow(&mut self, to: u64) {
        let from = self.read_to();
        if let Some(followed) = &mut self.followed {
            self.feed = Feed::over(&followed.handle, from..to.max(from));
            (self.at_end, followed.ended) = (false, false);
        }
    }

    /// Marks the file as complete: its last record needs no line end.
    pub(super) fn end(&mut self) {
        if let Some(followed) = &mut self.followed {
            followed.ended = true;
        }
    }

    /// Position up to which it was read.
    pub(super) fn read_to(&self) -> u64 {
        self.position(self.buffer.len())
    }

    /// Position up to which it was returned in batches.
    pub(super) fn given_to(&self) -> u64 {
        self.covered.map_or(self.buffer_at, |covered| covered.saturating_sub(self.base))
    }

    /// The text that was read and not returned, because its end is missing.
    pub(super) fn unfinished(&self) -> &[u8] {
        self.buffer.get(self.cutter.start()..).unwrap_or_default()
    }

    /// The trail of a followed file.
    pub(super) fn trail(&self) -> Option<&Trail> {
        self.followed.as_ref().map(|followed| &followed.trail)
    }

    /// Sets the offset of what is returned next to `next`.
    ///
    /// # Errors
    /// When that is less than its position in the file.
    pub(super) fn count_from(&mut self, next: u64) -> Result<()> {
        self.base = next.checked_sub(self.given_to()).ok_or_else(|| {
            Error::internal(format!("an offset of \"{}\" is before it", self.split.file.name))
        })?;
        self.covered = Some(next);
        Ok(())
    }

    fn json_decoder(&self) -> Box<dyn Decode> {
        let declared = self.settings.declared.clone();
        let (projection, wanted) = (self.projection.clone(), self.wanted.clone());
        Box::new(JsonDecoder::new(
            Unit::Line,
            declared,
            projection,
            wanted,
            self.settings.rules.clone(),
        ))
    }

    fn csv_decoder(&self, dialect: &CsvDialect, first: &[u8]) -> Result<Box<dyn Decode>> {
        let name = &self.split.file.name;
        let TextSettings { declared, rules, .. } = &self.settings;
        let first = (first, rules.inferred);
        let columns = (CsvColumns::of_first(declared, dialect, first, name)?, rules.clone());
        let asked = (self.projection.clone(), self.wanted.clone());
        let (dialect, declared) = (dialect.clone(), declared.clone());
        Ok(Box::new(CsvDecoder::new(dialect, columns, declared, asked, self.rows_max)))
    }

    /// Converts a position in the buffer to a position in the file.
    fn position(&self, at: usize) -> u64 {
        self.buffer_at + at as u64
    }

    /// Whether a record that starts at this position of the file belongs to the next split.
    fn is_beyond(&self, position: u64) -> bool {
        self.split.end.is_some_and(|end| position >= end)
    }

    /// Reads more, and cuts it into records. `false`: a followed file has no more for now.
    async fn fill(&mut self) -> Result<bool> {
        let consumed = self.cutter.start();
        if consumed > 0 {
            self.buffer.drain(..consumed);
            self.buffer_at += consumed as u64;
            self.cutter.shift(consumed);
        }
        self.records.clear();
        self.done = 0;
        let before = self.buffer.len();
        let position = self.position(before);
        let block = self.settings.block_bytes;
        let want = match self.split.end.map(|end| end.saturating_sub(position)) {
            None => block,
            Some(0) => OVERHANG_BYTES.max(self.buffer.len()).min(block),
            Some(left) => usize::try_from(left).unwrap_or(block).min(block),
        };
        let read = self.feed.fill(&mut self.buffer, want).await?;
        match &mut self.followed {
            Some(followed) if read > 0 => {
                let new = self.buffer.get(before..).unwrap_or_default();
                followed.trail.begins(position, new);
            }
            Some(followed) if !followed.ended || self.at_end => {
                // It is unknown when more will arrive; the memory is released until then.
                self.buffer.shrink_to(OVERHANG_BYTES);
                return Ok(false);
            }
            Some(_) | None => self.at_end |= read == 0,
        }
        self.cut()?;
        Ok(true)
    }

    /// Cuts what is in the buffer into records.
    fn cut(&mut self) -> Result<()> {
        if self.mode == Mode::SkipLine && !self.skip_line() {
            return Ok(());
        }
        if self.at_start && (self.buffer.len() >= BYTE_ORDER_MARK.len() || self.at_end) {
            self.at_start = false;
            if self.buffer.starts_with(BYTE_ORDER_MARK) {
                self.cutter.restart(BYTE_ORDER_MARK.len());
            }
        }
        if self.at_start {
            return Ok(());
        }
        self.covered = Some(self.covered.unwrap_or(self.base + self.position(self.cutter.start())));
        let records = &mut self.records;
        self.cutter.cut(&self.buffer, |start, end| records.push(start..end));
        if self.at_end {
            self.cut_end()?;
        } else if self.buffer.len() - self.cutter.start() > self.settings.row_bytes_max {
            self.cut_too_long()?;
        }
        let beyond = self.records.iter().position(|r| self.is_beyond(self.position(r.start)));
        if let Some(beyond) = beyond {
            let start = self.records.get(beyond).map_or(self.buffer.len(), |r| r.start);
            self.records.truncate(beyond);
            self.cutter.restart(start);
        }
        if let Some(followed) = &mut self.followed {
            followed.trail.passes(&self.buffer, self.buffer_at, &self.records);
        }
        // A record that is too long is skipped to its end, wherever that is.
        let next = self.position(self.cutter.start());
        self.at_end |= beyond.is_some() || (self.mode == Mode::Records && self.is_beyond(next));
        Ok(())
    }

    /// Drops bytes up to a line end. `false`: there is none yet.
    fn skip_line(&mut self) -> bool {
        let from = self.cutter.start();
        let rest = self.buffer.get(from..).unwrap_or_default();
        match memchr::memchr(b'\n', rest) {
            Some(i) => {
                self.cutter.restart(from + i + 1);
                self.mode = Mode::Records;
                if self.is_beyond(self.position(from + i + 1)) {
                    self.at_end = true;
                    return false;
                }
                true
            }
            None => {
                self.cutter.restart(self.buffer.len());
                // No record starts in this split at all when its end is reached here; but the end of a record that was
                // too long must still be found.
                let beyond = self.is_beyond(self.position(self.buffer.len()));
                self.at_end |= self.covered.is_none() && beyond;
                false
            }
        }
    }

    /// Handles the end of the text: the last record may have no line end; a quoted field may still be open.
    fn cut_end(&mut self) -> Result<()> {
        if self.followed.as_ref().is_some_and(|followed| !followed.ended) {
            // Its line end may still arrive.
            return Ok(());
        }
        while self.cutter.start() < self.buffer.len() {
            let start = self.cutter.start();
            if self.cutter.is_quoted(&self.buffer) {
                self.give_up_line(start, "a quoted field is not closed")?;
                let records = &mut self.records;
                self.cutter.cut(&self.buffer, |start, end| records.push(start..end));
            } else {
                let end = self.buffer.len();
                self.records.push(start..end);
                self.cutter.restart(end);
            }
        }
        Ok(())
    }

    /// Handles an unfinished record that is longer than allowed.
    fn cut_too_long(&mut self) -> Result<()> {
        let start = self.cutter.start();
        let max = self.settings.row_bytes_max;
        let reason = format!("the row is longer than row_bytes_max ({max} bytes)");
        let quoted = self.cutter.is_quoted(&self.buffer);
        let rest = self.buffer.get(start..).unwrap_or_default();
        if !quoted || memchr::memchr(b'\n', rest).is_none() {
            self.mode = Mode::SkipLine;
        }
        self.give_up_line(start, &reason)?;
        if self.mode == Mode::Records {
            let records = &mut self.records;
            self.cutter.cut(&self.buffer, |start, end| records.push(start..end));
        }
        Ok(())
    }

    /// Makes the line that starts at `start` a bad row, and continues after it.
    fn give_up_line(&mut self, start: usize, reason: &str) -> Result<()> {
        let rest = self.buffer.get(start..).unwrap_or_default();
        let length = memchr::memchr(b'\n', rest).map_or(rest.len(), |i| i + 1);
        let raw = readable(rest.get(..length).unwrap_or_default());
        let offset = self.base + self.position(start);
        let bad = BadRow { offset, reason: reason.to_owned(), raw };
        let mut into = Decoded::default();
        refuse(bad, self.settings.on_bad, Origin::text_of(&self.split.file.name), &mut into)?;
        self.bad.append(&mut into.bad);
        self.cutter.restart(start + length);
        Ok(())
    }

    /// Returns the next waiting records as a batch; `None` when there are none.
    fn take(&mut self) -> Result<Option<SourceBatch>> {
        self.take_header()?;
        let last = self.records.len().min(self.done + self.rows_max);
        let Some(end) = last.checked_sub(1).and_then(|l| self.records.get(l)).map(|r| r.end) else {
            return self.take_bad();
        };
        if self.done >= last {
            return self.take_bad();
        }
        let Some(decoder) = self.decoder.as_deref_mut() else { return Ok(None) };
        let mut decoded = Decoded::default();
        let (on_bad, from) = (self.settings.on_bad, Origin::text_of(&self.split.file.name));
        let base = self.base + self.buffer_at;
        let whole =
            Run { text: &self.buffer, records: &[], offsets: Offsets::From(base), was_cut: true };
        let mut run: Vec<Range<usize>> = Vec::with_capacity(last - self.done);
        for record in self.records.get(self.done..last).unwrap_or_default() {
            let bytes = self.buffer.get(record.clone()).unwrap_or_default();
            let too_long = bytes.len() > self.settings.row_bytes_max.saturating_add(2);
            let looks = decoder.looks(bytes);
            match looks {
                Looks::Whole if !too_long => {
                    run.push(record.clone());
                    continue;
                }
                Looks::Blank => continue,
                Looks::Whole | Looks::Odd | Looks::Runaway => {}
            }
            let before = Run { records: &run, ..whole };
            decode_run(decoder, &before, on_bad, from, &mut decoded)?;
            run.clear();
            if decoded.recut.is_some() {
                break;
            }
            let offset = base + record.start as u64;
            if looks == Looks::Runaway {
                let line = memchr::memchr(b'\n', bytes).map_or(bytes.len(), |i| i + 1);
                let reason = "a quoted field is not closed where it should be".to_owned();
                let raw = readable(bytes.get(..line).unwrap_or_default());
                refuse(BadRow { offset, reason, raw }, on_bad, from, &mut decoded)?;
                decoded.recut = Some(record.start + line);
            } else if too_long {
                let max = self.settings.row_bytes_max;
                let reason = format!("the row is longer than row_bytes_max ({max} bytes)");
                let bad = BadRow { offset, reason, raw: readable(bytes) };
                refuse(bad, on_bad, from, &mut decoded)?;
            } else {
                let alone = Run { records: std::slice::from_ref(record), ..whole };
                decode_run(decoder, &alone, on_bad, from, &mut decoded)?;
            }
            if decoded.recut.is_some() {
                break;
            }
        }
        if decoded.recut.is_none() {
            let rest = Run { records: &run, ..whole };
            decode_run(decoder, &rest, on_bad, from, &mut decoded)?;
        }
        let end = match decoded.recut {
            None => {
                self.done = last;
                end
            }
            Some(at) => {
                self.cut_anew(at)?;
                at
            }
        };
        self.batch(decoded, self.base + self.position(end))
    }

    /// Discards how the text from `at` on was cut, and cuts it again.
    fn cut_anew(&mut self, at: usize) -> Result<()> {
        self.records.clear();
        self.done = 0;
        // Errors found behind `at` were found with the wrong cut.
        let from = self.base + self.position(at);
        self.bad.retain(|bad| bad.offset < from);
        self.cutter.restart(at);
        let records = &mut self.records;
        self.cutter.cut(&self.buffer, |start, end| records.push(start..end));
        if let Some(followed) = &mut self.followed {
            followed.trail.forget_from(self.buffer_at + at as u64);
            followed.trail.passes(&self.buffer, self.buffer_at, &self.records);
        }
        if self.at_end { self.cut_end() } else { Ok(()) }
    }

    /// Reads the positions of the columns from the first record of a CSV file.
    fn take_header(&mut self) -> Result<()> {
        if self.decoder.is_some() {
            return Ok(());
        }
        let TextFormat::Csv(dialect) = &self.split.file.format else { return Ok(()) };
        let is_blank = |r: &Range<usize>| {
            let bytes = self.buffer.get(r.clone()).unwrap_or_default();
            bytes.iter().all(|b| matches!(b, b'\r' | b'\n'))
        };
        let Some(first) = self.records.iter().position(|r| !is_blank(r)) else {
            self.done = self.records.len();
            return Ok(());
        };
        let range = self.records.get(first).cloned().unwrap_or_default();
        let bytes = self.buffer.get(range).unwrap_or_default();
        self.decoder = Some(self.csv_decoder(dialect, bytes)?);
        self.done = if dialect.header { first + 1 } else { first };
        Ok(())
    }

    /// Returns bad rows that accompany no records.
    fn take_bad(&mut self) -> Result<Option<SourceBatch>> {
        if self.bad.is_empty() {
            return Ok(None);
        }
        let end = self.base + self.position(self.cutter.start());
        self.batch(Decoded::default(), end)
    }

    /// Makes a batch of everything up to offset `end`; `None` when there is nothing to report.
    fn batch(&mut self, mut decoded: Decoded, end: u64) -> Result<Option<SourceBatch>> {
        let start = self.covered.unwrap_or(end);
        let (now, later): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.bad).into_iter().partition(|bad| bad.offset < end);
        self.bad = later;
        decoded.bad.extend(now);
        decoded.bad.sort_by_key(|bad| bad.offset);
        if decoded.offsets.is_empty() && decoded.bad.is_empty() {
            return Ok(None);
        }
        let (rows, offsets, bad) = decoded.into_batch(&self.wanted)?;
        self.covered = Some(end);
        if let Some(followed) = &mut self.followed {
            let at = end.saturating_sub(self.base);
            let before = usize::try_from(at.saturating_sub(self.buffer_at)).unwrap_or(usize::MAX);
            let before = self.buffer.get(..before).unwrap_or_default();
            followed.trail.ends(before, at, rows.num_rows());
        }
        Ok(Some(SourceBatch {
            rows,
            offsets: OffsetRange::try_new(start, end)?,
            row_offsets: Arc::new(offsets),
            bad,
            skipped: 0,
            watermark: None,
            idle: None,
            behind: vec![],
            place: None,
        }))
    }

    /// Covers the rest between the last batch and the end of the split (blank lines, mostly), so that ranges tile.
    fn rest(&mut self) -> Result<Option<SourceBatch>> {
        let Some(start) = self.covered.take() else { return Ok(None) };
        let end = match (self.split.end, self.split.file.next_base) {
            (None, Some(next)) => next,
            _ => self.base + self.position(self.cutter.start().min(self.buffer.len())),
        };
        if end <= start {
            return Ok(None);
        }
        let (rows, _, bad) = Decoded::default().into_batch(&self.wanted)?;
        let row_offsets = Arc::new(Vec::<u64>::new());
        let offsets = OffsetRange::try_new(start, end)?;
        Ok(Some(SourceBatch {
            rows,
            offsets,
            row_offsets,
            bad,
            skipped: 0,
            watermark: None,
            idle: None,
            behind: vec![],
            place: None,
        }))
    }
}

#[async_trait]
impl Reader for TextReader {
    async fn next(&mut self) -> Result<Option<SourceBatch>> {
        loop {
            if let Some(batch) = self.take()? {
                return Ok(Some(batch));
            }
            if self.done < self.records.len() {
                continue;
            }
            if self.at_end {
                return if self.followed.is_some() { Ok(None) } else { self.rest() };
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }
}
