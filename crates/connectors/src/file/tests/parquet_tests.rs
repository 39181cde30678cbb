//! Parquet: row groups, statistics, filters, types, and files in an object store.

use ::parquet::arrow::ArrowWriter;
use ::parquet::file::properties::WriterProperties;
use arrow::array::{
    ArrayRef, Int8Array, Int32Array, Int64Array, StringArray, TimestampMillisecondArray,
};
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};

use super::*;

/// 1000 rows in row groups of 100: `id` 0…, `n` as INT, `t` one second apart, `s` text or NULL.
fn file() -> Vec<u8> {
    let id: Vec<i64> = (0..1000).collect();
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("id", Arc::new(Int64Array::from(id.clone()))),
        ("n", Arc::new(Int32Array::from_iter_values(id.iter().map(|i| (*i % 7) as i32)))),
        (
            "t",
            Arc::new(TimestampMillisecondArray::from_iter_values(
                id.iter().map(|i| (i - 500) * 1000),
            )),
        ),
        (
            "s",
            Arc::new(StringArray::from_iter(
                id.iter().map(|i| (i % 3 != 0).then(|| format!("row {i}"))),
            )),
        ),
    ];
    let batch = RecordBatch::try_from_iter_with_nullable(
        columns.into_iter().map(|(name, column)| (name, column, true)),
    )
    .unwrap();
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(100)).build();
    let mut writer = ArrowWriter::try_new(vec![], batch.schema(), Some(properties)).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn greater(column: usize, than: i64) -> Predicate {
    Predicate { column, op: CmpOp::GtEq, literal: Arc::new(Int64Array::from(vec![than])) }
}

fn equal(column: usize, to: i64) -> Predicate {
    Predicate { column, op: CmpOp::Eq, literal: Arc::new(Int64Array::from(vec![to])) }
}

fn wide() -> Declared {
    Declared {
        schema: Some(Arc::new(Schema::new(vec![
            Field::new("s", DataType::Utf8View, true),
            Field::new("id", DataType::Int64, false),
            Field::new("t", DataType::Timestamp(TimeUnit::Microsecond, None), true),
            Field::new("N", DataType::Int64, true),
        ]))),
        event_time: Some("t".to_owned()),
        ..Declared::default()
    }
}

#[tokio::test]
async fn columns_are_found_by_name_and_become_as_declared() {
    let case = Case::new(&[("x.parquet", &file())]);
    let source = case.open("x.parquet", &[], wide()).await.unwrap();
    let partitions = source.discover().await.unwrap();
    assert_eq!(partitions[0].splits.len(), 10);
    let split = &partitions[0].splits[1];
    assert_eq!((split.number, split.rows), (1, Some(100)));
    assert_eq!(split.event_times, Some((-400_000_000, -301_000_000)));
    let got = read(&source, &all(&source)).await.unwrap();
    assert_eq!(got.ints(1), (0..1000).map(Some).collect::<Vec<_>>());
    assert_eq!(got.ints(3)[13], Some(6));
    assert_eq!(got.texts(0)[..2], [None, Some("row 1".to_owned())]);
    assert_eq!(
        got.offsets.iter().map(|(_, o)| *o).collect::<Vec<_>>(),
        (0..1000).collect::<Vec<_>>()
    );
    for projection in [vec![], vec![3], vec![0, 2]] {
        let scan = ScanRequest { projection, batch_rows_max: 37, ..all(&source) };
        assert_eq!(read(&source, &scan).await.unwrap().count(), 1000);
    }
}

#[tokio::test]
async fn rows_are_left_out_and_counted() {
    let case = Case::new(&[("x.parquet", &file())]);
    let source = case.open("x.parquet", &[], wide()).await.unwrap();
    for batch_rows_max in [1, 7, 64, 65_536] {
        let scan = ScanRequest {
            predicates: vec![greater(1, 250), equal(3, 5)],
            projection: vec![0, 1],
            batch_rows_max,
            ..all(&source)
        };
        let got = read(&source, &scan).await.unwrap();
        let want: Vec<i64> = (250..1000).filter(|i| i % 7 == 5).collect();
        assert_eq!(got.ints(1), want.iter().copied().map(Some).collect::<Vec<_>>());
        let offsets: Vec<u64> = got.offsets.iter().map(|(_, o)| *o).collect();
        assert_eq!(offsets, want.iter().map(|i| *i as u64).collect::<Vec<_>>());
        assert_eq!(got.skipped as usize, 1000 - want.len());
        // With the watermark exact per row, only whole row groups go.
        let scan = ScanRequest { event_time: Some(2), ..scan };
        let got = read(&source, &scan).await.unwrap();
        assert_eq!((got.count(), got.skipped), (800, 200));
    }
}

#[tokio::test]
async fn in_order_files_tile() {
    let case = Case::new(&[("a.parquet", &file()), ("b.parquet", &file())]);
    let source = case.open("*.parquet", &[("files", "in_order")], wide()).await.unwrap();
    let scan = ScanRequest { predicates: vec![greater(1, 990)], ..all(&source) };
    let got = read(&source, &scan).await.unwrap();
    // A range alone leaves out whole row groups only.
    assert_eq!((got.count(), got.skipped), (200, 1800));
    assert_eq!(got.offsets[100], (0, (1 << 44) + 900));
}

#[tokio::test]
async fn what_does_not_fit_is_told() {
    let case = Case::new(&[("x.parquet", &file())]);
    let field = |name: &str, t| declared(vec![Field::new(name, t, true)]);
    let e = case.open("x.parquet", &[], field("zz", DataType::Int64)).await.unwrap_err();
    assert_eq!(e.hints(), ["Its columns are: id, n, t, s."]);
    let e = case.open("x.parquet", &[], field("s", DataType::Int64)).await.unwrap_err();
    assert!(e.message().contains("cannot become BIGINT"), "{e}");
    std::fs::write(case.path("cut.parquet"), &file()[..2000]).unwrap();
    let e = case.open("cut.parquet", &[], wide()).await.unwrap_err();
    assert!(e.message().contains("cannot be read as Parquet"), "{e}");
    let inferred = case.open("x.parquet", &[], Declared::default()).await.unwrap();
    let names: Vec<String> = inferred
        .schema
        .fields()
        .iter()
        .map(|f| format!("{} {}", f.name(), f.data_type()))
        .collect();
    assert_eq!(names, ["id Int64", "n Int32", "t Timestamp(ms)", "s Utf8View"]);
}

#[tokio::test]
async fn rows_that_do_not_fit_are_bad() {
    let case = Case::new(&[("x.parquet", &file())]);
    let small = || {
        declared(vec![
            Field::new("id", DataType::Int8, true),
            Field::new("n", DataType::Int32, true),
        ])
    };
    let fails = [("on_bad_row", "fail")];
    for batch_rows_max in [1, 7, 64, 65_536] {
        let source = case.open("x.parquet", &[], small()).await.unwrap();
        let got = read(&source, &ScanRequest { batch_rows_max, ..all(&source) }).await.unwrap();
        assert_eq!(got.count(), 128);
        assert_eq!(got.offsets.last(), Some(&(0, 127)));
        assert_eq!(got.bad.len(), 872);
        let bad = got.bad.first().unwrap();
        assert_eq!((bad.offset, bad.reason.as_str()), (128, "column \"id\": '128' is not TINYINT"));
        assert_eq!(bad.raw, "{\"id\":128,\"n\":2}");
        // With a predicate, whose column is not as declared either.
        let wanted = Predicate { literal: Arc::new(Int8Array::from(vec![5])), ..equal(0, 5) };
        let scan = ScanRequest { batch_rows_max, predicates: vec![wanted], ..all(&source) };
        let got = read(&source, &scan).await.unwrap();
        assert_eq!((got.count(), got.bad.len()), (1, 872));
        assert_eq!(got.count() + got.bad.len() + got.skipped as usize, 1000);
        // As NULL, and as an error.
        let source = case.open("x.parquet", &[("on_bad_row", "null")], small()).await.unwrap();
        let got = read(&source, &ScanRequest { batch_rows_max, ..all(&source) }).await.unwrap();
        assert_eq!((got.count(), got.bad.len()), (1000, 0));
        let source = case.open("x.parquet", &fails, small()).await.unwrap();
        let scan = ScanRequest { batch_rows_max, ..all(&source) };
        let e = read(&source, &scan).await.unwrap_err();
        assert_eq!(e.kind(), ErrorKind::Data);
        assert!(
            e.message().ends_with("has a bad row at row 128: column \"id\": '128' is not TINYINT"),
            "{e}"
        );
    }
    let not_null = declared(vec![Field::new("s", DataType::Utf8View, false)]);
    for on_bad in ["dead_letter", "null"] {
        let not_null = not_null.clone();
        let source = case.open("x.parquet", &[("on_bad_row", on_bad)], not_null).await.unwrap();
        let got = read(&source, &all(&source)).await.unwrap();
        let bad = got.bad.first().unwrap();
        assert_eq!(
            (bad.offset, bad.reason.as_str()),
            (0, "column \"s\" is NULL, and is declared NOT NULL")
        );
        assert_eq!(got.count() + got.bad.len(), 1000);
    }
}

#[tokio::test]
async fn object_stores_give_the_same() {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let lines: String = (0..3000).map(|i| format!("{{\"a\":{i}}}\n")).collect();
    let zst = zstd::encode_all(lines.as_bytes(), 1).unwrap();
    for (key, bytes) in
        [("d/x.parquet", file()), ("j/1.json", lines.clone().into_bytes()), ("j/2.json.zst", zst)]
    {
        store.put(&key.into(), PutPayload::from(bytes)).await.unwrap();
    }
    let open = async |prefix: &str, pattern: Option<&str>, format, d: Declared| {
        let location = Location::Store {
            store: Arc::clone(&store),
            base: "memory://".to_owned(),
            prefix: prefix.into(),
            pattern: pattern.map(|p| glob::Pattern::new(p).unwrap()),
            listable: true,
        };
        let options = FileOptions::read(&pairs(&[("path", prefix)])).unwrap();
        FileSource {
            chains: Arc::default(),
            location,
            options,
            format,
            schema: d.schema.unwrap(),
            rules: NumberRules::default(),
            event_time: Some(2),
            notices: vec![],
            env: env(),
            tuning: Tuning { split_bytes: 5000, block_bytes: 700 },
            known: Mutex::default(),
            footers: parking_lot::Mutex::default(),
        }
    };
    let source = open("d", None, Format::Parquet, wide()).await;
    assert_eq!(read(&source, &all(&source)).await.unwrap().count(), 1000);
    let source = open("j", Some("j/*.json*"), Format::Json, ab()).await;
    let got = read(&source, &all(&source)).await.unwrap();
    let want: Vec<Option<i64>> = (0..3000).chain(0..3000).map(Some).collect();
    assert_eq!(got.ints(0), want);
}
