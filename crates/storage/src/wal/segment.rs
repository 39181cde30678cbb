//! The bytes of a segment file.
//!
//! ```text
//! file    ├ magic 8 ┤ version u32 ┤ length u32 ┤ crc32 u32 ┤ columns u32 ┤ schema ┤ producers ┤ record ┤ …
//!                                                          └──── length, under the crc ─────┘
//! record  ├ length u32 ┤ crc32 u32 ┤ first offset u64 ┤ rows u32 ┤ stamps u32 ┤ payload ┤ stamps ┤
//!                                  └─────────────── length, under the crc ────────────────┘
//! ```
//! Numbers are little-endian. The schema (`columns` bytes) is an Arrow IPC stream without batches, a payload is one
//! with the batches of one group commit: it carries its own dictionaries and columns (which are more than those of the
//! segment, if some were added in between), and reading copies into aligned memory. The
//! stamps (`stamps` bytes, possibly 0) identify the batches and their producers; `producers` sums up the stamps of all
//! earlier segments, so that those can be deleted. Both are JSON. The owner of the log is in the metadata of the
//! schema.
//!
//! Invariants: one write is one record, so that only the last one can be torn; a record has rows or
//! stamps; reading never trusts a length.

use arrow::datatypes::Schema;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, ErrorKind, Layout, Result};

use super::producers::{Producers, Stamp};

/// The first bytes of a segment.
const MAGIC: &[u8; 8] = b"WNDROWL1";
/// The version that this program reads and writes.
pub(super) const VERSION: u32 = 2;
/// Magic, version, length, crc.
const HEADER_BYTES: usize = 20;
/// Length and crc of a record.
const RECORD_HEAD: usize = 8;
/// First offset, rows and length of the stamps of a record.
const RECORD_FIELDS: usize = 16;
/// The key of the log's owner in the metadata of the schema.
const OWNER_KEY: &str = "windrow.owner";
/// The beginning of each IPC message; distinguishes payloads from random bytes.
const CONTINUATION: [u8; 4] = [0xff; 4];

/// The beginning of a file, decoded.
pub(super) enum Header {
    /// Intact; `len` bytes.
    Whole { schema: Schema, producers: Producers, owner: Option<String>, len: usize },
    /// Written by another version.
    UnknownVersion(u32),
    /// Torn or damaged.
    Damaged(&'static str),
}

/// A record with a valid checksum.
pub(super) struct Record<'a> {
    /// The offset of its first row.
    pub(super) first: u64,
    /// Its rows.
    pub(super) rows: u32,
    /// The stamps of its batches.
    pub(super) stamps: Vec<Stamp>,
    payload: &'a [u8],
    /// Where the next record begins.
    pub(super) next: usize,
}

/// The contents of the beginning of a segment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Beginning<'a> {
    /// The columns.
    pub(super) schema: &'a Schema,
    /// The sum of the stamps of all earlier segments.
    pub(super) producers: &'a Producers,
    /// The owner of the log.
    pub(super) owner: Option<&'a str>,
}

/// Encodes the beginning of a segment.
pub(super) fn encode_header(beginning: Beginning<'_>) -> Result<Vec<u8>> {
    let Beginning { schema, producers, owner } = beginning;
    let mut metadata = schema.metadata().clone();
    metadata.extend(owner.map(|owner| (OWNER_KEY.to_owned(), owner.to_owned())));
    let schema = schema.clone().with_metadata(metadata);
    let mut stream = StreamWriter::try_new(vec![0; 4], &schema)?;
    stream.finish()?;
    let mut body = stream.into_inner()?;
    let columns = length(body.len() - 4)?;
    put(&mut body, 0, &columns.to_le_bytes());
    body.extend(json(producers)?);
    let mut header = MAGIC.to_vec();
    header.extend(VERSION.to_le_bytes());
    header.extend(length(body.len())?.to_le_bytes());
    header.extend(crc32fast::hash(&body).to_le_bytes());
    header.extend(body);
    Ok(header)
}

/// Encodes one record with all rows of `batches`, from offset `first` on, with the stamps of these batches.
///
/// # Errors
/// When it would not fit into 4 GiB ([`ErrorKind::Limit`]), or Arrow cannot write it.
pub(super) fn encode_record<'a>(
    schema: &Schema,
    first: u64,
    batches: impl Iterator<Item = &'a RecordBatch>,
    stamps: &[Stamp],
) -> Result<Vec<u8>> {
    let mut rows = 0;
    let mut stream = StreamWriter::try_new(vec![0; RECORD_HEAD + RECORD_FIELDS], schema)?;
    for batch in batches.filter(|b| b.num_rows() > 0) {
        rows += batch.num_rows();
        stream.write(batch)?;
    }
    stream.finish()?;
    let mut record = stream.into_inner()?;
    let stamps = if stamps.is_empty() { vec![] } else { json(stamps)? };
    record.extend(&stamps);
    let len = length(record.len() - RECORD_HEAD)?;
    put(&mut record, 8, &first.to_le_bytes());
    put(&mut record, 16, &length(rows)?.to_le_bytes());
    put(&mut record, 20, &length(stamps.len())?.to_le_bytes());
    let crc = crc32fast::hash(record.get(RECORD_HEAD..).unwrap_or_default());
    put(&mut record, 0, &len.to_le_bytes());
    put(&mut record, 4, &crc.to_le_bytes());
    Ok(record)
}

/// Decodes the beginning of a file.
pub(super) fn read_header(bytes: &[u8]) -> Header {
    match bytes.get(..8) {
        None => return Header::Damaged("the header is cut off"),
        Some(magic) if magic != MAGIC => return Header::Damaged("it does not begin as a log does"),
        Some(_) => {}
    }
    let (Some(version), Some(len), Some(crc)) =
        (number(bytes, 8), number(bytes, 12), number(bytes, 16))
    else {
        return Header::Damaged("the header is cut off");
    };
    if version != VERSION {
        // Version 0 was never written: it is a page that did not reach the disk.
        return match version {
            0 => Header::Damaged("the header has no version"),
            _ => Header::UnknownVersion(version),
        };
    }
    let end = HEADER_BYTES + len as usize;
    let Some(body) = bytes.get(HEADER_BYTES..end) else {
        return Header::Damaged("the header is cut off");
    };
    if crc32fast::hash(body) != crc {
        return Header::Damaged("the checksum of the header is wrong");
    }
    let parts = number(body, 0)
        .and_then(|columns| body.get(4..)?.split_at_checked(usize::try_from(columns).ok()?));
    let Some((columns, producers)) = parts else {
        return Header::Damaged("the header is too short");
    };
    let Ok(stream) = StreamReader::try_new(columns, None) else {
        return Header::Damaged("the schema in the header cannot be read");
    };
    let mut schema = stream.schema().as_ref().clone();
    let owner = schema.metadata.remove(OWNER_KEY);
    match serde_json::from_slice(producers) {
        Ok(producers) => Header::Whole { schema, producers, owner, len: end },
        Err(_) => Header::Damaged("the producers in the header cannot be read"),
    }
}

/// Decodes the record at a byte; the error says what is wrong with it.
pub(super) fn read_record(bytes: &[u8], at: usize) -> Result<Record<'_>, &'static str> {
    let (Some(len), Some(crc)) = (number(bytes, at), number(bytes, at + 4)) else {
        return Err("the record is cut off");
    };
    let next = at + RECORD_HEAD + len as usize;
    let Some(body) = bytes.get(at + RECORD_HEAD..next) else {
        return Err("the record is cut off");
    };
    let Some((fields, rest)) = body.split_at_checked(RECORD_FIELDS) else {
        return Err("the record is too short");
    };
    if crc32fast::hash(body) != crc {
        return Err("the checksum of the record is wrong");
    }
    let (Some(first), Some(rows), Some(stamps)) =
        (long(fields, 0), number(fields, 8), number(fields, 12))
    else {
        return Err("the record is too short");
    };
    let Some((payload, stamps)) =
        rest.len().checked_sub(stamps as usize).and_then(|at| rest.split_at_checked(at))
    else {
        return Err("the record is too short");
    };
    let stamps: Vec<Stamp> = match stamps {
        [] if rows == 0 => return Err("the record has no rows"),
        [] => vec![],
        stamps => match serde_json::from_slice(stamps) {
            Ok(stamps) => stamps,
            Err(_) => return Err("the producers of the record cannot be read"),
        },
    };
    Ok(Record { first, rows, stamps, payload, next })
}

/// Whether there is a whole record with rows from `offset` on, anywhere after byte `at`.
pub(super) fn valid_record_after(bytes: &[u8], at: usize, offset: u64) -> bool {
    let skip = at + 1 + RECORD_HEAD + RECORD_FIELDS;
    let Some(rest) = bytes.get(skip..) else { return false };
    // Most positions are ruled out by the first bytes of the payload; the checksum is computed for few.
    rest.windows(CONTINUATION.len()).enumerate().filter(|(_, w)| **w == CONTINUATION).any(
        |(i, _)| {
            let at = at + 1 + i;
            long(bytes, at + RECORD_HEAD).is_some_and(|first| first >= offset)
                && read_record(bytes, at).is_ok()
        },
    )
}

impl Record<'_> {
    /// Decodes its batches, with the given columns; it may have been written before some of them were added.
    pub(super) fn batches(&self, layout: &Layout) -> Result<Vec<RecordBatch>> {
        let stream = StreamReader::try_new(self.payload, None)?;
        let batches: Vec<_> = stream.map(|batch| layout.widened(&batch?)).collect::<Result<_>>()?;
        let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
        if rows != self.rows as usize {
            return Err(Error::data(format!("it has {rows} rows instead of {}", self.rows)));
        }
        Ok(batches)
    }
}

fn json(value: &(impl serde::Serialize + ?Sized)) -> Result<Vec<u8>> {
    serde_json::to_vec(value)
        .map_err(|e| Error::internal("producers cannot be written as JSON").with_source(e))
}

fn length(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|_| {
        Error::new(ErrorKind::Limit, "the rows of one insert are larger than 4 GiB")
            .with_hint("Insert fewer rows at a time.")
    })
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

fn long(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at.checked_add(8)?)?.try_into().ok()?))
}
