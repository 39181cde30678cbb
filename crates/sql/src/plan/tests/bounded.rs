//! The bounded form, compared with rows computed by hand.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, TimestampMicrosecondArray, TimestampSecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::datasource::MemTable;

use super::World;

fn world(values: Vec<Option<i64>>) -> World {
    let world = World::new();
    let schema = Arc::new(Schema::new(vec![Field::new(
        "t",
        DataType::Timestamp(TimeUnit::Second, None),
        true,
    )]));
    let times: ArrayRef = Arc::new(TimestampSecondArray::from(values));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![times]).unwrap();
    world.register("x", Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap()));
    world
}

/// Bounds as seconds since the epoch.
async fn rows(world: &World, from: &str) -> Vec<String> {
    let columns = ["t", "window_start", "window_end", "window_time"]
        .map(|c| format!("CAST({c} AS BIGINT)"))
        .join(", ");
    world.bounded_rows(&format!("SELECT {columns} FROM {from}")).await
}

#[tokio::test]
async fn tumble() {
    let world =
        world(vec![Some(0), Some(9), Some(10), Some(-1), None, Some(i64::MIN), Some(i64::MAX)]);
    let found = rows(&world, "TUMBLE(x, t, INTERVAL '10 seconds')").await;
    let expected = ["-1 | -10 | 0 | -1", "0 | 0 | 10 | 9", "10 | 10 | 20 | 19", "9 | 0 | 10 | 9"];
    assert_eq!(found, expected);
    let found = rows(&world, "TUMBLE(x, t, INTERVAL '10 seconds', INTERVAL '3 seconds')").await;
    let expected = ["-1 | -7 | 3 | 2", "0 | -7 | 3 | 2", "10 | 3 | 13 | 12", "9 | 3 | 13 | 12"];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn hop() {
    let world = world(vec![Some(0), Some(7), Some(-1), None, Some(i64::MIN), Some(i64::MAX)]);
    // The size is not a multiple of the slide: 7 is in [3, 8) and [6, 11), 0 in [-3, 2) and [0, 5).
    let found = rows(&world, "HOP(x, t, INTERVAL '3 seconds', INTERVAL '5 seconds')").await;
    let expected =
        ["-1 | -3 | 2 | 1", "0 | -3 | 2 | 1", "0 | 0 | 5 | 4", "7 | 3 | 8 | 7", "7 | 6 | 11 | 10"];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn cumulate() {
    let world = world(vec![Some(0), Some(7), Some(-1), None, Some(i64::MIN), Some(i64::MAX)]);
    let found = rows(&world, "CUMULATE(x, t, INTERVAL '2 seconds', INTERVAL '6 seconds')").await;
    let expected = [
        "-1 | -6 | 0 | -1",
        "0 | 0 | 2 | 1",
        "0 | 0 | 4 | 3",
        "0 | 0 | 6 | 5",
        "7 | 6 | 10 | 9",
        "7 | 6 | 12 | 11",
        "7 | 6 | 8 | 7",
    ];
    assert_eq!(found, expected);
}

#[tokio::test]
async fn too_many_windows_per_row() {
    let world = World::new();
    let query = World::query("SELECT * FROM HOP(bid, ts, INTERVAL '1 ms', INTERVAL '1 day')");
    let plan = super::plan_query(&world.state, *query.query, &[], &[]).await.unwrap();
    let error = super::bounded(plan).unwrap_err();
    assert!(error.message().contains("86400000 windows"), "{}", error.message());
}

#[tokio::test]
async fn zones_and_units_stay() {
    let world = World::new();
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("+02:00".into()));
    let schema = Arc::new(Schema::new(vec![Field::new("t", time.clone(), false)]));
    let times: ArrayRef =
        Arc::new(TimestampMicrosecondArray::from(vec![1]).with_timezone("+02:00"));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![times]).unwrap();
    world.register("z", Arc::new(MemTable::try_new(schema, vec![vec![batch]]).unwrap()));
    for from in
        ["TUMBLE(z, t, INTERVAL '1 second')", "HOP(z, t, INTERVAL '1 second', INTERVAL '1 second')"]
    {
        let query = World::query(&format!("SELECT * FROM {from}"));
        let plan = super::plan_query(&world.state, *query.query, &[], &[]).await.unwrap();
        let plan = super::bounded(plan).unwrap();
        for field in plan.schema().fields() {
            assert_eq!(field.data_type(), &time);
        }
        let rows = world.bounded_rows(&format!("SELECT * FROM {from}")).await;
        assert_eq!(
            rows,
            ["1970-01-01T02:00:00.000001+02:00 | 1970-01-01T02:00:00+02:00 | \
              1970-01-01T02:00:01+02:00 | 1970-01-01T02:00:00.999999+02:00"]
        );
    }
}
