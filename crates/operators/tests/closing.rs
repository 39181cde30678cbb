//! When windows close, what a cut retains, and what is refused.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use arrow::array::{Array, Int64Array, RecordBatch, StringArray, TimestampMillisecondArray};
use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use windrow_core::{ErrorKind, Watermark, WindowKind, WindowSpec};
use windrow_operators::{
    Cut, Mode, OperatorSpec, SavedSegment, SavedState, SegmentId, SliceStore, WindowMerger,
};

fn spec(kind: WindowKind) -> Arc<OperatorSpec> {
    let schema = Arc::new(Schema::new(vec![
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), false),
        Field::new("n", DataType::Int64, false),
    ]));
    let window = WindowSpec::try_new(kind, 0).unwrap();
    let mode = Mode::Aggregate { keys: vec![1], grouping_sets: None, aggregates: vec![] };
    Arc::new(OperatorSpec::try_new(window, 0, schema, mode).unwrap())
}

fn batch(spec: &OperatorSpec, times: &[i64]) -> RecordBatch {
    let n = Int64Array::from_iter_values(0..times.len() as i64);
    let times = TimestampMillisecondArray::from(times.to_vec());
    RecordBatch::try_new(Arc::clone(spec.input_schema()), vec![Arc::new(times), Arc::new(n)])
        .unwrap()
}

/// Returns the ends of the windows that close at `watermark`.
fn close(store: &mut SliceStore, merger: &mut WindowMerger, watermark: Watermark) -> Vec<i64> {
    for segment in store.flush(watermark).unwrap() {
        merger.add(segment).unwrap();
    }
    let mut ends = vec![];
    merger
        .close(watermark, &mut |window| {
            ends.push(window.end);
            Ok(())
        })
        .unwrap();
    ends
}

#[test]
fn a_window_closes_at_its_end_and_not_before() {
    let spec = spec(WindowKind::Tumble { size: 10 });
    let (mut store, mut merger) = (SliceStore::new(&spec), WindowMerger::new(Arc::clone(&spec)));
    store.update(&batch(&spec, &[-1, 0, 9, 10])).unwrap();
    assert_eq!((store.first_open(), store.open_slices(), store.rows()), (Some(-10), 3, 4));
    assert_eq!(close(&mut store, &mut merger, Watermark::at(9)), [0]);
    assert_eq!(close(&mut store, &mut merger, Watermark::at(10)), [10]);
    assert_eq!(close(&mut store, &mut merger, Watermark::at(5)), [0_i64; 0]);
    assert_eq!(merger.frontier(), 10, "the frontier never moves back");
    assert_eq!(close(&mut store, &mut merger, Watermark::END), [20]);
}

#[test]
fn a_year_without_rows_costs_nothing() {
    let year = 365 * 86_400_000;
    for kind in [
        WindowKind::Hop { slide: 2, size: 10 },
        WindowKind::Cumulate { step: 2, size: 10 },
        WindowKind::Tumble { size: 10 },
    ] {
        let spec = spec(kind);
        let (mut store, mut merger) =
            (SliceStore::new(&spec), WindowMerger::new(Arc::clone(&spec)));
        store.update(&batch(&spec, &[0, 1000 * year])).unwrap();
        let ends = close(&mut store, &mut merger, Watermark::END);
        assert_eq!(ends.len(), if matches!(kind, WindowKind::Tumble { .. }) { 2 } else { 10 });
        assert_eq!(merger.size_bytes(), 0, "{kind:?}");
    }
}

#[test]
fn a_segment_of_a_closed_window_is_refused() {
    for kind in [WindowKind::Tumble { size: 10 }, WindowKind::Hop { slide: 5, size: 20 }] {
        let spec = spec(kind);
        let (mut store, mut merger) =
            (SliceStore::new(&spec), WindowMerger::new(Arc::clone(&spec)));
        close(&mut store, &mut merger, Watermark::at(10));
        store.update(&batch(&spec, &[3])).unwrap();
        let segment = store.flush(Watermark::at(10)).unwrap().remove(0);
        assert_eq!(merger.add(segment).unwrap_err().kind(), ErrorKind::Internal, "{kind:?}");
    }
}

#[test]
fn rows_that_count_nowhere_are_refused() {
    let spec = spec(WindowKind::Hop { slide: 5, size: 20 });
    let mut store = SliceStore::new(&spec);
    assert!(store.update_partly_late(&batch(&spec, &[3]), &[25]).is_err());
    store.update_partly_late(&batch(&spec, &[3]), &[20]).unwrap();
    assert_eq!(store.rows(), 1);
}

#[test]
fn a_sliding_window_keeps_no_slice_that_is_over() {
    let spec = spec(WindowKind::Hop { slide: 1, size: 60 });
    let (mut store, mut merger) = (SliceStore::new(&spec), WindowMerger::new(Arc::clone(&spec)));
    let mut most = 0;
    for second in 0..2000 {
        store.update(&batch(&spec, &[second; 50])).unwrap();
        close(&mut store, &mut merger, Watermark::at(second));
        if second == 200 {
            most = merger.size_bytes();
        }
    }
    assert!(merger.size_bytes() < 2 * most, "state does not grow with time");
    // The last second is still in the store; the previous one is in 59 more windows.
    assert_eq!(merger.open_windows(), 59);
}

/// Counts `keys` at time 3 and cuts.
fn count_and_cut(
    spec: &Arc<OperatorSpec>,
    store: &mut SliceStore,
    merger: &mut WindowMerger,
    keys: std::ops::Range<i64>,
) -> Cut {
    let times = TimestampMillisecondArray::from(vec![3; keys.clone().count()]);
    let keys = Arc::new(Int64Array::from_iter_values(keys));
    let schema = Arc::clone(spec.input_schema());
    store.update(&RecordBatch::try_new(schema, vec![Arc::new(times), keys]).unwrap()).unwrap();
    store.flush_all().unwrap().into_iter().for_each(|segment| merger.add(segment).unwrap());
    merger.cut().unwrap()
}

#[test]
fn many_cuts_in_one_slice_keep_few_segments_and_write_little() {
    for kind in [WindowKind::Tumble { size: 10 }, WindowKind::Hop { slide: 5, size: 20 }] {
        for new_keys in [0, 10] {
            let spec = spec(kind);
            let mut store = SliceStore::new(&spec);
            let mut merger = WindowMerger::new(Arc::clone(&spec));
            merger.keep_cuts();
            let mut written = 0;
            for cut in 0..500 {
                let keys = cut * new_keys..cut * new_keys + 100;
                let cut = count_and_cut(&spec, &mut store, &mut merger, keys);
                written += cut.new.iter().map(|s| s.batches[0].num_rows()).sum::<usize>();
                assert!(cut.needed.len() <= 10, "{} segments, {kind:?}", cut.needed.len());
                let again = merger.cut().unwrap();
                assert!(again.new.is_empty() && again.needed == cut.needed);
            }
            let all = 500 * 100;
            assert!(written <= all * 5, "{written} groups written of {all} at most, {kind:?}");
            let mut rows = 0;
            let count = &mut |window: windrow_operators::ClosedWindow| {
                rows = window.rows.map(|batch| batch.unwrap().num_rows()).sum();
                Ok(())
            };
            merger.close(Watermark::END, count).unwrap();
            assert_eq!(rows as i64, 499 * new_keys + 100);
            assert_eq!(merger.cut().unwrap().needed, []);
        }
    }
}

#[test]
fn segments_that_cannot_be_of_a_cut_are_refused() {
    let spec = spec(WindowKind::Tumble { size: 10 });
    let mut merger = WindowMerger::new(Arc::clone(&spec));
    assert_eq!(merger.cut().unwrap_err().kind(), ErrorKind::Internal, "no cuts are kept");
    merger.keep_cuts();
    let cut = count_and_cut(&spec, &mut SliceStore::new(&spec), &mut merger, 0..5);
    let [good] = cut.new.as_slice() else { panic!("{:?}", cut.new) };
    let restore = |frontier, segments: Vec<SavedSegment>| {
        let (mut segments, next_id) = (segments.into_iter().map(Ok), cut.next_id);
        let state = SavedState { frontier, next_id, segments: &mut segments, space: None };
        WindowMerger::restore(Arc::clone(&spec), state)
    };
    restore(cut.frontier, vec![good.clone()]).unwrap();
    let other = |column: Arc<dyn Array>, times| {
        let column = vec![("k0", column); times];
        vec![RecordBatch::try_from_iter(column).unwrap()]
    };
    let text = Arc::new(StringArray::from(vec!["a"]));
    let bad = [
        (cut.frontier, vec![good.clone(), good.clone()]),
        (10, vec![good.clone()]),
        (cut.frontier, vec![SavedSegment { slice: 3, ..good.clone() }]),
        (cut.frontier, vec![SavedSegment { counts_from: 11, ..good.clone() }]),
        (cut.frontier, vec![SavedSegment { id: SegmentId(cut.next_id), ..good.clone() }]),
        (cut.frontier, vec![SavedSegment { batches: vec![], ..good.clone() }]),
        (cut.frontier, vec![SavedSegment { batches: other(text, 1), ..good.clone() }]),
        (
            cut.frontier,
            vec![SavedSegment {
                batches: other(Arc::clone(good.batches[0].column(0)), 2),
                ..good.clone()
            }],
        ),
    ];
    for (i, (frontier, segments)) in bad.into_iter().enumerate() {
        let error = restore(frontier, segments).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{i}: {error}");
    }
}
