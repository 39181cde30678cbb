//! Random rows, keys, windows, delays, cuts, stores and moments of flushing, against an evaluator
//! that looks at every row and every window. Whatever the cut, the windows are the same.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod naive;

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::functions_aggregate as functions;
use datafusion::logical_expr::AggregateUDF;
use datafusion::physical_expr::aggregate::AggregateExprBuilder;
use datafusion::physical_expr::expressions::Column;
use datafusion::scalar::ScalarValue;
use naive::{Row, Windowed};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use windrow_core::{Watermark, WindowKind, WindowSpec};
use windrow_window::lateness::{Tolerance, classify};
use windrow_window::{
    AggregateCall, GroupingSets, Mode, OperatorSpec, Segment, SliceStore, WindowMerger,
};

/// Columns of the prepared batch: id, time, key1, key2, key3, value, float, flag.
const TIME: usize = 1;
const KEYS: [usize; 3] = [2, 3, 4];
const VALUE: usize = 5;
const FLOAT: usize = 6;
const FLAG: usize = 7;

fn schema(text: &DataType) -> SchemaRef {
    let a = Field::new("a", DataType::Int64, true);
    Arc::new(Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())), false),
        Field::new("k1", DataType::Int64, true),
        Field::new("k2", text.clone(), true),
        Field::new("k3", DataType::Struct(vec![a].into()), true),
        Field::new("v", DataType::Int64, true),
        Field::new("f", DataType::Float64, true),
        Field::new("b", DataType::Boolean, true),
    ]))
}

fn call(
    schema: &SchemaRef,
    function: Arc<AggregateUDF>,
    arguments: &[usize],
    distinct: bool,
    filter: Option<usize>,
) -> AggregateCall {
    let columns =
        arguments.iter().map(|c| Arc::new(Column::new(schema.field(*c).name(), *c)) as _).collect();
    let name = format!("{}{arguments:?}{distinct}{filter:?}", function.name());
    let function = AggregateExprBuilder::new(function, columns)
        .schema(Arc::clone(schema))
        .alias(name)
        .with_distinct(distinct)
        .build()
        .unwrap();
    AggregateCall { function: Arc::new(function), arguments: arguments.to_vec(), filter }
}

/// In the order in which [`naive`] works them out.
fn aggregates(schema: &SchemaRef) -> Vec<AggregateCall> {
    use functions::{array_agg, average, count, min_max, regr, sum};
    vec![
        call(schema, count::count_udaf(), &[TIME], false, None),
        call(schema, sum::sum_udaf(), &[VALUE], false, None),
        call(schema, min_max::min_udaf(), &[VALUE], false, None),
        call(schema, min_max::max_udaf(), &[3], false, None),
        call(schema, average::avg_udaf(), &[FLOAT], false, None),
        call(schema, count::count_udaf(), &[VALUE], true, None),
        call(schema, array_agg::array_agg_udaf(), &[VALUE], false, None),
        call(schema, count::count_udaf(), &[VALUE], false, Some(FLAG)),
        call(schema, regr::regr_count_udaf(), &[FLOAT, FLOAT], false, None),
    ]
}

fn cell(array: &ArrayRef, row: usize) -> String {
    if array.is_null(row) {
        return "NULL".to_owned();
    }
    let text = ScalarValue::try_from_array(array, row).unwrap().to_string();
    match text.strip_prefix('[').and_then(|t| t.strip_suffix(']')) {
        Some(items) => naive::sorted_list(items.split(", ").map(str::to_owned).collect()),
        None => text,
    }
}

/// What one case is made of.
struct Case {
    spec: Arc<OperatorSpec>,
    tolerance: Tolerance,
    /// Rows of each partition, in order.
    partitions: Vec<Vec<Row>>,
    text: DataType,
}

fn window(rng: &mut StdRng) -> WindowSpec {
    let kind = match rng.random_range(0..10) {
        0..=2 => WindowKind::Tumble { size: rng.random_range(1..60) },
        3..=7 => {
            let size = rng.random_range(1..60);
            WindowKind::Hop { slide: rng.random_range(1..=size), size }
        }
        _ => {
            let step = rng.random_range(1..12);
            WindowKind::Cumulate { step, size: step * rng.random_range(1..8) }
        }
    };
    WindowSpec::try_new(kind, rng.random_range(-100..100)).unwrap()
}

fn mode(rng: &mut StdRng, schema: &SchemaRef) -> Mode {
    if rng.random_bool(0.15) {
        return Mode::Rows;
    }
    let keys = KEYS[..rng.random_range(0..=3)].to_vec();
    let grouping_sets = (!keys.is_empty() && rng.random_bool(0.2)).then(|| {
        let masks = (0..rng.random_range(1..4))
            .map(|_| keys.iter().map(|_| rng.random_bool(0.5)).collect())
            .collect();
        GroupingSets::try_new(masks).unwrap()
    });
    let mut aggregates = aggregates(schema);
    if rng.random_bool(0.5) {
        aggregates.truncate(3);
    }
    Mode::Aggregate { keys, grouping_sets, aggregates }
}

fn case(rng: &mut StdRng) -> Case {
    let text = match rng.random_range(0..3) {
        0 => DataType::Utf8,
        1 => DataType::Utf8View,
        _ => DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8)),
    };
    let schema = schema(&text);
    let mode = mode(rng, &schema);
    let spec = OperatorSpec::try_new(window(rng), TIME, schema, mode).unwrap();
    let jitter = rng.random_range(0..40);
    let speed = [0.05, 0.5, 3.0][rng.random_range(0..3)];
    let cardinality = rng.random_range(1..30);
    let origin = rng.random_range(-500..500);
    let mut id = 0;
    let partitions = (0..rng.random_range(1..5))
        .map(|_| {
            let mut clock = f64::from(origin + rng.random_range(-20..20));
            (0..rng.random_range(0..150))
                .map(|_| {
                    clock += speed * rng.random_range(0.0..2.0);
                    if rng.random_bool(0.01) {
                        clock += f64::from(rng.random_range(0..2_000_000));
                    }
                    id += 1;
                    let time = clock as i64 - rng.random_range(0..=jitter);
                    Row::random(rng, id, time, cardinality)
                })
                .collect()
        })
        .collect();
    let allowed_lateness = if rng.random_bool(0.3) { rng.random_range(0..50) } else { 0 };
    let delay = rng.random_range(0..=jitter + 3);
    Case {
        spec: Arc::new(spec),
        tolerance: Tolerance { delay, allowed_lateness },
        partitions,
        text,
    }
}

/// Runs a case with cuts, stores and flushes by `rng`.
fn run(case: &Case, rng: &mut StdRng) -> (Windowed, usize, usize) {
    let stores_n = rng.random_range(1..5);
    let mut stores: Vec<_> = (0..stores_n).map(|_| SliceStore::new(case.spec.clone())).collect();
    let mut merger = WindowMerger::new(Arc::clone(&case.spec));
    let mut watermarks = vec![Watermark::NONE; case.partitions.len()];
    let mut done = vec![0; case.partitions.len()];
    let longest = [1, 5, 40, 1000][rng.random_range(0..4)];
    let (mut output, mut late, mut partly_late) = (Windowed::new(), 0, 0);
    while (0..done.len()).any(|p| done[p] < case.partitions[p].len()) {
        let p = rng.random_range(0..done.len());
        let to = (done[p] + rng.random_range(0..=longest)).min(case.partitions[p].len());
        let rows = &case.partitions[p][done[p]..to];
        done[p] = to;
        let times: Vec<i64> = rows.iter().map(|r| r.time).collect();
        let found = classify(case.spec.slicing(), &times, watermarks[p], case.tolerance);
        for &time in &times {
            let reached = Watermark::at(time - case.tolerance.delay);
            watermarks[p] = watermarks[p].advance(reached);
        }
        late += found.late.len();
        partly_late += found.partly.len();
        let batch = naive::batch(case.spec.input_schema(), &case.text, rows);
        let store = &mut stores[rng.random_range(0..stores_n)];
        let on_time = (0..rows.len() as u32).filter(|i| {
            let i = *i as usize;
            !found.late.contains(&i) && !found.partly.iter().any(|(row, _)| *row == i)
        });
        let on_time = UInt32Array::from(on_time.collect::<Vec<_>>());
        store.update(&take_record_batch(&batch, &on_time).unwrap()).unwrap();
        let (partly, from): (Vec<u32>, Vec<i64>) =
            found.partly.iter().map(|(row, from)| (*row as u32, *from)).unzip();
        let partly = take_record_batch(&batch, &UInt32Array::from(partly)).unwrap();
        store.update_partly_late(&partly, &from).unwrap();
        if rng.random_bool(0.3) {
            let watermark = watermarks.iter().copied().min().unwrap_or(Watermark::END);
            let watermark = watermark.delayed(case.tolerance.allowed_lateness);
            close(&mut stores, &mut merger, watermark, &mut output);
        }
    }
    close(&mut stores, &mut merger, Watermark::END, &mut output);
    assert_eq!(merger.next_end(), None);
    assert_eq!(merger.open_windows(), 0);
    assert!(stores.iter().all(|s| s.rows() == 0 && s.first_open().is_none()));
    (output, late, partly_late)
}

fn close(
    stores: &mut [SliceStore],
    merger: &mut WindowMerger,
    watermark: Watermark,
    output: &mut Windowed,
) {
    let segments = stores.iter_mut().flat_map(|s| s.flush(watermark).unwrap());
    segments.for_each(|segment: Segment| merger.add(segment).unwrap());
    let mut last = None;
    merger
        .close(watermark, &mut |window| {
            assert!(last.is_none_or(|last| last < window.end), "ends ascend");
            assert!(watermark.closes(window.end));
            last = Some(window.end);
            let schema = window.rows[0].schema();
            let rows = concat_batches(&schema, &window.rows).unwrap();
            let mut lines: Vec<String> = (0..rows.num_rows())
                .map(|row| {
                    let columns = rows.columns().iter().take(rows.num_columns() - 3);
                    columns.map(|c| cell(c, row)).collect::<Vec<_>>().join("|")
                })
                .collect();
            lines.sort();
            for (column, bound) in [(3, window.start), (2, window.end), (1, window.end - 1)] {
                let column = rows.column(rows.num_columns() - column);
                let expected = ScalarValue::TimestampMicrosecond(Some(bound), Some("UTC".into()));
                for row in 0..rows.num_rows() {
                    assert_eq!(ScalarValue::try_from_array(column, row).unwrap(), expected);
                }
            }
            let before = output.insert((window.end, window.start), lines);
            assert!(before.is_none(), "a window closes once");
            Ok(())
        })
        .unwrap();
}

#[test]
fn any_cut_gives_the_windows_of_the_naive_evaluator() {
    let (mut all_late, mut all_partly) = (0, 0);
    for seed in 0..160 {
        let mut rng = StdRng::seed_from_u64(seed);
        let case = case(&mut rng);
        let (expected, expected_late) =
            naive::evaluate(&case.spec, case.tolerance, &case.partitions);
        for cut in 0..2 {
            let (output, late, partly) = run(&case, &mut rng);
            all_late += late;
            all_partly += partly;
            let what = format!("seed {seed}, cut {cut}: {:?}", case.spec.window());
            assert_eq!(late, expected_late, "late rows, {what}");
            for (window, rows) in &expected {
                assert_eq!(output.get(window), Some(rows), "window {window:?}, {what}");
            }
            assert_eq!(output.len(), expected.len(), "windows, {what}");
        }
    }
    assert!(all_late > 500 && all_partly > 500, "late {all_late}, partly {all_partly}");
}
