//! Parts of an updating aggregate, each alone: values by group, changes after filters and projections, the folded result. The whole is
//! compared with an evaluator in `tests/changing.rs`.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use arrow::record_batch::RecordBatch;
use windrow_core::{Change, change};

use super::emission::code;
use super::states::States;
use super::{Answer, normalised};
use crate::segments::kept::{SavedSegment, SavedState, SegmentId};

fn states(values: impl IntoIterator<Item = i64>) -> Vec<Vec<ArrayRef>> {
    vec![vec![Arc::new(Int64Array::from_iter_values(values))]]
}

#[test]
fn states_are_those_put_last_in_few_chunks() {
    let mut kept = States::default();
    let mut truth: Vec<i64> = vec![];
    for round in 0..2_000_u32 {
        // Mostly one group, sometimes many, often new ones.
        let len = truth.len() as u32;
        let mut groups: Vec<u32> = match round % 100 {
            0 => (0..len).collect(),
            odd if odd % 2 == 1 && len > 0 => vec![round * 7 % len],
            _ => vec![],
        };
        if round % 3 == 0 {
            groups.push(len);
            truth.push(0);
        }
        for group in &groups {
            truth[*group as usize] = i64::from(round * 1000 + group);
        }
        let values: Vec<i64> = groups.iter().map(|group| truth[*group as usize]).collect();
        kept.put(groups, states(values), 1).unwrap();
        assert!(kept.chunks_len() <= 12, "{} chunks", kept.chunks_len());
    }
    let all: Vec<u32> = (0..truth.len() as u32).rev().collect();
    let found = kept.get(&all, 1).unwrap();
    truth.reverse();
    assert_eq!(found[0][0].as_primitive::<Int64Type>().values(), truth.as_slice());
    assert_eq!(kept.len(), truth.len());
}

/// Rows (group, change, value) after a filter or a projection, and what is left of them.
fn left(rows: &[(u32, Change, i64)]) -> Vec<(String, i64)> {
    let values = Int64Array::from_iter_values(rows.iter().map(|row| row.2));
    let codes = UInt64Array::from_iter_values(rows.iter().map(|row| code(row.0, row.1)));
    let columns = [("v", Arc::new(values) as ArrayRef), ("c", Arc::new(codes) as ArrayRef)];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let Some(left) = normalised(&[batch], true).unwrap() else { return vec![] };
    let words = left.column(0).as_string_view().iter().flatten().map(str::to_owned);
    words.zip(left.column(1).as_primitive::<Int64Type>().values().iter().copied()).collect()
}

#[test]
fn half_an_update_is_an_insert_or_a_delete() {
    use Change::{Insert, UpdateAfter, UpdateBefore};
    let found = left(&[
        (0, Insert, 1),
        (1, UpdateBefore, 2),
        (2, UpdateAfter, 3),
        (3, UpdateBefore, 4),
        (3, UpdateAfter, 5),
        (4, UpdateAfter, 6),
        (5, UpdateBefore, 7),
    ]);
    let expected = [
        ("insert", 1),
        ("delete", 2),
        ("insert", 3),
        ("update_before", 4),
        ("update_after", 5),
        ("insert", 6),
        ("delete", 7),
    ];
    assert_eq!(found, expected.map(|(word, value)| (word.to_owned(), value)));
}

#[test]
fn an_update_to_the_same_values_is_none() {
    use Change::{UpdateAfter, UpdateBefore};
    let found = left(&[(1, UpdateBefore, 2), (1, UpdateAfter, 2)]);
    assert_eq!(found, []);
}

/// Loses an answer and restores it from its cut; `disk`: what cuts have written.
fn restored(
    mut answer: Answer,
    keyed: bool,
    disk: &mut BTreeMap<SegmentId, SavedSegment>,
) -> Answer {
    let cut = answer.cut().unwrap();
    for segment in cut.new {
        assert!(disk.insert(segment.id, segment).is_none(), "an id is used once");
    }
    let mut segments = cut.needed.iter().map(|id| Ok(disk[id].clone()));
    let (frontier, next_id) = (cut.frontier, cut.next_id);
    let state = SavedState { frontier, next_id, segments: &mut segments, space: None };
    let mut again = Answer::new(Arc::clone(answer.schema()), keyed.then_some(&[0][..])).unwrap();
    again.restore(state).unwrap();
    assert_eq!(again.len(), answer.len());
    again
}

/// The rows of an answer by key and value, after changes (change, key, value).
fn answered(keyed: bool, changes: &[&[(Change, i64, i64)]]) -> Vec<(i64, i64)> {
    let once = folded(keyed, changes, false);
    assert_eq!(folded(keyed, changes, true), once, "restored after each step");
    once
}

fn folded(keyed: bool, changes: &[&[(Change, i64, i64)]], restores: bool) -> Vec<(i64, i64)> {
    let mut disk = BTreeMap::new();
    let ints = |name: &str| Field::new(name, DataType::Int64, false);
    let schema = Arc::new(Schema::new(vec![ints("k"), ints("v")]));
    let mut answer = Answer::new(Arc::clone(&schema), keyed.then_some(&[0][..])).unwrap();
    for changes in changes {
        let columns: [(&str, ArrayRef); 3] = [
            ("change", change::column(changes.iter().map(|row| row.0))),
            ("k", Arc::new(Int64Array::from_iter_values(changes.iter().map(|row| row.1)))),
            ("v", Arc::new(Int64Array::from_iter_values(changes.iter().map(|row| row.2)))),
        ];
        answer.apply(&RecordBatch::try_from_iter(columns).unwrap()).unwrap();
        if restores {
            answer = restored(answer, keyed, &mut disk);
        }
    }
    let rows = answer.rows().unwrap().into_iter().flat_map(|rows| {
        let [k, v] = [0, 1].map(|c| rows.column(c).as_primitive::<Int64Type>().values().to_vec());
        k.into_iter().zip(v)
    });
    let mut rows: Vec<_> = rows.collect();
    rows.sort_unstable();
    rows
}

#[test]
fn an_answer_has_the_newest_row_of_each_key() {
    use Change::{Delete, Insert, UpdateAfter, UpdateBefore};
    let changes: [&[_]; 4] = [
        &[(Insert, 1, 10), (Insert, 2, 20), (Insert, 3, 30)],
        &[(UpdateBefore, 1, 10), (UpdateAfter, 1, 11), (Delete, 2, 20), (Insert, 4, 40)],
        &[(UpdateBefore, 1, 11), (UpdateAfter, 1, 12)],
        &[(Insert, 2, 21), (Delete, 3, 30)],
    ];
    assert_eq!(answered(true, &changes), [(1, 12), (2, 21), (4, 40)]);
    // The same at once: a key may change several times.
    assert_eq!(answered(true, &[&changes.concat()]), [(1, 12), (2, 21), (4, 40)]);
}

#[test]
fn without_a_key_equal_rows_are_counted() {
    use Change::{Delete, Insert, UpdateAfter, UpdateBefore};
    let changes: [&[_]; 3] = [
        &[(Insert, 1, 1), (Insert, 1, 1), (Insert, 2, 2)],
        &[(UpdateBefore, 1, 1), (UpdateAfter, 2, 2), (Delete, 2, 2)],
        &[(UpdateBefore, 1, 1), (UpdateAfter, 3, 3), (Insert, 3, 3)],
    ];
    assert_eq!(answered(false, &changes), [(2, 2), (3, 3), (3, 3)]);
    assert_eq!(answered(false, &[&changes.concat()]), [(2, 2), (3, 3), (3, 3)]);
}

#[test]
fn keys_that_come_and_go_are_written_in_parts() {
    use Change::{Delete, Insert, UpdateAfter, UpdateBefore};
    let steps: Vec<Vec<(Change, i64, i64)>> = (0..60_i64)
        .map(|step| match step % 3 {
            0 => (0..300).map(|key| (Insert, step * 100 + key, step)).collect(),
            1 => (0..300)
                .flat_map(|key| {
                    let key = (step - 1) * 100 + key;
                    [(UpdateBefore, key, step - 1), (UpdateAfter, key, -step)]
                })
                .collect(),
            _ => (0..290).map(|key| (Delete, (step - 2) * 100 + key, 1 - step)).collect(),
        })
        .collect();
    let steps: Vec<&[_]> = steps.iter().map(Vec::as_slice).collect();
    assert_eq!(answered(true, &steps).len(), 200);
    assert_eq!(answered(false, &steps).len(), 200);
}
