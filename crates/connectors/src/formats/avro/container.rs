//! Object container files: a header with the schema, then blocks of records, each compressed by itself.
//!
//! Only the end of a record tells where the next one starts: after a record that cannot be decoded, the other records of its
//! block are lost too.
//!
//! Invariant: each record of a block is a row or a bad row, so offsets are row numbers of the file.

use std::io::Read;
use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::Schema;
use arrow_avro::reader::Decoder;
use windrow_core::{BadRow, Result};

use super::schema::WriterSchema;
use super::{check_digits, decode_first, flush, worded};
use crate::formats::decode::{Decoded, readable};
use crate::formats::typed::{Typed, shown};

/// The first bytes of a file.
const MAGIC: &[u8] = b"Obj\x01";
/// The maximum size of a block, compressed or not, in bytes.
pub(crate) const BLOCK_BYTES_MAX: usize = 256 << 20;
/// The maximum size of a header, in bytes.
const HEADER_BYTES_MAX: usize = 64 << 20;

/// The compression of the blocks of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Codec {
    Null,
    Deflate,
    Snappy,
    Zstandard,
}

/// The header of a file.
#[derive(Debug)]
pub(crate) struct Header {
    pub schema: Arc<WriterSchema>,
    codec: Codec,
    sync: [u8; 16],
    /// Its bytes.
    pub length: usize,
}

/// A block of a file, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block<'a> {
    /// The number of its records.
    pub count: u64,
    data: &'a [u8],
    /// All its bytes.
    pub length: usize,
}

/// A cursor over bytes; `None` means that there are not enough of them.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn long(&mut self) -> Result<Option<i64>, String> {
        let mut value: u64 = 0;
        for (number, byte) in self.0.iter().enumerate().take(10) {
            value |= u64::from(byte & 0x7f) << (7 * number);
            if byte & 0x80 == 0 {
                self.0 = self.0.get(number + 1..).unwrap_or_default();
                return Ok(Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed()));
            }
        }
        if self.0.len() < 10 { Ok(None) } else { Err("a number is too long".to_owned()) }
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let taken = self.0.get(..length)?;
        self.0 = self.0.get(length..).unwrap_or_default();
        Some(taken)
    }

    fn bytes(&mut self, max: usize) -> Result<Option<&'a [u8]>, String> {
        let Some(length) = self.long()? else { return Ok(None) };
        let length = usize::try_from(length).ok().filter(|length| *length <= max);
        let length = length.ok_or("a length is negative or too large")?;
        Ok(self.take(length))
    }
}

impl Header {
    /// Reads the header at the beginning of a file; `None`: more of its bytes are needed.
    ///
    /// # Errors
    /// When it is not the header of such a file; the message continues "file … is not Avro: ".
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        let begins = MAGIC.get(..bytes.len().min(MAGIC.len())).unwrap_or_default();
        if !bytes.starts_with(begins) {
            return Err("it does not begin as an object container file".to_owned());
        }
        let mut rest = Bytes(bytes.get(MAGIC.len()..).unwrap_or_default());
        let (mut schema, mut codec) = (None, Codec::Null);
        loop {
            let Some(count) = rest.long()? else { return too_long(bytes) };
            if count == 0 {
                break;
            }
            if count < 0 && rest.long()?.is_none() {
                return too_long(bytes);
            }
            for _ in 0..count.unsigned_abs() {
                let Some(key) = rest.bytes(HEADER_BYTES_MAX)? else { return too_long(bytes) };
                let Some(value) = rest.bytes(HEADER_BYTES_MAX)? else { return too_long(bytes) };
                match key {
                    b"avro.schema" => schema = Some(value),
                    b"avro.codec" => codec = codec_of(value)?,
                    _ => {}
                }
            }
        }
        let Some(sync) = rest.take(16).and_then(|sync| sync.try_into().ok()) else {
            return too_long(bytes);
        };
        let text = schema.ok_or("its header has no schema")?;
        let text = std::str::from_utf8(text).map_err(|_| "its schema is not valid UTF-8")?;
        let schema = WriterSchema::parse(text).map_err(|why| format!("its schema {why}"))?;
        let length = bytes.len() - rest.0.len();
        Ok(Some(Self { schema: Arc::new(schema), codec, sync, length }))
    }

    /// Finds the block at the beginning of these bytes; `None`: more of them are needed.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn block<'a>(&self, bytes: &'a [u8]) -> Result<Option<Block<'a>>, String> {
        let mut rest = Bytes(bytes);
        let Some(count) = rest.long()? else { return Ok(None) };
        let count = u64::try_from(count).map_err(|_| "the number of its records is negative")?;
        let Some(data) = rest.bytes(BLOCK_BYTES_MAX)? else { return Ok(None) };
        let Some(sync) = rest.take(16) else { return Ok(None) };
        if sync != self.sync {
            return Err("it does not end with the marker of the file".to_owned());
        }
        Ok(Some(Block { count, data, length: bytes.len() - rest.0.len() }))
    }
}

fn too_long(bytes: &[u8]) -> Result<Option<Header>, String> {
    if bytes.len() > HEADER_BYTES_MAX { Err("its header has no end".to_owned()) } else { Ok(None) }
}

fn codec_of(name: &[u8]) -> Result<Codec, String> {
    match name {
        b"null" => Ok(Codec::Null),
        b"deflate" => Ok(Codec::Deflate),
        b"snappy" => Ok(Codec::Snappy),
        b"zstandard" => Ok(Codec::Zstandard),
        other => Err(format!(
            "its blocks are compressed with \"{}\"; null, deflate, snappy and zstandard can be read",
            String::from_utf8_lossy(other)
        )),
    }
}

impl Codec {
    fn unpack(self, data: &[u8]) -> Result<Vec<u8>, String> {
        let failed = |e: &dyn std::fmt::Display| format!("it cannot be decompressed: {e}");
        let read = |from: &mut dyn Read| {
            let mut all: Vec<u8> = vec![];
            let limit = BLOCK_BYTES_MAX as u64 + 1;
            from.take(limit).read_to_end(&mut all).map_err(|e| failed(&e))?;
            Ok::<_, String>(all)
        };
        let all = match self {
            Self::Null => data.to_vec(),
            Self::Deflate => read(&mut flate2::read::DeflateDecoder::new(data))?,
            Self::Zstandard => read(&mut zstd::Decoder::new(data).map_err(|e| failed(&e))?)?,
            Self::Snappy => {
                let (data, crc) = data.split_last_chunk::<4>().ok_or("it is cut off")?;
                let length = snap::raw::decompress_len(data).map_err(|e| failed(&e))?;
                if length > BLOCK_BYTES_MAX {
                    return Err(failed(&"it is too large"));
                }
                let all = snap::raw::Decoder::new().decompress_vec(data).map_err(|e| failed(&e))?;
                if crc32fast::hash(&all) != u32::from_be_bytes(*crc) {
                    return Err("its checksum is wrong".to_owned());
                }
                all
            }
        };
        if all.len() > BLOCK_BYTES_MAX {
            return Err(failed(&"it is too large"));
        }
        Ok(all)
    }
}

/// A decoder of the blocks of one file.
#[derive(Debug)]
pub(crate) struct BlockDecoder {
    header: Arc<Header>,
    /// `None` before the first block, and after a record that could not be decoded.
    decoder: Option<Decoder>,
}

/// The records of a block.
#[derive(Debug)]
pub(crate) struct BlockRows {
    /// The records that were decoded.
    pub rows: RecordBatch,
    /// Their numbers in the block.
    pub numbers: Vec<u64>,
    /// The others, ascending by number, with reason and bytes.
    pub bad: Vec<(u64, String, Vec<u8>)>,
}

impl BlockRows {
    /// Adds them as rows of a stream; the first record of the block has the offset `first`. Bad rows are not sorted.
    ///
    /// # Errors
    /// When rows cannot be taken out of a batch.
    pub(crate) fn add(self, first: u64, typed: &Typed, into: &mut Decoded) -> Result<()> {
        for (number, reason, record) in self.bad {
            into.bad.push(BadRow { offset: first + number, reason, raw: readable(&record) });
        }
        if self.numbers.is_empty() {
            return Ok(());
        }
        let fitted = typed.rows(&self.rows)?;
        let offset = |row: usize| first + self.numbers.get(row).copied().unwrap_or_default();
        for (row, reason) in fitted.unfit {
            let raw = shown(&self.rows, row).unwrap_or_default();
            into.bad.push(BadRow { offset: offset(row), reason, raw });
        }
        match fitted.kept {
            None => into.offsets.extend((0..self.numbers.len()).map(offset)),
            Some(kept) => into.offsets.extend(kept.values().set_indices().map(offset)),
        }
        into.pieces.push(fitted.rows);
        Ok(())
    }
}

impl BlockDecoder {
    pub(crate) fn new(header: Arc<Header>) -> Self {
        Self { header, decoder: None }
    }

    /// Decodes a block.
    ///
    /// # Errors
    /// When its bytes are not as many records as it declares.
    pub(crate) fn decode(&mut self, block: Block<'_>) -> Result<BlockRows, String> {
        let data = self.header.codec.unpack(block.data)?;
        if block.count > data.len() as u64 {
            return Err(format!(
                "{} records do not fit into its {} bytes",
                block.count,
                data.len()
            ));
        }
        if block.count == 0 {
            if !data.is_empty() {
                return Err("it has bytes and no records".to_owned());
            }
            let schema = Arc::new(Schema::new(self.header.schema.fields().clone()));
            return Ok(BlockRows {
                rows: RecordBatch::new_empty(schema),
                numbers: vec![],
                bad: vec![],
            });
        }
        match self.together(block.count, &data) {
            Ok(rows) => Ok(BlockRows { rows, numbers: (0..block.count).collect(), bad: vec![] }),
            Err(_) => one_by_one(&self.header.schema, block.count, &data),
        }
    }

    /// Decodes all records at once, as an Avro array, from which a block differs only in its framing.
    fn together(&mut self, count: u64, data: &[u8]) -> Result<RecordBatch, String> {
        let mut list = Vec::with_capacity(data.len() + 11);
        let mut rest = count << 1;
        while rest >= 0x80 {
            list.push((rest & 0x7f) as u8 | 0x80);
            rest >>= 7;
        }
        list.push(rest as u8);
        list.extend_from_slice(data);
        list.push(0);
        let decoder = self.decoder.take();
        let mut decoder = decoder.map_or_else(|| self.header.schema.list_decoder(), Ok)?;
        if decode_first(&mut decoder, &list)? != list.len() {
            return Err("there are bytes after the records".to_owned());
        }
        let lists = decoder.flush().map_err(|e| worded(&e.to_string()))?;
        let lists = lists.ok_or("there are no records")?;
        let records = lists.column(0).as_list::<i32>().values();
        if records.len() as u64 != count {
            return Err("the number of records is wrong".to_owned());
        }
        check_digits(records)?;
        let schema = Arc::new(Schema::new(self.header.schema.fields().clone()));
        let columns = records.as_struct().columns().to_vec();
        let rows = RecordBatch::try_new(schema, columns).map_err(|e| e.to_string())?;
        self.decoder = Some(decoder);
        Ok(rows)
    }
}

/// Decodes the records of a block one after the other.
fn one_by_one(schema: &WriterSchema, count: u64, data: &[u8]) -> Result<BlockRows, String> {
    let mut decoder = schema.decoder(1)?;
    let (mut rows, mut numbers, mut bad) = (vec![], vec![], vec![]);
    let mut rest = data;
    let mut lost = None;
    for number in 0..count {
        if let Some(first) = lost {
            let why = format!(
                "record {first} of the same block cannot be decoded, and it ends where this one begins"
            );
            bad.push((number, why, vec![]));
            continue;
        }
        let length = match decode_first(&mut decoder, rest) {
            Ok(length) => length,
            Err(why) => {
                lost = Some(number);
                bad.push((number, why, rest.to_vec()));
                continue;
            }
        };
        let (record, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
        rest = after;
        match flush(&mut decoder) {
            Ok(row) => {
                rows.push(row);
                numbers.push(number);
            }
            Err(why) => {
                bad.push((number, why, record.to_vec()));
                decoder = schema.decoder(1)?;
            }
        }
    }
    if lost.is_none() && !rest.is_empty() {
        return Err("it has bytes after its last record".to_owned());
    }
    let all = Arc::new(Schema::new(schema.fields().clone()));
    let rows = concat_batches(&all, &rows).map_err(|e| e.to_string())?;
    Ok(BlockRows { rows, numbers, bad })
}
