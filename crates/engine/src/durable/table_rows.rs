//! The file format of a reference table: an Arrow stream that names its owner, a trailer and a checksum.
//!
//! Invariant: nothing is decoded before the checksum and the trailer are verified.

use std::path::Path;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::datasource::MemTable;
use windrow_core::{Error, ErrorKind, Owner, Result};
use windrow_sql::diagnostics::from_datafusion;

/// Follows the rows, before the CRC-32 of everything before the checksum (4 bytes, little-endian). Readers of Arrow
/// streams stop before it.
const TRAILER: &[u8] = b"WNDROWT1";
const CHECKSUM_BYTES: usize = 4;

/// The key in the metadata of the schema of a table's file that identifies the table.
const OWNER_KEY: &str = "windrow.owner";

/// Encodes rows as an Arrow stream with a checksum.
///
/// # Errors
/// When a column cannot be encoded.
pub(crate) fn to_bytes(schema: &SchemaRef, rows: &[RecordBatch], owner: &Owner) -> Result<Vec<u8>> {
    let mut metadata = schema.metadata().clone();
    metadata.insert(OWNER_KEY.to_owned(), owner.id.clone());
    let schema = schema.as_ref().clone().with_metadata(metadata);
    let mut writer = StreamWriter::try_new(Vec::new(), &schema)?;
    rows.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    let mut bytes = writer.into_inner()?;
    bytes.extend(TRAILER);
    bytes.extend(crc32fast::hash(&bytes).to_le_bytes());
    Ok(bytes)
}

/// Decodes the rows of a table's file. Nothing is decoded before the checksum is verified: damaged bytes can make the reader
/// panic.
///
/// # Errors
/// Corrupt when the file is damaged or belongs to another object.
pub(crate) fn read_rows(path: &Path, bytes: &[u8], owner: &Owner) -> Result<MemTable> {
    let (schema, rows) = read_batches(path, bytes, owner)?;
    MemTable::try_new(schema, vec![rows]).map_err(from_datafusion)
}

/// As [`read_rows`], without making a table of them.
///
/// # Errors
/// Corrupt when the file is damaged or belongs to another object.
pub(crate) fn read_batches(
    path: &Path,
    bytes: &[u8],
    owner: &Owner,
) -> Result<(SchemaRef, Vec<RecordBatch>)> {
    let damaged = |why: &dyn std::fmt::Display| {
        Error::new(ErrorKind::Corrupt, format!("\"{}\" is damaged: {why}", path.display()))
            .with_hint("Restore the file from a backup; nothing has been overwritten.")
    };
    let (covered, sum) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(|| damaged(&"its checksum is cut off"))?;
    if crc32fast::hash(covered) != u32::from_le_bytes(*sum) {
        return Err(damaged(&"its checksum is wrong"));
    }
    let stream =
        covered.strip_suffix(TRAILER).ok_or_else(|| damaged(&"it does not end as a table does"))?;
    let reader = StreamReader::try_new(stream, None).map_err(|e| damaged(&e))?;
    let mut schema = reader.schema().as_ref().clone();
    match schema.metadata.remove(OWNER_KEY) {
        Some(said) if said == owner.id => {}
        None if owner.may_be_unrecorded => {}
        _ => return Err(damaged(&"it is of another table")),
    }
    let schema = Arc::new(schema);
    let rows = reader.map(|batch| {
        let (_, columns, count) = batch?.into_parts();
        let options = RecordBatchOptions::new().with_row_count(Some(count));
        RecordBatch::try_new_with_options(Arc::clone(&schema), columns, &options)
    });
    let rows: Vec<RecordBatch> = rows.collect::<Result<_, _>>().map_err(|e| damaged(&e))?;
    Ok((schema, rows))
}

#[cfg(test)]
mod tests {
    use arrow::array::{Int64Array, StringArray};
    use arrow::datatypes::{DataType, Field, Schema};

    use super::*;

    #[test]
    fn any_damage_is_reported() {
        let schema = Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, false),
            Field::new("text", DataType::Utf8, true),
        ]));
        let columns: (Int64Array, StringArray) =
            ((0..20).collect(), (0..20).map(|n| Some(format!("text {n}"))).collect());
        let columns: Vec<arrow::array::ArrayRef> = vec![Arc::new(columns.0), Arc::new(columns.1)];
        let rows = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
        let owner = |id: &str| Owner { id: id.into(), may_be_unrecorded: false, is_created: true };
        let bytes = to_bytes(&schema, &[rows.clone(), rows.slice(3, 4)], &owner("d/1")).unwrap();
        let of_another = read_rows(Path::new("t.arrow"), &bytes, &owner("d/2"));
        assert!(of_another.unwrap_err().message().contains("it is of another table"));
        let read = |bytes: &[u8]| {
            let table = read_rows(Path::new("t.arrow"), bytes, &owner("d/1"))?;
            let all = futures::executor::block_on(table.batches[0].read()).clone();
            assert_eq!(datafusion::catalog::TableProvider::schema(&table), schema);
            Ok::<_, Error>(all)
        };
        assert_eq!(read(&bytes).unwrap(), [rows.clone(), rows.slice(3, 4)]);
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            assert_eq!(read(&damaged).unwrap_err().kind(), ErrorKind::Corrupt, "byte {at}");
        }
        for len in 0..bytes.len() {
            assert_eq!(read(&bytes[..len]).unwrap_err().kind(), ErrorKind::Corrupt);
        }
    }
}
