//! The bytes of a segment: a header, then records. All numbers are little-endian.
//!
//! ```text
//! segment   magic "WNDROWL1" │ version u32 │ schema length u32 │ CRC-32 of the schema u32 │ schema
//! record    length u32 │ rows u32 │ first offset u64 │ durable u64 │ CRC-32 of the payload u32
//!           │ CRC-32 of the 28 bytes before u32 │ payload (an Arrow IPC stream) │ end mark u32
//! ```
//! `durable`: all rows below that offset were durable when the record was written. It tells a tail
//! that was torn by a crash from damage: rows that a later record calls durable were acknowledged.

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::RecordBatch;
use windrow_core::{Error, Result};

const MAGIC: &[u8; 8] = b"WNDROWL1";
const VERSION: u32 = 1;
/// Bytes of a record before its payload.
pub(super) const HEADER: usize = 32;
/// Bytes after the payload.
const END: usize = 4;
const END_MARK: u32 = 0x5752_4F57;

/// What is found at a place of a segment.
#[derive(Debug)]
pub(super) enum Found {
    /// A whole record; where the next one begins.
    Record { first: u64, rows: u64, batch: RecordBatch, next: usize },
    /// Nothing more.
    End,
    /// A record that was not written to its end.
    Torn(&'static str),
    /// Bytes that were written and are not what was written.
    Damaged(String),
}

/// The header of a segment.
pub(super) fn segment_header(schema: &SchemaRef) -> Result<Vec<u8>> {
    let schema = encode(&RecordBatch::new_empty(std::sync::Arc::clone(schema)))?;
    let mut bytes = Vec::with_capacity(schema.len() + 20);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(length(schema.len())?.to_le_bytes());
    bytes.extend(crc32fast::hash(&schema).to_le_bytes());
    bytes.extend(schema);
    Ok(bytes)
}

/// Checks the header; returns where the records begin, `None` when it was not written to its end.
///
/// # Errors
/// As text, what is wrong with it.
pub(super) fn read_segment_header(
    bytes: &[u8],
    schema: &SchemaRef,
) -> Result<Option<usize>, HeaderError> {
    let damaged = |why: &str| HeaderError::Damaged(why.to_owned());
    let Some((magic, rest)) = bytes.split_at_checked(8) else { return Ok(None) };
    if magic.iter().all(|b| *b == 0) {
        return Ok(None);
    }
    if magic != MAGIC {
        return Err(damaged("it does not begin like a log segment"));
    }
    let (Some(version), Some(len), Some(sum)) = (u32_at(rest, 0), u32_at(rest, 4), u32_at(rest, 8))
    else {
        return Ok(None);
    };
    if version != VERSION {
        return Err(HeaderError::Version(version));
    }
    let Some(stored) = rest.get(12..12 + len as usize) else { return Ok(None) };
    if crc32fast::hash(stored) != sum {
        return Err(damaged("the checksum of its header is wrong"));
    }
    let stored = StreamReader::try_new(stored, None).map_err(|e| damaged(&e.to_string()))?;
    if stored.schema().fields() != schema.fields() {
        return Err(HeaderError::Schema);
    }
    Ok(Some(20 + len as usize))
}

/// What is wrong with the header of a segment.
#[derive(Debug)]
pub(super) enum HeaderError {
    Damaged(String),
    Version(u32),
    Schema,
}

/// The payload of a record.
pub(super) fn encode(batch: &RecordBatch) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(batch.get_array_memory_size() + 512);
    let mut writer = StreamWriter::try_new(&mut bytes, batch.schema_ref())?;
    if batch.num_rows() > 0 {
        writer.write(batch)?;
    }
    writer.finish()?;
    drop(writer);
    Ok(bytes)
}

/// Appends a record to `out`.
pub(super) fn write(
    out: &mut Vec<u8>,
    payload: &[u8],
    (first, rows): (u64, u64),
    durable: u64,
) -> Result<()> {
    let start = out.len();
    out.extend(length(payload.len())?.to_le_bytes());
    out.extend(length(usize::try_from(rows).unwrap_or(usize::MAX))?.to_le_bytes());
    out.extend(first.to_le_bytes());
    out.extend(durable.to_le_bytes());
    out.extend(crc32fast::hash(payload).to_le_bytes());
    let sum = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.extend(sum.to_le_bytes());
    out.extend(payload);
    out.extend(END_MARK.to_le_bytes());
    Ok(())
}

fn length(len: usize) -> Result<u32> {
    u32::try_from(len).map_err(|e| {
        Error::new(windrow_core::ErrorKind::Limit, "an INSERT is larger than 4 GiB")
            .with_hint("Insert fewer rows at a time.")
            .with_source(e)
    })
}

/// A record's header, checked.
#[derive(Debug, Clone, Copy)]
struct Header {
    len: usize,
    rows: u64,
    first: u64,
    durable: u64,
    sum: u32,
}

fn header(bytes: &[u8], at: usize) -> Option<Header> {
    let header = bytes.get(at..at + HEADER)?;
    if crc32fast::hash(header.get(..28)?) != u32_at(header, 28)? {
        return None;
    }
    Some(Header {
        len: u32_at(header, 0)? as usize,
        rows: u64::from(u32_at(header, 4)?),
        first: u64_at(header, 8)?,
        durable: u64_at(header, 16)?,
        sum: u32_at(header, 24)?,
    })
}

/// What is at byte `at`; `expected` is the offset that comes next.
pub(super) fn read(bytes: &[u8], at: usize, expected: u64) -> Found {
    let left = bytes.get(at..).unwrap_or_default();
    if left.is_empty() {
        return Found::End;
    }
    if left.len() < HEADER {
        return Found::Torn("the header of a record ends early");
    }
    let Some(header) = header(bytes, at) else {
        return if left.iter().all(|b| *b == 0) {
            Found::Torn("zeros where a record was to be")
        } else {
            doubtful(bytes, at, expected, "the checksum of a record's header is wrong")
        };
    };
    let end = at + HEADER + header.len;
    let (Some(payload), Some(mark)) = (bytes.get(at + HEADER..end), u32_at(bytes, end)) else {
        return Found::Torn("a record ends early");
    };
    if crc32fast::hash(payload) != header.sum {
        return if mark == END_MARK {
            doubtful(bytes, at, expected, "the checksum of a record is wrong")
        } else {
            Found::Torn("the end of a record was not written")
        };
    }
    if header.first != expected {
        return Found::Damaged(format!("offset {expected} is missing"));
    }
    match decode(payload) {
        Ok(batch) if batch.num_rows() as u64 == header.rows => {
            Found::Record { first: header.first, rows: header.rows, batch, next: end + END }
        }
        Ok(_) => Found::Damaged("a record has another number of rows than it says".to_owned()),
        Err(error) => Found::Damaged(error.to_string()),
    }
}

/// Bytes that are wrong: torn, if all that follows was written with them and nobody was told that
/// it is durable; damaged otherwise.
fn doubtful(bytes: &[u8], at: usize, expected: u64, why: &str) -> Found {
    let later = (at + 1..bytes.len().saturating_sub(HEADER)).filter_map(|p| header(bytes, p));
    let acknowledged = later.map(|h| h.durable).any(|durable| durable > expected);
    // Nothing follows: a tail that a crash tore has not been written to its end, this one has.
    if acknowledged || bytes.ends_with(&END_MARK.to_le_bytes()) {
        Found::Damaged(why.to_owned())
    } else {
        Found::Torn("the end of the log was not written")
    }
}

fn decode(payload: &[u8]) -> Result<RecordBatch> {
    let mut reader = StreamReader::try_new(payload, None)?;
    match reader.next().transpose()? {
        Some(batch) => Ok(batch),
        None => Ok(RecordBatch::new_empty(reader.schema())),
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}
