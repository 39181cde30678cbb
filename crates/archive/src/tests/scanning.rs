//! Scans: the right rows, and files that are not opened.

use arrow::array::{ArrayRef, AsArray, TimestampNanosecondArray};
use arrow::datatypes::{Int64Type, TimestampNanosecondType};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{Expr, col, lit};
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::metrics::MetricValue;
use datafusion::physical_plan::{ExecutionPlan, collect};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;

/// Returns the rows (column `n`) that a filter finds, and how many files were skipped.
async fn find(snapshot: &ArchiveSnapshot, filter: Expr) -> (Vec<i64>, usize) {
    let context = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(3));
    let session = context.state();
    let projection: Vec<usize> = (0..snapshot.schema().fields().len()).collect();
    let scan = snapshot
        .scan(&session, Some(&projection), std::slice::from_ref(&filter), Some(1))
        .await
        .unwrap();
    let schema = datafusion::common::DFSchema::try_from(scan.schema()).unwrap();
    let filter = context.create_physical_expr(filter, &schema).unwrap();
    let plan = Arc::new(FilterExec::try_new(filter, Arc::clone(&scan)).unwrap());
    let batches = collect(plan, context.task_ctx()).await.unwrap();
    let mut found: Vec<i64> = batches
        .iter()
        .flat_map(|b| b.column(0).as_primitive::<Int64Type>().values().to_vec())
        .collect();
    found.sort_unstable();
    let metrics = scan.metrics().unwrap();
    let skipped = metrics.iter().filter_map(|m| match m.value() {
        MetricValue::PruningMetrics { name, pruning_metrics }
            if name == "files_ranges_pruned_statistics" =>
        {
            Some(pruning_metrics.pruned())
        }
        _ => None,
    });
    (found, skipped.sum())
}

#[tokio::test]
async fn files_that_cannot_match_are_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let storage = Storage::local(dir.path()).unwrap();
    let table = open(&storage).await;
    for i in 1..=10 {
        append(&table, i * 100, i as i64).await;
    }
    for snapshot in [table.snapshot(), open(&storage).await.snapshot()] {
        let at = |v| lit(ScalarValue::TimestampMicrosecond(Some(v), None));
        let filter = col("at").gt_eq(at(4_500)).and(col("at").lt(at(5_200)));
        assert_eq!(find(&snapshot, filter).await, ((450..520).collect(), 8));
        assert_eq!(find(&snapshot, col("n").eq(lit(999_i64))).await, (vec![999], 9));
        assert_eq!(find(&snapshot, col("n").gt(lit(999_i64))).await, (vec![], 10));
        assert_eq!(find(&snapshot, col("t").eq(lit("t123"))).await.0, vec![123]);
        assert_eq!(
            find(&snapshot, col("t").is_null().and(col("n").lt(lit(9_i64)))).await.0,
            [0, 7]
        );
    }
}

#[tokio::test]
async fn a_scan_has_projection_count_and_limit() {
    let table = open(&in_memory()).await;
    let context = SessionContext::new();
    let session = context.state();
    let empty = table.snapshot().scan(&session, Some(&vec![2]), &[], None).await.unwrap();
    assert_eq!(empty.schema().field(0).name(), "t");
    assert!(collect(empty, context.task_ctx()).await.unwrap().is_empty());
    append(&table, 100, 1).await;
    append(&table, 200, 2).await;
    let snapshot = table.snapshot();
    let count = |plan: Arc<dyn ExecutionPlan>| {
        let context = context.task_ctx();
        async move {
            let batches = collect(plan, context).await.unwrap();
            batches.iter().map(RecordBatch::num_rows).sum::<usize>()
        }
    };
    assert_eq!(count(snapshot.scan(&session, None, &[], None).await.unwrap()).await, 200);
    let none = snapshot.scan(&session, Some(&vec![]), &[], None).await.unwrap();
    assert_eq!(none.schema().fields().len(), 0);
    assert_eq!(count(none).await, 200);
    let plan = snapshot.scan(&session, Some(&vec![2, 0]), &[], None).await.unwrap();
    assert_eq!(plan.schema().fields()[0].name(), "t");
    // Merged and vacuumed meanwhile: the plan holds its files.
    table.compact().await.unwrap();
    drop(snapshot);
    table.vacuum(std::time::Duration::ZERO).await.unwrap();
    assert_eq!(count(plan).await, 200);
}

/// The engine treats a column whose bounds are equal as a constant.
#[tokio::test]
async fn nanoseconds_that_are_all_the_same_are_scanned_as_they_are() {
    use arrow::array::TimestampNanosecondArray;
    let at = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let schema = Arc::new(Schema::new(vec![Field::new("at", at, false)]));
    let spec = spec_of(Arc::clone(&schema), Some(0));
    let table = ArchiveTable::open(in_memory(), spec, clock()).await.unwrap();
    let times = TimestampNanosecondArray::from(vec![59_999_999_999; 3]);
    let rows = RecordBatch::try_new(schema, vec![Arc::new(times)]).unwrap();
    let provenance = Provenance::default();
    table.append(std::slice::from_ref(&rows), 0, 1, &provenance).await.unwrap();
    let context = SessionContext::new();
    let plan = table.snapshot().scan(&context.state(), None, &[], None).await.unwrap();
    assert_eq!(collect(plan, context.task_ctx()).await.unwrap(), [rows]);
}

/// Returns the rows that come out of a scan before they are filtered.
async fn rows_read(table: &ArchiveTable, filter: Expr) -> usize {
    let context = SessionContext::new();
    let filters = std::slice::from_ref(&filter);
    let scan = table.snapshot().scan(&context.state(), None, filters, None).await.unwrap();
    let read = collect(scan, context.task_ctx()).await.unwrap();
    read.iter().map(RecordBatch::num_rows).sum()
}

#[tokio::test]
async fn bloom_filters_rule_out_what_statistics_cannot() {
    let mut read = vec![];
    for bloom_filters in [false, true] {
        let options = ArchiveOptions { bloom_filters, ..ArchiveOptions::default() };
        let table = ArchiveTable::open_with(in_memory(), spec(), options, clock()).await.unwrap();
        for i in 1..=10 {
            append(&table, i * 1_000, i as i64).await;
        }
        // As texts, these lie between the least and the greatest of nearly every file.
        let texts: Vec<String> = (0..40).map(|i| format!("t{}", 1_000 + i * 217)).collect();
        let mut rows = 0;
        for text in &texts {
            let filter = col("t").eq(lit(text.clone()));
            let there = find(&table.snapshot(), filter.clone()).await.0;
            let number: i64 = text.trim_start_matches('t').parse().unwrap();
            assert_eq!(there, if number % 7 == 0 { vec![] } else { vec![number] }, "{text}");
            rows += rows_read(&table, filter).await;
        }
        read.push(rows);
    }
    // Each text that is there is read with all rows of its file.
    assert!(read[1] * 3 < read[0] * 2, "{read:?}");
}

/// Added columns: text without a default, a number and nanoseconds with one.
fn widened() -> (SchemaRef, Vec<ArrayRef>) {
    let mut fields = schema().fields().to_vec();
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    for (name, of) in [("x", DataType::Utf8), ("y", DataType::Int64), ("z", nanos)] {
        fields.push(Arc::new(Field::new(name, of, true)));
    }
    let x: ArrayRef = Arc::new(StringArray::from(vec![None::<&str>]));
    let y: ArrayRef = Arc::new(Int64Array::from(vec![7]));
    let z: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![-1_234_567]));
    (Arc::new(Schema::new(fields)), vec![x, y, z])
}

#[tokio::test]
async fn files_without_added_columns_have_their_defaults() {
    let storage = in_memory();
    let table = open(&storage).await;
    append(&table, 10, 1).await;
    let before = table.snapshot();
    let (schema, added) = widened();
    table.widen(Arc::clone(&schema), added.clone()).unwrap();
    // Rows that were made before are taken as well.
    append(&table, 20, 2).await;
    let spec = || TableSpec { schema: Arc::clone(&schema), added: added.clone(), ..spec() };
    let context = SessionContext::new();
    for merged in [false, true] {
        if merged {
            assert!(table.compact().await.unwrap());
        }
        let opened = ArchiveTable::open(storage.clone(), spec(), clock()).await.unwrap();
        for snapshot in [table.snapshot(), opened.snapshot()] {
            let rows = read(&snapshot, 3, &[5, 0, 4, 3]).await;
            assert_eq!((rows.num_rows(), rows.column(3).null_count()), (17, 17));
            assert!(rows.column(2).as_primitive::<Int64Type>().values().iter().all(|y| *y == 7));
            let z = rows.column(0).as_primitive::<TimestampNanosecondType>().values().to_vec();
            assert_eq!(z, [-1_234_567; 17]);
            let filters = [col("y").eq(lit(7_i64)), col("y").eq(lit(8_i64)), col("x").is_null()];
            let found = filters.map(|filter| find(&snapshot, filter));
            let [seven, eight, null] = found;
            assert_eq!((seven.await.0.len(), eight.await.0.len(), null.await.0.len()), (20, 0, 20));
            let all = Some(vec![5, 4]);
            let scan = snapshot.scan(&context.state(), all.as_ref(), &[], None).await.unwrap();
            let rows = collect(scan, context.task_ctx()).await.unwrap();
            let z = rows.iter().flat_map(|r| r.column(0).as_primitive::<TimestampNanosecondType>());
            assert_eq!(z.collect::<Vec<_>>(), [Some(-1_234_567); 20]);
        }
    }
    assert_eq!(read(&before, 0, &[0, 1, 2]).await.num_rows(), 10);
    // Without them it is another table.
    assert!(ArchiveTable::open(storage, super::spec(), clock()).await.is_err());
}
