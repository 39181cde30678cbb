//! A summary of the text that was read of a file, by which the text is recognised.
//!
//! ```text
//! head (first 1 KiB)   marks, each the end of a record …            last
//! ├────────┤           ▲    ▲    ▲    ▲    ▲    ▲    ▲    ▲    ▲    ▲ position
//! ```
//! Invariants: marks ascend; there are at most [`MARKS_MAX`] of them, evenly over the records, so that memory is
//! bounded and a short file has one for each record.

use std::ops::Range;

use serde::{Deserialize, Serialize};
use windrow_core::Result;

use super::handle::Held;

/// Bytes at the beginning of a file that identify it.
pub(super) const HEAD_BYTES: usize = 1024;
/// Bytes before a position that a mark hashes.
const MARK_BYTES: usize = 64;
/// Marks of one file at most.
const MARKS_MAX: usize = 4096;

/// The end of a record, with a hash of the text before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) at: u64,
    /// How many bytes are hashed.
    bytes: u8,
    hash: u32,
}

impl Mark {
    /// Returns a mark of the end of `before`, which is at position `at`.
    fn of(before: &[u8], at: u64) -> Self {
        let tail = before.get(before.len().saturating_sub(MARK_BYTES)..).unwrap_or_default();
        // The length is at most MARK_BYTES.
        let bytes = u8::try_from(tail.len()).unwrap_or(u8::MAX);
        Self { at, bytes, hash: short(hash(tail)) }
    }

    fn range(self) -> Range<u64> {
        self.at.saturating_sub(u64::from(self.bytes))..self.at
    }

    fn is_of(self, bytes: &[u8]) -> bool {
        bytes.len() == usize::from(self.bytes) && short(hash(bytes)) == self.hash
    }
}

/// A summary of what was read of a file.
#[derive(Debug, Clone, Default)]
pub(in crate::file) struct Trail {
    head: Vec<u8>,
    marks: Vec<Mark>,
    /// Every `stride`-th record is marked.
    stride: u64,
    records: u64,
    /// Rows that were returned: a header alone does not distinguish files.
    rows: u64,
    last: Option<Mark>,
}

/// A trail in stored form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SavedTrail {
    /// How many bytes at the beginning are hashed, and the hash.
    head_bytes: u64,
    head: u64,
    last: Option<Mark>,
    stride: u64,
    records: u64,
    rows: u64,
    /// Distance to the one before, bytes and hash of each mark, as hexadecimal digits.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    marks: String,
}

/// The relation of a file's current text to a trail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Relation {
    /// All that was read is present.
    Same,
    /// It is present up to this position, which is greater than 0.
    Cut(u64),
    /// None of it is present.
    Other,
}

impl Trail {
    /// Records bytes read at the beginning of the file.
    pub(in crate::file) fn begins(&mut self, at: u64, bytes: &[u8]) {
        let have = self.head.len();
        if have < HEAD_BYTES && at <= have as u64 {
            let skip = have - usize::try_from(at).unwrap_or(have);
            let more = bytes.get(skip..).unwrap_or_default();
            self.head.extend_from_slice(more.get(..HEAD_BYTES - have).unwrap_or(more));
        }
    }

    /// Records the records of `buffer`, which begins at position `at` of the file.
    pub(in crate::file) fn passes(&mut self, buffer: &[u8], at: u64, records: &[Range<usize>]) {
        self.stride = self.stride.max(1);
        for record in records {
            self.records += 1;
            if !self.records.is_multiple_of(self.stride) {
                continue;
            }
            let before = buffer.get(..record.end).unwrap_or_default();
            self.marks.push(Mark::of(before, at + record.end as u64));
            if self.marks.len() > MARKS_MAX {
                let mut odd = true;
                self.marks.retain(|_| {
                    odd = !odd;
                    odd
                });
                self.stride *= 2;
            }
        }
    }

    /// Records that what was returned ends with `before`, at position `at`, and has `rows` more rows.
    pub(in crate::file) fn ends(&mut self, before: &[u8], at: u64, rows: usize) {
        self.last = Some(Mark::of(before, at));
        self.rows += rows as u64;
    }

    /// Forgets the records from a position on, which are cut again.
    pub(in crate::file) fn forget_from(&mut self, at: u64) {
        self.marks.retain(|mark| mark.at <= at);
    }

    /// Returns its stored form, with at most `marks_max` marks, none of them behind position `at`.
    pub(super) fn saved(&self, at: u64, marks_max: usize) -> SavedTrail {
        let marks: Vec<Mark> = self.marks.iter().copied().filter(|m| m.at <= at).collect();
        let mut step = 1;
        while marks.len() / step > marks_max.max(1) {
            step *= 2;
        }
        let mut before = 0;
        let mut text = String::new();
        // Every n-th record stays marked, counted from the first.
        for mark in marks.iter().skip(step - 1).step_by(step) {
            text.push_str(&format!("{:x}.{:x}.{:x} ", mark.at - before, mark.bytes, mark.hash));
            before = mark.at;
        }
        let head = self.head_before(at);
        SavedTrail {
            head_bytes: head.len() as u64,
            head: hash(head),
            last: self.last.filter(|last| last.at == at),
            stride: self.stride.max(1) * step as u64,
            records: self.records,
            rows: self.rows,
            marks: text.trim_end().to_owned(),
        }
    }

    fn head_before(&self, at: u64) -> &[u8] {
        let bytes = usize::try_from(at).unwrap_or(usize::MAX).min(self.head.len());
        self.head.get(..bytes).unwrap_or_default()
    }

    /// Truncates it to a position that is marked, or 0.
    pub(super) fn cut(&mut self, at: u64) {
        self.marks.retain(|mark| mark.at <= at);
        self.last = self.marks.last().copied();
        self.records = self.marks.len() as u64 * self.stride.max(1);
        // The first record may be a header.
        self.rows = self.rows.min(self.records.saturating_sub(1));
        self.head.truncate(usize::try_from(at).unwrap_or(usize::MAX));
    }

    /// Compares the text of a file of `size` bytes with the trail, where its last bytes before the position `whole` are
    /// expected to be `rest`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn relation(
        &self,
        handle: &Held,
        size: u64,
        (whole, rest): (u64, &[u8]),
    ) -> Result<Relation> {
        if size >= whole
            && handle.read(0..self.head.len() as u64).await? == self.head
            && self.is_marked(handle, self.last).await?
        {
            let few = rest.get(rest.len().saturating_sub(MARK_BYTES)..).unwrap_or_default();
            if handle.read(whole.saturating_sub(few.len() as u64)..whole).await? == few {
                return Ok(Relation::Same);
            }
        }
        self.divergence(handle, size).await
    }

    async fn is_marked(&self, handle: &Held, mark: Option<Mark>) -> Result<bool> {
        let Some(mark) = mark else { return Ok(true) };
        Ok(mark.is_of(&handle.read(mark.range()).await?))
    }

    /// Finds the last mark up to which the text is the same.
    async fn divergence(&self, handle: &Held, size: u64) -> Result<Relation> {
        let (mut same, mut differs) = (0, false);
        for mark in self.marks.iter().filter(|mark| mark.at <= size) {
            differs = !mark.is_of(&handle.read(mark.range()).await?);
            if differs {
                break;
            }
            same = mark.at;
        }
        let last = self.last.filter(|last| !differs && last.at > same && last.at <= size);
        if let Some(last) = last
            && self.is_marked(handle, Some(last)).await?
        {
            same = last.at;
        }
        Ok(if same == 0 { Relation::Other } else { Relation::Cut(same) })
    }

    /// Whether each record is marked.
    pub(super) fn is_exact(&self) -> bool {
        self.stride <= 1
    }

    /// The first mark behind a position.
    pub(super) fn next_mark(&self, at: u64) -> Option<u64> {
        self.marks.iter().map(|mark| mark.at).find(|mark| *mark > at)
    }
}

impl SavedTrail {
    /// Returns the trail, if the beginning of the file `handle` is unchanged; else `None`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn of_file(&self, handle: &Held) -> Result<Option<Trail>> {
        let head = handle.read(0..self.head_bytes.min(HEAD_BYTES as u64)).await?;
        if head.len() as u64 == self.head_bytes && hash(&head) != self.head {
            return Ok(None);
        }
        let marks = self.marks().unwrap_or_default();
        let shorter = (head.len() as u64) < self.head_bytes;
        let (stride, records, rows) = (self.stride, self.records, self.rows);
        let mut trail = Trail { head, marks, stride, records, rows, last: self.last };
        if shorter {
            // Only marks can tell, and the beginning is confirmed only up to them.
            let Relation::Cut(same) = trail.divergence(handle, u64::MAX).await? else {
                return Ok(None);
            };
            trail.head.truncate(usize::try_from(same).unwrap_or(usize::MAX));
        }
        Ok(Some(trail))
    }

    /// Whether all of a file of `size` bytes is the beginning of what was read.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) async fn begins_with(&self, handle: &Held, size: u64) -> Result<bool> {
        let long = size >= self.head_bytes;
        if long && hash(&handle.read(0..self.head_bytes).await?) != self.head {
            return Ok(false);
        }
        // For a short one only the ends of records can tell.
        let marks = self.marks().unwrap_or_default();
        for mark in marks.iter().filter(|mark| mark.at <= size) {
            if !mark.is_of(&handle.read(mark.range()).await?) {
                return Ok(false);
            }
        }
        Ok(long || marks.first().is_some_and(|mark| mark.at <= size))
    }

    /// Whether it identifies a file at all.
    pub(super) fn tells(&self) -> bool {
        self.head_bytes > 0 && self.rows > 0
    }

    fn marks(&self) -> Option<Vec<Mark>> {
        let mut at = 0;
        let mark = |text: &str| {
            let mut parts = text.split('.');
            at += u64::from_str_radix(parts.next()?, 16).ok()?;
            let bytes = u8::from_str_radix(parts.next()?, 16).ok()?;
            let hash = u32::from_str_radix(parts.next()?, 16).ok()?;
            Some(Mark { at, bytes, hash })
        };
        self.marks.split_whitespace().map(mark).collect()
    }
}

/// FNV-1a: the same in every version, and fast for a few bytes.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Three bytes of a hash.
fn short(hash: u64) -> u32 {
    u32::try_from((hash ^ (hash >> 24) ^ (hash >> 48)) & 0x00ff_ffff).unwrap_or_default()
}
