//! Decoding messages of typed formats (Avro, Protobuf), each one record: what these formats share.
//!
//! Invariant: a bad message makes no other message bad.

use arrow::array::RecordBatch;
use windrow_core::{BadRow, Result};

use super::rows::Typed;
use super::unfit::shown;
use crate::formats::decode::{Decoded, OnBadRow, Origin, readable, refuse};

/// A decoder of records of one schema.
pub(crate) trait DecodeRecords {
    /// Decodes records to a row each, with the columns of the schema.
    ///
    /// # Errors
    /// When one of them is bad.
    fn records(&mut self, records: &[&[u8]]) -> Result<RecordBatch, Wrong>;
}

/// Why records could not be decoded.
#[derive(Debug)]
pub(crate) enum Wrong {
    /// This record.
    At(usize, String),
    /// One of them; it is unknown which.
    Any(String),
}

/// Messages with one schema.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Same<'a> {
    /// The records in them.
    pub records: &'a [&'a [u8]],
    /// The offsets of the messages.
    pub offsets: &'a [u64],
}

impl Same<'_> {
    fn part(&self, range: std::ops::Range<usize>) -> Self {
        Self {
            records: self.records.get(range.clone()).unwrap_or_default(),
            offsets: self.offsets.get(range).unwrap_or_default(),
        }
    }
}

/// Decodes messages to rows of a stream; a bad message does not affect others.
///
/// # Errors
/// For the first bad one when the stream says `on_bad_row = 'fail'`.
pub(crate) fn decode_messages(
    decoder: &mut dyn DecodeRecords,
    messages: Same<'_>,
    typed: &Typed,
    origin: Origin<'_>,
    into: &mut Decoded,
) -> Result<()> {
    let count = messages.records.len();
    let mut from = 0;
    while from < count {
        let left = messages.part(from..count);
        let (at, reason) = match decoder.records(left.records) {
            Ok(rows) => return add(&rows, left, typed, origin, into),
            Err(Wrong::At(at, reason)) => (at, reason),
            Err(Wrong::Any(reason)) if left.records.len() <= 1 => (0, reason),
            Err(Wrong::Any(_)) => {
                let half = from + left.records.len() / 2;
                decode_messages(decoder, messages.part(from..half), typed, origin, into)?;
                from = half;
                continue;
            }
        };
        if at > 0 {
            decode_messages(decoder, messages.part(from..from + at), typed, origin, into)?;
        }
        let bad = messages.part(from + at..from + at + 1);
        refuse_all(bad, &reason, typed.on_bad, origin, into)?;
        from += at + 1;
    }
    Ok(())
}

/// Turns messages into bad rows.
///
/// # Errors
/// When the stream says `on_bad_row = 'fail'`.
pub(crate) fn refuse_all(
    messages: Same<'_>,
    reason: &str,
    on_bad: OnBadRow,
    origin: Origin<'_>,
    into: &mut Decoded,
) -> Result<()> {
    for (record, offset) in messages.records.iter().zip(messages.offsets) {
        let (reason, raw) = (reason.to_owned(), readable(record));
        refuse(BadRow { offset: *offset, reason, raw }, on_bad, origin, into)?;
    }
    Ok(())
}

/// Adds rows as those of the stream.
fn add(
    rows: &RecordBatch,
    messages: Same<'_>,
    typed: &Typed,
    origin: Origin<'_>,
    into: &mut Decoded,
) -> Result<()> {
    let fitted = typed.rows(rows)?;
    for (row, reason) in fitted.unfit {
        let offset = messages.offsets.get(row).copied().unwrap_or_default();
        let record = messages.records.get(row).copied().unwrap_or_default();
        let raw = shown(rows, row).unwrap_or_else(|_| readable(record));
        refuse(BadRow { offset, reason, raw }, typed.on_bad, origin, into)?;
    }
    match fitted.kept {
        None => into.offsets.extend(messages.offsets),
        Some(kept) => {
            let kept = kept.values().set_indices();
            into.offsets.extend(kept.filter_map(|row| messages.offsets.get(row)));
        }
    }
    into.pieces.push(fitted.rows);
    Ok(())
}
