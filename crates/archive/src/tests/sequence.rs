//! Appending, reopening, reading from any row, merging, vacuuming, dropping.

use std::time::Duration;

use arrow::array::RecordBatch;
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt};
use windrow_core::ErrorKind;

use super::*;

/// The Parquet files in the table's place.
async fn parquet_files(storage: &Storage) -> usize {
    let here = storage.here();
    let all: Vec<_> = here.list(None).try_collect().await.unwrap();
    all.iter().filter(|m| m.location.as_ref().starts_with("part-")).count()
}

#[tokio::test]
async fn rows_are_read_from_any_row_after_opening_again() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::local(dir.path()).unwrap().child("täble x").unwrap();
    let table = ArchiveTable::open_with(storage.clone(), spec(), small(), clock()).await.unwrap();
    assert_eq!(table.state(), crate::ArchiveState::default());
    for (txn, to) in [(5, 1), (6, 1), (7, 1000), (9, 1500)] {
        append(&table, to, txn).await;
    }
    let state = table.state();
    assert_eq!((state.rows, state.txn_version), (1500, Some(9)));
    drop(table);
    let table = open(&storage).await;
    assert_eq!(table.state(), state);
    assert_eq!(table.stored_fingerprint(), Some("f"));
    let snapshot = table.snapshot();
    for from in [0, 1, 2, 39, 40, 99, 100, 101, 999, 1000, 1499, 1500, 9999] {
        let got = read(&snapshot, from, &[0, 1, 2]).await;
        assert_eq!(got, rows(from.min(1500), 1500), "from row {from}");
    }
    assert_eq!(read(&snapshot, 700, &[2, 0]).await, rows(700, 1500).project(&[2, 0]).unwrap());
    let none = read(&snapshot, 700, &[]).await;
    assert_eq!((none.num_columns(), none.num_rows()), (0, 800));
}

#[tokio::test]
async fn a_version_is_committed_once() {
    let storage = in_memory();
    let table = open(&storage).await;
    append(&table, 10, 3).await;
    let again = async |table: &ArchiveTable| {
        table.append(&[rows(0, 10)], 0, 3, &Provenance::default()).await.unwrap()
    };
    assert_eq!(again(&table).await.rows, 10);
    let table = open(&storage).await;
    assert_eq!(again(&table).await.rows, 10);
    assert_eq!(read(&table.snapshot(), 0, &[0, 1, 2]).await, rows(0, 10));
    let wrong = table.append(&[rows(0, 10)], 0, 4, &Provenance::default()).await.unwrap_err();
    assert_eq!(wrong.kind(), ErrorKind::Internal);
    // No rows are a commit too: the version moves on.
    assert_eq!(table.append(&[], 10, 8, &Provenance::default()).await.unwrap().rows, 10);
    assert_eq!(open(&storage).await.state().txn_version, Some(8));
}

#[tokio::test]
async fn a_second_writer_is_refused_until_it_knows() {
    let storage = in_memory();
    let (a, b) = (open(&storage).await, open(&storage).await);
    append(&a, 10, 1).await;
    let error = b.append(&[rows(0, 10)], 0, 2, &Provenance::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert_eq!(b.state().rows, 10);
    append(&b, 20, 2).await;
    assert_eq!(read(&open(&storage).await.snapshot(), 0, &[0, 1, 2]).await, rows(0, 20));
}

#[tokio::test]
async fn merging_keeps_rows_and_order_and_few_files() {
    let storage = in_memory();
    let table = ArchiveTable::open_with(storage.clone(), spec(), small(), clock()).await.unwrap();
    let before = table.snapshot();
    let mut most = 0;
    for i in 1..=250_u64 {
        append(&table, i * 7, i as i64).await;
        if i % 20 == 0 {
            while table.compact().await.unwrap() {}
            most = most.max(table.state().files);
        }
    }
    assert!(most < 20, "{most} files");
    assert_eq!(before.state().rows, 0);
    let state = table.state();
    assert_eq!((state.rows, state.txn_version), (1750, Some(250)));
    assert_eq!(read(&table.snapshot(), 3, &[0, 1, 2]).await, rows(3, 1750));
    let table = open(&storage).await;
    assert_eq!(table.state(), state);
    assert_eq!(read(&table.snapshot(), 0, &[0, 1, 2]).await, rows(0, 1750));
    // Everything that is not live is deleted, including the files removed by the first process.
    assert!(parquet_files(&storage).await > state.files);
    table.vacuum(Duration::ZERO).await.unwrap();
    assert_eq!(parquet_files(&storage).await, state.files);
    assert_eq!(read(&table.snapshot(), 0, &[0, 1, 2]).await, rows(0, 1750));
}

#[tokio::test]
async fn a_reader_keeps_its_files() {
    let storage = in_memory();
    let table = open(&storage).await;
    for i in 1..=4 {
        append(&table, i * 10, i as i64).await;
    }
    let snapshot = table.snapshot();
    let mut stream = snapshot.read(5, &[0], 3).await.unwrap();
    assert!(table.compact().await.unwrap());
    assert_eq!(table.vacuum(Duration::ZERO).await.unwrap(), 0);
    drop(snapshot);
    // The stream holds the files ahead of it.
    table.vacuum(Duration::ZERO).await.unwrap();
    let mut got = 0;
    while let Some(batch) = stream.next().await {
        got += batch.unwrap().num_rows();
    }
    assert_eq!(got, 35);
    drop(stream);
    table.vacuum(Duration::ZERO).await.unwrap();
    assert_eq!(parquet_files(&storage).await, 1);
}

#[tokio::test]
async fn what_a_crash_left_is_no_row_and_goes() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::local(dir.path()).unwrap();
    let table = open(&storage).await;
    append(&table, 10, 1).await;
    let orphan = crate::file_entry::new_name(10, 20, 2, b"");
    storage.here().put(&orphan.as_str().into(), "half a file".into()).await.unwrap();
    std::fs::write(dir.path().join(format!("{orphan}#17")), "less").unwrap();
    let table = open(&storage).await;
    assert_eq!(table.state().rows, 10);
    append(&table, 20, 2).await;
    assert_eq!(table.vacuum(Duration::from_secs(1_000_000_000_000)).await.unwrap(), 0);
    assert_eq!(table.vacuum(Duration::from_secs(1)).await.unwrap(), 2);
    assert_eq!(read(&table.snapshot(), 0, &[0, 1, 2]).await, rows(0, 20));
}

#[tokio::test]
async fn the_oldest_files_are_dropped() {
    let storage = in_memory();
    let table = open(&storage).await;
    for i in 1..=5 {
        append(&table, i * 10, i as i64).await;
    }
    assert_eq!(table.snapshot().greatest_event_time(), Some(490));
    let from = |time| table.snapshot().row_from(time);
    assert_eq!([from(0), from(90), from(91), from(100), from(491)], [0, 0, 10, 10, 50]);
    assert_eq!(table.drop_before(250, 19).await.unwrap(), 10);
    assert_eq!(table.drop_before(250, 50).await.unwrap(), 10);
    let table = open(&storage).await;
    assert_eq!((table.state().first_row, table.state().rows), (20, 50));
    let snapshot = table.snapshot();
    assert_eq!(read(&snapshot, 20, &[0, 1, 2]).await, rows(20, 50));
    assert_eq!(snapshot.read(19, &[0], 9).await.err().unwrap().kind(), ErrorKind::Data);
    assert_eq!(table.drop_before(i64::MAX, u64::MAX).await.unwrap(), 20);
    append(&table, 60, 6).await;
    assert_eq!((table.state().first_row, table.state().rows), (40, 60));
}

#[tokio::test]
async fn checkpoints_make_opening_quick_and_change_nothing() {
    let storage = in_memory();
    let options = ArchiveOptions { checkpoint_interval: 10, ..small() };
    let table = ArchiveTable::open_with(storage.clone(), spec(), options, clock()).await.unwrap();
    for i in 1..=35_u64 {
        append(&table, i * 10, i as i64).await;
        if i % 8 == 0 {
            table.compact().await.unwrap();
        }
    }
    let log: Vec<_> =
        storage.here().list(Some(&"_delta_log".into())).try_collect::<Vec<_>>().await.unwrap();
    assert!(log.iter().any(|m| m.location.as_ref().ends_with("checkpoint.parquet")), "{log:?}");
    let again = open(&storage).await;
    assert_eq!(again.state(), table.state());
    let stats = |t: &ArchiveTable| -> Vec<_> {
        t.snapshot().live.files.iter().map(|f| (f.name.clone(), f.stats.clone())).collect()
    };
    assert_eq!(stats(&again), stats(&table));
    assert_eq!(read(&again.snapshot(), 0, &[0, 1, 2]).await, rows(0, 350));
}

#[tokio::test]
async fn row_groups_end_with_the_window_and_footers_say_where_from() {
    let storage = in_memory();
    let table = ArchiveTable::open_with(storage.clone(), spec(), small(), clock()).await.unwrap();
    let mut windows: Vec<RecordBatch> = vec![];
    for w in 0..6_u64 {
        let batch = rows(w * 30, w * 30 + 30);
        let at = TimestampMicrosecondArray::from_value(w as i64, 30);
        let mut columns = batch.columns().to_vec();
        columns[1] = Arc::new(at);
        windows.push(RecordBatch::try_new(schema(), columns).unwrap());
    }
    let of = |from, to| Provenance {
        watermark: Some(to as i64),
        inputs: vec![("s".into(), from, to)],
        late_rows: 1,
    };
    table.append(&windows, 0, 1, &of(0, 9)).await.unwrap();
    append(&table, 181, 2).await;
    table.append(&[rows(181, 182)], 181, 3, &of(9, 12)).await.unwrap();
    let path = storage.path_of(&table.snapshot().live.files[0].name);
    let bytes = storage.root().get(&path).await.unwrap().bytes().await.unwrap();
    let file =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let groups: Vec<i64> = file
        .metadata()
        .row_groups()
        .iter()
        .map(parquet::file::metadata::RowGroupMetaData::num_rows)
        .collect();
    assert_eq!(groups, [60, 60, 60]);
    assert!(table.compact().await.unwrap());
    let path = storage.path_of(&table.snapshot().live.files[0].name);
    let bytes = storage.root().get(&path).await.unwrap().bytes().await.unwrap();
    let file =
        parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let notes = file.metadata().file_metadata().key_value_metadata().unwrap();
    let said = notes.iter().find(|kv| kv.key == "windrow.provenance").unwrap();
    let said: Provenance = serde_json::from_str(said.value.as_deref().unwrap()).unwrap();
    assert_eq!(said, Provenance { late_rows: 2, ..of(0, 12) });
}

#[tokio::test]
async fn other_columns_and_damage_are_told() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::local(dir.path()).unwrap();
    let table = open(&storage).await;
    append(&table, 10, 1).await;
    append(&table, 20, 2).await;
    let other = Arc::new(Schema::new(vec![Field::new("n", DataType::Int32, false)]));
    let error =
        ArchiveTable::open(storage.clone(), spec_of(other, None), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Data);
    assert!(error.detail().is_some_and(|d| d.contains("\"n\"")), "{error:?}");

    let name = table.snapshot().live.files[1].name.clone();
    std::fs::write(dir.path().join(&name), "PAR1 too short PAR1").unwrap();
    let read = |t: &ArchiveTable| {
        let snapshot = t.snapshot();
        async move { snapshot.read(0, &[0], 9).await.unwrap().try_collect::<Vec<_>>().await }
    };
    let error = read(&table).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains(&name), "{error}");
    std::fs::remove_file(dir.path().join(&name)).unwrap();
    let error = read(&table).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.message().contains(&name), "{error}");

    let entry = dir.path().join("_delta_log/00000000000000000001.json");
    let whole = std::fs::read(&entry).unwrap();
    std::fs::write(&entry, &whole[..whole.len() / 2]).unwrap();
    let error = ArchiveTable::open(storage.clone(), spec(), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    std::fs::remove_file(&entry).unwrap();
    let error = ArchiveTable::open(storage.clone(), spec(), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    std::fs::remove_dir_all(dir.path().join("_delta_log")).unwrap();
    let error = ArchiveTable::open(storage, spec(), clock()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}
