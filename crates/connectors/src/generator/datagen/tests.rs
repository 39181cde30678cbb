//! Generated rows: that they repeat, and that they follow the options.

use std::collections::BTreeSet;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use windrow_core::{ManualClock, Result, Source};

use super::super::reading::{env, options, read, scan};
use super::*;

const TIME: DataType = DataType::Timestamp(TimeUnit::Microsecond, None);

fn try_open(columns: &[(&str, DataType)], pairs: &[(&str, &str)]) -> Result<Arc<dyn Source>> {
    let fields: Vec<_> =
        columns.iter().map(|(name, t)| Field::new(*name, t.clone(), true)).collect();
    let event_time = columns.iter().find(|(_, t)| time_unit(t).is_some());
    let declared = Declared {
        schema: Some(Arc::new(Schema::new(fields))),
        event_time: event_time.map(|(name, _)| (*name).to_owned()),
        ..Declared::default()
    };
    datagen(&options(pairs), &declared, &env(&ManualClock::default()))
}

async fn rows(columns: &[(&str, DataType)], pairs: &[(&str, &str)]) -> RecordBatch {
    let source = try_open(columns, pairs).unwrap();
    let all: Vec<usize> = (0..columns.len()).collect();
    read(source.as_ref(), &all, 65_536).await
}

fn ints(batch: &RecordBatch, column: usize) -> Vec<i64> {
    let column = arrow::compute::cast(batch.column(column), &DataType::Int64).unwrap();
    column.as_primitive::<Int64Type>().values().to_vec()
}

#[tokio::test]
async fn any_split_batch_and_projection_gives_the_same_rows() {
    let columns = [
        ("k", DataType::Int64),
        ("name", DataType::Utf8View),
        ("ts", TIME),
        ("x", DataType::Float32),
    ];
    let given = [
        ("rows", "300_000"),
        ("disorder", "3 s"),
        ("fields.name.null_share", "0.1"),
        ("seed", "3"),
    ];
    let source = try_open(&columns, &given).unwrap();
    assert_eq!(source.discover().await.unwrap()[0].splits.len(), 2);
    let wide = read(source.as_ref(), &[0, 1, 2, 3], 65_536).await;
    let narrow = read(source.as_ref(), &[0, 1, 2, 3], 7_001).await;
    assert_eq!(wide, narrow);
    assert_eq!(read(source.as_ref(), &[1], 65_536).await.column(0), wide.column(1));
    let fewer = rows(&columns[1..2], &given[..1]).await;
    assert_ne!(fewer.column(0), wide.column(1), "another seed");
    let alone = rows(&columns[1..2], &[given[0], given[2], given[3]]).await;
    assert_eq!(alone.column(0), wide.column(1), "a column keeps its values beside others");
}

#[tokio::test]
async fn shares_and_cardinality_are_as_told() {
    let columns = [
        ("k", DataType::Int32),
        ("name", DataType::Utf8View),
        ("x", DataType::Float64),
        ("word", DataType::Utf8),
        ("flag", DataType::Boolean),
    ];
    let given = [
        ("rows", "100000"),
        ("fields.k.cardinality", "1000"),
        ("fields.k.min", "-5"),
        ("fields.name.cardinality", "700"),
        ("fields.name.length", "5"),
        ("fields.x.min", "2"),
        ("fields.x.max", "3"),
        ("fields.x.null_share", "0.25"),
        ("fields.word.values", "a, b,c"),
    ];
    let batch = rows(&columns, &given).await;
    let keys = ints(&batch, 0);
    assert_eq!(keys.iter().collect::<BTreeSet<_>>().len(), 1000);
    assert_eq!((keys.iter().min(), keys.iter().max()), (Some(&-5), Some(&994)));
    let names = batch.column(1).as_string_view();
    assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), 700);
    assert!(names.iter().all(|n| n.unwrap().len() == 5));
    let nulls = batch.column(2).null_count() as f64 / 100_000.0;
    assert!((0.24..0.26).contains(&nulls), "{nulls}");
    let x = batch.column(2).as_primitive::<arrow::datatypes::Float64Type>();
    assert!(x.iter().flatten().all(|x| (2.0..3.0).contains(&x)));
    let words: BTreeSet<_> = batch.column(3).as_string::<i32>().iter().flatten().collect();
    assert_eq!(words, BTreeSet::from(["a", "b", "c"]));
    assert_eq!(batch.column(4).as_boolean().iter().collect::<BTreeSet<_>>().len(), 2);
}

#[tokio::test]
async fn event_times_step_and_are_moved_back() {
    let given = [("rows", "1000"), ("start", "1970-01-01 00:00:00"), ("interval", "10 ms")];
    let source = try_open(&[("ts", TIME)], &given).unwrap();
    let plain = ints(&read(source.as_ref(), &[0], 100).await, 0);
    assert_eq!(plain, (0..1000).map(|n| n * 10_000).collect::<Vec<_>>());
    let split = &source.discover().await.unwrap()[0].splits[0];
    assert_eq!(split.event_times, Some((0, 9_990_000)));

    let disordered = [given[0], given[1], given[2], ("disorder", "1 s")];
    let source = try_open(&[("ts", TIME)], &disordered).unwrap();
    assert_eq!(source.discover().await.unwrap()[0].splits[0].event_times, None);
    let moved = ints(&read(source.as_ref(), &[0], 100).await, 0);
    assert!(plain.iter().zip(&moved).all(|(a, b)| (0..=1_000_000).contains(&(a - b))));
    assert!(!moved.is_sorted());
}

#[tokio::test]
async fn sequences_end_the_stream() {
    let given = [("fields.id.kind", "sequence"), ("fields.id.start", "5"), ("fields.id.end", "14")];
    let batch = rows(&[("id", DataType::Int64), ("name", DataType::Utf8)], &given).await;
    assert_eq!(ints(&batch, 0), (5..=14).collect::<Vec<_>>());
    let batch = rows(&[("id", DataType::Utf8)], &[("fields.id.start", "1"), ("rows", "2")]).await;
    assert_eq!(batch.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "2"]);
}

#[tokio::test]
async fn every_simple_type_can_be_made() {
    use DataType as T;
    let types = [
        T::Boolean,
        T::Int8,
        T::Int16,
        T::Int32,
        T::Int64,
        T::UInt8,
        T::UInt16,
        T::UInt32,
        T::UInt64,
        T::Float16,
        T::Float32,
        T::Float64,
        T::Utf8,
        T::LargeUtf8,
        T::Utf8View,
        T::Binary,
        T::Decimal128(10, 2),
        T::Date32,
        T::Date64,
        T::Time32(TimeUnit::Second),
        T::Time64(TimeUnit::Microsecond),
        T::Timestamp(TimeUnit::Second, None),
        T::Timestamp(TimeUnit::Nanosecond, Some("Europe/Berlin".into())),
    ];
    for data_type in types {
        let batch = rows(&[("c", data_type.clone())], &[("rows", "100")]).await;
        assert_eq!((batch.num_rows(), batch.column(0).null_count()), (100, 0), "{data_type}");
    }
    let list = T::List(Arc::new(Field::new("item", T::Int32, true)));
    assert!(try_open(&[("c", list)], &[]).is_err());
}

#[tokio::test]
async fn bounds_are_read_in_the_type_of_the_column() {
    let given = [
        ("rows", "1000"),
        ("fields.d.min", "2020-02-01"),
        ("fields.d.max", "2020-02-03"),
        ("fields.p.min", "1.50"),
        ("fields.p.max", "1.52"),
        ("fields.at.min", "2020-01-01 00:00:00"),
        ("fields.at.max", "2020-01-01 00:00:01"),
    ];
    let columns = [("d", DataType::Date32), ("p", DataType::Decimal128(8, 2)), ("at", TIME)];
    let batch = rows(&columns, &given).await;
    let shown = |column: usize| -> BTreeSet<String> {
        let text = arrow::compute::cast(batch.column(column), &DataType::Utf8).unwrap();
        text.as_string::<i32>().iter().flatten().map(str::to_owned).collect()
    };
    assert_eq!(
        shown(0).into_iter().collect::<Vec<_>>(),
        ["2020-02-01", "2020-02-02", "2020-02-03"]
    );
    assert_eq!(shown(1).into_iter().collect::<Vec<_>>(), ["1.50", "1.51", "1.52"]);
    assert!(shown(2).iter().all(|t| t.as_str() <= "2020-01-01T00:00:01"));
}

#[tokio::test]
async fn endless_rows_go_on() {
    let source = try_open(&[("k", DataType::Int64)], &[]).unwrap();
    assert!(!source.is_bounded());
    let splits = source.discover().await.unwrap().remove(0).splits;
    let mut reader = source.open(&splits[0], &scan(&[0], 1000)).await.unwrap();
    for n in 0..5 {
        assert_eq!(reader.next().await.unwrap().unwrap().offsets.start(), n * 1000);
    }
}

#[tokio::test]
async fn flinks_names_are_understood_and_mistakes_told() {
    let given = [("number-of-rows", "10"), ("rows-per-second", "5")];
    assert_eq!(
        try_open(&[("k", DataType::Int64)], &given).unwrap().discover().await.unwrap()[0].splits[0]
            .rows,
        Some(10)
    );
    for (pairs, message) in [
        (vec![("fields.kk.min", "1")], "option \"fields.kk.min\" names no column of the stream"),
        (
            vec![("fields.k.min", "x")],
            "option \"fields.k.min\" must be a value of type BIGINT, not \"x\"",
        ),
        (
            vec![("fields.k.min", "5"), ("fields.k.max", "4")],
            "option \"fields.k.max\" must be at least the minimum, not \"4\"",
        ),
        (
            vec![("fields.k.kind", "event_time")],
            "column \"k\" is BIGINT and cannot hold the event time",
        ),
        (
            vec![("fields.k.kind", "sequence"), ("fields.k.min", "4")],
            "option \"fields.k.min\" does not apply to the kind of column \"k\"",
        ),
        (
            vec![("rows", "1"), ("number-of-rows", "2")],
            "options \"rows\" and \"number-of-rows\" mean the same",
        ),
        (
            vec![("fields.k.null_share", "2")],
            "option \"fields.k.null_share\" must be a number from 0 to 1, not \"2\"",
        ),
    ] {
        let error = try_open(&[("k", DataType::Int64)], &pairs).unwrap_err();
        assert_eq!(error.message(), message);
    }
    let none = datagen(&[], &Declared::default(), &env(&ManualClock::default())).unwrap_err();
    assert_eq!(none.message(), "a stream with connector \"datagen\" needs declared columns");
}
