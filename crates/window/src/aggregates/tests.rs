//! The sums against 128-bit arithmetic: any cut into batches, states and frames gives the same, or the same error.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, Int64Array};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::{AggregateUDF, EmitTo, GroupsAccumulator};
use datafusion::physical_expr::aggregate::{AggregateExprBuilder, AggregateFunctionExpr};
use datafusion::physical_expr::expressions::Column;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::total::turns_column;
use super::*;

fn function(udaf: Arc<AggregateUDF>, of: &DataType, distinct: bool) -> AggregateFunctionExpr {
    let schema = Arc::new(Schema::new(vec![Field::new("v", of.clone(), true)]));
    AggregateExprBuilder::new(udaf, vec![Arc::new(Column::new("v", 0))])
        .schema(schema)
        .alias("s")
        .with_distinct(distinct)
        .build()
        .unwrap()
}

/// Values near the ends of the type, so that most sums leave it on the way.
fn value(rng: &mut StdRng) -> Option<i64> {
    match rng.random_range(0..6) {
        0 => None,
        1 | 2 => Some(i64::MAX - rng.random_range(0..3)),
        3 | 4 => Some(i64::MIN + rng.random_range(0..3)),
        _ => Some(rng.random_range(-5..5)),
    }
}

fn values(rng: &mut StdRng, rows: usize) -> Vec<Option<i64>> {
    (0..rows).map(|_| value(rng)).collect()
}

fn column(values: &[Option<i64>]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// `None` within: NULL; an error: it does not fit.
type Expected = Result<Option<i64>, ()>;

fn expected(values: impl Iterator<Item = Option<i64>>) -> Expected {
    let mut sum = None;
    for value in values.flatten() {
        *sum.get_or_insert(0) += i128::from(value);
    }
    sum.map(|sum: i128| i64::try_from(sum).map_err(drop)).transpose()
}

/// Groups that come as batches, are cut at random moments, and merged in any order.
#[test]
fn any_cut_gives_the_same_sums() {
    let sum = function(sum_udaf(), &DataType::Int64, false);
    let mut fitting = 0;
    for seed in 0..400 {
        let rng = &mut StdRng::seed_from_u64(seed);
        let groups = rng.random_range(1..4);
        let mut rows: Vec<(usize, Option<i64>)> = vec![];
        let mut states: Vec<(Vec<ArrayRef>, Vec<usize>)> = vec![];
        let mut open: Option<Box<dyn GroupsAccumulator>> = None;
        for _ in 0..rng.random_range(1..8) {
            let count = rng.random_range(0..5);
            let batch = values(rng, count);
            let mut at: Vec<usize> = batch.iter().map(|_| rng.random_range(0..groups)).collect();
            if rng.random_bool(0.2) {
                let keep: BooleanArray = batch.iter().map(|_| Some(rng.random_bool(0.7))).collect();
                let alone = sum.create_groups_accumulator().unwrap();
                let state = alone.convert_to_state(&[column(&batch)], Some(&keep)).unwrap();
                for ((group, value), keep) in at.iter().zip(&batch).zip(keep.iter()) {
                    rows.push((*group, value.filter(|_| keep == Some(true))));
                }
                states.push((state, std::mem::take(&mut at)));
                continue;
            }
            let groups_at = open.get_or_insert_with(|| sum.create_groups_accumulator().unwrap());
            groups_at.update_batch(&[column(&batch)], &at, None, groups).unwrap();
            rows.extend(at.into_iter().zip(batch));
            if rng.random_bool(0.5)
                && let Some(mut full) = open.take()
            {
                let first = rng.random_range(0..=groups);
                states.push((full.state(EmitTo::First(first)).unwrap(), (0..first).collect()));
                states.push((full.state(EmitTo::All).unwrap(), (first..groups).collect()));
            }
        }
        let mut merged = open.unwrap_or_else(|| sum.create_groups_accumulator().unwrap());
        while !states.is_empty() {
            let (state, at) = states.swap_remove(rng.random_range(0..states.len()));
            merged.merge_batch(&state, &at, groups).unwrap();
        }
        merged.merge_batch(&[column(&[]), turns_column(vec![], 0)], &[], groups).unwrap();
        let wanted: Vec<Expected> = (0..groups)
            .map(|group| expected(rows.iter().filter(|(g, _)| *g == group).map(|(_, v)| *v)))
            .collect();
        match wanted.iter().copied().collect::<Result<Vec<_>, _>>() {
            Ok(sums) => {
                fitting += 1;
                let found = merged.evaluate(EmitTo::All).unwrap();
                let found: Vec<_> = found.as_primitive::<Int64Type>().iter().collect();
                // A group that is counted before its first row is not told from one that has none; no operator does that.
                let or_zero = |sums: Vec<Option<i64>>| -> Vec<i64> {
                    sums.into_iter().map(Option::unwrap_or_default).collect()
                };
                assert_eq!(or_zero(found), or_zero(sums), "seed {seed}");
            }
            Err(()) => {
                let error = merged.evaluate(EmitTo::All).unwrap_err().to_string();
                assert!(error.contains("\"sum\" is beyond what BIGINT holds"), "{error}");
            }
        }
    }
    assert!((50..350).contains(&fitting), "{fitting} of 400 cases fit");
}

/// One sum over a frame that slides, with and without DISTINCT, and put together from states.
#[test]
fn frames_and_states_give_the_same_sum() {
    for (seed, distinct) in (0..300).flat_map(|seed| [(seed, false), (seed, true)]) {
        let rng = &mut StdRng::seed_from_u64(seed);
        let sum = function(sum_udaf(), &DataType::Int64, distinct);
        let rows = values(rng, 30);
        let of = |rows: &[Option<i64>]| {
            let mut rows: Vec<_> = rows.to_vec();
            if distinct {
                rows.sort_unstable();
                rows.dedup();
            }
            expected(rows.into_iter())
        };
        let mut frame = sum.create_sliding_accumulator().unwrap();
        let (mut from, mut to) = (0, 0);
        while to < rows.len() {
            let (gone, come) = (rng.random_range(from..=to), rng.random_range(to..=rows.len()));
            frame.retract_batch(&[column(&rows[from..gone])]).unwrap();
            frame.update_batch(&[column(&rows[to..come])]).unwrap();
            (from, to) = (gone, come);
            let found = frame.evaluate().map_err(drop);
            assert_eq!(found, of(&rows[from..to]).map(ScalarValue::Int64), "seed {seed}");
        }
        let mut whole = sum.create_accumulator().unwrap();
        for part in rows.chunks(7) {
            let mut one = sum.create_accumulator().unwrap();
            one.update_batch(&[column(part)]).unwrap();
            let state: Vec<ArrayRef> =
                one.state().unwrap().iter().map(|s| s.to_array().unwrap()).collect();
            whole.merge_batch(&state).unwrap();
        }
        assert_eq!(whole.evaluate().map_err(drop), of(&rows).map(ScalarValue::Int64));
    }
}

/// Where no sum went round, the second column of the state says so at a glance.
#[test]
fn the_state_of_small_sums_has_no_turns() {
    let sum = function(sum_udaf(), &DataType::Int64, false);
    let mut groups = sum.create_groups_accumulator().unwrap();
    groups.update_batch(&[column(&[Some(1), None])], &[0, 1], None, 2).unwrap();
    let state = groups.state(EmitTo::All).unwrap();
    assert_eq!(state[1].null_count(), 2);
    let types: Vec<_> = sum.state_fields().unwrap().iter().map(|f| f.data_type().clone()).collect();
    assert_eq!(types, state.iter().map(|s| s.data_type().clone()).collect::<Vec<_>>());
}
