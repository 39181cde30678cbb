//! Tables from the outside: appended rows are read, whatever happens in between.

mod faults;
mod scanning;
mod sequence;
mod types;

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::memory::InMemory;
use url::Url;
use windrow_core::offset::Gaps;
use windrow_core::{Clock, ManualClock};

use crate::{ArchiveOptions, ArchiveSnapshot, ArchiveTable, Provenance, Storage, TableSpec};

/// Returns a schema of a row number, a time that is ten times as much, and a text.
fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("n", DataType::Int64, false),
        Field::new("at", DataType::Timestamp(TimeUnit::Microsecond, None), true),
        Field::new("t", DataType::Utf8, true),
    ]))
}

fn spec_of(schema: SchemaRef, event_time: Option<usize>) -> TableSpec {
    TableSpec {
        name: "v".into(),
        schema,
        event_time,
        engine_version: "0.1.0".into(),
        fingerprint: "f".into(),
        owner: None,
        gaps: Gaps::default(),
        added: vec![],
    }
}

fn spec() -> TableSpec {
    spec_of(schema(), Some(1))
}

/// Returns rows `from..to` of the sequence.
fn rows(from: u64, to: u64) -> RecordBatch {
    let n = || (from..to).map(|i| i as i64);
    RecordBatch::try_new(
        schema(),
        vec![
            Arc::new(Int64Array::from_iter_values(n())),
            Arc::new(TimestampMicrosecondArray::from_iter_values(n().map(|i| i * 10))),
            Arc::new(StringArray::from_iter(n().map(|i| (i % 7 != 0).then(|| format!("t{i}"))))),
        ],
    )
    .unwrap()
}

/// Returns a clock far ahead of the machine's, so that files look old.
fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(32_503_680_000_000_000))
}

fn memory(store: Arc<dyn ObjectStore>) -> Storage {
    let url = Url::parse("memory:///archive/").unwrap();
    Storage::object_store(url, store).unwrap().child("v").unwrap()
}

fn in_memory() -> Storage {
    memory(Arc::new(InMemory::new()))
}

async fn open(storage: &Storage) -> ArchiveTable {
    ArchiveTable::open(storage.clone(), spec(), clock()).await.unwrap()
}

/// Returns options for small files and row groups.
fn small() -> ArchiveOptions {
    ArchiveOptions {
        target_file_bytes: 8 << 10,
        row_group_rows: 100,
        row_group_rows_soft: 40,
        ..ArchiveOptions::default()
    }
}

/// Appends rows up to `to` with the version `txn`.
async fn append(table: &ArchiveTable, to: u64, txn: i64) {
    let from = table.state().rows;
    table.append(&[rows(from, to)], from, txn, &Provenance::default()).await.unwrap();
}

async fn read(snapshot: &ArchiveSnapshot, from: u64, projection: &[usize]) -> RecordBatch {
    let batches: Vec<RecordBatch> =
        snapshot.read(from, projection, 64).await.unwrap().try_collect().await.unwrap();
    let schema = Arc::new(snapshot.schema().project(projection).unwrap());
    assert!(batches.iter().all(|b| b.schema() == schema && b.num_rows() <= 64));
    concat_batches(&schema, &batches).unwrap()
}
