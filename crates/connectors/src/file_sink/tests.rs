//! Tests of the sink to files: what a directory has after commits, failures and restarts.

use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array};
use arrow::compute::concat_batches;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use windrow_core::{Limits, ManualClock};

use super::*;
use crate::Files;

fn rows(range: std::ops::Range<i64>) -> RecordBatch {
    let numbers: Vec<i64> = range.collect();
    let parities: Vec<i64> = numbers.iter().map(|n| n % 3).collect();
    RecordBatch::try_from_iter(vec![
        ("n", Arc::new(Int64Array::from(numbers)) as ArrayRef),
        ("p", Arc::new(Int64Array::from(parities))),
    ])
    .unwrap()
}

fn range(of: std::ops::Range<i64>) -> OffsetRange {
    OffsetRange::try_new(of.start as u64, of.end as u64).unwrap()
}

fn sink(dir: &Path, more: &[(&str, &str)]) -> Box<dyn Sink> {
    let path = dir.to_string_lossy().into_owned();
    let format = if more.iter().any(|(key, _)| *key == "format") {
        vec![]
    } else {
        vec![("format", "parquet")]
    };
    let all = [("path", path.as_str())].into_iter().chain(format).chain(more.iter().copied());
    let options: Vec<_> = all.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
    let env = ConnectorEnv {
        limits: Limits::default(),
        clock: Arc::new(ManualClock::at(0)),
        io: Handle::current(),
        files: Files::anywhere(),
    };
    let spec = SinkSpec {
        name: "k".to_owned(),
        id: "1".to_owned(),
        origin: "d.1".to_owned(),
        schema: rows(0..0).schema(),
        changes: None,
    };
    open(&options, &spec, &env).unwrap()
}

async fn add(sink: &mut dyn Sink, of: std::ops::Range<i64>) {
    sink.write(&rows(of.clone()), range(of)).await.unwrap();
}

/// All files below a directory, by name.
fn files(dir: &Path) -> Vec<String> {
    let mut found = vec![];
    let mut todo = vec![dir.to_owned()];
    while let Some(at) = todo.pop() {
        for entry in std::fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => todo.push(path),
                false => found.push(path.strip_prefix(dir).unwrap().to_string_lossy().into_owned()),
            }
        }
    }
    found.sort();
    found
}

/// The numbers in all Parquet files.
fn numbers(dir: &Path) -> Vec<i64> {
    let mut found = vec![];
    for name in files(dir).iter().filter(|name| name.ends_with(".parquet")) {
        let file = std::fs::File::open(dir.join(name)).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        let schema = Arc::clone(reader.schema());
        let batches: Vec<_> = reader.build().unwrap().map(Result::unwrap).collect();
        let rows = concat_batches(&schema, &batches).unwrap();
        let column =
            rows.column_by_name("n").unwrap().as_any().downcast_ref::<Int64Array>().unwrap();
        found.extend(column.values().iter().copied());
    }
    found.sort_unstable();
    found
}

#[tokio::test]
async fn a_sink_continues_after_the_rows_that_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = sink(dir.path(), &[]);
    assert_eq!(first.open(None).await.unwrap(), Some(0));
    add(&mut *first, 0..10).await;
    add(&mut *first, 10..20).await;
    assert_eq!(files(dir.path()), [""; 0], "nothing is there before it is committed");
    first.commit(20).await.unwrap();
    first.commit(20).await.unwrap();
    add(&mut *first, 20..30).await;
    drop(first);
    std::fs::write(dir.path().join(".k-000000000020-000000000030.parquet.tmp"), "half").unwrap();
    std::fs::write(dir.path().join("other.parquet.tmp"), "not ours").unwrap();
    let mut second = sink(dir.path(), &[]);
    assert_eq!(second.open(Some(0)).await.unwrap(), Some(20));
    add(&mut *second, 20..25).await;
    second.commit(25).await.unwrap();
    let expected = [
        "k-000000000000-000000000020.parquet",
        "k-000000000020-000000000025.parquet",
        "other.parquet.tmp",
    ];
    assert_eq!(files(dir.path()), expected);
    assert_eq!(numbers(dir.path()), (0..25).collect::<Vec<_>>());
    // Another sink of this name would take them for its own.
    let error = sink(dir.path(), &[]).open(None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exists);
}

#[tokio::test]
async fn a_torn_commit_is_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let by = [("partition_by", "p")];
    let mut first = sink(dir.path(), &by);
    first.open(None).await.unwrap();
    add(&mut *first, 0..10).await;
    first.commit(10).await.unwrap();
    add(&mut *first, 10..20).await;
    first.commit(20).await.unwrap();
    assert_eq!(files(dir.path()).len(), 6);
    assert_eq!(numbers(dir.path()), (0..20).collect::<Vec<_>>());
    // As if it had been killed before the last file of the second commit.
    std::fs::remove_file(dir.path().join("p=2/k-000000000010-000000000020-3of3.parquet")).unwrap();
    let mut second = sink(dir.path(), &by);
    assert_eq!(second.open(Some(0)).await.unwrap(), Some(10));
    assert_eq!(
        numbers(dir.path()),
        (0..10).collect::<Vec<_>>(),
        "no row of the second commit is left"
    );
    add(&mut *second, 10..13).await;
    second.commit(13).await.unwrap();
    add(&mut *second, 13..20).await;
    second.commit(20).await.unwrap();
    assert_eq!(numbers(dir.path()), (0..20).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_attempt_that_failed_is_continued() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path(), &[("partition_by", "p")]);
    sink.open(None).await.unwrap();
    add(&mut *sink, 0..9).await;
    // A file where a directory has to be.
    std::fs::write(dir.path().join("p=1"), "in the way").unwrap();
    for _ in 0..2 {
        let error = sink.commit(9).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    }
    std::fs::remove_file(dir.path().join("p=1")).unwrap();
    sink.commit(9).await.unwrap();
    assert_eq!(numbers(dir.path()), (0..9).collect::<Vec<_>>());
    // What is not committed can be forgotten.
    add(&mut *sink, 9..20).await;
    sink.close().await.unwrap();
    sink.commit(20).await.unwrap();
    assert_eq!(numbers(dir.path()).len(), 9);
}

#[tokio::test]
async fn a_file_is_full_by_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut sink = sink(dir.path(), &[("format", "ndjson"), ("roll_size", "1 kB")]);
    sink.open(None).await.unwrap();
    let mut at = 0;
    while sink.room() > 0 {
        add(&mut *sink, at..at + 1).await;
        at += 1;
    }
    // Each row is `{"n":1,"p":1}`, and so some 14 bytes.
    assert!((60..80).contains(&at), "{at}");
    sink.commit(at as u64).await.unwrap();
    assert!(sink.room() > 0);
    let name = format!("k-000000000000-{at:012}.ndjson");
    let text = std::fs::read_to_string(dir.path().join(name)).unwrap();
    assert_eq!(text.lines().count() as i64, at);
}
