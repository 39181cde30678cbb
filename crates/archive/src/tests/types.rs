//! Arrow's types through Parquet and the log.

use arrow::array::*;
use arrow::datatypes::{DataType, Field, Int32Type, IntervalUnit, Schema};
use windrow_core::ErrorKind;

use super::*;

/// One column of each kind that can be archived, with nulls.
fn every() -> RecordBatch {
    let mut list = ListBuilder::new(StringViewBuilder::new());
    list.append_value([Some("a"), None, Some("a longer text than fits into a view")]);
    list.append_null();
    list.append_value(Vec::<Option<&str>>::new());
    let dictionary: DictionaryArray<Int32Type> = [Some("x"), None, Some("x")].into_iter().collect();
    let point = StructArray::from(vec![
        (
            Arc::new(Field::new("x", DataType::Int32, true)),
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])) as ArrayRef,
        ),
        (
            Arc::new(Field::new("y", DataType::Utf8, true)),
            Arc::new(StringArray::from(vec![None, Some("b"), Some("c")])) as ArrayRef,
        ),
    ]);
    let long = "é".repeat(100);
    let columns: Vec<(&str, ArrayRef)> = vec![
        ("s", Arc::new(TimestampSecondArray::from(vec![Some(-1), None, Some(5)]))),
        ("ms", Arc::new(TimestampMillisecondArray::from(vec![Some(-1), None, Some(5)]))),
        ("us", Arc::new(TimestampMicrosecondArray::from(vec![Some(-1), None, Some(5)]))),
        ("ns", Arc::new(TimestampNanosecondArray::from(vec![Some(-1), None, Some(5)]))),
        (
            "zone",
            Arc::new(
                TimestampNanosecondArray::from(vec![Some(1_999), None, Some(1)])
                    .with_timezone("Europe/Berlin"),
            ),
        ),
        ("far", Arc::new(TimestampMicrosecondArray::from(vec![i64::MIN, 0, i64::MAX]))),
        ("view", Arc::new(StringViewArray::from(vec![Some("z"), None, Some(long.as_str())]))),
        ("large", Arc::new(LargeStringArray::from(vec![Some("z"), None, Some("")]))),
        ("dict", Arc::new(dictionary)),
        ("bytes", Arc::new(BinaryViewArray::from(vec![Some(&b"z"[..]), None, Some(&b""[..])]))),
        ("bool", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("u8", Arc::new(UInt8Array::from(vec![Some(255), None, Some(0)]))),
        ("u16", Arc::new(UInt16Array::from(vec![Some(65_535), None, Some(0)]))),
        ("u32", Arc::new(UInt32Array::from(vec![Some(u32::MAX), None, Some(0)]))),
        ("u64", Arc::new(UInt64Array::from(vec![Some(u64::MAX), None, Some(0)]))),
        ("i8", Arc::new(Int8Array::from(vec![Some(-128), None, Some(0)]))),
        ("f64", Arc::new(Float64Array::from(vec![Some(f64::NAN), None, Some(-0.0)]))),
        ("f32", Arc::new(Float32Array::from(vec![Some(1.5), None, Some(f32::INFINITY)]))),
        (
            "dec",
            Arc::new(
                Decimal128Array::from(vec![Some(12_345), None, Some(-1)])
                    .with_precision_and_scale(20, 3)
                    .unwrap(),
            ),
        ),
        ("d32", Arc::new(Date32Array::from(vec![Some(-1), None, Some(20_000)]))),
        ("d64", Arc::new(Date64Array::from(vec![Some(0), None, Some(86_400_000)]))),
        ("list", Arc::new(list.finish())),
        ("struct", Arc::new(point)),
        ("none", Arc::new(Int64Array::from(vec![None, None, None]))),
        ("odd name; (sum)", Arc::new(Int64Array::from(vec![Some(1), None, Some(2)]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, c)| (n, c, true)))
        .unwrap()
}

#[tokio::test]
async fn every_type_comes_back_as_it_was() {
    let batch = every();
    let storage = in_memory();
    let options = ArchiveOptions { checkpoint_interval: 3, ..ArchiveOptions::default() };
    let spec = spec_of(batch.schema(), None);
    let open = || ArchiveTable::open_with(storage.clone(), spec.clone(), options.clone(), clock());
    let table = open().await.unwrap();
    for i in 0..4 {
        let none = Provenance::default();
        table.append(std::slice::from_ref(&batch), i * 3, i as i64, &none).await.unwrap();
    }
    let all: Vec<usize> = (0..batch.num_columns()).collect();
    let expected = concat_batches(&batch.schema(), &vec![batch.clone(); 4]).unwrap();
    let got = read(&open().await.unwrap().snapshot(), 0, &all).await;
    assert_eq!(got, expected);
    assert!(table.compact().await.unwrap());
    let table = open().await.unwrap();
    assert_eq!(table.state().files, 1);
    let got = read(&table.snapshot(), 0, &all).await;
    assert_eq!(got, expected);
}

#[test]
fn bounds_are_never_narrower_after_the_log() {
    let batch = every();
    let schema = batch.schema();
    let mut collector = crate::file_stats::StatsCollector::new(&schema).unwrap();
    collector.add(&batch).unwrap();
    let exact = collector.finish(&schema).unwrap();
    let logged =
        crate::file_stats::FileStats::from_json(&exact.to_json(&schema), exact.rows, &schema);
    for (i, (e, l)) in exact.columns.iter().zip(&logged.columns).enumerate() {
        let name = schema.field(i).name();
        assert_eq!(e.nulls, l.nulls, "{name}");
        if let (Some(e), Some(l)) = (&e.min, &l.min) {
            assert!(l <= e, "{name}: {l} <= {e}");
        }
        if let (Some(e), Some(l)) = (&e.max, &l.max) {
            assert!(l >= e, "{name}: {l} >= {e}");
        }
    }
    let of = |name: &str| &logged.columns[schema.index_of(name).unwrap()];
    for known in ["s", "ms", "us", "ns", "zone", "view", "large", "u8", "u32", "i8", "d32"] {
        assert!(of(known).min.is_some() && of(known).max.is_some(), "{known}");
    }
    assert!(of("far").min.is_none() && of("u64").max.is_none() && of("f64").min.is_none());
    assert_eq!(of("none").nulls, Some(3));
    assert_eq!(of("list").nulls, None);
}

#[tokio::test]
async fn a_type_without_a_word_is_refused() {
    let inner = Field::new("i", DataType::Interval(IntervalUnit::DayTime), true);
    for (of, path) in [
        (DataType::Null, "c"),
        (DataType::Duration(TimeUnit::Second), "c"),
        (DataType::Time64(TimeUnit::Nanosecond), "c"),
        (DataType::Struct(vec![inner].into()), "c.i"),
    ] {
        let schema = Arc::new(Schema::new(vec![Field::new("c", of, true)]));
        let error =
            ArchiveTable::open(in_memory(), spec_of(schema, None), clock()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Sql);
        assert!(error.message().contains(&format!("\"{path}\"")), "{error}");
        assert!(error.hints()[0].contains("CAST"));
    }
}
